"""``demo``: what it writes adds up, shows every state, and goes where there is nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from botsrt import conf
from botsrt.core.states import BulkState, DLQState, EntryState, Handler, HistoryKind, OutboxState, PairingState
from botsrt.management.demo import player
from botsrt.models import (
    Alert,
    AuditEvent,
    Bot,
    BotSession,
    BulkOperation,
    Contact,
    DLQItem,
    HistoryMessage,
    JournalEntry,
    OutboxMessage,
    Pairing,
)
from botsrt.services import ledger
from tests.factories import a_bot, received


@pytest.fixture(scope="module")
def _played(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """One demo for all tests that only look: it takes its seconds."""
    with django_db_blocker.unblock(), transaction.atomic():
        call_command("demo")
        yield
        transaction.set_rollback(True)


@pytest.fixture
def demo(_played: None) -> Iterator[None]:
    """The demo, as it was written. What a test changes is undone."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.mark.usefixtures("demo")
def test_the_demo_adds_up() -> None:
    report = ledger.check(since=None, lease=timedelta(seconds=30), now=timezone.now())
    assert report.leaks == ()
    assert report.is_balanced
    assert report.received > 150


@pytest.mark.usefixtures("demo")
def test_everything_that_the_pages_show_is_there() -> None:
    assert set(JournalEntry.objects.values_list("state", flat=True)) == set(EntryState)
    assert {"pending", "sent", "unknown", "held", "dead"} <= set(OutboxMessage.objects.values_list("state", flat=True))
    assert set(Pairing.objects.values_list("state", flat=True)) == set(PairingState)
    assert {DLQState.OPEN, DLQState.RESOLVED, DLQState.DISCARDED} == set(
        DLQItem.objects.values_list("state", flat=True)
    )
    assert DLQItem.objects.filter(state=DLQState.OPEN).values("fingerprint").distinct().count() >= 4
    kinds = set(HistoryKind) - {HistoryKind.SUMMARY}  # no agent of the demo sums up
    assert set(HistoryMessage.objects.values_list("kind", flat=True)) == kinds
    assert set(BotSession.objects.values_list("handler", flat=True)) == set(Handler)
    assert set(Bot.objects.values_list("platform", flat=True)) == {"telegram", "slack", "web"}
    assert Contact.objects.count() >= 25
    assert set(BulkOperation.objects.values_list("state", flat=True)) == {BulkState.STOPPED}
    assert AuditEvent.objects.values("verb").distinct().count() >= 15
    assert {alert.cleared_at is None for alert in Alert.objects.all()} == {True, False}


@pytest.mark.usefixtures("demo")
def test_every_hour_of_the_last_day_has_its_messages() -> None:
    since = timezone.now() - timedelta(hours=24)
    times = JournalEntry.objects.filter(received_at__gte=since).values_list("received_at", flat=True)
    assert len({at.replace(minute=0, second=0, microsecond=0) for at in times}) >= 18
    assert max(times) <= timezone.now()


@pytest.mark.usefixtures("demo")
def test_nothing_is_sent_to_a_platform_by_whoever_runs_the_bots_next() -> None:
    secrets = [stored for bot in Bot.objects.all() for stored in bot.credentials.values()]
    assert secrets
    assert all(stored.startswith("env:DEMO_") for stored in secrets)
    assert not OutboxMessage.objects.filter(state=OutboxState.SENDING).exists()


@pytest.mark.django_db
def test_where_there_are_messages_nothing_is_written_unless_asked_for() -> None:
    a_bot("mine")
    received(account="mine")
    with pytest.raises(CommandError, match="messages already"):
        call_command("demo")
    assert JournalEntry.objects.count() == 1
    call_command("demo", "--add")
    assert JournalEntry.objects.count() > 150


@pytest.mark.usefixtures("demo")
def test_a_second_demo_says_that_there_is_one() -> None:
    with pytest.raises(CommandError, match=r"taken: .*shop"):
        call_command("demo", "--add")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["production", "EU-Prod", "live"])
def test_an_installation_that_matters_gets_none(name: str, settings: Any) -> None:
    settings.ENVIRONMENT = name
    with pytest.raises(CommandError, match="does not belong there"):
        call_command("demo", "--add")
    assert not JournalEntry.objects.exists()


@pytest.mark.django_db
def test_two_demos_of_one_moment_say_the_same() -> None:
    assert _said() == _said()


def _said() -> list[tuple[str, str, str]]:
    """What a demo of a fixed moment says, which is then undone."""
    with transaction.atomic():
        player.fill(config=conf.load(), alive=timedelta(minutes=5), now=datetime(2026, 1, 15, 12, 20, tzinfo=UTC))
        said = list(HistoryMessage.objects.order_by("pk").values_list("session__session_id", "kind", "text"))
        transaction.set_rollback(True)
    assert len(said) > 300
    return said
