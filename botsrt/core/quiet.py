"""Hours of the day in which nobody is told what can wait."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """From one time of the day to another, over midnight if the second is earlier."""

    begin: time
    end: time
    zone: tzinfo

    def until(self, at: datetime) -> datetime | None:
        """When the quiet hours end that ``at`` lies in; None: it lies in none. Times of the clock on the wall, so that
        they stay where they are when the clock is changed."""
        local = at.astimezone(self.zone)
        clock = local.time()
        if self.begin < self.end:
            is_quiet, days = self.begin <= clock < self.end, 0
        else:
            is_quiet, days = clock >= self.begin or clock < self.end, int(clock >= self.begin)
        if not is_quiet:
            return None
        return datetime.combine(local.date() + timedelta(days=days), self.end, tzinfo=self.zone)


def parse(span: str, zone: str) -> QuietHours | None:
    """What ``span`` ("22:00-07:00") and ``zone`` ("Europe/Vienna") mean; None for an empty ``span``.

    Raises:
        ValueError: one of them cannot be read; says which and what to write.
    """
    try:
        found_zone = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{zone!r} is no time zone; write a name such as Europe/Vienna, or UTC.") from None
    if not span.strip():
        return None
    found = _SPAN.fullmatch(span.strip())
    if found is None or found[1] + found[2] == found[3] + found[4]:
        raise ValueError(f"{span!r} is no span of the day; write HH:MM-HH:MM, such as 22:00-07:00.")
    begin_hour, begin_minute, end_hour, end_minute = map(int, found.groups())
    return QuietHours(begin=time(begin_hour, begin_minute), end=time(end_hour, end_minute), zone=found_zone)
