"""``manage.py sessions``: conversations."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from botsrt.core.errors import NotFound
from botsrt.management import cli
from botsrt.models import BotSession, HistoryMessage


class Command(cli.VerbCommand):
    help = "Look at conversations."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        cli.add_paging(add("list", "Sessions, newest first.", prints_data=True))
        verb = add("show", "One session with its latest messages, oldest first.", prints_data=True)
        verb.add_argument("session_id")
        cli.add_paging(verb)

    def do_list(self, options: dict[str, Any]) -> None:
        rows = [_row(session) for session in cli.page(BotSession.objects.all(), options)]
        self.table(options, rows, empty="No sessions.")

    def do_show(self, options: dict[str, Any]) -> None:
        session = BotSession.objects.filter(session_id=options["session_id"]).first()
        if session is None:
            raise NotFound(f"There is no session {options['session_id']}.")
        rows = cli.page(HistoryMessage.objects.filter(session=session), options)
        messages = [
            {"id": row.pk, "at": row.created_at, "role": row.role, "from": row.sender_name, "text": row.text}
            for row in reversed(rows)
        ]
        if options["json"]:
            self.show(options, {**_row(session), "messages": messages})
            return
        self.show(options, _row(session))
        for message in messages:
            self.say(f"\n{message['at']:%Y-%m-%d %H:%M:%S} {message['from'] or message['role']}\n{message['text']}")


def _row(session: BotSession) -> dict[str, Any]:
    return {
        "id": session.pk,
        "session": session.session_id,
        "platform": session.platform,
        "account": session.account,
        "scope": session.scope,
        "handler": session.handler,
        "last activity": session.last_activity_at,
    }
