"""Answers that are shown in their chats while they are written: in the end each is one message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.errors import MessageGone, MessageRefused, OutcomeUnknown, PlatformUnavailable, RateLimited
from botsrt.core.states import Handler, OutboxState
from botsrt.models import JournalEntry, OutboxMessage, Preview
from botsrt.runtime import previews
from botsrt.services import handling
from tests.factories import ALICE
from tests.runtime.conftest import running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys.toy import Adapter, Hub

pytestmark = pytest.mark.django_db(transaction=True)

BEGUN = "Once upon …"
WHOLE = "Once upon a time."


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews begin and go on at once."""
    monkeypatch.setattr(previews, "FIRST_AFTER_SECONDS", 0.02)
    monkeypatch.setattr(previews, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(previews, "REST_SECONDS", 0.05)


@pytest.fixture
def make(transactional_db: None) -> Callable[..., Any]:
    """Adds the bot "shop", answered by a function of ``tests.toys.agents``."""
    return sync_to_async(toy_bot)


async def until_sent(count: int = 1) -> None:
    await until_db(lambda: OutboxMessage.objects.filter(state=OutboxState.SENT).count() == count)


async def rows() -> list[tuple[str, str, bool]]:
    found = OutboxMessage.objects.order_by("id").values_list("state", "text", "is_resend")
    return await sync_to_async(lambda: list(found))()


async def until_forgotten() -> None:
    await until_db(lambda: not Preview.objects.exists())


async def test_the_answer_takes_the_place_of_what_was_shown(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        assert [message.is_unfinished for message in hub.sent] == [True]
        toy_agents.LET_GO.set()
        await until_sent()
    assert hub.texts() == [WHOLE]
    assert [message.is_unfinished for message in hub.sent] == [False]
    assert await rows() == [(OutboxState.SENT, WHOLE, False)]
    assert not await sync_to_async(Preview.objects.exists)()


async def test_a_quick_answer_is_one_plain_message(
    make: Any, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "FIRST_AFTER_SECONDS", 1.0)
    toy_agents.LET_GO.set()
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until_sent()
    assert (hub.texts(), hub.edits) == ([WHOLE], [])


async def test_a_bot_may_be_told_not_to(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates", settings={"streaming": "off"})
    async with running(config):
        hub.write("a story", message_id="1")
        await until(toy_agents.STARTED.is_set)
        await asyncio.sleep(0.2)
        assert hub.sent == []
        assert not toy_agents.REQUESTS[0].is_watched
        toy_agents.LET_GO.set()
        await until_sent()
    assert hub.edits == []


async def test_a_long_answer_begins_in_its_preview_and_goes_on_below(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates_much")
    async with running(config):
        hub.write("talk", message_id="1")
        await until_db(lambda: OutboxMessage.objects.filter(state=OutboxState.SENT).count() > 3, seconds=20)
        await until_db(lambda: not OutboxMessage.objects.exclude(state=OutboxState.SENT).exists())
    assert hub.edits
    assert " ".join(hub.texts()).split() == [f"word{number}" for number in range(200)]
    assert [message.idempotency_key.partition(":")[0] for message in hub.sent] == ["preview"] + ["turn"] * (
        len(hub.sent) - 1
    )


async def test_edits_keep_to_the_pace_of_the_platform(
    make: Any, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adapter, "capabilities", _paced(edit_seconds=0.3))
    hub: Hub = await make("shop", agent="dictates_much")
    began = time.monotonic()
    async with running(config):
        hub.write("talk", message_id="1")
        await until_db(lambda: OutboxMessage.objects.exists())
        seconds = time.monotonic() - began
    unfinished = [message for message in hub.edits if message.is_unfinished]
    assert len(unfinished) <= seconds / 0.3


async def test_edits_of_all_chats_keep_to_the_pace_of_the_bot(
    make: Any, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adapter, "capabilities", _paced(bot_edit_seconds=0.3))
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        for number in range(3):
            hub.write("a story", user=f"user-{number}", message_id=str(number))
        await until(lambda: len(hub.sent) == 1)
        first_at = time.monotonic()
        await until(lambda: len(hub.sent) == 3)
        assert time.monotonic() - first_at >= 0.5
        toy_agents.LET_GO.set()
        await until_sent(3)
    assert [message.text for message in hub.sent] == [WHOLE] * 3


def _paced(**seconds: float) -> Any:
    capabilities = Adapter.capabilities
    return type(capabilities)(**{**_fields(capabilities), **seconds})


def _fields(capabilities: Any) -> dict[str, Any]:
    return {name: getattr(capabilities, name) for name in capabilities.__dataclass_fields__}


async def test_in_its_chat_it_waits_for_what_came_before(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.faults.append(RateLimited(timedelta(seconds=1)))
        await sync_to_async(_notice)()
        hub.write("a story", message_id="1")
        await until(toy_agents.STARTED.is_set)
        await until(lambda: len(hub.sent) == 2)
        assert hub.texts() == ["News", BEGUN]
        toy_agents.LET_GO.set()
        await until_sent(2)
    assert hub.texts() == ["News", WHOLE]


def _notice() -> None:
    now = timezone.now()
    OutboxMessage.objects.create(
        idempotency_key="news", platform="toy", account="shop", channel_id="ann", source="notice", text="News",
        next_attempt_at=now, created_at=now,
    )  # fmt: skip


# -- trouble with the platform ----


async def test_a_rate_limit_slows_the_preview_and_not_the_answer(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates_much")
    hub.edit_faults.append(RateLimited(timedelta(seconds=60)))
    async with running(config):
        hub.write("talk", message_id="1")
        await until(lambda: not hub.edit_faults)
        await until_db(lambda: OutboxMessage.objects.filter(state=OutboxState.SENT).count() > 3, seconds=20)
    assert [message.is_unfinished for message in hub.edits] == [False]


async def test_a_rate_limit_at_the_first_call_leaves_a_plain_answer(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    hub.faults.append(RateLimited(timedelta(seconds=60)))
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: not hub.faults)
        toy_agents.LET_GO.set()
        await until_sent()
    assert (hub.texts(), hub.edits) == ([WHOLE], [])


@pytest.mark.parametrize("fault", [PlatformUnavailable("502"), MessageRefused("no"), RuntimeError("a bug")])
async def test_an_edit_that_fails_does_not_fail_the_answer(make: Any, config: RuntimeConfig, fault: Exception) -> None:
    hub: Hub = await make("shop", agent="dictates_much")
    hub.edit_faults.append(fault)
    async with running(config):
        hub.write("talk", message_id="1")
        await until(lambda: not hub.edit_faults)
        await until_db(lambda: OutboxMessage.objects.filter(state=OutboxState.SENT).count() > 3, seconds=20)
        await until_db(lambda: not OutboxMessage.objects.exclude(state=OutboxState.SENT).exists())
    assert " ".join(hub.texts()).split() == [f"word{number}" for number in range(200)]


async def test_an_answer_whose_preview_somebody_removed_is_sent_anew(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        hub.sent.clear()
        toy_agents.LET_GO.set()
        await until_sent()
    assert hub.texts() == [WHOLE]
    assert await rows() == [(OutboxState.SENT, WHOLE, False)]


async def test_a_first_call_that_was_cut_makes_a_labelled_answer(make: Any, config: RuntimeConfig) -> None:
    """Nobody knows whether the beginning stands in the chat, and this platform cannot tell."""
    hub: Hub = await make("shop", agent="dictates")
    hub.lost_answers = 1
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        toy_agents.LET_GO.set()
        await until_sent()
    assert hub.texts() == [BEGUN, config.resend_label + WHOLE]


async def test_an_edit_of_the_answer_that_was_cut_is_made_again(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        hub.edit_faults.append(OutcomeUnknown("cut"))
        toy_agents.LET_GO.set()
        await until_sent()
    assert hub.texts() == [WHOLE]
    assert await rows() == [(OutboxState.SENT, WHOLE, False)]


# -- turns that come to nothing ----


async def test_what_a_failed_agent_said_is_removed(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates_and_fails")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        toy_agents.LET_GO.set()
        await until_forgotten()
        await until_sent()
    assert hub.texts() == [config.trouble_text]


async def test_what_cannot_be_removed_says_that_nothing_follows(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates_and_fails")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        hub.edit_faults.append(MessageRefused("too old"))
        toy_agents.LET_GO.set()
        await until_forgotten()
        await until_sent()
    assert hub.texts() == [config.unfinished_text, config.trouble_text]


async def test_a_removal_is_tried_until_the_platform_is_back(
    make: Any, config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "_REMOVE_AGAIN_AFTER", timedelta(seconds=0.05))
    hub: Hub = await make("shop", agent="dictates_and_fails")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        hub.edit_faults.extend([PlatformUnavailable("502"), RateLimited(timedelta(seconds=0.1)), MessageGone()])
        toy_agents.LET_GO.set()
        await until_forgotten()
    assert not hub.edit_faults


async def test_a_run_that_takes_too_long_leaves_nothing_half_said(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        await until_forgotten()
        await until_sent()
    assert hub.texts() == [config.trouble_text]


async def test_who_takes_a_conversation_over_meets_no_half_answer(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
        await sync_to_async(handling.hand_to)(
            session_id="bot_toy_ann", handler=Handler.HUMAN, actor=ALICE, now=timezone.now()
        )
        await until_forgotten()
        assert hub.texts() == []


async def test_a_worker_that_stops_leaves_nothing_half_said(make: Any, config: RuntimeConfig) -> None:
    hub: Hub = await make("shop", agent="dictates")
    async with running(config):
        hub.write("a story", message_id="1")
        await until(lambda: hub.texts() == [BEGUN])
    assert hub.texts() == []
    assert not await sync_to_async(Preview.objects.exists)()
    assert await sync_to_async(lambda: JournalEntry.objects.get().attempts)() == 0
