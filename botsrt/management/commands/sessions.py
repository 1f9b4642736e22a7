"""``manage.py sessions``: conversations."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Q

from botsrt import conf
from botsrt.core.errors import NotFound
from botsrt.management import cli
from botsrt.models import BotSession, HistoryMessage
from botsrt.runtime import resume


class Command(cli.VerbCommand):
    help = "Look at conversations, and go on with them."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Sessions, the latest activity first.", prints_data=True)
        verb.add_argument("--account")
        verb.add_argument("--limit", type=cli.limit, default=50, metavar="N", help="rows (50)")
        verb.add_argument("--before", metavar="SESSION_ID", help="only sessions below this one: the next page")
        verb = add("show", "One session with its latest messages, oldest first.", prints_data=True)
        verb.add_argument("session_id")
        cli.add_paging(verb)
        verb = add("resume", "Go on with a session: its agent answers here, and nothing is sent.", prints_data=True)
        verb.add_argument("--session-id", required=True, metavar="ID")
        verb.add_argument("--show-history", action="store_true", help="print what was said")
        verb.add_argument(
            "--continue",
            action="append",
            default=[],
            dest="texts",
            metavar="TEXT",
            help="say this and print the answer (repeatable: one turn after the other)",
        )
        verb.add_argument(
            "--database",
            "--conversation-url",
            metavar="PATH_OR_URL",
            help="where the session is, if not in the project's database: an SQLite file, or postgresql://…",
        )

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
        self._print(messages)

    def do_resume(self, options: dict[str, Any]) -> None:
        asyncio.run(self._resume(options))

    async def _resume(self, options: dict[str, Any]) -> None:
        """Show the session, say each text, and print its answer as soon as it is there; as JSON all at the end."""
        is_json = options["json"]
        async with resume.conversation(
            session_id=options["session_id"], actor=cli.actor(), location=options["database"]
        ) as conversation:
            shown = await conversation.read(_looked_up)
            if not is_json and not options["texts"]:
                self.show(options, shown)
            if options["show_history"]:
                shown["messages"] = await conversation.read(_said, max_messages=conf.load().max_history)
                if not is_json:
                    self._print(shown["messages"])
            shown["answers"] = []
            for text in options["texts"]:
                reply = await conversation.say(text)
                shown["answers"].append({"said": text, "answer": reply.text, "usage": dict(reply.usage)})
                if not is_json:
                    self.say(cli.harmless(reply.text) or "(no answer)")
                    self.stdout.flush()
        if is_json:
            self.print_json(shown)

    def _print(self, messages: Sequence[dict[str, Any]]) -> None:
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


def _looked_up(*, session_id: str) -> dict[str, Any]:
    return _row(_session(session_id))


def _said(*, session_id: str, max_messages: int) -> list[dict[str, Any]]:
    """The latest messages, oldest first."""
    rows = HistoryMessage.objects.filter(session__session_id=session_id).order_by("-pk")[:max_messages]
    return [_message(row) for row in reversed(rows)]


def _row(session: BotSession) -> dict[str, Any]:
    return {
        "active": session.last_activity_at,
        "account": session.account,
        "scope": session.scope,
        "handler": session.handler,
        "archived": session.is_archived,
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
