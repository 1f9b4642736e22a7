"""The figures that Home, monitors and alerts share."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.db import connection

from botsrt.models import HourCount, JournalEntry, Tally
from botsrt.services import figures, housekeeping
from tests.factories import NOW, a_bot, a_message, answered, claim_one, finish, later, received
from tests.services.races import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def totals(name: str) -> dict[str, int]:
    return dict(figures.totals()[name])


def test_what_came_in_is_counted_once_by_bot_and_hour():
    a_bot("other")
    for minute in (0, 10, 70):
        received(now=later(minutes=minute))
    received(a_message(account="other", channel_id="c9"), now=later(minutes=5))
    for _ in range(2):
        figures.count_up(now=later(hours=2))
    assert totals("received") == {"shop": 3, "other": 1}
    received(now=later(hours=2, minutes=1))
    figures.count_up(now=later(hours=3))
    assert totals("received") == {"shop": 4, "other": 1}
    assert figures.hours_of(["shop"], since=NOW)["shop"] == {NOW: 2, later(hours=1): 1, later(hours=2): 1}
    assert figures.counted_at() == later(hours=3)


def test_what_is_younger_than_a_minute_is_counted_later():
    """A row with a lower number may be committed after one with a higher."""
    received(now=NOW)
    figures.count_up(now=later(seconds=30))
    assert totals("received") == {}
    figures.count_up(now=later(seconds=60))
    assert totals("received") == {"shop": 1}


def test_answers_and_what_was_written_are_counted():
    figures.count_up(now=NOW)
    answered("one", now=later(minutes=1))
    row = received("two", channel_id="c2", user_id="u2", now=later(minutes=1))
    finish(claim_one(now=later(minutes=1)), "", now=later(minutes=1))
    figures.count_up(now=later(minutes=3))
    figures.count_up(now=later(minutes=4))
    assert row.pk
    assert totals("ended") == {"answered": 1, "silent": 1}
    assert totals("written") == {"shop": 1}


def test_counts_stay_when_the_rows_are_removed():
    answered("one")
    figures.count_up(now=later(hours=1))
    JournalEntry.objects.all().delete()
    figures.count_up(now=later(hours=2))
    assert totals("received") == {"shop": 1}


def test_nothing_is_removed_before_it_is_counted():
    answered("one")
    figures.count_up(now=later(hours=1))
    answered("two", now=later(hours=1))
    keep = partial(housekeeping.run, max_size=0, ttl=timedelta(days=30), dlq_max_size=9, dlq_ttl=timedelta(days=9))
    keep(now=later(hours=1))
    assert [entry.payload["text"] for entry in JournalEntry.objects.all()] == ["two"]
    figures.count_up(now=later(hours=2))
    keep(now=later(hours=2))
    assert not JournalEntry.objects.exists()
    assert totals("received") == {"shop": 2}


@pytest.mark.django_db(transaction=True)
def test_two_who_count_at_once_count_once():
    for _ in range(5):
        received()
    at_once(*[partial(figures.count_up, now=later(hours=1))] * 4)
    assert totals("received") == {"shop": 5}
    assert HourCount.objects.get().messages == 5
    assert Tally.objects.filter(name="cursor", label="received").count() == 1


def test_a_great_pile_is_counted_up_to_a_bound_and_its_oldest_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figures, "MOST", 3)
    for minute in range(5):
        received(now=later(minutes=minute))
    pile = figures.unanswered()
    assert (pile.count, pile.has_more, pile.oldest_at) == (3, True, NOW)
    assert figures.unanswered(accounts=["other"]).count == 0
    assert figures.unfinished(most=4) == 4
    assert figures.unfinished(most=100) == 5


def test_the_backlog_is_found_through_an_index():
    for number in range(300):
        answered(a_message(f"m{number}", user_id=f"u{number}", channel_id=f"c{number}"))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        rows = JournalEntry.objects.filter(state="pending").order_by("available_at", "id").values("received_at")
        plan = rows[: figures.MOST].explain()
    assert "journal_due" in plan, plan
