"""``manage.py dlq``: failures that wait for staff."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.core.errors import NotFound
from botsrt.core.states import DLQState
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import DLQItem
from botsrt.services import dlq


class Command(cli.VerbCommand):
    help = "Look at failed messages, retry or discard them."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Items, newest first; open ones unless another state is named.", prints_data=True)
        verb.add_argument("--state", choices=list(DLQState), default=DLQState.OPEN)
        verb.add_argument("--fingerprint")
        cli.add_paging(verb)
        add("show", "One item with its traceback.", prints_data=True).add_argument("id", type=int)
        verb = add("retry", "Run open items again and send their answers.")
        verb.add_argument("id", type=int, nargs="*")
        verb.add_argument("--all", action="store_true", help="all open items, or those of --fingerprint")
        verb.add_argument("--fingerprint", help="with --all: only this group")
        verb.add_argument("--text", help="with one id: give the agent this text instead; the original is kept")
        verb.add_argument("--reason", default="")
        verb = add("discard", "Give open items up; can be undone for 30 days.")
        verb.add_argument("id", type=int, nargs="+")
        verb.add_argument("--reason", required=True)
        add("undo", "Open discarded items again.").add_argument("id", type=int, nargs="+")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = DLQItem.objects.select_related("entry").filter(state=options["state"])
        if options["fingerprint"]:
            rows = rows.filter(fingerprint=options["fingerprint"])
        self.table(options, [_row(item) for item in cli.page(rows, options)], empty="Nothing failed.")

    def do_show(self, options: dict[str, Any]) -> None:
        item = DLQItem.objects.select_related("entry").filter(pk=options["id"]).first()
        if item is None:
            raise NotFound(f"There is no dead letter item {options['id']}.")
        self.show(
            options,
            {
                **_row(item),
                "error text": item.error_text,
                "first failed": item.first_failed_at,
                "note": item.note,
                "assignee": item.assignee,
                "closed": f"{item.closed_at} by {item.closed_by}: {item.close_reason}" if item.closed_at else None,
                "message": item.entry.payload,
                "traceback": item.traceback,
            },
        )

    def do_retry(self, options: dict[str, Any]) -> None:
        ids = options["id"]
        if options["all"] == bool(ids):
            raise CommandError("Name the items, or say --all.")
        if options["text"] is not None and len(ids) != 1:
            raise CommandError("--text: goes with exactly one id.")
        if options["fingerprint"] and not options["all"]:
            raise CommandError("--fingerprint: goes with --all.")
        if options["all"]:
            rows = DLQItem.objects.filter(state=DLQState.OPEN).order_by("id")
            if options["fingerprint"]:
                rows = rows.filter(fingerprint=options["fingerprint"])
            ids = list(rows.values_list("id", flat=True))  # frozen here: what fails meanwhile is not included
            self.say(f"Retrying {len(ids)} items.")
        self.for_each(ids, lambda item_id: self._retry(item_id, options))

    def do_discard(self, options: dict[str, Any]) -> None:
        def discard(item_id: int) -> str:
            dlq.discard(item_id=item_id, actor=cli.actor(), reason=options["reason"], now=timezone.now())
            return f"{item_id}: discarded; undo with: dlq undo {item_id}"

        self.for_each(options["id"], discard)

    def do_undo(self, options: dict[str, Any]) -> None:
        def undo(item_id: int) -> str:
            dlq.undo_discard(item_id=item_id, actor=cli.actor(), now=timezone.now())
            return f"{item_id}: open again."

        self.for_each(options["id"], undo)

    def _retry(self, item_id: int, options: dict[str, Any]) -> str:
        dlq.retry(
            item_id=item_id,
            actor=cli.actor(),
            reason=options["reason"],
            edited_text=options["text"],
            now=timezone.now(),
        )
        return f"{item_id}: runs again."


def _row(item: DLQItem) -> dict[str, Any]:
    return {
        "id": item.pk,
        "entry": item.entry_id,
        "account": item.account,
        "state": item.state,
        "reason": item.reason,
        "attempts": item.attempts,
        "last failed": item.last_failed_at,
        "fingerprint": item.fingerprint,
        "error": one_line(f"{item.error_class}: {item.error_text}", max_chars=80),
    }
