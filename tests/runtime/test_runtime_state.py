"""What an agent keeps from turn to turn, through a worker."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from botsrt.conf import RuntimeConfig
from botsrt.core.ports import AgentReply, AgentRequest
from botsrt.models import Bot, BotSession, DLQItem
from botsrt.runtime import platforms
from botsrt.services import bots
from botsrt.services.bots import Changes
from tests.factories import ALICE, NOW, an_agent
from tests.runtime.conftest import running, until, until_db
from tests.toys.toy import Hub

pytestmark = pytest.mark.django_db(transaction=True)


async def keeping(request: AgentRequest) -> AgentReply:
    """Say how many turns it remembers, and keep what it was asked."""
    remembered = request.runtime_state.get("python", {})
    times = 20_000 if request.text == "too much" else 1
    return AgentReply(text=f"remembers {len(remembered)}", runtime_state={"asked": request.text * times})


def mirror(value: str) -> None:
    changes = Changes(settings={"mirror_runtime_state": value})
    bots.change(account="shop", shape=platforms.shape("toy"), changes=changes, actor=ALICE, now=NOW)


def kept() -> list[str]:
    return [state["asked"] for state in BotSession.objects.get().runtime_state.get("python", {}).values()]


@pytest.fixture(autouse=True)
def _agent(hub: Hub) -> None:
    target = "tests.runtime.test_runtime_state:keeping"
    Bot.objects.update(agent=an_agent("keeping", kind="python", settings={"target": target}))


async def test_it_is_stored_and_restored_while_the_bot_mirrors_it(hub: Hub, config: RuntimeConfig) -> None:
    await sync_to_async(mirror)("on")
    async with running(config):
        for number in range(3):
            hub.write(f"message {number}", message_id=str(number))
            await until(lambda: len(hub.sent) == number + 1)  # noqa: B023  awaited here
    assert hub.texts() == ["remembers 0", "remembers 1", "remembers 2"]
    assert await sync_to_async(kept)() == ["message 0", "message 1", "message 2"]


async def test_a_restart_changes_nothing_and_a_new_conversation_forgets(hub: Hub, config: RuntimeConfig) -> None:
    await sync_to_async(mirror)("on")
    for number, text in enumerate(("before", "after", "/new", "anew")):
        async with running(config):
            hub.write(text, message_id=str(number))
            await until(lambda: len(hub.sent) == number + 1)  # noqa: B023  awaited here
    assert [hub.texts()[number] for number in (0, 1, 3)] == ["remembers 0", "remembers 1", "remembers 0"]
    assert await sync_to_async(kept)() == ["anew"]


async def test_nothing_is_stored_or_restored_without_the_setting(hub: Hub, config: RuntimeConfig) -> None:
    async with running(config):
        for number in range(2):
            hub.write("hello", message_id=str(number))
            await until(lambda: len(hub.sent) == number + 1)  # noqa: B023  awaited here
    assert hub.texts() == ["remembers 0", "remembers 0"]
    assert await sync_to_async(kept)() == []


async def test_what_is_too_large_fails_the_turn_and_says_why(hub: Hub, config: RuntimeConfig) -> None:
    await sync_to_async(mirror)("on")
    async with running(config):
        hub.write("too much", message_id="1")
        await until_db(DLQItem.objects.exists)
    item = await sync_to_async(DLQItem.objects.get)()
    assert "a session can keep 10,240" in item.error_text
    assert await sync_to_async(kept)() == []
