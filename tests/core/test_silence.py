"""A bot's silence, over made-up histories."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from botsrt.core import silence
from botsrt.core.silence import Silence

#: A Thursday.
NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = timedelta(weeks=1)

History = dict[datetime, int]


def history(weeks: int, rate: Callable[[datetime], int], *, until: datetime = NOON) -> History:
    """Messages of every hour of the last ``weeks``, as ``rate`` says."""
    hours = (until - count * HOUR for count in range(1, weeks * 168 + 1))
    return {hour: count for hour in hours if (count := rate(hour))}


def steady(hour: datetime) -> int:
    return 60


def office(hour: datetime) -> int:
    """Busy from 8 to 18 on weekdays; nobody writes at other times."""
    return 60 if hour.weekday() < 5 and 8 <= hour.hour < 18 else 0


def judge(counts: History, *, minutes: float, now: datetime = NOON, weeks: int = 8) -> Silence | None:
    return silence.judge(
        quiet_since=now - timedelta(minutes=minutes), counts=counts, counted_from=NOON - weeks * WEEK, now=now
    )


def test_a_busy_bot_that_falls_silent_is_noticed():
    found = judge(history(8, steady), minutes=20)
    assert found is not None
    assert found.expected == pytest.approx(20)
    assert found.weeks == 7, "The earliest week began before anything was counted."


def test_a_short_silence_is_none():
    assert judge(history(8, lambda hour: 6_000), minutes=14) is None


def test_a_bot_that_few_write_to_is_given_time():
    counts = history(8, lambda hour: 2)
    assert judge(counts, minutes=5 * 60) is None
    assert judge(counts, minutes=7 * 60) is not None


@pytest.mark.parametrize("weeks", [0, 1, 2, 3])
def test_a_new_bot_is_never_judged(weeks: int):
    assert judge(history(weeks, steady), minutes=24 * 60, weeks=weeks) is None


def test_nights_and_weekends_are_compared_with_their_like():
    night = NOON.replace(hour=23)
    counts = history(8, office, until=night)
    assert judge(counts, minutes=4 * 60, now=night) is None, "Nobody writes from 19 to 23."
    assert judge(counts, minutes=6 * 60, now=night) is not None, "From 17 to 18 they did."
    sunday = NOON + timedelta(days=3)
    assert judge(history(8, office, until=sunday), minutes=24 * 60, now=sunday) is None


def test_one_quiet_week_in_the_past_hides_nothing():
    def with_holiday(hour: datetime) -> int:
        return 0 if NOON - 2 * WEEK - timedelta(days=1) <= hour < NOON - 2 * WEEK else 60

    assert judge(history(8, with_holiday), minutes=30) is not None


def test_a_bot_that_is_quiet_at_this_time_now_and_then_is_left_in_peace():
    def every_other_week(hour: datetime) -> int:
        return 60 if (NOON - hour) // WEEK % 2 else 0

    assert judge(history(8, every_other_week), minutes=120) is None


def test_a_long_silence_is_judged_by_its_last_days():
    """Else a bot that was never written to since it was added would be compared with weeks before it was there."""
    assert judge(history(8, steady), minutes=60 * 24 * 20) is not None


@pytest.mark.parametrize("seed", range(20))
def test_usual_traffic_raises_no_alarm_in_a_month(seed: int):
    """A month of people who write independently of each other, busy by day and not by night, looked at every ten
    minutes."""
    chance = random.Random(seed)
    counts: History = {}
    moments: list[datetime] = []
    begin = NOON - 9 * WEEK
    for number in range(9 * 168):
        hour = begin + number * HOUR
        rate = 30 if 8 <= hour.hour < 18 else 3
        times = [hour + second * timedelta(seconds=6) for second in range(600) if chance.random() < rate / 600]
        counts[hour] = len(times)
        moments += times
    alarms = 0
    place = 0
    now = NOON - 4 * WEEK
    while now < NOON:
        while place < len(moments) and moments[place] <= now:
            place += 1
        found = silence.judge(quiet_since=moments[place - 1], counts=counts, counted_from=begin, now=now)
        alarms += found is not None
        now += timedelta(minutes=10)
    assert alarms == 0
