"""The last 24 hours in numbers, hour by hour: what came in, what failed, and how long answers took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any
from urllib.parse import urlencode

from django.db.models import FloatField, Func
from django.urls import reverse

from botsrt.core.states import EntryState, EventKind, Outcome
from botsrt.models import JournalEntry
from praisonweb.dashboard.access import Scope

HOURS = 24

#: Newest entries that are looked at. A busier site sees fewer hours, and is told so.
_MAX_ENTRIES = 20_000

#: The drawing's own units: each hour is a column of this width, and the highest bar is this high.
COLUMN = 20
HEIGHT = 100
_GAP = 4

#: Bars with anything in them are at least this high, so that one message can be seen and clicked.
_LEAST_HEIGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A part of a column."""

    y: float
    height: float
    kind: str  # good, bad, p50, p95


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One hour."""

    x: int
    hour: datetime
    url: str  # the list of what it counts
    label: str
    values: tuple[str, ...]  # in the order of the chart's names
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    title: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    highest: str
    is_empty: bool

    width: int = HOURS * COLUMN
    height: int = HEIGHT
    bar_width: int = COLUMN - _GAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    charts: tuple[Chart, ...]
    is_partial: bool  # there was more than was looked at


@dataclass(slots=True)
class Hour:
    """What came in within one hour."""

    count: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)  # how long each answer took


class _Seconds(Func):
    """A time as seconds since 1970: thousands of them are read, and turning each into a datetime would take longer."""

    output_field = FloatField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "((julianday(%(expressions)s) - 2440587.5) * 86400.0)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="extract(epoch from %(expressions)s)::float8", **extra)


def read(*, scope: Scope, now: datetime) -> Charts:
    """The charts as of ``now``: one query over the newest entries."""
    last = _hour_of(now)
    hours = [last - timedelta(hours=back) for back in reversed(range(HOURS))]
    by_hour, is_partial = _count(scope, since=hours[0])
    found = [by_hour[int(hour.timestamp() // 3_600)] for hour in hours]
    return Charts(charts=(_volume(hours, found), _answer_time(hours, found)), is_partial=is_partial)


def last_hour(*, scope: Scope, now: datetime) -> Hour:
    """The last full hour, as the charts have it."""
    hour = _hour_of(now) - timedelta(hours=1)
    by_hour, _ = _count(scope, since=hour)
    return by_hour[int(hour.timestamp() // 3_600)]


def _hour_of(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _count(scope: Scope, *, since: datetime) -> tuple[defaultdict[int, Hour], bool]:
    """The newest entries by hours since 1970, and whether there were more than are looked at."""
    rows = list(
        scope.rows(JournalEntry.objects.filter(received_at__gte=since))
        .exclude(kind=EventKind.ERASED)  # tombstones: they came in when somebody was erased
        .order_by("-pk")
        .values_list(_Seconds("received_at"), _Seconds("completed_at"), "state", "outcome")[:_MAX_ENTRIES]
    )
    by_hour: defaultdict[int, Hour] = defaultdict(Hour)
    for received_at, completed_at, state, outcome in rows:
        hour = by_hour[int(received_at // 3_600)]
        hour.count += 1
        hour.failed += state in (EntryState.DEAD, EntryState.DISCARDED)
        if outcome == Outcome.ANSWERED and completed_at is not None:
            hour.seconds.append(round(completed_at - received_at, 3))
    return by_hour, len(rows) == _MAX_ENTRIES


def _volume(hours: Sequence[datetime], found: Sequence[Hour]) -> Chart:
    most = max(hour.count for hour in found)
    columns = []
    for place, (at, hour) in enumerate(zip(hours, found, strict=True)):
        bad = _height(hour.failed, most)
        good = _height(hour.count - hour.failed, most)
        columns.append(
            Column(
                x=place * COLUMN,
                hour=at,
                url=_url(at),
                label=f"{at:%H:%M}: {hour.count:,} messages, {hour.failed:,} failed",
                values=(f"{hour.count:,}", f"{hour.failed:,}"),
                bars=(
                    Bar(y=HEIGHT - good, height=good, kind="good"),
                    Bar(y=HEIGHT - good - bad, height=bad, kind="bad"),
                ),
            )
        )
    return Chart(
        title="Messages in",
        names=("Messages", "Failed"),
        columns=tuple(columns),
        highest=f"{most:,} an hour at most",
        is_empty=not most,
    )


def _answer_time(hours: Sequence[datetime], found: Sequence[Hour]) -> Chart:
    pairs = [percentiles(hour.seconds) for hour in found]
    most = max(slow for _, slow in pairs)
    columns = []
    for place, (at, (usual, slow)) in enumerate(zip(hours, pairs, strict=True)):
        p50, p95 = _height(usual, most), _height(slow, most)
        columns.append(
            Column(
                x=place * COLUMN,
                hour=at,
                url=_url(at),
                label=f"{at:%H:%M}: half were answered within {_span(usual)}, 95 % within {_span(slow)}"
                if slow
                else f"{at:%H:%M}: nothing was answered",
                values=(_span(usual), _span(slow)) if slow else ("–", "–"),
                bars=(
                    Bar(y=HEIGHT - p95, height=p95, kind="p95"),
                    Bar(y=HEIGHT - p50, height=p50, kind="p50"),
                ),
            )
        )
    return Chart(
        title="Answer time",
        names=("Half within", "95 % within"),
        columns=tuple(columns),
        highest=f"{_span(most)} at most",
        is_empty=not most,
    )


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 95th; 0 for nothing."""
    if not seconds:
        return 0.0, 0.0
    if len(seconds) == 1:
        return seconds[0], seconds[0]
    cuts = quantiles(seconds, n=20, method="inclusive")
    return cuts[9], cuts[18]


def _height(value: float, most: float) -> float:
    return round(max(value / most * HEIGHT, _LEAST_HEIGHT), 1) if value > 0 and most else 0.0


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _url(hour: datetime) -> str:
    end = hour + timedelta(hours=1)
    wanted = f"after:{hour:%Y-%m-%dT%H:%M} before:{end:%Y-%m-%dT%H:%M}"
    return f"{reverse('journal')}?{urlencode({'q': wanted})}"
