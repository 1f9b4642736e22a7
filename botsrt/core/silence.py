"""Is a bot too quiet? Judged by its own past, hour by hour, and by nothing else.

The time since the last message is compared with the same times of the same weekday, some weeks back. Where there were
always messages then, none now is odd. Pure functions; ``services.figures`` keeps the counts, ``services.alerts`` asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Weeks that are looked back.
WEEKS = 8

#: Weeks with counts that are needed: a bot that is newer is never judged.
_LEAST_WEEKS = 3

#: From so many weeks on, the quietest one does not count: a holiday, or an earlier outage.
_WEEKS_WITH_EXCEPTION = 4

#: Messages that the quietest of those weeks had at the same times. If they came independently, none would come once in
#: e^12 cases, 160,000; people write in bursts, so it is nearer to once a year for a bot that is judged all the time.
_LEAST_EXPECTED = 12.0

#: Shorter silences are never judged, and longer ones by their last part: what was a week ago says nothing more.
_SHORTEST = timedelta(minutes=15)
_LONGEST = timedelta(days=2)

_HOUR = timedelta(hours=1)
_WEEK = timedelta(weeks=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A bot is quieter than it ever was at this time."""

    since: datetime
    expected: float  # messages that the quietest comparable week had in as long a time
    weeks: int  # that were compared


def judge(
    *, quiet_since: datetime, counts: Mapping[datetime, int], counted_from: datetime, now: datetime
) -> Silence | None:
    """Whether silence from ``quiet_since`` to ``now`` is odd for this bot.

    Args:
        quiet_since: the last message, or when the bot began to run, whichever is later; aware UTC.
        counts: messages of each past hour (its beginning, aware UTC); hours without any may be missing.
        counted_from: the first hour that was counted; nothing is known of earlier ones.

    Returns:
        None: it is not odd, or there is not enough past to say.
    """
    length = now - quiet_since
    if length < _SHORTEST:
        return None
    begin = max(quiet_since, now - _LONGEST)
    weeks = [
        _messages(counts, begin - back * _WEEK, now - back * _WEEK)
        for back in range(1, WEEKS + 1)
        if begin - back * _WEEK >= counted_from
    ]
    if len(weeks) < _LEAST_WEEKS:
        return None
    weeks.sort()
    expected = weeks[1] if len(weeks) >= _WEEKS_WITH_EXCEPTION else weeks[0]
    if expected < _LEAST_EXPECTED:
        return None
    return Silence(since=quiet_since, expected=expected, weeks=len(weeks))


def _messages(counts: Mapping[datetime, int], begin: datetime, end: datetime) -> float:
    """Messages between two moments; of hours that lie partly between them, that part."""
    hour = begin.replace(minute=0, second=0, microsecond=0)
    total = 0.0
    while hour < end:
        share = (min(end, hour + _HOUR) - max(begin, hour)) / _HOUR
        total += counts.get(hour, 0) * share
        hour += _HOUR
    return total
