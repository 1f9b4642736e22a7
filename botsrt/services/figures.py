"""How things stand, in numbers: what Home shows, monitors scrape and alerts judge. Read here and nowhere else.

Each number costs the same however many rows there are: only open rows are looked at, and of those no more than
``MOST``. ``count_up`` alone writes: the counts that outlive the rows that were counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import models, transaction
from django.db.models import Count, F, Min, Q, QuerySet
from django.db.models.functions import TruncHour

from botsrt.core.states import AdapterStatus, DLQState, EntryState, EventKind, OutboxState, PairingState, TurnState
from botsrt.models import (
    AdapterState,
    Bot,
    DLQItem,
    HourCount,
    JournalEntry,
    OutboxMessage,
    Pairing,
    Tally,
    Turn,
    Worker,
)

#: Open rows of a kind that are counted; where there are more, the count says "at least".
MOST = 10_000

#: Running turns that are looked at: more than several workers run together.
_MAX_TURNS = 500

#: Workers that are looked at; those that died without a goodbye stay in the table for a while.
_MAX_WORKERS = 200

#: Bots that numbers are given for, one by one.
MAX_BOTS = 500

#: What is younger is not counted up yet: its transaction may not be over while one with a higher number is.
_SETTLED_AFTER = timedelta(seconds=60)

#: Rows that are counted up in one run at most; the next run goes on.
_COUNTED_AT_ONCE = 200_000

#: Hours of counts that are kept: more than ``core.silence`` looks back.
_KEPT_HOURS = timedelta(weeks=10)

_HOUR = timedelta(hours=1)

Model = TypeVar("Model", bound=models.Model)

#: The bots whose rows count; None: all.
Accounts = Collection[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pile:
    """Rows that wait."""

    count: int
    oldest_at: datetime | None  # None: there are none
    has_more: bool = False  # than were counted


@dataclass(frozen=True, slots=True, kw_only=True)
class BotFigures:
    """One enabled or disabled bot."""

    account: str
    platform: str
    is_enabled: bool
    is_held: bool  # a worker that is heard of has it
    state: AdapterStatus  # as last reported
    state_since: datetime
    lease_expires_at: datetime | None
    error: str
    restarts: int
    last_inbound_at: datetime | None
    last_outbound_at: datetime | None

    @property
    def is_up(self) -> bool:
        """It reads and sends."""
        return self.is_enabled and self.is_held and self.state is AdapterStatus.RUNNING

    def down_since(self) -> datetime:
        """Since when it is not up, as far as is known; of use only for one that is not."""
        if self.is_held or self.lease_expires_at is None:
            return self.state_since
        return max(self.state_since, self.lease_expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """The workers that are alive."""

    count: int
    draining: int
    running_turns: int
    loop_gap_seconds: float  # the longest standstill of an event loop that the latest beats told of


# -- what waits ----


def pending(*, accounts: Accounts = None) -> Pile:
    """Messages that wait for their turn. Where there are more than ``MOST``, the oldest of those that are due first."""
    rows = _of(JournalEntry.objects.filter(state=EntryState.PENDING), accounts)
    return _pile(rows.order_by("available_at", "id"), "received_at")


def claimed(*, accounts: Accounts = None) -> Pile:
    """Messages that are in a turn."""
    # Found through the turns in a query of their own: few run, and a join would let the planner read every entry.
    turn_ids = list(
        Turn.objects.filter(state=TurnState.RUNNING)
        .order_by("lease_expires_at")
        .values_list("pk", flat=True)[:_MAX_TURNS]
    )
    return _pile(_of(JournalEntry.objects.filter(turn__in=turn_ids, state=EntryState.CLAIMED), accounts), "received_at")


def unanswered(*, accounts: Accounts = None) -> Pile:
    """Messages that wait for their turn, or are in one."""
    waiting, running = pending(accounts=accounts), claimed(accounts=accounts)
    return Pile(
        count=waiting.count + running.count,
        oldest_at=min(filter(None, (waiting.oldest_at, running.oldest_at)), default=None),
        has_more=waiting.has_more or running.has_more,
    )


def held_entries(*, accounts: Accounts = None) -> Pile:
    """Messages that wait for staff."""
    rows = _of(JournalEntry.objects.filter(state=EntryState.HELD), accounts)
    return _pile(rows.order_by("id"), "received_at")


def dead_letters(*, accounts: Accounts = None, awake_at: datetime | None = None) -> Pile:
    """Failures that wait for staff. ``awake_at``: without those that are snoozed then."""
    rows = DLQItem.objects.filter(state=DLQState.OPEN)
    if awake_at is not None:
        rows = rows.filter(awake(awake_at))
    return _pile(_of(rows, accounts), "first_failed_at")


def awake(now: datetime) -> Q:
    """Dead letters that are not put aside for later."""
    return Q(snoozed_until__isnull=True) | Q(snoozed_until__lte=now)


def failed_since(at: datetime) -> int:
    """Open dead letters that failed first after ``at``, at most ``MOST``."""
    newest = DLQItem.objects.filter(state=DLQState.OPEN, first_failed_at__gt=at)
    return newest.values("pk")[:MOST].count()


def outgoing(state: OutboxState, *, accounts: Accounts = None) -> Pile:
    """Messages on their way out that are in ``state``: pending, sending, unknown or held."""
    rows = _of(OutboxMessage.objects.filter(state=state), accounts)
    order = ("next_attempt_at", "id") if state == OutboxState.PENDING else ()
    return _pile(rows.order_by(*order), "created_at")


def asking(*, accounts: Accounts = None, now: datetime) -> Pile:
    """People who wait for somebody to let them in."""
    rows = Pairing.objects.filter(state=PairingState.WAITING, expires_at__gt=now)
    return _pile(_of(rows, accounts), "created_at")


def lanes_waiting() -> int:
    """Conversations in which somebody waits for a turn, among the first ``MOST`` messages that wait."""
    due = JournalEntry.objects.filter(state=EntryState.PENDING).order_by("available_at", "id")
    found: int = due.values("lane")[:MOST].aggregate(count=Count("lane", distinct=True))["count"]
    return found


def running_turns() -> int:
    """Turns that run now, at most ``MOST``."""
    return Turn.objects.filter(state=TurnState.RUNNING).values("pk")[:MOST].count()


def unfinished(*, most: int) -> int:
    """Entries that are neither answered nor given up; more than ``most`` are not counted."""
    left, total = most, 0
    for state in (EntryState.PENDING, EntryState.CLAIMED, EntryState.HELD, EntryState.DEAD):
        if state is EntryState.CLAIMED:
            count = min(claimed().count, left)
        else:
            count = JournalEntry.objects.filter(state=state).values("pk")[:left].count()
        total, left = total + count, left - count
        if left <= 0:
            break
    return total


# -- who works ----


def bots(*, now: datetime) -> list[BotFigures]:
    """Every bot and what its adapter does, by name."""
    rows = Bot.objects.select_related("adapter").order_by("account")[:MAX_BOTS]
    return [_bot(bot, bot.adapter, now) for bot in rows]


def _bot(bot: Bot, adapter: AdapterState, now: datetime) -> BotFigures:
    return BotFigures(
        account=bot.account,
        platform=bot.platform,
        is_enabled=bot.is_enabled,
        is_held=adapter.lease_expires_at is not None and adapter.lease_expires_at > now,
        state=AdapterStatus(adapter.state),
        state_since=adapter.state_since,
        lease_expires_at=adapter.lease_expires_at,
        error=adapter.error,
        restarts=adapter.restarts,
        last_inbound_at=adapter.last_inbound_at,
        last_outbound_at=adapter.last_outbound_at,
    )


def workers(*, now: datetime) -> WorkerFigures:
    """The workers that were heard of within their leases."""
    rows = Worker.objects.filter(stopped_at=None).order_by("-last_beat_at")[:_MAX_WORKERS]
    alive = [row for row in rows if row.last_beat_at + timedelta(seconds=row.lease_seconds) > now]
    return WorkerFigures(
        count=len(alive),
        draining=sum(row.is_draining for row in alive),
        running_turns=sum(row.running_turns for row in alive),
        loop_gap_seconds=max((row.loop_gap_seconds for row in alive), default=0.0),
    )


# -- counts that only grow ----

#: What is counted up: name → label → total.
Totals = Mapping[str, Mapping[str, int]]


def totals() -> Totals:
    """The counts of messages received and written by bot, and of messages ended by outcome, as of the last
    ``count_up``."""
    found: dict[str, dict[str, int]] = {"received": {}, "written": {}, "ended": {}}
    for name, label, total in (
        Tally.objects.filter(name__in=found)
        .order_by("-total")
        .values_list("name", "label", "total")[: 2 * MAX_BOTS + 10]
    ):
        found[name][label] = total
    return found


def counted_at() -> datetime | None:
    """When ``count_up`` ran last; None: it never did."""
    micros = _cursor("run")
    return _from_micros(micros) if micros else None


def hours_of(accounts: Iterable[str], *, since: datetime) -> dict[str, dict[datetime, int]]:
    """Messages by bot and hour."""
    found: dict[str, dict[datetime, int]] = {account: {} for account in accounts}
    rows = HourCount.objects.filter(account__in=list(found), hour__gte=since)
    for account, hour, messages in rows.values_list("account", "hour", "messages"):
        found[account][hour] = messages
    return found


def first_hours() -> dict[str, datetime]:
    """The first hour of each bot that was counted."""
    return dict(HourCount.objects.values_list("account").annotate(Min("hour")))


def count_up(*, now: datetime) -> None:
    """Add what came in, was written and ended since the last time. Of two at once, one counts.

    What there is is read before the transaction begins, so that nobody waits for it.
    """
    settled = now - _SETTLED_AFTER
    _count_received(settled)
    _count_written(settled)
    _count_ends(settled)
    Tally.objects.update_or_create(name="cursor", label="run", defaults={"total": _micros(now)})
    HourCount.objects.filter(hour__lt=now - _KEPT_HOURS).delete()


def last_counted_entry() -> int | None:
    """The last entry that was counted; None: none ever was."""
    return _cursor("received")


def _count_received(settled: datetime) -> None:
    begin = _cursor("received") or 0
    end = _end(JournalEntry.objects.filter(received_at__lte=settled), begin)
    if end is None:
        return
    fresh = _messages().filter(pk__gt=begin, pk__lte=end).order_by()
    by_hour = list(
        fresh.annotate(hour=TruncHour("received_at", tzinfo=UTC))
        .values("account", "hour")
        .annotate(messages=Count("pk"))
        .values_list("account", "hour", "messages")
    )
    by_account: Counter[str] = Counter()
    with transaction.atomic():
        if not _move("received", begin, end):
            return
        for account, hour, messages in by_hour:
            by_account[account] += messages
            HourCount.objects.get_or_create(account=account, hour=hour, defaults={"messages": 0})
            HourCount.objects.filter(account=account, hour=hour).update(messages=F("messages") + messages)
        _add("received", by_account)


def _count_written(settled: datetime) -> None:
    begin = _cursor("written") or 0
    end = _end(OutboxMessage.objects.filter(created_at__lte=settled), begin)
    if end is None:
        return
    fresh = OutboxMessage.objects.filter(pk__gt=begin, pk__lte=end).order_by()
    counts = dict(fresh.values_list("account").annotate(Count("pk")))
    with transaction.atomic():
        if _move("written", begin, end):
            _add("written", counts)


def _count_ends(settled: datetime) -> None:
    """By the time of the end: unlike its number, that grows in the order of the ends."""
    begin, end = _cursor("ended"), _micros(settled)
    counts: dict[str, int] = {}
    if begin is not None:
        rows = _messages().filter(state=EntryState.COMPLETED, completed_at__gt=_from_micros(begin))
        rows = rows.filter(completed_at__lte=_from_micros(end)).order_by()
        counts = dict(rows.values_list("outcome").annotate(Count("pk")))
    with transaction.atomic():
        if _move("ended", begin or 0, end):
            _add("ended", counts)


def _messages() -> QuerySet[JournalEntry]:
    """Entries that came in; a tombstone of an erased one did not."""
    return JournalEntry.objects.exclude(kind=EventKind.ERASED)


def _end(settled: QuerySet[Any], begin: int) -> int | None:
    """Up to which row there is something to count; None: nowhere."""
    last = settled.order_by("-pk").values_list("pk", flat=True).first()
    return min(last, begin + _COUNTED_AT_ONCE) if last is not None and last > begin else None


def _cursor(name: str) -> int | None:
    return Tally.objects.filter(name="cursor", label=name).values_list("total", flat=True).first()


def _move(name: str, begin: int, end: int) -> bool:
    """Move a cursor from ``begin``. False: somebody else has moved it."""
    Tally.objects.get_or_create(name="cursor", label=name)
    return bool(Tally.objects.filter(name="cursor", label=name, total=begin).exclude(total=end).update(total=end))


def _add(name: str, counts: Mapping[str, int]) -> None:
    for label, count in counts.items():
        Tally.objects.get_or_create(name=name, label=label)
        Tally.objects.filter(name=name, label=label).update(total=F("total") + count)


def _micros(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def _from_micros(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, tz=UTC)


def _of(rows: QuerySet[Model], accounts: Accounts) -> QuerySet[Model]:
    return rows if accounts is None else rows.filter(account__in=sorted(accounts))


def _pile(rows: QuerySet[Any], time_field: str) -> Pile:
    """Count ``rows``, at most ``MOST`` of them, in their order."""
    looked_at = rows.values(time_field)[: MOST + 1]
    found = looked_at.aggregate(count=Count("*"), oldest_at=Min(time_field))
    return Pile(count=min(found["count"], MOST), oldest_at=found["oldest_at"], has_more=found["count"] > MOST)
