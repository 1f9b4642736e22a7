"""The sink of adapters: what they hand on is stored when the call returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt.core.messages import Answer, DeliveryReport, InboundMessage, Sender
from botsrt.core.states import Fate, Outcome
from botsrt.models import AuditEvent, JournalEntry, OutboxMessage
from botsrt.runtime import intake
from botsrt.runtime.db import Database
from botsrt.runtime.intake import Intake
from botsrt.services import identity
from tests.factories import NOW, a_bot, a_message, claim_one, finish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def database(transactional_db: None) -> AsyncIterator[Database]:
    await sync_to_async(a_bot)("line", platform="whatsapp")
    bridge = Database(max_batch=64)
    yield bridge
    await bridge.close()


@pytest.fixture
def sink(database: Database) -> Intake:
    return Intake(database, platform="whatsapp", account="line")


def said(user_id: str = "1650", *aliases: str, message_id: str | None = None) -> InboundMessage:
    message = a_message(platform="whatsapp", account="line", channel_id="chat-1", message_id=message_id)
    return replace(message, sender=Sender(user_id=user_id, aliases=aliases))


# -- ids of one human ----


async def test_all_ids_of_a_sender_are_one_lane_from_the_first_message_on(sink: Intake) -> None:
    await sink.receive(said("1650", "US.1"))
    await sink.receive(said("US.1"))
    lanes = await sync_to_async(lambda: set(JournalEntry.objects.values_list("lane", flat=True)))()
    assert len(lanes) == 1


async def test_what_is_known_is_not_asked_again_but_what_is_new_is(
    sink: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    known_as = identity.known_as

    def watched(**arguments: Any) -> None:
        asked.append((arguments["user_id"], arguments["aliases"]))
        known_as(**arguments)

    monkeypatch.setattr(identity, "known_as", watched)
    monkeypatch.setattr(intake, "_MAX_KNOWN", 1)
    for message in (said("1650", "US.1"), said("1650", "US.1"), said("1650"), said("1650", "US.2")):
        await sink.receive(message)
    assert asked == [("1650", ("US.1",)), ("1650", ("US.2",))]
    await sink.receive(said("1651", "US.3"))
    await sink.receive(said("1650", "US.2"))
    assert asked[2:] == [("1651", ("US.3",)), ("1650", ("US.2",))], "It is bounded; asking again does no harm."
    assert await sync_to_async(AuditEvent.objects.filter(verb="identity.alias").count)() == 3


# -- reports ----


async def test_reports_of_what_is_not_known_are_counted(sink: Intake, caplog: pytest.LogCaptureFixture) -> None:
    reports = [
        DeliveryReport(idempotency_key=f"nobody:{number}", platform_message_id="x", fate=Fate.READ, at=NOW)
        for number in range(3)
    ]
    with caplog.at_level(logging.INFO):
        await sink.reported(reports)
        await sink.reported(reports[:1])
    assert sink.unknown_reports == 4
    assert "1 reports of messages that are not known here; 4 since the start" in caplog.text


async def test_a_report_is_stored_when_the_call_returns(sink: Intake) -> None:
    await sink.receive(said())
    await sync_to_async(lambda: finish(claim_one(now=_later()), ("Hi there",), now=_later()))()
    row = await OutboxMessage.objects.aget()
    report = DeliveryReport(
        idempotency_key=row.idempotency_key, platform_message_id="wamid.1", fate=Fate.DELIVERED, at=NOW
    )
    await sink.reported([report])
    await row.arefresh_from_db()
    assert (row.delivered_at, sink.unknown_reports) == (NOW, 0)


# -- callers that wait ----


async def test_who_waits_gets_the_answer_when_it_is_there(sink: Intake) -> None:
    message = said(message_id="m-1")
    await sink.receive(message)
    waiting = asyncio.create_task(sink.answer_to(message, within=timedelta(seconds=30)))
    await sync_to_async(lambda: finish(claim_one(now=_later()), ("Hi there",), now=_later()))()
    assert await waiting == Answer(outcome=Outcome.ANSWERED, texts=("Hi there",))
    assert await sink.answer_to(message, within=timedelta()) == await waiting


async def test_who_does_not_wait_long_enough_gets_none(sink: Intake) -> None:
    message = said(message_id="m-1")
    await sink.receive(message)
    assert await sink.answer_to(message, within=timedelta()) == Answer()
    assert await sink.answer_to(message, within=timedelta(seconds=0.05)) == Answer()


def _later() -> Any:
    """After what was received by the real clock."""
    return JournalEntry.objects.latest("id").available_at + timedelta(seconds=1)
