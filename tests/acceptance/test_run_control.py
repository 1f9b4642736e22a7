"""Run control as people meet it: real ``runbots`` on two platforms, one bot in each process."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.home import Home
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TOKEN, TelegramServer
from tests.patience import SECOND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.redis])])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """An installation on SQLite without services, or on PostgreSQL and Redis."""
    if request.param == "sqlite":
        home = Home(tmp_path)
    else:
        home = Home(
            tmp_path,
            database_url=request.getfixturevalue("postgres_url"),
            redis_url=request.getfixturevalue("redis_url"),
            poll_seconds="1",
        )
    home.prepare()
    home.manage("agents", "add", "telling", "--kind", "python", "--setting", "target=tests.acceptance.agents:telling")
    return home


def add_telegram(home: Home, server: TelegramServer, *options: str) -> None:
    bot = ("bots", "add", "shop", "--platform", "telegram", "--policy", "allow", "--agent", "telling")
    home.manage(*bot, "--credential", f"token={TOKEN}", "--setting", f"api_base_url={server.url}", *options)


def add_slack(home: Home, server: SlackServer) -> None:
    bot = ("bots", "add", "desk", "--platform", "slack", "--policy", "allow", "--agent", "telling")
    tokens = ("--credential", f"bot_token={server.bot.bot_token}", "--credential", f"app_token={server.bot.app_token}")
    home.manage(*bot, *tokens, "--setting", f"api_base_url={server.url}")


def texts(server: TelegramServer, chat: int) -> list[str]:
    return [sent.text for sent in server.sent if sent.chat_id == chat]


async def until(condition: Callable[[], object], *, seconds: float = 30) -> float:
    """Wait until ``condition()`` holds. Returns how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not come"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def journal(home: Home, state: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = await asyncio.to_thread(home.json, "journal", "list", "--state", state)
    return rows


async def until_claimed(home: Home) -> None:
    while not await journal(home, "claimed"):
        await asyncio.sleep(0.05)


async def test_stop_on_slack_ends_a_run_of_another_worker_on_telegram(home: Home) -> None:
    async with TelegramServer() as telegram, SlackServer() as slack:
        add_telegram(home, telegram)
        add_slack(home, slack)
        channel = slack.dm_channel("U7", slack.bot).id

        def on_slack() -> list[str]:
            return [sent.shown for sent in slack.sent if sent.channel == channel]

        async with home.runbots("--account", "shop"), home.runbots("--account", "desk"):
            telegram.bot.say("one", user=7)
            slack.dm("two", user="U7")
            await until(lambda: len(texts(telegram, 7)) == 1 and len(on_slack()) == 1)
            for platform, user in (("telegram", "7"), ("slack", "U7")):
                link = ("identity", "link", platform, user, "ada", "--reason", "known")
                await asyncio.to_thread(home.manage, *link)

            telegram.bot.say("slow", user=7)
            await until_claimed(home)
            telegram.bot.say("/status", user=7)
            assert await until(lambda: len(texts(telegram, 7)) == 2) < SECOND
            assert re.fullmatch(r"I have been working on an answer for \d+ s\.", texts(telegram, 7)[1])

            slack.command("/stop", "", user="U7")
            assert await until(lambda: len(on_slack()) == 2) < SECOND
            assert on_slack()[1] == "Stopped."
            telegram.bot.say("three", user=7)
            assert await until(lambda: len(texts(telegram, 7)) == 3) < 1.5 * SECOND
            assert texts(telegram, 7)[2].startswith("three <telegram>one | slack>two | telegram>slow>")
            slack.command("/stop", "", user="U7")
            await until(lambda: len(on_slack()) == 3)
            assert on_slack()[2] == "Nothing is running."
            assert re.search(r"turn \S+ was cancelled", (home.path / "runbots.log").read_text())
        (slow,) = [row for row in await journal(home, "completed") if row["text"] == "slow"]
        stopped = home.json("journal", "show", str(slow["id"]))
        assert (stopped["outcome"], stopped["reason"]) == ("silent", "stopped")
        assert stopped["last_turn"]["state"] == "cancelled"
        assert home.manage("ledger", check=False).returncode == 0


async def test_commands_survive_a_crash_and_are_offered_in_the_menu(home: Home) -> None:
    async with TelegramServer() as server:
        add_telegram(home, server)
        async with home.runbots() as process:
            await until(lambda: server.bot.commands)
            assert [item["command"] for item in server.bot.commands][:3] == ["help", "new", "stop"]
            server.bot.say("slow", user=7)
            await until_claimed(home)
            process.kill()
            await process.wait(seconds=10)
            server.bot.say("/whoami", user=7)
            server.bot.say("/stop", user=7)
        async with home.runbots():
            await until(lambda: len(texts(server, 7)) == 2)
            assert texts(server, 7) == ["You are User 7 (telegram:7).", "Stopped."]
            server.bot.say("and now?", user=7)
            await until(lambda: len(texts(server, 7)) == 3)
        assert texts(server, 7)[2].startswith("and now? <telegram>slow>")
        assert home.manage("ledger", check=False).returncode == 0


async def test_a_burst_is_one_answer_and_a_newer_message_interrupts(home: Home) -> None:
    async with TelegramServer() as server:
        pace = ("debounce_ms=400", "busy=interrupt", "busy_ack=Let me think again.")
        add_telegram(home, server, *(option for setting in pace for option in ("--setting", setting)))
        async with home.runbots():
            group = -1001000000500
            for number in range(5):
                server.bot.say(f"m{number}", user=7)
                server.bot.say(f"/{number}", user=7, chat=group)  # a command of the agent's own: meant for the bot
            await until(lambda: texts(server, 7) and texts(server, group))
            assert texts(server, 7) == ["m0\nm1\nm2\nm3\nm4 <> as bot_telegram_7"]
            assert texts(server, group)[0].startswith("User 7: /0\nUser 7: /1\n")

            server.bot.say("slow", user=8)
            await until_claimed(home)
            server.bot.say("quick", user=8)
            assert await until(lambda: len(texts(server, 8)) == 1) < SECOND
            assert await until(lambda: len(texts(server, 8)) == 2) < 2
            assert texts(server, 8) == ["Let me think again.", "slow\nquick <> as bot_telegram_8"]
            assert len(texts(server, 7)) == len(texts(server, group)) == 1
        assert {row["outcome"] for row in await journal(home, "completed")} == {"answered"}
        assert home.manage("ledger", check=False).returncode == 0
