"""A language model behind a worker: what its server does, and what becomes of the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pydantic_ai.models.openai  # noqa: F401  it takes seconds, which are not to count as a model's
import pytest
from asgiref.sync import sync_to_async

from botsrt.conf import RuntimeConfig
from botsrt.core.states import DLQReason, EntryState, OutboxState, TurnState
from botsrt.models import DLQItem, JournalEntry, OutboxMessage, Turn
from botsrt.runtime import platforms, previews, turn
from botsrt.services import bots
from tests.factories import ALICE, NOW
from tests.fakes.openai import OpenAIServer
from tests.runtime.conftest import give_agent, running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys.toy import HUBS, Hub

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = 50


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(previews, "FIRST_AFTER_SECONDS", 0.05)
    async with OpenAIServer() as server:
        monkeypatch.setattr(toy_agents, "URL", server.url)
        yield server


@pytest.fixture
async def hub(transactional_db: None, server: OpenAIServer) -> Hub:
    """The toy bot "shop", answered by the model."""

    def add() -> None:
        bots.add_agent(
            name="model",
            kind="llm",
            options=platforms.agent_options("llm"),
            settings={"model": "gpt-4.1-mini", "base_url": server.url},
            actor=ALICE,
            now=NOW,
        )
        toy_bot("shop")
        change = bots.Changes(agent="model")
        bots.change(account="shop", shape=platforms.shape("toy"), changes=change, actor=ALICE, now=NOW)

    await sync_to_async(add)()
    return HUBS["shop"]


async def until_sent(count: int) -> None:
    await until_db(lambda: OutboxMessage.objects.filter(state=OutboxState.SENT).count() == count, seconds=30)


async def test_a_streamed_answer_is_one_message(hub: Hub, server: OpenAIServer, config: RuntimeConfig) -> None:
    server.say("It costs three euros, and not a cent less.", pause=0.05)
    async with running(config):
        hub.write("How much is rye?", message_id="1")
        await until_sent(1)
    assert hub.texts() == ["It costs three euros, and not a cent less."]
    shown = [message.text for message in hub.edits if message.is_unfinished]
    assert shown
    assert all("It costs three euros, and not a cent less.".startswith(text.removesuffix(" …")) for text in shown)
    usage = await sync_to_async(lambda: Turn.objects.get().usage)()
    assert (usage["input_tokens"], usage["output_tokens"]) == (11, 7)


async def test_a_rate_limit_and_then_an_answer_is_one_answer(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig
) -> None:
    server.fail(429, retry_after="6")
    server.say("Three euros.")
    async with running(config):
        hub.write("How much is rye?", message_id="1")
        await until_db(lambda: JournalEntry.objects.filter(attempts=1).exists())
        row = await sync_to_async(JournalEntry.objects.get)()
        failed_at = await sync_to_async(lambda: Turn.objects.get().finished_at)()
        assert failed_at is not None
        assert (row.available_at - failed_at).total_seconds() >= 6
        await until_sent(1)
    assert hub.texts() == ["Three euros."]
    assert len(server.requests) == 2


async def test_a_refused_key_waits_says_so_and_uses_up_no_attempt(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "_UNAVAILABLE_WAIT", timedelta(seconds=0.5))
    server.fail(401)
    server.say("Three euros.")
    async with running(config):
        hub.write("How much is rye?", message_id="1")
        await until_db(lambda: Turn.objects.filter(state=TurnState.CANCELLED).exists())
        said = await sync_to_async(lambda: Turn.objects.get(state=TurnState.CANCELLED).error_text)()
        assert said == "The provider refuses the key of OPENAI_API_KEY."
        await until_sent(1)
    assert hub.texts() == ["Three euros."]
    assert await sync_to_async(lambda: JournalEntry.objects.get().attempts)() == 0


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_model_that_hangs_is_cut_and_its_connection_closed(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig, is_silent: bool
) -> None:
    """Before its first word, or in the middle of a sentence."""
    if is_silent:
        server.say("too late", seconds=60)
    else:
        server.begin("It costs", end="hang")
    async with running(config):
        hub.write("How much is rye?", message_id="1")
        await until_db(DLQItem.objects.exists)
        await until(lambda: server.cut == 1, seconds=2)
        await until_sent(1)
        await until(lambda: hub.texts() == [config.trouble_text])
    item = await sync_to_async(DLQItem.objects.get)()
    assert item.reason == DLQReason.TIMED_OUT


async def test_a_conversation_that_is_stopped_closes_the_connection(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig
) -> None:
    server.say("word " * 1_000, pause=0.02)
    async with running(config):
        hub.write("talk", message_id="1")
        await until(lambda: hub.sent)
        assert server.cut == 0
    await until(lambda: server.cut == 1, seconds=2)
    assert hub.texts() == []


@pytest.mark.parametrize("kind", ["llm", "python"])
async def test_no_text_of_one_is_in_anothers_request(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig, kind: str
) -> None:
    """What the model is asked, as its server has it: two messages each of many people at once, on one agent."""
    if kind == "python":
        await sync_to_async(_give_the_caller)()
    async with running(config):
        for number in range(2):
            for person in range(PEOPLE):
                hub.write(f"secret-{person}-{number}", user=f"user-{person}", message_id=f"{person}-{number}")
            await until_sent(PEOPLE * (number + 1))
    assert len(server.requests) == 2 * PEOPLE
    longest = 0
    for asked in server.requests:
        said = [message["content"] for message in asked["messages"] if message["role"] in ("user", "assistant")]
        owners = {text.split("-")[1] for text in said}
        assert len(owners) == 1, said
        longest = max(longest, len(said))
    assert longest == 3, "The second question comes with the first, and its answer."
    for person in range(PEOPLE):
        assert hub.texts(f"user-{person}") == [f"secret-{person}-0", f"secret-{person}-1"]
    assert await sync_to_async(lambda: set(JournalEntry.objects.values_list("state", flat=True)))() == {
        EntryState.COMPLETED
    }


def _give_the_caller() -> None:
    give_agent("Caller")
    change = bots.Changes(agent="Caller")
    bots.change(account="shop", shape=platforms.shape("toy"), changes=change, actor=ALICE, now=NOW)


async def test_a_message_that_comes_while_the_model_thinks_is_part_of_the_answer(
    hub: Hub, server: OpenAIServer, config: RuntimeConfig
) -> None:
    steer = bots.Changes(settings={"busy": "steer"})
    shape = platforms.shape("toy")
    await sync_to_async(bots.change)(account="shop", shape=shape, changes=steer, actor=ALICE, now=NOW)
    server.say("Rye is 3.", seconds=1)
    server.say("Cake is 4.")
    async with running(config):
        hub.write("How much is rye?", message_id="1")
        await until(lambda: server.requests)
        hub.write("And cake?", message_id="2")
        await until_sent(1)
    assert hub.texts() == ["Rye is 3.\n\nCake is 4."]
    rows = await sync_to_async(lambda: list(JournalEntry.objects.values_list("state", "turn")))()
    assert len({turn_id for _, turn_id in rows}) == 1
    assert {state for state, _ in rows} == {EntryState.COMPLETED}
    assert server.requests[1]["messages"][-1]["content"] == "And cake?"
