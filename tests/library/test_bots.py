"""``Bot`` and ``BotOS`` in the loop of a program, on the toy platform."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt import Bot, BotConfig, BotOS, InMemoryIdentityResolver
from botsrt import conf as runtime_conf
from botsrt.core.errors import ConfigurationError, CredentialError, InvalidInput
from botsrt.core.ports import AgentRequest
from botsrt.models import Bot as Row
from botsrt.models import BotSession
from botsrt.services import identity
from tests.runtime.conftest import SETTINGS, until
from tests.toys.toy import HUBS, Hub

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _toys(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.BOTSRT = SETTINGS
    runtime_conf.load.cache_clear()
    HUBS.clear()
    monkeypatch.setenv("TOY_TOKEN", "good")
    monkeypatch.setenv("TOY_POLICY", "allow")


def helper(request: AgentRequest) -> str:
    return f"{len(request.history)}: {request.text}"


@asynccontextmanager
async def running(bot: Bot | BotOS) -> AsyncIterator[Hub]:
    """``start`` until ``stop``, which must make it return."""
    task = asyncio.create_task(bot.start())
    yield HUBS["toy-helper"]
    await bot.stop()
    async with asyncio.timeout(20):
        await task


def row() -> Row:
    return Row.objects.select_related("agent").get()


async def test_it_answers_and_is_a_bot_like_any_other() -> None:
    async with running(Bot("toy", agent=helper)) as hub:
        hub.write("hello", message_id="1")
        await until(lambda: hub.texts() == ["0: hello"])
    stored = await sync_to_async(row)()
    assert (stored.account, stored.policy, stored.agent.name, stored.is_enabled) == (
        "toy-helper",
        "allow",
        "library.helper",
        True,
    )
    assert stored.credentials == {"token": "env:TOY_TOKEN"}


async def test_running_it_again_changes_nothing_and_a_change_only_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        async with running(Bot("toy", agent=helper)) as hub:
            await until(lambda: hub.readers)
    before = await sync_to_async(row)()
    assert before.version == 1
    await sync_to_async(Row.objects.update)(settings={"colour": "red"})
    monkeypatch.delenv("TOY_POLICY")
    config = BotConfig(session_ttl=86400, allowed_users=["ann", "bob"])
    async with running(Bot("toy", agent=helper, config=config)) as hub:
        await until(lambda: hub.readers)
    after = await sync_to_async(row)()
    assert (after.version, after.policy) == (2, "allow")
    assert after.settings == {
        "colour": "red",
        "reset": "idle",
        "reset_idle_seconds": "86400",
        "allowed_users": "ann,bob",
    }


async def test_settings_come_from_the_environment_and_the_program_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOY_COLOUR", "blue")
    monkeypatch.setenv("TOY_OWNERS", "boss")
    config = BotConfig(account="toy-helper", unknown_user_policy="deny", settings={"colour": "red"})
    async with running(Bot("toy", agent=helper, config=config)) as hub:
        await until(lambda: hub.readers)
    stored = await sync_to_async(row)()
    assert (stored.policy, stored.settings) == ("deny", {"colour": "red", "owners": "boss"})


async def test_without_a_word_about_strangers_they_get_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_POLICY")
    async with running(Bot("toy", agent=helper)) as hub:
        await until(lambda: hub.readers)
    assert (await sync_to_async(row)()).policy == "deny"


async def test_a_missing_credential_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_TOKEN")
    with pytest.raises(CredentialError, match="TOY_TOKEN is not set in the environment"):
        await Bot("toy", agent=helper).start()
    assert not await sync_to_async(Row.objects.exists)()


@pytest.mark.parametrize(
    ("bot", "error"),
    [
        (Bot("pigeon", agent=helper), InvalidInput),
        (Bot("toy", agent=helper, config=BotConfig(settings={"colour": "green"})), InvalidInput),
        (Bot("toy", agent=helper, config=BotConfig(unknown_user_policy="maybe")), InvalidInput),
        (Bot("toy", agent=helper, config=BotConfig(session_ttl=-5)), InvalidInput),
    ],
)
async def test_what_cannot_work_is_refused_and_nothing_is_stored(bot: Bot, error: type[Exception]) -> None:
    with pytest.raises((error, ConfigurationError)):
        await bot.start()
    assert not await sync_to_async(Row.objects.exists)()


async def test_a_resolver_of_the_program_joins_conversations() -> None:
    resolver = InMemoryIdentityResolver()
    for user in ("ann", "ann-at-work"):
        resolver.link("toy", user, "alice")
    botos = BotOS(agent=helper, platforms=["toy"], identity_resolver=resolver)
    async with running(botos) as hub:
        hub.write("one", user="ann", message_id="1")
        await until(lambda: hub.texts("ann") == ["0: one"])
        hub.write("two", user="ann-at-work", message_id="2")
        await until(lambda: hub.texts("ann-at-work") == ["2: two"])
    lanes = await sync_to_async(lambda: set(BotSession.objects.values_list("lane", flat=True)))()
    assert lanes == {"person:alice"}
    assert identity.external() is None


async def test_a_cancelled_program_drains() -> None:
    bot = Bot("toy", agent=helper)
    task = asyncio.create_task(bot.start())
    hub = HUBS["toy-helper"]
    hub.write("hello", message_id="1")
    await until(lambda: hub.texts())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hub.readers == 0
