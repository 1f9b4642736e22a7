"""Commands while the agent thinks, in a real worker: answered at once, and obeyed at once."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core.states import EntryState, Outcome, TurnState, UnknownUserPolicy
from botsrt.models import HistoryMessage, JournalEntry, Turn
from botsrt.services import ledger
from tests.factories import LEASE
from tests.patience import SECOND
from tests.runtime.conftest import SETTINGS, running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys.toy import Hub

pytestmark = pytest.mark.django_db(transaction=True)


def assert_balanced() -> None:
    report = ledger.check(since=None, lease=LEASE, now=timezone.now())
    assert report.is_balanced, report


def is_claimed() -> bool:
    return JournalEntry.objects.filter(state=EntryState.CLAIMED, command="").exists()


def _has_sent(hub: Hub, count: int) -> bool:
    return len(hub.sent) == count


async def test_commands_are_answered_while_the_agent_thinks(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config):
        hub.write("first", message_id="1")
        await until(toy_agents.STARTED.is_set)
        for number, command in enumerate(("/help", "/status", "/whoami"), start=2):
            asked_at = time.monotonic()
            hub.write(command, message_id=str(number))
            hub.write(command, message_id=str(number))
            await until(partial(_has_sent, hub, number - 1))
            assert time.monotonic() - asked_at < SECOND
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 4)
    assert hub.texts()[3] == "waited: first"
    await sync_to_async(assert_balanced)()


async def test_a_new_conversation_begins_when_the_answer_is_there(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config):
        hub.write("first", message_id="1")
        await until(toy_agents.STARTED.is_set)
        hub.write("/new", message_id="2")
        hub.write("/status", message_id="3")
        await until(lambda: len(hub.sent) == 1)
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 3)
        hub.write("second", message_id="4")
        await until(lambda: len(hub.sent) == 4)
    assert hub.texts()[1] == "waited: first"
    assert toy_agents.REQUESTS[-1].history == ()


async def test_stop_ends_the_run_and_frees_the_worker(
    transactional_db: None, settings: Any, config: RuntimeConfig
) -> None:
    settings.BOTSRT = SETTINGS | {"CONCURRENCY": "1"}
    conf.load.cache_clear()
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(conf.load()) as worker:
        hub.write("first", message_id="1")
        await until(toy_agents.STARTED.is_set)
        asked_at = time.monotonic()
        hub.write("/stop", message_id="2")
        await until(lambda: hub.sent)
        await until(lambda: not worker._pump.running)
        assert time.monotonic() - asked_at < SECOND
        assert hub.texts() == ["Stopped."]
        toy_agents.LET_GO.set()
        hub.write("second", message_id="3")
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts()[1] == "waited: second"
    assert [item.text for item in toy_agents.REQUESTS[1].history] == ["first"]
    first = await sync_to_async(lambda: JournalEntry.objects.select_related("turn").get(message_id="1"))()
    assert first.turn is not None
    assert (first.outcome, first.outcome_reason) == (Outcome.SILENT, "stopped")
    assert first.turn.state == TurnState.CANCELLED
    await sync_to_async(assert_balanced)()


async def test_stop_ends_the_run_of_another_worker(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config) as one, running(config) as two:
        for number in range(4):  # so that both have some
            hub.write("a long story", user=f"u{number}", message_id=f"a{number}")
        await until(lambda: len(one._pump.running) + len(two._pump.running) == 4)
        for number in range(4):
            hub.write("/stop", user=f"u{number}", message_id=f"b{number}")
        await until(lambda: len(hub.sent) == 4)
        await until(lambda: not one._pump.running and not two._pump.running, seconds=1)
        toy_agents.LET_GO.set()
    assert [message.text for message in hub.sent] == ["Stopped."] * 4
    await sync_to_async(assert_balanced)()


async def test_a_run_goes_on_in_the_next_worker_and_its_commands_are_not_answered_again(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config):
        hub.write("first", message_id="1")
        await until_db(is_claimed)
        hub.write("/status", message_id="2")
        await until(lambda: hub.sent)
    async with running(config):
        await until(toy_agents.STARTED.is_set)
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts()[1] == "waited: first"
    assert hub.texts()[0].startswith("I have been working")


async def test_strangers_neither_stop_nor_learn_anything(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)(
        "shop", agent="waits", policy=UnknownUserPolicy.DENY, settings={"allowed_users": "ann"}
    )
    async with running(config):
        hub.write("hello", user="ann", chat="room", mentioned=True, message_id="1")
        await until(toy_agents.STARTED.is_set)
        for number, command in enumerate(("/stop", "/status", "/retry", "/help"), start=2):
            hub.write(command, user="eve", chat="room", message_id=str(number))
        await until_db(lambda: JournalEntry.objects.filter(outcome_reason="policy_deny").count() == 4)
        toy_agents.LET_GO.set()
        await until(lambda: hub.sent)
    assert hub.texts("room") == ["waited: ann: hello"]
    assert not await sync_to_async(HistoryMessage.objects.filter(text__startswith="/").exists)()
    assert await sync_to_async(Turn.objects.filter(state=TurnState.CANCELLED).count)() == 0


# -- the pace of a bot ----


async def test_a_burst_is_one_request_and_one_answer_soon_after_it(
    transactional_db: None, settings: Any, config: RuntimeConfig
) -> None:
    settings.BOTSRT = SETTINGS | {"POLL_SECONDS": "5"}
    conf.load.cache_clear()
    hub = await sync_to_async(toy_bot)("shop", agent="listing", settings={"debounce_ms": "300"})
    async with running(conf.load()):
        for number in range(5):
            hub.write(f"m{number}", message_id=str(number))
        said_at = time.monotonic()
        await until(lambda: hub.sent)
        assert 0.3 <= time.monotonic() - said_at < 0.3 + SECOND
    assert hub.texts() == ["0: m0\nm1\nm2\nm3\nm4"]
    assert len(toy_agents.REQUESTS) == 1
    assert await sync_to_async(JournalEntry.objects.filter(outcome=Outcome.ANSWERED).count)() == 5
    await sync_to_async(assert_balanced)()


async def test_an_album_is_one_request_with_all_its_files_and_one_answer(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="listing", settings={"group_respond": "mention"})
    async with running(config):
        for number in range(4):
            part: dict[str, Any] = {"album": "a1", "files": [f"file-{number}"]}
            hub.write("look" if number == 0 else "", message_id=f"a{number}", **part)
            hub.write("bot, look" * (number == 2), message_id=f"b{number}", chat="room", mentioned=number == 2, **part)
        hub.write("which one?", message_id="c")
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts() == ["0: look\nwhich one?"]
    assert hub.texts("room") == ["0: ann: bot, look"]
    for request in toy_agents.REQUESTS:
        assert [attachment.reference for attachment in request.attachments] == [f"file-{n}" for n in range(4)]
    assert await sync_to_async(JournalEntry.objects.filter(outcome=Outcome.ANSWERED).count)() == 9
    await sync_to_async(assert_balanced)()


async def test_a_newer_message_interrupts_the_agent_itself(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits", settings={"busy": "interrupt", "busy_ack": "Again."})
    async with running(config) as worker:
        hub.write("one", message_id="1")
        await until(toy_agents.STARTED.is_set)
        (first,) = worker._pump.running
        asked_at = time.monotonic()
        hub.write("two", message_id="2")
        await until(lambda: len(toy_agents.REQUESTS) == 2)
        await until(lambda: first not in worker._pump.running)
        await until(lambda: hub.texts() == ["Again."])
        assert time.monotonic() - asked_at < SECOND
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts() == ["Again.", "waited: one\ntwo"]
    await sync_to_async(assert_balanced)()


async def test_who_writes_meanwhile_is_told_within_a_second(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits", settings={"busy_ack": "One moment."})
    async with running(config):
        hub.write("one", message_id="1")
        await until(toy_agents.STARTED.is_set)
        asked_at = time.monotonic()
        for number in (2, 3):
            hub.write("hello?", message_id=str(number))
        await until(lambda: hub.sent)
        assert time.monotonic() - asked_at < SECOND
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 3)
    assert hub.texts() == ["One moment.", "waited: one", "waited: hello?\nhello?"]


async def test_a_running_agent_takes_messages_along_until_it_refuses(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="steered", settings={"busy": "steer"})
    async with running(config):
        hub.write("one", message_id="1")
        await until(toy_agents.STARTED.is_set)
        texts = toy_agents.steered.texts[toy_agents.REQUESTS[0].turn_id]
        for number, text in enumerate(("two", "three"), start=2):
            hub.write(text, message_id=str(number))
            await until(lambda: texts[-1] == text, seconds=1)  # noqa: B023
        hub.write("four", message_id="4")
        await until_db(lambda: JournalEntry.objects.filter(message_id="4", state=EntryState.PENDING).exists())
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts() == ["one + two + three", "four"]
    assert await sync_to_async(JournalEntry.objects.filter(outcome=Outcome.ANSWERED).count)() == 4
    await sync_to_async(assert_balanced)()


async def test_an_agent_that_cannot_be_steered_answers_one_after_the_other(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits", settings={"busy": "steer"})
    async with running(config):
        hub.write("one", message_id="1")
        await until(toy_agents.STARTED.is_set)
        hub.write("two", message_id="2")
        await until_db(lambda: JournalEntry.objects.filter(message_id="2", state=EntryState.PENDING).exists())
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts() == ["waited: one", "waited: two"]
    await sync_to_async(assert_balanced)()
