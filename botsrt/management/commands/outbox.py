"""``manage.py outbox``: outgoing messages, and those whose fate staff must decide."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.utils import timezone

from botsrt.core.states import OutboxState
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import OutboxMessage
from botsrt.services import outbox

_SAID = {"arrived": "counts as sent.", "again": "goes out again.", "drop": "is given up."}


class Command(cli.VerbCommand):
    help = "Look at outgoing messages and decide about unknown and held ones."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Messages, newest first.", prints_data=True)
        verb.add_argument("--state", choices=list(OutboxState))
        verb.add_argument("--account")
        cli.add_paging(verb)
        verb = add("resolve", "Decide about a message of unknown fate, or a held one.")
        verb.add_argument("id", type=cli.row_id)
        verb.add_argument("--as", dest="resolution", required=True, choices=outbox.RESOLUTIONS)
        verb.add_argument("--reason", default="")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = OutboxMessage.objects.all()
        for name in ("state", "account"):
            if options[name]:
                rows = rows.filter(**{name: options[name]})
        shown = [
            {
                "id": row.pk,
                "created": row.created_at,
                "account": row.account,
                "chat": row.channel_id,
                "state": row.state,
                "source": row.source,
                "attempts": row.attempts,
                "text": one_line(row.text, max_chars=80),
                "error": row.error,
            }
            for row in cli.page(rows, options)
        ]
        self.table(options, shown, empty="No outgoing messages.", whole=("account",))

    def do_resolve(self, options: dict[str, Any]) -> None:
        outbox.resolve(
            outbox_id=options["id"],
            resolution=options["resolution"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self.say(f"{options['id']}: {_SAID[options['resolution']]}")
