"""Quiet hours, on the clock of a place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from botsrt.core import quiet


def until(span: str, at: str, zone: str = "UTC") -> str:
    """When it ends, in UTC; "" where it is not quiet."""
    found = quiet.parse(span, zone)
    assert found is not None
    end = found.until(datetime.fromisoformat(at).replace(tzinfo=UTC))
    return end.astimezone(UTC).strftime("%d %H:%M") if end else ""


@pytest.mark.parametrize(
    ("at", "end"),
    [
        ("2026-01-15 21:59", ""),
        ("2026-01-15 22:00", "16 07:00"),
        ("2026-01-15 23:59", "16 07:00"),
        ("2026-01-16 00:00", "16 07:00"),
        ("2026-01-16 06:59", "16 07:00"),
        ("2026-01-16 07:00", ""),
    ],
)
def test_a_night_goes_over_midnight(at: str, end: str):
    assert until("22:00-07:00", at) == end


@pytest.mark.parametrize(("at", "end"), [("2026-01-15 11:59", ""), ("2026-01-15 12:30", "15 13:00")])
def test_a_break_lies_within_a_day(at: str, end: str):
    assert until("12:00-13:00", at) == end


def test_the_hours_are_those_of_the_place():
    assert until("22:00-07:00", "2026-01-15 21:30", "Europe/Vienna") == "16 06:00"
    assert until("22:00-07:00", "2026-07-15 21:30", "Europe/Vienna") == "16 05:00"


def test_they_stay_on_the_wall_when_the_clock_is_changed():
    assert until("22:00-07:00", "2026-03-28 22:00", "Europe/Vienna") == "29 05:00"
    assert until("22:00-07:00", "2026-10-24 21:00", "Europe/Vienna") == "25 06:00"


def test_without_a_span_there_are_none():
    assert quiet.parse("", "UTC") is None


@pytest.mark.parametrize(
    ("span", "zone"),
    [("22-7", "UTC"), ("22:00-24:00", "UTC"), ("08:00-08:00", "UTC"), ("22:00-07:00", "Vienna"), ("", "")],
)
def test_what_cannot_be_read_is_said(span: str, zone: str):
    with pytest.raises(ValueError, match="write"):
        quiet.parse(span, zone)
