"""Commands of one's own in a real worker: answered while the agent works, and harmless when they break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt import conf, extensions
from botsrt.conf import RuntimeConfig
from botsrt.core import commands
from botsrt.core.states import DLQReason, HistoryKind, Outcome, UnknownUserPolicy
from botsrt.models import DLQItem, HistoryMessage, JournalEntry
from botsrt.runtime import customs
from botsrt.services import ledger
from tests.factories import LEASE
from tests.runtime.conftest import SETTINGS, running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys import chat_commands

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = ("hours", "later", "stock", "diary", "quiet", "breaks", "exits", "blocks", "numbers")


@pytest.fixture(autouse=True)
def config(settings: Any) -> Iterator[RuntimeConfig]:
    named = ",".join(f"tests.toys.chat_commands:{name}" for name in NAMES)
    settings.BOTSRT = SETTINGS | {"COMMANDS": named, "RUN_TIMEOUT_SECONDS": "30"}
    conf.load.cache_clear()
    commands.find_own_with(extensions.usable)
    chat_commands.LET_GO.clear()
    yield conf.load()
    chat_commands.LET_GO.set()
    commands.find_own_with(extensions.usable)


def assert_balanced() -> None:
    report = ledger.check(since=None, lease=LEASE, now=timezone.now())
    assert report.is_balanced, report


async def test_they_are_answered_while_the_agent_works(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config):
        hub.write("first", message_id="1")
        await until(toy_agents.STARTED.is_set)
        hub.write("/hours Sunday", message_id="2", name="Ann")
        await until(lambda: len(hub.sent) == 1)
        hub.write("/later", message_id="3")
        await until(lambda: len(hub.sent) == 2)
        hub.write("/quiet", message_id="4")
        await until_db(lambda: JournalEntry.objects.filter(message_id="4", outcome=Outcome.SILENT).exists())
        toy_agents.LET_GO.set()
        await until(lambda: len(hub.sent) == 3)
    assert hub.texts() == ["Ann, we are open from 9 to 5 on Sunday.", "shop bot_toy_ann", "waited: first"]
    kinds = await sync_to_async(
        lambda: set(HistoryMessage.objects.filter(text__contains="9 to 5").values_list("kind"))
    )()
    assert kinds == {(HistoryKind.COMMAND,)}
    await sync_to_async(assert_balanced)()


async def test_help_names_those_that_one_may_use(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", settings={"owners": "olga"})
    async with running(config):
        hub.write("/help", message_id="1")
        hub.write("/help", message_id="2", user="olga")
        hub.write("/help", message_id="3", chat="room")
        await until(lambda: len(hub.sent) == 3)
    said = {channel: hub.texts(channel)[0] for channel in ("ann", "olga", "room")}
    assert "/hours – when we are open" in said["ann"]
    assert "/stock" not in said["ann"]
    assert "/stock – what is left" in said["olga"]
    assert "/diary" in said["ann"]
    assert "/diary" not in said["room"]


async def test_who_may_not_use_one_is_told_so(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", settings={"owners": "olga"})
    async with running(config):
        hub.write("/stock", message_id="1")
        hub.write("/stock", message_id="2", user="olga")
        hub.write("/diary", message_id="3", chat="room")
        await until(lambda: len(hub.sent) == 3)
    assert hub.texts() == ["Only an owner of this bot can use this."]
    assert hub.texts("olga") == ["olga, we are open from 9 to 5."]
    assert hub.texts("room") == ["Please send this to me in a direct message."]


async def test_strangers_get_no_answer(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", policy=UnknownUserPolicy.DENY)
    async with running(config):
        hub.write("/hours", message_id="1")
        await until_db(lambda: JournalEntry.objects.filter(outcome_reason="policy_deny").exists())
    assert hub.sent == []


@pytest.mark.parametrize("name", ["breaks", "exits", "numbers"])
async def test_one_that_fails_is_a_dead_letter_and_harms_no_other(
    transactional_db: None, config: RuntimeConfig, name: str
) -> None:
    hub = await sync_to_async(toy_bot)("shop")
    async with running(config):
        hub.write(f"/{name}", message_id="1")
        await until(lambda: len(hub.sent) == 1)
        hub.write("/hours", message_id="2")
        hub.write("hello", message_id="3")
        await until(lambda: len(hub.sent) == 3)
    assert hub.texts()[0] == config.trouble_text
    item = await sync_to_async(lambda: DLQItem.objects.select_related("entry").get())()
    assert (item.reason, item.entry.command) == (DLQReason.FAILED, name)
    await sync_to_async(assert_balanced)()


async def test_one_that_blocks_keeps_nobody_waiting(
    transactional_db: None, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customs, "PATIENCE_SECONDS", 0.5)
    hub = await sync_to_async(toy_bot)("shop")
    async with running(config):
        hub.write("/blocks", message_id="1")
        hub.write("/hours", message_id="2", user="bob")
        await until(lambda: hub.texts("bob") == ["bob, we are open from 9 to 5."])
        await until(lambda: hub.texts() == [config.trouble_text])
        hub.write("/hours", message_id="3")
        await until(lambda: len(hub.texts()) == 2)
    assert (await sync_to_async(DLQItem.objects.get)()).reason == DLQReason.TIMED_OUT
    await sync_to_async(assert_balanced)()


async def test_one_whose_package_went_away_meanwhile_says_so(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await sync_to_async(toy_bot)("shop", agent="waits")
    async with running(config):
        hub.write("/hours", message_id="1")
        await until(lambda: len(hub.sent) == 1)
        await sync_to_async(JournalEntry.objects.filter(message_id="1").update)(command="gone")
        commands.find_own_with(extensions.usable)
        await sync_to_async(
            lambda: JournalEntry.objects.filter(message_id="1").update(state="pending", outcome="", completed_at=None)
        )()
        await until(lambda: len(hub.sent) == 2)
    assert hub.texts()[1] == "I do not know /gone any more."
