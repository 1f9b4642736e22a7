"""Answers of a language model on the platforms: written before one's eyes, and one message in the end.

Real ``runbots``, the platforms' own protocols, and a model's server that streams.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from botsrt.conf import RuntimeConfig
from tests.acceptance.home import Home
from tests.fakes.discord import ALICE as DISCORD_ALICE
from tests.fakes.discord import DiscordServer
from tests.fakes.openai import OpenAIServer
from tests.fakes.slack import ALICE, SlackServer
from tests.fakes.telegram import TOKEN, TelegramServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LABEL = RuntimeConfig().resend_label
BEGINNING = "I was about to say that rye is " * 10
ANSWER = "Rye costs three euros, Alice, and " + "it is fresh " * 12 + "today."

_WAITING = "SELECT state, text FROM botsrt_outboxmessage WHERE state IN ('pending', 'sending', 'unknown')"


class Chat(ABC):
    """The direct chat of one person with the bot."""

    platform: str
    can_reconcile: bool
    user_id: str

    @abstractmethod
    def addition(self) -> tuple[str, ...]:
        """The command that adds the bot."""

    @abstractmethod
    async def write(self, text: str) -> None: ...

    @abstractmethod
    def texts(self) -> list[str]:
        """What stands in the chat of the bot."""

    @abstractmethod
    def earlier(self) -> list[tuple[float, str]]:
        """What its first message said before, and until when."""


class TelegramChat(Chat):
    platform = "telegram"
    can_reconcile = False
    user_id = "501"

    def __init__(self, server: TelegramServer) -> None:
        self.server = server

    def addition(self) -> tuple[str, ...]:
        bot = ("bots", "add", "shop", "--platform", "telegram", "--policy", "allow", "--agent", "helper")
        return (*bot, "--credential", f"token={TOKEN}", "--setting", f"api_base_url={self.server.url}")

    async def write(self, text: str) -> None:
        self.server.bot.say(text)

    def texts(self) -> list[str]:
        return [sent.text for sent in self.server.standing(501)]

    def earlier(self) -> list[tuple[float, str]]:
        return self.server.standing(501)[0].earlier


class SlackChat(Chat):
    platform = "slack"
    can_reconcile = True
    user_id = ALICE

    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.channel = server.dm_channel(ALICE, server.bot).id

    def addition(self) -> tuple[str, ...]:
        bot = ("bots", "add", "shop", "--platform", "slack", "--policy", "allow", "--agent", "helper")
        tokens = (f"bot_token={self.server.bot.bot_token}", f"app_token={self.server.bot.app_token}")
        credentials = ("--credential", tokens[0], "--credential", tokens[1])
        return (*bot, *credentials, "--setting", f"api_base_url={self.server.url}")

    async def write(self, text: str) -> None:
        self.server.dm(text)

    def texts(self) -> list[str]:
        return [sent.shown for sent in self.server.standing(self.channel)]

    def earlier(self) -> list[tuple[float, str]]:
        return self.server.standing(self.channel)[0].earlier


class DiscordChat(Chat):
    platform = "discord"
    can_reconcile = False
    user_id = DISCORD_ALICE

    def __init__(self, server: DiscordServer) -> None:
        self.server = server
        self.channel = server.dm_channel(DISCORD_ALICE).id

    def addition(self) -> tuple[str, ...]:
        bot = ("bots", "add", "shop", "--platform", "discord", "--policy", "allow", "--agent", "helper")
        token = ("--credential", f"token={self.server.bot.token}")
        return (*bot, *token, "--setting", f"api_base_url={self.server.url}")

    async def write(self, text: str) -> None:
        await self.server.until(lambda: self.server.sessions, seconds=20)
        self.server.dm(text)

    def texts(self) -> list[str]:
        return [sent.text for sent in self.server.standing(self.channel)]

    def earlier(self) -> list[tuple[float, str]]:
        return self.server.standing(self.channel)[0].earlier


@pytest.fixture
async def model() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture(params=["telegram", "slack", "discord"])
async def chat(request: pytest.FixtureRequest) -> AsyncIterator[Chat]:
    async with AsyncExitStack() as stack:
        if request.param == "telegram":
            yield TelegramChat(await stack.enter_async_context(TelegramServer()))
        elif request.param == "discord":
            yield DiscordChat(await stack.enter_async_context(DiscordServer()))
        else:
            yield SlackChat(await stack.enter_async_context(SlackServer()))


@pytest.fixture
async def home(tmp_path: Path, model: OpenAIServer, chat: Chat) -> Home:
    """An installation with one bot, answered by the model."""

    def make() -> Home:
        home = Home(tmp_path)
        home.env["OPENAI_API_KEY"] = "sk-test"
        settings = ("model=gpt-4.1-mini", f"base_url={model.url}", "tools=tests.acceptance.agents:who_writes")
        options = [option for setting in settings for option in ("--setting", setting)]
        home.prepare(("agents", "add", "helper", "--kind", "llm", *options), chat.addition())
        return home

    return await asyncio.to_thread(make)


async def until_texts(chat: Chat, *texts: str) -> None:
    deadline = time.monotonic() + 40
    while chat.texts() != list(texts):
        assert time.monotonic() < deadline, chat.texts()
        await asyncio.sleep(0.02)


async def until_edited(chat: Chat, text: str) -> None:
    """Until a beginning of ``text`` stands in the chat, and was replaced by a longer one at least once."""
    deadline = time.monotonic() + 40
    while not (chat.texts() and chat.earlier()):
        assert time.monotonic() < deadline, chat.texts()
        await asyncio.sleep(0.02)
    (shown,) = chat.texts()
    assert shown.endswith(" …")
    assert text.startswith(shown.removesuffix(" …"))


async def assert_settled(home: Home) -> None:
    """Everything was answered, nothing waits, and nothing unfinished is known."""
    deadline = time.monotonic() + 40
    while waiting := home.rows(_WAITING):
        assert time.monotonic() < deadline, waiting
        await asyncio.sleep(0.02)
    report = await asyncio.to_thread(home.json, "ledger")
    assert not report["open"], report


async def test_a_tool_reads_who_asks_and_the_streamed_answer_is_one_message(
    home: Home, model: OpenAIServer, chat: Chat
) -> None:
    model.call("who_writes")
    model.say(ANSWER, pause=0.1)
    async with home.runbots():
        await chat.write("How much is rye?")
        await until_edited(chat, ANSWER)
        await until_texts(chat, ANSWER)
        moments = [moment for moment, _ in chat.earlier()]
        gaps = [after - before for before, after in itertools.pairwise(moments[:-1])]
        assert all(gap > 0.9 for gap in gaps), "The platform's pace is kept; the last edit is the answer itself."
        await assert_settled(home)
    assert model.requests[1]["messages"][-1] == {
        **model.requests[1]["messages"][-1],
        "role": "tool",
        "content": chat.user_id,
    }


@pytest.mark.parametrize(
    "step",
    ["after_platform_took_it", "during_edit", "after_edit", "before_finish_commit", "after_finish_commit"],
)
async def test_a_crash_at_any_step_leaves_one_final_message(
    home: Home, model: OpenAIServer, chat: Chat, step: str
) -> None:
    for _ in range(2):
        model.say(ANSWER, pause=0.1)
    (home.path / "crash").write_text(step)
    program = ("-m", "tests.acceptance.crashing_runbots")
    async with home.runbots(program=program, CRASH_PLATFORM=chat.platform) as process:
        await chat.write("How much is rye?")
        await process.wait(seconds=40)
    async with home.runbots():
        if step == "after_platform_took_it" and not chat.can_reconcile:
            # The message was sent, nobody here had its id yet, and the platform cannot be asked: so it says so.
            (beginning,) = chat.texts()
            await until_texts(chat, beginning, f"{LABEL}{ANSWER}")
        else:
            await until_texts(chat, ANSWER)
        await asyncio.sleep(1)  # time enough for anything that should not come
        await assert_settled(home)
    assert [text for text in chat.texts() if text.endswith(ANSWER)] == chat.texts()[-1:]


async def test_a_crash_while_streaming_leaves_one_final_message(home: Home, model: OpenAIServer, chat: Chat) -> None:
    model.say(BEGINNING, pause=0.1)
    async with home.runbots() as process:
        await chat.write("How much is rye?")
        await until_edited(chat, BEGINNING)
        process.kill()
        await process.wait(seconds=10)
    (left,) = chat.texts()
    assert left.endswith(" …")
    model.say(ANSWER, pause=0.1)
    async with home.runbots():
        await until_texts(chat, ANSWER)
        await asyncio.sleep(1)  # time enough for anything that should not come
        await assert_settled(home)
    assert chat.texts() == [ANSWER]
    assert left in [text for _, text in chat.earlier()], "It is the same message."


async def test_a_crash_while_streaming_and_a_quick_answer_leave_one_message(
    home: Home, model: OpenAIServer, chat: Chat
) -> None:
    model.say(BEGINNING, pause=0.1)
    async with home.runbots() as process:
        await chat.write("How much is rye?")
        await until_edited(chat, BEGINNING)
        process.kill()
        await process.wait(seconds=10)
    model.say("Three euros.")
    async with home.runbots():
        await until_texts(chat, "Three euros.")
        await asyncio.sleep(1)
        await assert_settled(home)
    assert chat.texts() == ["Three euros."]
