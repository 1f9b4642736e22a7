"""What a worker claims in the moment in which it is asked to stop is done, not cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt.conf import RuntimeConfig
from botsrt.core.states import EntryState, OutboxState
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.runtime.db import Database
from botsrt.services import claims, outbox
from tests.runtime.conftest import running
from tests.toys.toy import Hub

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """Lets calls of one service come back from the database only when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, service: Callable[..., list[Any]]) -> None:
        self.has_result = asyncio.Event()
        self.opened = asyncio.Event()
        call = Database.call

        async def gated(database: Database, function: Callable[..., Any], /, **arguments: Any) -> Any:
            result = await call(database, function, **arguments)
            if function is service and result:
                self.has_result.set()
                await self.opened.wait()
            return result

        monkeypatch.setattr(Database, "call", gated)


async def test_a_message_that_is_claimed_while_the_worker_stops_is_sent(
    hub: Hub, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config) as worker:
        gate = Gate(monkeypatch, outbox.claim)
        hub.write("hello", message_id="1")
        await gate.has_result.wait()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.wait({stopping}, timeout=1)  # as far as it comes
        gate.opened.set()
        await stopping
        states = await sync_to_async(lambda: list(OutboxMessage.objects.values_list("state", flat=True)))()
    assert hub.texts() == ["hello"]
    assert states == [OutboxState.SENT]


async def test_a_turn_that_is_claimed_while_the_worker_stops_has_its_grace(
    hub: Hub, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(config) as worker:
        gate = Gate(monkeypatch, claims.claim)
        hub.write("hello", message_id="1")
        await gate.has_result.wait()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.wait({stopping}, timeout=1)
        gate.opened.set()
        await stopping
        states = await sync_to_async(lambda: list(JournalEntry.objects.values_list("state", flat=True)))()
    assert states == [EntryState.COMPLETED]
