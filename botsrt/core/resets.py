"""When a conversation begins anew by itself: after long silence, at an hour of the day, or both.

A decision of stored times alone, so that restarts change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from botsrt.core.errors import InvalidInput
from botsrt.core.ports import Option
from botsrt.core.text import one_line

#: Longer than the name of any time zone.
_MAX_ZONE_CHARS = 64


class Reset(StrEnum):
    NONE = "none"
    IDLE = "idle"
    DAILY = "daily"
    BOTH = "both"


OPTIONS = (
    Option(
        name="reset",
        help="When a conversation begins anew by itself: the agent no longer sees what was said.",
        default=Reset.NONE,
        choices=tuple(Reset),
    ),
    Option(name="reset_idle_seconds", help="idle: after so many seconds of silence.", default="86400"),
    Option(name="reset_at", help="daily: at this time of the day, as HH:MM.", default="04:00"),
    Option(name="time_zone", help="The bot's time zone, such as Europe/Vienna.", default="UTC"),
)

#: Longest silence that can be named: ten years.
_MAX_IDLE_SECONDS = 315_360_000

_UNITS = ((3_600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When the conversations of one bot begin anew."""

    idle: timedelta | None = None
    daily_at: time | None = None
    zone: tzinfo = UTC


def policy(settings: Mapping[str, str]) -> Policy:
    """The policy that a bot's settings mean.

    Raises:
        InvalidInput: a value cannot be read; says which and what to write.
    """
    values = {option.name: settings.get(option.name) or option.default for option in OPTIONS}
    idle, at, zone = _seconds(values["reset_idle_seconds"]), _time(values["reset_at"]), _zone(values["time_zone"])
    try:
        reset = Reset(values["reset"])
    except ValueError:
        problem = f"{one_line(values['reset'], max_chars=40)!r} is not one of {', '.join(Reset)}."
        raise InvalidInput("reset", problem) from None
    return Policy(
        idle=idle if reset in (Reset.IDLE, Reset.BOTH) else None,
        daily_at=at if reset in (Reset.DAILY, Reset.BOTH) else None,
        zone=zone,
    )


def why(policy: Policy, *, last_at: datetime, now: datetime) -> str:
    """Why a conversation begins anew that was last active at ``last_at``, as a sentence; empty: it does not."""
    if policy.idle is not None and now - last_at >= policy.idle:
        return f"A new conversation begins after {_span(policy.idle)} of silence."
    if policy.daily_at is not None and last_at < _latest(policy.daily_at, policy.zone, now) <= now:
        return f"A new conversation begins with the day, at {policy.daily_at:%H:%M}."
    return ""


def _latest(at: time, zone: tzinfo, now: datetime) -> datetime:
    """The last time at or before ``now`` that clocks in ``zone`` showed ``at``."""
    today = datetime.combine(now.astimezone(zone).date(), at, tzinfo=zone)
    return today if today <= now else datetime.combine(today.date() - timedelta(days=1), at, tzinfo=zone)


def _span(idle: timedelta) -> str:
    """In the largest unit that is exact."""
    seconds = int(idle.total_seconds())
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size:,} {unit}{'' if seconds == size else 's'}"


def _seconds(text: str) -> timedelta:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= _MAX_IDLE_SECONDS):
        raise InvalidInput("reset_idle_seconds", f"{text!r} is not a number of seconds, 1 to {_MAX_IDLE_SECONDS:,}.")
    return timedelta(seconds=int(text[:12]))


def _time(text: str) -> time:
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007  a time of the day, in no zone yet
    except ValueError:
        raise InvalidInput("reset_at", f"{text!r} is not a time of the day; write HH:MM.") from None


def _zone(name: str) -> ZoneInfo:
    try:
        if len(name) > _MAX_ZONE_CHARS:  # zoneinfo takes each part for a package, one inside the other
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        shown = one_line(name, max_chars=_MAX_ZONE_CHARS)
        raise InvalidInput("time_zone", f"{shown!r} is not a time zone; write one such as Europe/Vienna.") from None
