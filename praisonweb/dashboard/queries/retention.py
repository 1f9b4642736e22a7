"""How long each kind of data is kept, and how much of it is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from botsrt import tasks
from botsrt.services.housekeeping import Kind

_WORDS: Mapping[Kind, tuple[str, str]] = {
    Kind.JOURNAL: ("Journal", "entries that were answered, stayed silent or were discarded"),
    Kind.DLQ: ("Dead letters", "closed ones; open ones are never removed"),
    Kind.TURNS: ("Turns", "runs that no journal entry leads to any more"),
    Kind.OUTBOX: ("Deliveries", "messages that were sent or withdrawn"),
    Kind.HISTORY: ("Conversations", "what people, bots and staff said"),
    Kind.PAIRINGS: ("Pairings", "requests that were denied or ran out"),
    Kind.OPERATIONS: ("Bulk acts", "those that do not run"),
    Kind.WORKERS: ("Workers", "processes that ended"),
    Kind.AUDIT: ("Audit", "who did what"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kind."""

    title: str
    text: str
    setting: str  # what to set in the environment
    kept: str  # for how long
    count: int  # rows that would go now
    oldest: datetime | None


def read() -> list[Kept]:
    """All kinds. A query or two each, which count no more rows than would go."""
    settings = {Kind.JOURNAL: "BOTSRT_TTL_SECONDS", Kind.DLQ: "BOTSRT_DLQ_TTL_SECONDS"}
    found = []
    for due in tasks.due_now():
        title, text = _WORDS[due.kind]
        days = due.period.total_seconds() / 86_400 if due.period else 0
        found.append(
            Kept(
                title=title,
                text=text,
                setting=settings.get(due.kind, f"BOTSRT_KEEP_{due.kind.upper()}_DAYS"),
                kept=f"{days:,.4g} day{'' if days == 1 else 's'}" if due.period else "for ever",
                count=due.count + due.excess,
                oldest=due.oldest,
            )
        )
    return found
