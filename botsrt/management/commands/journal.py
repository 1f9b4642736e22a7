"""``manage.py journal``: every inbound event, and running one again."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.db.models import Count
from django.utils import timezone

from botsrt.core.errors import NotFound
from botsrt.core.states import EntryState, RunMode
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.runtime.turn import dry_run
from botsrt.services import journal, outbox


class Command(cli.VerbCommand):
    help = "Look at inbound events and run them again."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Entries, newest first.", prints_data=True)
        verb.add_argument("--state", choices=list(EntryState))
        verb.add_argument("--account")
        cli.add_paging(verb)
        add("show", "One entry with its message, attempts and reply.", prints_data=True).add_argument("id", type=int)
        verb = add("replay", "Run ended entries again, from what was stored.")
        verb.add_argument("id", type=int, nargs="+")
        verb.add_argument(
            "--mode",
            choices=["send", "hold", "dry-run", "again"],
            default="send",
            help="send the new reply; hold it for review; only print it; or send the stored reply again (send)",
        )
        verb.add_argument("--reason", default="", help="why; kept in the audit")
        add("stats", "Entries by state.", prints_data=True)

    def do_list(self, options: dict[str, Any]) -> None:
        rows = JournalEntry.objects.select_related("contact").defer("raw")
        if options["state"]:
            rows = rows.filter(state=options["state"])
        if options["account"]:
            rows = rows.filter(account=options["account"])
        self.table(options, [_row(entry) for entry in cli.page(rows, options)], empty="No entries.")

    def do_show(self, options: dict[str, Any]) -> None:
        entry = JournalEntry.objects.select_related("turn").filter(pk=options["id"]).first()
        if entry is None:
            raise NotFound(f"There is no journal entry {options['id']}.")
        replies = OutboxMessage.objects.filter(turn=entry.turn_id).order_by("id") if entry.turn_id else []
        turn = entry.turn
        self.show(
            options,
            {
                **_row(entry),
                "outcome": entry.outcome or "-",
                "reason": entry.outcome_reason or "-",
                "session": entry.lane,
                "worker deaths": entry.deaths,
                "completed": entry.completed_at,
                "message": entry.payload,
                "edited text": entry.edited_text,
                "last turn": {"state": turn.state, "error": turn.error_text, "worker": turn.worker_id}
                if turn
                else None,
                "reply": [{"id": part.pk, "state": part.state, "text": part.text} for part in replies],
            },
        )

    def do_replay(self, options: dict[str, Any]) -> None:
        mode, reason = options["mode"], options["reason"]
        acts: dict[str, Callable[[int], str]] = {
            "send": lambda entry_id: self._replay(entry_id, RunMode.SEND, reason),
            "hold": lambda entry_id: self._replay(entry_id, RunMode.HOLD, reason),
            "dry-run": lambda entry_id: f"{entry_id}: {asyncio.run(dry_run(entry_id)).text or '(nothing)'}",
            "again": lambda entry_id: self._send_again(entry_id, reason),
        }
        self.for_each(options["id"], acts[mode])

    def do_stats(self, options: dict[str, Any]) -> None:
        counts = dict(JournalEntry.objects.order_by().values_list("state").annotate(Count("id")))
        self.show(options, {state.value: counts.get(state.value, 0) for state in EntryState})

    def _replay(self, entry_id: int, mode: RunMode, reason: str) -> str:
        journal.replay(entry_id=entry_id, mode=mode, actor=cli.actor(), reason=reason, now=timezone.now())
        held = "; its reply will be held for review" if mode == RunMode.HOLD else ""
        return f"{entry_id}: runs again{held}."

    def _send_again(self, entry_id: int, reason: str) -> str:
        parts = outbox.send_reply_again(entry_id=entry_id, actor=cli.actor(), reason=reason, now=timezone.now())
        return f"{entry_id}: the stored reply goes out again ({parts} parts)."


def _row(entry: JournalEntry) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "received": entry.received_at,
        "account": entry.account,
        "state": entry.state,
        "attempts": entry.attempts,
        "duplicates": entry.duplicates,
        "from": str(entry.contact) if entry.contact else "-",
        "text": one_line(str(entry.payload.get("text", "")), max_chars=80),
    }
