"""Long conversations are summed up by the agent itself, after the answer."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt.agents import python
from botsrt.conf import RuntimeConfig
from botsrt.core.states import HistoryKind
from botsrt.models import DLQItem, HistoryMessage
from tests.runtime.conftest import running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys.agents import Summing

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def summing(monkeypatch: pytest.MonkeyPatch) -> Summing:
    """The agent of the bots of a test, with its ways of summing up."""
    target = Summing()
    monkeypatch.setattr(toy_agents, "summing", target, raising=False)
    monkeypatch.setattr(python.Agent, "compact_after", target.compact_after, raising=False)
    monkeypatch.setattr(python.Agent, "summarize", staticmethod(target.summarize), raising=False)
    return target


def _has(count: int) -> bool:
    return HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).count() == count


async def _say(hub: Any, number: int) -> None:
    hub.write(f"m{number}", message_id=str(number))
    await until(lambda: len(hub.sent) == number)


async def test_the_model_is_given_the_summary_in_place_of_what_it_sums_up(
    transactional_db: None, config: RuntimeConfig, summing: Summing
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="summing")
    async with running(config):
        for number in range(1, 4):
            await _say(hub, number)
        await until_db(partial(_has, 1))
        await _say(hub, 4)
    given = [item.text for item in toy_agents.REQUESTS[-1].history]
    assert given == ["[What was said before, summed up: |m1,re m1,m2,re m2]", "m3", "re m3"]


async def test_a_summary_that_fails_breaks_no_turn(
    transactional_db: None, config: RuntimeConfig, summing: Summing, caplog: pytest.LogCaptureFixture
) -> None:
    summing.fails = True
    hub = await sync_to_async(toy_bot)("shop", agent="summing")
    async with running(config):
        for number in range(1, 6):
            await _say(hub, number)
        await until(lambda: "was not summed up: RuntimeError: no" in caplog.text)
    assert hub.texts() == [f"re m{number}" for number in range(1, 6)]
    assert [item.text for item in toy_agents.REQUESTS[-1].history][:2] == ["m1", "re m1"]
    assert not await sync_to_async(DLQItem.objects.exists)()
