"""Waits grow, have a bound, and never fall together."""

from __future__ import annotations

import pytest

from botsrt.core import backoff


@pytest.mark.parametrize(
    ("attempt", "least_seconds"), [(1, 0), (2, 5), (3, 300), (4, 1_800), (5, 7_200), (6, 7_200), (50, 7_200)]
)
def test_attempts_of_a_message_are_spaced_so_that_a_short_outage_does_not_use_them_up(attempt, least_seconds):
    for _ in range(50):
        wait = backoff.before_turn(attempt).total_seconds()
        assert least_seconds <= wait <= least_seconds * 1.2


@pytest.mark.parametrize(("failures", "least_seconds"), [(1, 1), (2, 2), (3, 4), (7, 60), (1_000_000, 60)])
def test_restarts_wait_twice_as_long_each_time_up_to_the_bound(failures, least_seconds):
    for _ in range(50):
        wait = backoff.exponential(failures, first_seconds=1, max_seconds=60).total_seconds()
        assert least_seconds <= wait <= least_seconds * 1.2


def test_what_failed_together_is_not_tried_together():
    assert len({backoff.before_turn(3) for _ in range(20)}) > 10
    assert len({backoff.exponential(5) for _ in range(20)}) > 10
