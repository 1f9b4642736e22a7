"""Filters as one line of text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from praisonweb.dashboard import filters
from praisonweb.dashboard.filters import Filters, Key

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEYS = (
    Key(name="state", help="", choices=("held", "dead")),
    Key(name="bot", help=""),
    Key(name="before", help="", is_time=True),
)


def parse(text: str) -> Filters:
    return filters.parse(text, keys=KEYS, now=NOW)


def test_tokens_and_words_are_told_apart() -> None:
    found = parse('state:held hello bot:"two words" http://x "say it"')
    assert found.values("state") == ["held"]
    assert found.values("bot") == ["two words"]
    assert found.words == ("hello", "http://x", "say it")
    assert found.problems == ()


def test_one_key_twice_means_either_and_the_same_twice_is_once() -> None:
    assert parse("state:held state:dead state:held").values("state") == ["held", "dead"]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("before:2h", NOW - timedelta(hours=2)),
        ("before:7d", NOW - timedelta(days=7)),
        ("before:2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("before:2026-01-02T03:04+01:00", datetime(2026, 1, 2, 2, 4, tzinfo=UTC)),
    ],
)
def test_times_are_spans_or_dates(text: str, at: datetime) -> None:
    assert parse(text).times == {"before": at}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("state:deda", "state: 'deda' is not one of held, dead."),
        ("before:soon", "before: 'soon' is no time; write 2h, 7d or 2026-11-20."),
        ("before:999999d", "before: '999999d' is no time; write 2h, 7d or 2026-11-20."),
        (
            "stat:dead",
            "There is no filter stat: here, only state:, bot:, before:. "
            'For the words themselves use quotes: "stat:dead".',
        ),
        ("x" * 501, "Only the first 500 characters of the filter were read."),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, problem: str) -> None:
    assert parse(text).problems == (problem,)


def test_a_token_is_switched_on_and_off_in_the_address() -> None:
    found = parse("state:held hello")
    assert found.toggled("state", "held") == "?q=hello"
    assert found.toggled("bot", "shop") == "?q=state%3Aheld+bot%3Ashop+hello"
    assert found.without_word("hello") == "?q=state%3Aheld"
    assert parse("state:held").toggled("state", "held") == "?"
    assert [chip.text for chip in found.chips] == ["state:held", "hello"]


@pytest.mark.parametrize(
    "line",
    [
        'bot:"two words" state:held hello',
        'state:held stat:dead hello "say it" http://x',
        '"re:invoice" 12:30',
        'stat:"two words"',
    ],
)
def test_the_line_comes_out_as_it_went_in(line: str) -> None:
    assert parse(line).text == line


def test_what_is_in_quotes_is_no_token() -> None:
    found = parse('"stat:dead"')
    assert (found.words, found.problems) == (("stat:dead",), ())


def test_an_unknown_token_can_be_removed_and_stays_otherwise() -> None:
    found = parse("stat:dead hello")
    assert [(chip.text, chip.url) for chip in found.chips] == [
        ("stat:dead", "?q=hello"),
        ("hello", "?q=stat%3Adead"),
    ]
    assert found.toggled("state", "held") == "?q=state%3Aheld+stat%3Adead+hello"


def test_a_facet_shows_what_there_is_and_what_is_on() -> None:
    found = filters.facet(
        "State", "state", {"dead": 2, "held": 0}, parse("state:held"), is_partial=True, order=("held",)
    )
    assert [(choice.label, choice.count, choice.is_on) for choice in found.choices] == [
        ("held", "0", True),
        ("dead", "2+", False),
    ]
