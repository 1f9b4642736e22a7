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


class Command(cli.VerbCommand):
    help = "Look at outgoing messages and decide about unknown and held ones."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Messages, newest first.", prints_data=True)
        verb.add_argument("--state", choices=list(OutboxState))
        cli.add_paging(verb)
        verb = add("resolve", "Decide about a message of unknown fate, or a held one.")
        verb.add_argument("id", type=int)
        verb.add_argument("--as", dest="resolution", required=True, choices=outbox.RESOLUTIONS)
        verb.add_argument("--reason", default="")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = OutboxMessage.objects.all()
        if options["state"]:
            rows = rows.filter(state=options["state"])
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
        self.table(options, shown, empty="No outgoing messages.")

    def do_resolve(self, options: dict[str, Any]) -> None:
        outbox.resolve(
            outbox_id=options["id"],
            resolution=options["resolution"],
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self.say(f"{options['id']}: {options['resolution']}.")
