"""``manage.py bulk``: acts on many rows, begun in the staff site."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

from django.utils import timezone

from botsrt import tasks
from botsrt.core.errors import NotFound
from botsrt.core.states import BulkItemState, BulkState
from botsrt.management import cli
from botsrt.models import BulkOperation
from botsrt.services import bulk


class Command(cli.VerbCommand):
    help = "Look at bulk operations, stop them, let them go on."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Operations, newest first.", prints_data=True)
        verb.add_argument("--state", choices=list(BulkState))
        cli.add_paging(verb)
        verb = add("show", "One operation with the rows that were skipped.", prints_data=True)
        verb.add_argument("id", type=cli.row_id)
        add("stop", "Leave the rest as it is.").add_argument("id", type=cli.row_id)
        add("resume", "Go on with the rest.").add_argument("id", type=cli.row_id)

    def do_list(self, options: dict[str, Any]) -> None:
        rows = BulkOperation.objects.all()
        if options["state"]:
            rows = rows.filter(state=options["state"])
        shown = list(cli.page(rows, options))
        counts = bulk.counts(operation_ids=[row.pk for row in shown])
        self.table(options, [_row(row, counts[row.pk]) for row in shown], empty="No bulk operations.")

    def do_show(self, options: dict[str, Any]) -> None:
        row = BulkOperation.objects.filter(pk=options["id"]).first()
        if row is None:
            raise NotFound(f"There is no bulk operation {options['id']}.")
        skipped = row.items.filter(state=BulkItemState.SKIPPED).order_by("ordinal")
        self.show(
            options,
            {
                **_row(row, bulk.counts(operation_ids=[row.pk])[row.pk]),
                "reason": row.reason,
                "options": row.options,
                "steps": row.steps,
                "step": row.step,
                "note": row.note,
                "stopped_by": row.stopped_by,
                "moved": row.moved_at,
                "finished": row.finished_at,
                "why_skipped": dict(skipped.values_list("object_id", "detail")),
            },
        )

    def do_stop(self, options: dict[str, Any]) -> None:
        bulk.stop(operation_id=options["id"], actor=cli.actor(), now=timezone.now())
        self.say(f"{options['id']}: stopped.")

    def do_resume(self, options: dict[str, Any]) -> None:
        bulk.resume(operation_id=options["id"], actor=cli.actor(), now=timezone.now())
        tasks.go_on(options["id"])
        self.say(f"{options['id']}: goes on.")


def _row(row: BulkOperation, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": row.pk,
        "created": row.created_at,
        "verb": row.verb,
        "state": row.state,
        "by": row.asked_by,
        "total": row.total,
        **{str(state): counts[state] for state in BulkItemState},
    }
