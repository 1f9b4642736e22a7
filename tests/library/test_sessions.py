"""``BotSessionManager`` and ``mirror_to_session``: users in order, never mixed."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from botsrt import (
    Agent,
    BotSessionManager,
    InboundJournal,
    SessionRunControl,
    get_session_context,
    mirror_to_session,
)
from botsrt.api import loop
from botsrt.core.errors import AgentUnavailable, InvalidInput
from botsrt.core.ports import AgentRequest
from botsrt.models import HistoryMessage, Turn
from tests.fakes.openai import OpenAIServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def manager(file: Path) -> BotSessionManager:
    journal = InboundJournal(path=file)
    return BotSessionManager(platform="telegram", ingress_journal=journal)


def listing(request: AgentRequest) -> str:
    return f"{len(request.history)}: {request.text}"


async def test_a_user_is_answered_with_their_own_history(manager: BotSessionManager) -> None:
    assert await manager.chat(listing, 1, "a") == "0: a"
    assert await manager.chat(listing, 2, "b") == "0: b"
    assert await manager.chat(listing, 1, "c") == "2: c"
    assert manager.session_id(1) == "bot_telegram_1"


async def test_a_duplicate_does_not_run_the_agent(manager: BotSessionManager) -> None:
    runs = []

    async def agent(request: AgentRequest) -> str:
        runs.append(request.text)
        await asyncio.sleep(0.05)
        return "once"

    answers = await asyncio.gather(*(manager.chat(agent, 1, "hi", message_id="7", account="shop") for _ in range(5)))
    assert sorted(answers) == ["", "", "", "", "once"]
    assert runs == ["hi"]
    assert await manager.chat(agent, 1, "hi", message_id="7", account="other") == "once"


async def test_messages_of_one_user_are_answered_in_order_and_one_at_a_time(manager: BotSessionManager) -> None:
    running = most = 0
    seen: list[tuple[str, int]] = []

    async def agent(request: AgentRequest) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        seen.append((request.text, len(request.history)))
        return request.text

    await asyncio.gather(*(manager.chat(agent, 1, str(number)) for number in range(20)))
    assert seen == [(str(number), 2 * number) for number in range(20)]
    assert most == 1


class Foreign:
    """An agent object that keeps the conversation in itself, as ``praisonaiagents.Agent`` does."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    def chat(self, prompt: str) -> str:
        self.chat_history.append({"role": "user", "content": prompt})
        own = [message["content"] for message in self.chat_history]
        return "|".join(own)


async def test_fifty_users_of_one_object_are_never_mixed(manager: BotSessionManager) -> None:
    agent = Foreign()

    async def talk(user: int) -> None:
        said = []
        for number in range(3):
            said.append(f"user {user} says {number}")
            answer = await manager.chat(agent, user, said[-1])
            assert all(part.startswith(f"user {user} ") for part in answer.split("|")), answer
        assert said[-1] in answer

    await asyncio.gather(*(talk(user) for user in range(50)))
    assert agent.chat_history == []


async def test_fifty_users_of_one_language_model_are_never_mixed(
    manager: BotSessionManager, openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-only-for-tests")
    agent = Agent(name="helper", settings={"base_url": openai.url})

    async def talk(user: int) -> None:
        for number in range(2):
            assert await manager.chat(agent, user, f"user-{user}- says {number}") == f"user-{user}- says {number}"

    await asyncio.gather(*(talk(user) for user in range(50)))
    assert len(openai.requests) == 100
    for request in openai.requests:
        texts = [message["content"] for message in request["messages"] if message["role"] != "system"]
        assert len({text.partition(" ")[0] for text in texts}) == 1, texts


async def test_an_agent_is_released_with_its_last_user(manager: BotSessionManager) -> None:
    for number in range(5):
        await manager.chat(Foreign(), number, "hello")
    gc.collect()
    assert len(manager._profiles) == 0


async def test_a_tool_reads_who_writes_and_nothing_is_left_over(manager: BotSessionManager) -> None:
    def agent(request: AgentRequest) -> str:
        ctx = get_session_context()
        return f"{ctx.platform} {ctx.user_id} {ctx.user_name} {ctx.unified_user_id}"

    assert await manager.chat(agent, 5, "hi", user_name="Ann") == "telegram 5 Ann bot_telegram_5"
    assert get_session_context().user_id == ""


async def test_a_failure_without_a_queue_is_answered_later(manager: BotSessionManager) -> None:
    with pytest.raises(AgentUnavailable, match="is not set"):
        await manager.chat(Agent(name="x", settings={"api_key": "env:NO_SUCH_KEY"}), 1, "hello", message_id="1")
    sent: dict[str, list[str]] = defaultdict(list)

    async def send(message: Any, text: str) -> None:
        sent[message.sender.user_id].append(text)

    assert await manager.recover(listing, send) == 1
    assert sent == {"1": ["0: hello"]}


async def test_a_platform_must_have_a_name() -> None:
    with pytest.raises(InvalidInput, match="platform"):
        BotSessionManager(platform="My Platform")


# -- mirrors ----


def texts(manager: BotSessionManager) -> list[str]:
    return loop.run(
        manager._database.call(lambda: list(HistoryMessage.objects.order_by("id").values_list("text", flat=True)))
    )


def test_a_mirror_is_in_the_history_of_a_user_by_any_name(manager: BotSessionManager) -> None:
    asyncio.run(manager.chat(listing, 1, "hi"))
    for user_id in ("1", "bot_telegram_1"):
        assert mirror_to_session(
            session_mgr=manager,
            user_id=user_id,
            message_text=f"to {user_id}",
            source_label="cron",
            metadata={"job": 7},
            lock=threading.RLock(),
        )
    assert texts(manager)[2:] == ["to 1", "to bot_telegram_1"]


def test_a_mirror_to_nobody_is_false_and_breaks_nothing(manager: BotSessionManager, caplog) -> None:
    assert mirror_to_session(manager, "nobody", "hello") is False
    assert mirror_to_session(manager, "nobody", "") is False
    assert mirror_to_session(None, "nobody", "hello") is False  # type: ignore[arg-type]
    assert caplog.text.count("could not be mirrored") == 3


async def test_a_mirror_on_an_event_loop_does_not_wait(manager: BotSessionManager) -> None:
    await manager.chat(listing, 1, "hi")
    assert mirror_to_session(manager, "1", "later")
    async with asyncio.timeout(10):
        while texts(manager)[-1] != "later":
            await asyncio.sleep(0.01)


def test_runs_of_processes_that_are_gone_are_cleaned_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = InboundJournal(path=path, claim_timeout=0.01)
    key = journal.receive("telegram", "shop", "c1", "1")
    assert key
    held = journal.claim(key)
    held.__enter__()
    control = SessionRunControl(path)
    assert control.cleanup_stale_sessions(max_age_seconds=3600) == 0
    loop.run(journal.database.call(lambda: Turn.objects.update(lease_expires_at="2020-01-01T00:00:00Z")))
    assert control.cleanup_stale_sessions(max_age_seconds=3600) == 1
    assert control.cleanup_stale_sessions() == 0
    held.__exit__(None, None, None)
