"""1,000 messages from 200 people through the platforms' own protocols, with faults: each answered once, in order."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from botsrt.conf import RuntimeConfig
from tests.acceptance.home import Home
from tests.fakes.discord import DiscordServer
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TOKEN, TelegramServer

PEOPLE = 200
ROUNDS = 5
LABEL = RuntimeConfig().resend_label

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare()
    return home


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def add_bot(home: Home, platform: str, credentials: dict[str, str], settings: dict[str, str]) -> None:
    pairs = [
        *(("--credential", k, v) for k, v in credentials.items()),
        *(("--setting", k, v) for k, v in settings.items()),
    ]
    options = [word for flag, key, value in pairs for word in (flag, f"{key}={value}")]
    home.manage("bots", "add", "shop", "--platform", platform, "--policy", "allow", *options)


@pytest.mark.parametrize("mode", ["polling", "webhook"])
async def test_telegram(home: Home, port: int, mode: str) -> None:
    async with TelegramServer() as server:
        settings = {"api_base_url": server.url, "mode": mode}
        credentials = {"token": TOKEN}
        if mode == "webhook":
            settings["webhook_url"] = f"http://127.0.0.1:{port}"
            credentials["webhook_secret"] = "a-secret-that-is-long"
        add_bot(home, "telegram", credentials, settings)
        async with home.runbots("--web", str(port)):
            server.chaos(fault_rate=0.05, duplicate_rate=0.1, seed=7)
            said: dict[str, list[str]] = defaultdict(list)
            for number in range(ROUNDS):
                for user in range(1, PEOPLE + 1):
                    text = f"{number} from {user}"
                    said[str(user)].append(text)
                    server.bot.say(text, user=user)
                await asyncio.sleep(0)

            def answers() -> Iterable[tuple[str, str]]:
                return [(str(sent.chat_id), sent.text) for sent in server.sent]

            await _until_answered(answers, said, home)
            server.chaos()
    check(answers(), said)
    assert_ledger(home, answered=PEOPLE * ROUNDS, has_duplicates=True)


@pytest.mark.parametrize("mode", ["socket", "events"])
async def test_slack(home: Home, port: int, mode: str) -> None:
    chance = random.Random(7)
    async with SlackServer() as server:
        bot = server.bot
        credentials = {"bot_token": bot.bot_token}
        credentials |= {"app_token": bot.app_token} if mode == "socket" else {"signing_secret": bot.signing_secret}
        add_bot(home, "slack", credentials, {"api_base_url": server.url, "mode": mode})
        async with home.runbots("--web", str(port)):
            if mode == "events":
                server.set_events_url(f"http://127.0.0.1:{port}/hooks/slack/shop/")
            server.duplicates(0.1, seed=7)
            said: dict[str, list[str]] = defaultdict(list)
            for number in range(ROUNDS):
                for user in range(1, PEOPLE + 1):
                    text = f"{number} from {user}"
                    said[server.dm_channel(f"U{user}", bot).id].append(text)
                    server.dm(text, user=f"U{user}")
                    if chance.random() < 0.05:
                        server.fail_next(chance.choice(["429", "error", "cut_before", "cut_after"]))
                await asyncio.sleep(0)

            def answers() -> Iterable[tuple[str, str]]:
                return [(sent.channel, sent.text) for sent in server.sent]

            await _until_answered(answers, said, home)
    # Slack makes its calls side by side and repeats them, so that they come in no order; a socket keeps it.
    check(answers(), said, is_ordered=mode == "socket")
    assert not any(LABEL.strip() in text for _, text in answers()), "Slack can tell what it has: nothing is sent twice"
    assert_ledger(home, answered=PEOPLE * ROUNDS, has_duplicates=True)


async def test_discord(home: Home) -> None:
    chance = random.Random(7)
    async with DiscordServer() as server:
        server.messages_per_window, server.window_seconds = 5, 1.0
        add_bot(home, "discord", {"token": server.bot.token}, {"api_base_url": server.url})
        async with home.runbots():
            await server.until(lambda: server.sessions, seconds=20)
            said: dict[str, list[str]] = defaultdict(list)
            for number in range(ROUNDS):
                for user in range(1, PEOPLE + 1):
                    text = f"{number} from {user}"
                    said[server.dm_channel(str(user)).id].append(text)
                    message_id = server.dm(text, user=str(user))
                    if chance.random() < 0.1:
                        server.redeliver(message_id)
                    if chance.random() < 0.05:
                        server.fail_next(chance.choice(["429", "error", "cut_before", "cut_after"]), retry_after=0.5)
                await asyncio.sleep(0.2)
                if number % 2:
                    server.drop_connections()

            def answers() -> Iterable[tuple[str, str]]:
                return [(sent.channel, sent.text) for sent in server.sent]

            await _until_answered(answers, said, home)
    check(answers(), said)
    assert not any(LABEL.strip() in text for _, text in answers()), "Discord knows a message that is sent again."
    assert server.bot.connection_count > 1
    assert_ledger(home, answered=PEOPLE * ROUNDS, has_duplicates=True)


def check(answers: Iterable[tuple[str, str]], said: dict[str, list[str]], *, is_ordered: bool = True) -> None:
    """Each message is in one answer of its own chat, in order; a second one is labelled and adds nothing new."""
    by_chat: dict[str, list[str]] = defaultdict(list)
    for chat, text in answers:
        is_again = text.startswith(LABEL)
        lines = text.removeprefix(LABEL).split("\n")
        if not (is_again and by_chat[chat][-len(lines) :] == lines):
            by_chat[chat].extend(lines)
    if not is_ordered:
        by_chat = defaultdict(list, {chat: sorted(lines) for chat, lines in by_chat.items()})
    assert dict(by_chat) == dict(said)


async def _until_answered(
    answers: Callable[[], Iterable[tuple[str, str]]], said: dict[str, list[str]], home: Home
) -> None:
    """Wait until every message was answered and nothing waits to be sent."""
    wanted = sum(len(texts) for texts in said.values())
    deadline = time.monotonic() + 150
    while len({(chat, line) for chat, text in answers() for line in text.removeprefix(LABEL).split("\n")}) < wanted:
        assert time.monotonic() < deadline, home.json("ledger")
        await asyncio.sleep(0.1)
    while await asyncio.to_thread(_waiting, home):
        assert time.monotonic() < deadline, "the outbox does not empty"


def _waiting(home: Home) -> list[object]:
    """Outgoing messages that are not done."""
    return [row for state in ("pending", "sending", "unknown") for row in home.json("outbox", "list", "--state", state)]


def assert_ledger(home: Home, *, answered: int, has_duplicates: bool) -> None:
    report = home.json("ledger")
    assert home.manage("ledger", check=False).returncode == 0, report
    assert report["received"] == answered
    assert report["ends"]["answered"] == answered
    assert bool(report["duplicates"]) == has_duplicates
