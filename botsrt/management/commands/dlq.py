"""``manage.py dlq``: failures that wait for staff."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db.models import QuerySet
from django.utils import timezone

from botsrt.core.errors import NotFound
from botsrt.core.states import DLQReason, DLQState
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import DLQItem
from botsrt.services import dlq


class Command(cli.VerbCommand):
    help = "Look at failed messages, retry or discard them."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Items, newest first; open ones unless another state is named.", prints_data=True)
        verb.add_argument("--state", choices=list(DLQState), default=DLQState.OPEN)
        verb.add_argument("--account")
        verb.add_argument("--fingerprint", help="only this group")
        cli.add_paging(verb)
        add("show", "One item with its traceback.", prints_data=True).add_argument("id", type=cli.row_id)
        verb = add("retry", "Run open items again and send their answers.")
        verb.add_argument("id", type=cli.row_id, nargs="*")
        verb.add_argument("--all", action="store_true", help="all open items, or those of --account and --fingerprint")
        verb.add_argument("--account", help="with --all: only this bot's")
        verb.add_argument("--fingerprint", help="with --all: only this group")
        verb.add_argument("--text", help="with one id: give the agent this text instead; the original is kept")
        verb.add_argument("--reason", default="")
        verb = add("discard", "Give open items up; can be undone for 30 days.")
        verb.add_argument("id", type=cli.row_id, nargs="+")
        verb.add_argument("--reason", required=True)
        add("undo", "Open discarded items again.").add_argument("id", type=cli.row_id, nargs="+")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = _matching(options).select_related("entry").filter(state=options["state"])
        self.table(
            options,
            [_row(item) for item in cli.page(rows, options)],
            empty=f"No {options['state']} items.",
            whole=("account", "fingerprint"),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        item = DLQItem.objects.select_related("entry").filter(pk=options["id"]).first()
        if item is None:
            raise NotFound(f"There is no dead letter item {options['id']}.")
        self.show(
            options,
            {
                **_row(item),
                "error_text": item.error_text,
                "first_failed": item.first_failed_at,
                "snoozed_until": item.snoozed_until,
                "note": item.note,
                "assignee": item.assignee,
                "closed": item.closed_at,
                "closed_by": item.closed_by,
                "close_reason": item.close_reason,
                "message": item.entry.payload,
                "edited_text": item.entry.edited_text,
                "traceback": item.traceback,
            },
        )

    def do_retry(self, options: dict[str, Any]) -> None:
        ids = options["id"]
        if options["all"] == bool(ids):
            raise CommandError("Name the items, or say --all.")
        if options["text"] is not None and len(ids) != 1:
            raise CommandError("--text: goes with exactly one id.")
        for flag in ("account", "fingerprint"):
            if options[flag] and not options["all"]:
                raise CommandError(f"--{flag}: goes with --all.")
        if options["all"]:
            rows = _matching(options).filter(state=DLQState.OPEN).order_by("id")
            # Frozen here: what fails meanwhile is not included.
            ids = list(rows.exclude(reason=DLQReason.UNREADABLE).values_list("id", flat=True))
            unreadable = rows.filter(reason=DLQReason.UNREADABLE).count()
            left = f" {unreadable} could not be read when they came; those can only be discarded." if unreadable else ""
            self.say(f"Retrying {len(ids)} items.{left}")
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


def _matching(options: dict[str, Any]) -> QuerySet[DLQItem]:
    """The items that ``--account`` and ``--fingerprint`` let through."""
    wanted = {name: options[name] for name in ("account", "fingerprint") if options[name]}
    return DLQItem.objects.filter(**wanted)


def _row(item: DLQItem) -> dict[str, Any]:
    return {
        "id": item.pk,
        "entry": item.entry_id,
        "account": item.account,
        "state": item.state,
        "reason": item.reason,
        "attempts": item.attempts,
        "last_failed": item.last_failed_at,
        "fingerprint": item.fingerprint,
        "error": one_line(f"{item.error_class}: {item.error_text}", max_chars=80),
    }
