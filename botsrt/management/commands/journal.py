"""``manage.py journal``: every inbound event, and running one again."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Count, Min, Q, Sum
from django.utils import timezone

from botsrt import conf
from botsrt.core.errors import NotFound
from botsrt.core.states import EntryState, RunMode
from botsrt.core.text import one_line
from botsrt.management import cli
from botsrt.models import JournalEntry, OutboxMessage, Turn
from botsrt.runtime.turn import dry_run
from botsrt.services import journal, outbox


class Command(cli.VerbCommand):
    help = "Look at inbound events and run them again."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        verb = add("list", "Entries, newest first.", prints_data=True)
        verb.add_argument("--state", choices=list(EntryState))
        verb.add_argument("--account")
        cli.add_paging(verb)
        verb = add("show", "One entry with its message, attempts and reply.", prints_data=True)
        verb.add_argument("id", type=cli.row_id)
        verb = add("replay", "Run ended entries again, from what was stored.", prints_data=True)
        verb.add_argument("id", type=cli.row_id, nargs="+")
        verb.add_argument(
            "--mode",
            choices=["send", "hold", "dry-run", "again"],
            default="send",
            help="send the new reply; hold it for review; only print it; or send the stored reply again (send)",
        )
        verb.add_argument("--reason", default="", help="why; kept in the audit")
        add("stats", "Entries by state, duplicates, and how long the oldest one waits.", prints_data=True)

    def do_list(self, options: dict[str, Any]) -> None:
        rows = JournalEntry.objects.select_related("contact").defer("raw")
        if options["state"]:
            rows = rows.filter(state=options["state"])
        if options["account"]:
            rows = rows.filter(account=options["account"])
        self.table(
            options,
            [_row(entry) for entry in cli.page(rows, options)],
            empty="No entries.",
            whole=("account",),
            only_json=("duplicates",),
        )

    def do_show(self, options: dict[str, Any]) -> None:
        rows = JournalEntry.objects.select_related("turn", "contact", "session", "dlq_item").defer("raw")
        entry = rows.filter(pk=options["id"]).first()
        if entry is None:
            raise NotFound(f"There is no journal entry {options['id']}.")
        self.show(options, _details(entry))

    def do_replay(self, options: dict[str, Any]) -> None:
        mode, reason = options["mode"], options["reason"]
        if options["json"] and mode != "dry-run":
            raise CommandError("--json: goes with --mode dry-run, the one that has something to print.")
        replies: list[dict[str, Any]] = []
        acts: dict[str, Callable[[int], str]] = {
            "send": lambda entry_id: self._replay(entry_id, RunMode.SEND, reason),
            "hold": lambda entry_id: self._replay(entry_id, RunMode.HOLD, reason),
            "dry-run": lambda entry_id: _rehearse(entry_id, replies, is_quiet=options["json"]),
            "again": lambda entry_id: self._send_again(entry_id, reason),
        }
        try:
            self.for_each(options["id"], acts[mode])
        finally:
            if options["json"]:
                self.print_json(replies)

    def do_stats(self, options: dict[str, Any]) -> None:
        counts = dict(JournalEntry.objects.order_by().values_list("state").annotate(Count("id")))
        due = JournalEntry.objects.filter(state=EntryState.PENDING, available_at__lte=timezone.now())
        repeated = JournalEntry.objects.filter(duplicates__gt=0).aggregate(total=Sum("duplicates"))["total"]
        oldest = due.aggregate(oldest=Min("available_at"))["oldest"]
        stats = {state.value: counts.get(state.value, 0) for state in EntryState}
        self.show(
            options,
            {
                **stats,
                "entries": sum(stats.values()),
                "max_size": conf.load().max_size,
                "duplicates": repeated or 0,
                "oldest_waiting_since": oldest,
            },
        )

    def _replay(self, entry_id: int, mode: RunMode, reason: str) -> str:
        journal.replay(entry_id=entry_id, mode=mode, actor=cli.actor(), reason=reason, now=timezone.now())
        held = "; its reply will be held for review" if mode == RunMode.HOLD else ""
        return f"{entry_id}: runs again{held}."

    def _send_again(self, entry_id: int, reason: str) -> str:
        parts = outbox.send_reply_again(entry_id=entry_id, actor=cli.actor(), reason=reason, now=timezone.now())
        return f"{entry_id}: the stored reply goes out again ({parts} parts)."


def _rehearse(entry_id: int, replies: list[dict[str, Any]], *, is_quiet: bool) -> str:
    """Let the agent answer without storing or sending; the reply is added to ``replies``."""
    reply = asyncio.run(dry_run(entry_id))
    replies.append({"id": entry_id, "text": reply.text, "usage": reply.usage, "metadata": reply.metadata})
    return "" if is_quiet else f"{entry_id}: {reply.text or '(it says nothing)'}"


def _row(entry: JournalEntry) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "received": entry.received_at,
        "account": entry.account,
        "state": entry.state,
        "outcome": entry.outcome,
        "attempts": entry.attempts,
        "duplicates": entry.duplicates,
        "from": str(entry.contact or ""),
        "text": one_line(str(entry.payload.get("text", "")), max_chars=80),
    }


def _details(entry: JournalEntry) -> dict[str, Any]:
    """All that staff need to judge one entry, its latest turn, and what was sent for it."""
    item = getattr(entry, "dlq_item", None)
    # A turn over several entries has its reply at the last of them.
    parts = OutboxMessage.objects.filter(Q(entry=entry) | Q(turn=entry.turn_id, turn__isnull=False)).order_by("id")
    return {
        "id": entry.pk,
        "platform": entry.platform,
        "account": entry.account,
        "chat": entry.channel_id,
        "thread": entry.thread_id,
        "message_id": entry.message_id,
        "revision": entry.revision,
        "session": entry.session.session_id if entry.session else "",
        "from": str(entry.contact or ""),
        "state": entry.state,
        "outcome": entry.outcome,
        "reason": entry.outcome_reason,
        "received": entry.received_at,
        "available": entry.available_at,
        "completed": entry.completed_at,
        "attempts": entry.attempts,
        "worker_deaths": entry.deaths,
        "duplicates": entry.duplicates,
        "trigger": entry.trigger,
        "run_mode": entry.run_mode,
        "requested_by": entry.requested_by,
        "request_reason": entry.request_reason,
        "dlq_item": item.pk if item else None,
        "last_turn": _turn(entry.turn) if entry.turn else None,
        "message": entry.payload,
        "edited_text": entry.edited_text,
        "reply": [
            {"id": part.pk, "source": part.source, "state": part.state, "error": part.error, "text": part.text}
            for part in parts
        ],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.pk,
        "state": turn.state,
        "agent": f"{turn.agent} version {turn.agent_version}" if turn.agent else "",
        "worker": turn.worker_id,
        "started": turn.started_at,
        "finished": turn.finished_at,
        "error": turn.error_text,
    }
