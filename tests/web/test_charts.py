"""The last 24 hours, hour by hour."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client

from botsrt.core.states import EventKind
from botsrt.models import Bot, JournalEntry
from praisonweb.dashboard.access import ALL_BOTS
from praisonweb.dashboard.queries import charts
from tests.factories import a_failure, a_message, claim_one, fail, finish, received
from tests.web.acting import read, rows

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)


def answered_after(seconds: float, *, at: datetime) -> None:
    received(now=at)
    finish(claim_one(now=at), now=at + timedelta(seconds=seconds))


def test_an_empty_day_says_so(staff_client: Client, bot: Bot) -> None:
    html = read(staff_client, "/charts/")
    assert html.count("Nothing in the last 24 hours.") == 2
    assert len(re.findall(r'<rect class="chart-(?:good|bad|p50|p95)"', html)) == 0


def test_messages_and_failures_are_counted_by_the_hour(bot: Bot) -> None:
    for minutes in (5, 10, 70):
        answered_after(2, at=NOW - timedelta(minutes=minutes))
    received(a_message(user_id="bad"), now=NOW)
    fail(claim_one(now=NOW), a_failure(), now=NOW)
    answered_after(1, at=NOW - timedelta(hours=30))
    volume, _ = charts.read(scope=ALL_BOTS, now=NOW).charts
    assert [column.values for column in volume.columns[-2:]] == [("1", "0"), ("3", "1")]
    assert sum(int(column.values[0]) for column in volume.columns) == 4
    assert volume.columns[-1].label == "12:00: 3 messages, 1 failed"
    assert volume.highest == "3 an hour at most"


def test_tombstones_of_erased_messages_are_not_counted(bot: Bot) -> None:
    for minutes in (5, 10):
        answered_after(2, at=NOW - timedelta(minutes=minutes))
    JournalEntry.objects.filter(pk=JournalEntry.objects.latest("pk").pk).update(kind=EventKind.ERASED)
    assert charts.read(scope=ALL_BOTS, now=NOW).charts[0].columns[-1].values == ("1", "0")


def test_answer_times_are_said_as_percentiles(bot: Bot) -> None:
    for seconds in range(1, 21):
        answered_after(seconds, at=NOW - timedelta(minutes=25))
    answered_after(600, at=NOW - timedelta(hours=3))
    _, times = charts.read(scope=ALL_BOTS, now=NOW).charts
    assert times.columns[-1].values == ("10 s", "19 s")
    assert times.columns[-4].values == ("10 min", "10 min")
    assert times.columns[0].values == ("–", "–")
    assert times.highest == "10 min at most"


def test_a_bar_opens_what_it_counts(staff_client: Client, bot: Bot) -> None:
    answered_after(1, at=NOW - timedelta(minutes=5))
    answered_after(1, at=NOW - timedelta(hours=2))
    with time_machine.travel(NOW):
        url = charts.read(scope=ALL_BOTS, now=NOW).charts[0].columns[-1].url
        listed = rows(read(staff_client, url))
    assert listed == [str(JournalEntry.objects.earliest("pk").pk)]


def test_it_costs_one_query_and_looks_at_no_more_than_it_may(
    staff_client: Client, bot: Bot, django_assert_num_queries: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(charts, "_MAX_ENTRIES", 2)
    for minutes in (5, 10, 15):
        answered_after(1, at=NOW - timedelta(minutes=minutes))
    with django_assert_num_queries(1):
        shown = charts.read(scope=ALL_BOTS, now=NOW)
    assert shown.is_partial
    assert shown.charts[0].columns[-1].values[0] == "2"


def test_home_fetches_the_charts_apart(staff_client: Client, bot: Bot) -> None:
    assert 'hx-get="/charts/" hx-trigger="load, every 60s"' in read(staff_client, "/")
    assert read(staff_client, "/charts/", part=True).strip().startswith('<div class="charts">')
