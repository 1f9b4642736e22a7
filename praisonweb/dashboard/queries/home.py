"""What needs attention, worst first, and the bots. A fixed number of queries, each over open rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Exists, Min, OuterRef, QuerySet
from django.urls import reverse

from botsrt.core.states import BulkItemState, BulkState, OutboxState
from botsrt.models import BulkItem
from botsrt.services import figures
from botsrt.services.figures import Pile
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import address
from praisonweb.dashboard.queries import alerts, bots, operations
from praisonweb.dashboard.queries.bots import BotRow
from praisonweb.dashboard.queries.standing import Tone

#: A message may take this long before anybody needs to look; an agent may run for minutes.
_UNANSWERED_WARN = timedelta(minutes=2)
_UNANSWERED_BAD = timedelta(minutes=15)

#: The task cluster looks once a minute.
_UNWATCHED_TOO_LONG = timedelta(minutes=10)

#: A bot that connects for longer than this has a problem.
_STARTING_TOO_LONG = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing that somebody should look at."""

    tone: Tone
    title: str
    text: str = ""
    since: datetime | None = None
    url: str = ""  # the list of what is counted
    link: str = ""  # what the link says
    command: str = ""  # what to type in a shell, where no page can do it


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    concerns: tuple[Concern, ...]
    alerts: tuple[alerts.Row, ...]
    bots: tuple[BotRow, ...]
    last_message_at: datetime | None
    now: datetime


def read(*, scope: Scope, now: datetime) -> Home:
    """Home as it stands."""
    rows = bots.rows(scope=scope, now=now)
    times = [at for row in rows for at in (row.last_inbound_at, row.last_outbound_at) if at]
    concerns = [
        *_workers(rows, scope, now),
        *_unanswered(scope, now),
        *_asking(scope, now),
        *_dead(scope, now),
        *_unsent(scope),
        *_bulk(scope, now),
        *_unwatched(scope, now),
        *_not_applied(rows),
    ]
    worst_first = [Tone.BAD, Tone.WARN]
    return Home(
        concerns=tuple(sorted(concerns, key=lambda concern: worst_first.index(concern.tone))),
        alerts=tuple(alerts.current(scope=scope)),
        bots=tuple(rows),
        last_message_at=max(times, default=None),
        now=now,
    )


def _workers(rows: Sequence[BotRow], scope: Scope, now: datetime) -> Iterator[Concern]:
    """Nobody at work, else the bots that do not run."""
    is_wanted = any(row.is_enabled for row in rows)
    if is_wanted and not figures.workers(now=now).count:
        yield Concern(
            tone=Tone.BAD,
            title="No worker runs",
            text="Nothing is read, answered or sent. What platforms deliver meanwhile waits there, or in the journal.",
            url="" if scope.is_limited else reverse("workers"),
            link="Workers",
            command="manage.py runbots",
        )
        return
    for row in rows:
        if row.standing.tone in (Tone.BAD, Tone.WARN):
            yield Concern(
                tone=row.standing.tone,
                title=f"{row.account}: {row.standing.word}",
                text=" ".join(filter(None, (row.standing.text, row.error))),
                since=row.since,
                url=reverse("bot", args=[row.account]),
                link="Open the bot",
            )
        elif row.standing.tone is Tone.BUSY and now - row.since > _STARTING_TOO_LONG:
            yield Concern(
                tone=Tone.WARN,
                title=f"{row.account} does not get ready",
                text=row.error,
                since=row.since,
                url=reverse("bot", args=[row.account]),
                link="Open the bot",
            )


def _unanswered(scope: Scope, now: datetime) -> Iterator[Concern]:
    """Messages that wait for their turn, or are in one."""
    pile = figures.unanswered(accounts=scope.accounts)
    if pile.oldest_at is None or now - pile.oldest_at < _UNANSWERED_WARN:
        return
    yield Concern(
        tone=Tone.BAD if now - pile.oldest_at >= _UNANSWERED_BAD else Tone.WARN,
        title=f"{_counted(pile)} {'message waits' if pile.count == 1 else 'messages wait'} for an answer",
        text="Since then the oldest of them waits.",
        since=pile.oldest_at,
        url=reverse("journal") + address("state:pending state:claimed"),
        link="Show them",
    )


def _asking(scope: Scope, now: datetime) -> Iterator[Concern]:
    asking = figures.asking(accounts=scope.accounts, now=now)
    if asking.count:
        yield Concern(
            tone=Tone.WARN,
            title=f"{_counted(asking)} {'person asks' if asking.count == 1 else 'people ask'} for access",
            text="They hear nothing until somebody decides.",
            since=asking.oldest_at,
            url=reverse("pairings"),
            link="Decide",
        )


def _dead(scope: Scope, now: datetime) -> Iterator[Concern]:
    pile = figures.dead_letters(accounts=scope.accounts, awake_at=now)
    if pile.count:
        yield Concern(
            tone=Tone.BAD,
            title=f"{_counted(pile)} {'message' if pile.count == 1 else 'messages'} failed for good",
            text="In the dead letter queue, until staff retry or discard.",
            since=pile.oldest_at,
            url=reverse("dlq"),
            link="Show the groups",
        )


def _unsent(scope: Scope) -> Iterator[Concern]:
    unknown = figures.outgoing(OutboxState.UNKNOWN, accounts=scope.accounts)
    if unknown.count:
        yield Concern(
            tone=Tone.BAD,
            title=f"{_counted(unknown)} {'reply' if unknown.count == 1 else 'replies'} of unknown fate",
            text="Sending was cut: they may have arrived, or not.",
            since=unknown.oldest_at,
            url=reverse("deliveries") + address("state:unknown"),
            link="Decide",
        )
    held = figures.outgoing(OutboxState.HELD, accounts=scope.accounts)
    if held.count:
        yield Concern(
            tone=Tone.WARN,
            title=f"{_counted(held)} {'reply' if held.count == 1 else 'replies'} held for you",
            text="Late, or kept for review: nothing goes out before somebody says so.",
            since=held.oldest_at,
            url=reverse("deliveries") + address("state:held"),
            link="Decide",
        )


def _bulk(scope: Scope, now: datetime) -> Iterator[Concern]:
    """Bulk operations that nobody goes on with, or that stopped by themselves."""
    mine = operations.theirs(scope)
    running = mine.filter(state=BulkState.RUNNING, moved_at__lte=now - operations.STUCK_AFTER)
    stuck = _pile(running.filter(step_ends_at=None), "moved_at")
    if stuck.count:
        yield Concern(
            tone=Tone.BAD,
            title=f"Nobody goes on with {stuck.count:,} bulk {'act' if stuck.count == 1 else 'acts'}",
            text="The task cluster does not run, or is busy.",
            since=stuck.oldest_at,
            url=reverse("operations"),
            link="Show them",
            command="manage.py qcluster",
        )
    left = BulkItem.objects.filter(operation=OuterRef("pk"), state=BulkItemState.WAITING)
    pile = _pile(mine.filter(Exists(left), state=BulkState.STOPPED, stopped_by=""), "moved_at")
    if pile.count:
        yield Concern(
            tone=Tone.WARN,
            title=f"{pile.count:,} bulk {'act' if pile.count == 1 else 'acts'} stopped before the end",
            text="A step failed as before, or had no result in time; the rest is left as it was.",
            since=pile.oldest_at,
            url=reverse("operations"),
            link="Look into it",
        )


def _unwatched(scope: Scope, now: datetime) -> Iterator[Concern]:
    """Nobody would raise an alert. A site on which nobody ever looked is not told of it."""
    counted_at = None if scope.is_limited else figures.counted_at()
    if counted_at is not None and now - counted_at > _UNWATCHED_TOO_LONG:
        yield Concern(
            tone=Tone.WARN,
            title="Nobody looks after alerts",
            text="The task cluster does not run: no housekeeping, no mails.",
            since=counted_at,
            url=reverse("alerts"),
            link="Show the alerts",
            command="manage.py qcluster",
        )


def _not_applied(rows: Sequence[BotRow]) -> Iterator[Concern]:
    for row in rows:
        if row.standing.tone is Tone.GOOD and not row.is_current:
            yield Concern(
                tone=Tone.WARN,
                title=f"{row.account} runs with earlier settings",
                text=row.error or "The newest are not applied yet.",
                url=reverse("bot", args=[row.account]),
                link="Open the bot",
            )


def _counted(pile: Pile) -> str:
    """How many, or how many at least."""
    return f"{pile.count:,}{'+' if pile.has_more else ''}"


def _pile(rows: QuerySet[Any], time_field: str) -> Pile:
    return Pile(**rows.aggregate(count=Count("pk"), oldest_at=Min(time_field)))
