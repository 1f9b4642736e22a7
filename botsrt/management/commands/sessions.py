"""``manage.py sessions``: conversations."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.db.models import Q

from botsrt.core.errors import NotFound
from botsrt.management import cli
from botsrt.models import BotSession, HistoryMessage


class Command(cli.VerbCommand):
    help = "Look at conversations."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Sessions, the latest activity first.", prints_data=True)
        verb.add_argument("--account")
        verb.add_argument("--limit", type=cli.limit, default=50, metavar="N", help="rows (50)")
        verb.add_argument("--before", metavar="SESSION_ID", help="only sessions below this one: the next page")
        verb = add("show", "One session with its latest messages, oldest first.", prints_data=True)
        verb.add_argument("session_id")
        cli.add_paging(verb)

    def do_list(self, options: dict[str, Any]) -> None:
        rows = BotSession.objects.order_by("-last_activity_at", "-pk")
        if options["account"]:
            rows = rows.filter(account=options["account"])
        if options["before"] is not None:
            last = _session(options["before"])
            at = last.last_activity_at
            rows = rows.filter(Q(last_activity_at__lt=at) | Q(last_activity_at=at, pk__lt=last.pk))
        shown = [_row(session) for session in rows[: options["limit"]]]
        self.table(options, shown, empty="No sessions.", whole=("account", "session"), only_json=("lane",))

    def do_show(self, options: dict[str, Any]) -> None:
        session = _session(options["session_id"])
        rows = cli.page(HistoryMessage.objects.filter(session=session), options)
        messages = [_message(row) for row in reversed(rows)]
        if options["json"]:
            self.print_json({**_row(session), "messages": messages})
            return
        self.show(options, _row(session))
        for message in messages:
            who = message["from"] or message["role"]
            kind = "" if message["kind"] == "chat" else f" ({message['kind']})"
            self.say(cli.harmless(f"\n{message['at']:%Y-%m-%d %H:%M:%S} {who}{kind}  #{message['id']}"))
            self.say(cli.harmless(message["text"]))


def _session(session_id: str) -> BotSession:
    session = BotSession.objects.filter(session_id=session_id).first()
    if session is None:
        raise NotFound(f"There is no session {session_id}; see: sessions list")
    return session


def _row(session: BotSession) -> dict[str, Any]:
    return {
        "active": session.last_activity_at,
        "account": session.account,
        "scope": session.scope,
        "handler": session.handler,
        "chat": session.chat_name,
        "session": session.session_id,
        "lane": session.lane,
    }


def _message(row: HistoryMessage) -> dict[str, Any]:
    return {
        "id": row.pk,
        "at": row.created_at,
        "role": row.role,
        "kind": row.kind,
        "from": row.sender_name,
        "source": row.source,
        "attachments": row.attachments,
        "text": row.text,
    }
