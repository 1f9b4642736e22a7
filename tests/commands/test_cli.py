"""What the commands share: arguments, tables, and text that no terminal obeys."""

from __future__ import annotations

import getpass
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.management import cli
from tests.factories import a_bot, answered, received

# -- arguments ----


def test_pairs_are_names_and_values():
    assert cli.pairs(["a=1", "b=x=y", "c="], flag="--setting") == {"a": "1", "b": "x=y", "c": ""}
    assert cli.pairs(None, flag="--setting") == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["colour"], "--setting: 'colour' is not of the form NAME=VALUE"),
        (["=red"], "'=red' is not of the form"),
        (["a=1", "a=2"], "a is given twice"),
    ],
)
def test_pairs_that_are_none_are_refused(words: list[str], says: str):
    with pytest.raises(CommandError, match=says):
        cli.pairs(words, flag="--setting")


def test_a_credential_without_its_name_is_not_repeated():
    with pytest.raises(CommandError) as caught:
        cli.pairs(["xoxb-very-secret"], flag="--credential")
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "one", "", " 1", "²", "9223372036854775808", "9" * 5_000])
def test_ids_are_whole_numbers_that_databases_have(text: str):
    with pytest.raises(ArgumentTypeError, match="is not a whole number from 1 to 9223372036854775807"):
        cli.row_id(text)


def test_the_largest_id_is_an_id():
    assert cli.row_id("9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(("text", "span"), [("90m", 90 * 60), ("24h", 86_400), ("7d", 7 * 86_400), ("30s", 30)])
def test_a_span_goes_back_from_now(text: str, span: int):
    at = cli.since(text)
    assert at is not None
    assert abs(timezone.now() - timedelta(seconds=span) - at) < timedelta(seconds=5)


def test_a_time_without_a_zone_is_utc():
    assert cli.since("2026-01-15T12:00") == datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert cli.since("2026-01-15T12:00+02:00") == datetime(2026, 1, 15, 10, tzinfo=UTC)
    assert cli.since(None) is None


@pytest.mark.parametrize("text", ["yesterday", "7w", "-1h", "", "2026-13-01", f"{'9' * 30}d", "9" * 5_000 + "d"])
def test_a_time_that_is_none_is_refused(text: str):
    with pytest.raises(CommandError, match="neither a span"):
        cli.since(text)


def test_a_user_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch):
    def no_name() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", no_name)
    assert cli.actor().name.removeprefix("os:").isdigit()


# -- ages ----


@pytest.mark.parametrize(
    ("seconds", "said"), [(5, "5 s ago"), (150, "2 m ago"), (7_300, "2 h ago"), (200_000, "2 d ago"), (-290, "in 4 m")]
)
def test_ages_are_one_unit(seconds: int, said: str, monkeypatch: pytest.MonkeyPatch):
    now = datetime(2026, 1, 15, tzinfo=UTC)
    monkeypatch.setattr("botsrt.management.cli.timezone.now", lambda: now)
    assert cli.age(now - timedelta(seconds=seconds)) == said


def test_no_time_is_never():
    assert cli.age(None) == "never"


# -- what is printed ----

NASTY = "red \x1b[31malert\x07 \x9b2J\u202eback"


def test_harmless_text_keeps_its_lines():
    assert cli.harmless("one\n\ttwo é 🙂") == "one\n\ttwo é 🙂"
    assert not set("\x1b\x07\x9b\u202e") & set(cli.harmless(NASTY))


@pytest.mark.django_db(transaction=True)
def test_no_command_prints_what_a_terminal_obeys(manage: Any):
    a_bot()
    entry = answered(f"first line\n{NASTY}", NASTY)
    for args in (
        ("journal", "list"),
        ("journal", "show", str(entry.pk)),
        ("journal", "show", str(entry.pk), "--json"),
        ("journal", "replay", str(entry.pk), "--mode", "dry-run"),
        ("sessions", "show", "bot_web_user-1"),
        ("sessions", "show", "bot_web_user-1", "--json"),
        ("outbox", "list"),
    ):
        ran = manage(*args)
        assert ran.code == 0
        assert "alert" in ran.out
        assert not set("\x1b\x07\x9b\u202e") & set(ran.out), args


@pytest.mark.django_db(transaction=True)
def test_tables_fit_a_hundred_columns_and_keep_what_is_typed_again(manage: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    a_bot("a-rather-long-account-name", settings={"allowed_users": "x" * 80})
    long = received("word " * 200, account="a-rather-long-account-name", user_id="u" * 90)
    for command in ("bots", "agents", "journal", "dlq", "outbox"):
        out = manage(command, "list").out
        assert max(len(line) for line in out.splitlines()) <= 100, out
    out = manage("journal", "list").out
    assert str(long.pk) in out
    assert "a-rather-long-account-name" in out
    assert f"bot_web_{'u' * 90}" in manage("sessions", "list").out, "an id that is cut cannot be typed"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", ["0", "-5", "many", "10001"])
def test_a_limit_that_is_none_is_refused(manage: Any, limit: str):
    assert manage("journal", "list", "--limit", limit).code == 2


@pytest.mark.django_db(transaction=True)
def test_an_id_given_twice_is_one_id(manage: Any):
    a_bot()
    entry = answered("hello")
    ran = manage("journal", "replay", str(entry.pk), str(entry.pk))
    assert ran.code == 0
    assert ran.out.count("runs again") == 1


@pytest.mark.django_db(transaction=True)
def test_the_ids_that_could_not_be_done_are_named(manage: Any):
    a_bot()
    entry = answered("hello")
    ran = manage("journal", "replay", "88888", str(entry.pk), "99999", "--mode", "again")
    assert ran.code == 1
    assert "2 could not be done; the others were: 88888, 99999." in ran.err
