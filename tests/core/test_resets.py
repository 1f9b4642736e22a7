"""When a conversation begins anew by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from botsrt.core import resets
from botsrt.core.errors import InvalidInput

VIENNA = ZoneInfo("Europe/Vienna")


def at(text: str) -> datetime:
    """A moment, as a clock in Vienna shows it."""
    return datetime.fromisoformat(text).replace(tzinfo=VIENNA)


def policy(reset: str, **settings: str) -> resets.Policy:
    return resets.policy({"reset": reset, "time_zone": "Europe/Vienna", **settings})


def test_by_default_a_conversation_goes_on_for_ever() -> None:
    assert not resets.why(resets.policy({}), last_at=at("2000-01-01 00:00"), now=at("2026-11-21 00:00"))


@pytest.mark.parametrize(
    ("seconds", "words"), [("90", "90 seconds"), ("5400", "90 minutes"), ("3600", "1 hour"), ("86400", "24 hours")]
)
def test_silence_ends_it_to_the_second(seconds: str, words: str) -> None:
    idle, last_at = policy("idle", reset_idle_seconds=seconds), at("2026-11-21 10:00")
    limit = last_at + timedelta(seconds=int(seconds))
    assert resets.why(idle, last_at=last_at, now=limit) == f"A new conversation begins after {words} of silence."
    assert not resets.why(idle, last_at=last_at, now=limit - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("last_at", "now", "begins_anew"),
    [
        ("2026-11-21 03:59", "2026-11-21 04:00", True),
        ("2026-11-21 04:00", "2026-11-22 03:59", False),
        ("2026-11-20 23:00", "2026-11-21 03:59", False),
        ("2026-11-18 12:00", "2026-11-21 03:00", True),
        ("2026-11-21 04:30", "2026-11-21 04:20", False),  # an older message that was tried again
    ],
)
def test_a_day_begins_at_the_time_in_the_zone_of_the_bot(last_at: str, now: str, begins_anew: bool) -> None:
    daily = policy("daily", reset_at="04:00")
    assert bool(resets.why(daily, last_at=at(last_at), now=at(now))) is begins_anew


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])  # clocks go forward, and back
def test_on_days_when_clocks_change_it_begins_anew_once(day: str) -> None:
    daily = policy("daily", reset_at="02:30")
    before, after = at(f"{day} 00:30"), at(f"{day} 06:00")
    assert resets.why(daily, last_at=before, now=after)
    assert not resets.why(daily, last_at=after, now=after + timedelta(hours=20))


def test_both_is_either() -> None:
    both = policy("both", reset_idle_seconds="1800", reset_at="04:00")
    assert "silence" in resets.why(both, last_at=at("2026-11-21 10:00"), now=at("2026-11-21 10:30"))
    assert "day" in resets.why(both, last_at=at("2026-11-21 03:50"), now=at("2026-11-21 04:05"))
    assert not resets.why(both, last_at=at("2026-11-21 10:00"), now=at("2026-11-21 10:29"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("reset_idle_seconds", "0"),
        ("reset_idle_seconds", "-5"),
        ("reset_idle_seconds", "1e3"),
        ("reset_idle_seconds", "9" * 400),
        ("reset_idle_seconds", "²"),
        ("reset_at", "24:00"),
        ("reset_at", "noon"),
        ("time_zone", "Vienna"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", "\0"),
        ("time_zone", "x" * 5_000),
    ],
)
def test_what_cannot_be_read_is_named(setting: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=setting):
        resets.policy({setting: value})
