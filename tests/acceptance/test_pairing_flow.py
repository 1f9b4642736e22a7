"""Pairing and links as people meet them: real ``runbots``, the platforms' own protocols, ``manage.py`` for staff."""

from __future__ import annotations

import asyncio
import itertools
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.home import ROOT, Home
from tests.fakes.discord import DiscordServer
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TOKEN, TelegramServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{8}\b")
GROUP = -1001000000500
BOSS = 9


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare(
        ("agents", "add", "telling", "--kind", "python", "--setting", "target=tests.acceptance.agents:telling")
    )
    return home


def add_telegram(home: Home, server: TelegramServer, *options: str) -> None:
    bot = ("bots", "add", "shop", "--platform", "telegram", "--policy", "pair", "--agent", "telling")
    home.manage(*bot, "--credential", f"token={TOKEN}", "--setting", f"api_base_url={server.url}", *options)


def add_slack(home: Home, server: SlackServer, *options: str) -> None:
    bot = ("bots", "add", "desk", "--platform", "slack", "--policy", "pair", "--agent", "telling")
    tokens = ("--credential", f"bot_token={server.bot.bot_token}", "--credential", f"app_token={server.bot.app_token}")
    home.manage(*bot, *tokens, "--setting", f"api_base_url={server.url}", *options)


def texts(server: TelegramServer, chat: int) -> list[str]:
    return [sent.text for sent in server.sent if sent.chat_id == chat]


def code_in(text: str) -> str:
    found = CODE.search(text)
    assert found, text
    return found[0]


async def until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)


async def manage(home: Home, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(home.manage, *args, check=check)


def assert_nowhere(home: Home, *codes: str) -> None:
    """Neither the database's file nor the log has any of the codes, in any case."""
    connection = sqlite3.connect(home.path / "praisonweb.sqlite3")
    dump = "\n".join(connection.iterdump()).lower()
    connection.close()
    log = (home.path / "runbots.log").read_text().lower()
    for code in codes:
        assert code.lower() not in dump
        assert code.lower() not in log


async def test_a_stranger_on_telegram_gets_in_through_staff_and_out_again(home: Home) -> None:
    async with TelegramServer() as server:
        add_telegram(home, server)
        async with home.runbots():
            for number in range(30):
                server.bot.say(f"message {number}", user=7)
                server.bot.say(f"@{server.bot.user['username']} message {number}", user=7, chat=GROUP)
            await until(lambda: texts(server, 7))
            await until(lambda: len(home.json("journal", "list", "--state", "completed", "--limit", "100")) == 59)
            assert len(texts(server, 7)) == 1
            assert texts(server, GROUP) == []
            (request,) = home.json("pairing", "list")
            assert request["asked"] == 30
            code = code_in(texts(server, 7)[0])

            await manage(home, "pairing", "verify", "shop", code)
            await until(lambda: len(texts(server, 7)) == 3)
            assert texts(server, 7)[1].startswith("You have access now.")
            assert texts(server, 7)[2].startswith("message 0 <> as bot_telegram_7")
            server.bot.say("and now?", user=7)
            await until(lambda: len(texts(server, 7)) == 4)

            server.bot.say("slow", user=7)
            await until(lambda: home.json("journal", "list", "--state", "claimed"))
            await manage(home, "pairing", "revoke", str(request["id"]))
            server.bot.say("still there?", user=7)
            await until(lambda: "Your access has been withdrawn." in texts(server, 7))
            await until(lambda: not home.json("journal", "list", "--state", "claimed"), seconds=10)
            await until(lambda: not home.json("journal", "list", "--state", "pending"), seconds=10)
        assert len(texts(server, 7)) == 5
        assert home.json("pairing", "explain", "shop", "7")["reason"] == "pairing_refused"
        assert home.manage("ledger", check=False).returncode == 0
        assert_nowhere(home, code)


async def test_sixty_strangers_at_once_and_an_owner_with_buttons(home: Home) -> None:
    async with TelegramServer() as server:
        add_telegram(home, server, "--setting", f"owners={BOSS}")
        async with home.runbots():
            server.bot.say("I own this bot", user=BOSS)
            await until(lambda: texts(server, BOSS))
            for user in range(100, 160):
                server.bot.say("hello", user=user)
            await until(lambda: all(texts(server, user) for user in range(100, 160)), seconds=60)
            assert len(home.json("pairing", "list", "--limit", "100")) == 50
            turned_away = [user for user in range(100, 160) if "try again later" in texts(server, user)[0]]
            assert len(turned_away) == 10
            await until(lambda: len(texts(server, BOSS)) == 51, seconds=60)

            notices = [sent for sent in server.sent if sent.chat_id == BOSS and sent.buttons]
            assert len(notices) == 50
            first, second = notices[0], notices[1]
            server.bot.press(first.buttons[0]["callback_data"], user=BOSS, message_id=first.message_id)
            await until(lambda: any(text.startswith("Approved: request") for text in texts(server, BOSS)))
            lucky = int(re.search(r"telegram:(\d+)", first.text)[1])  # type: ignore[index]
            await until(lambda: any(text.startswith("hello <>") for text in texts(server, lucky)))
            server.bot.press(second.buttons[1]["callback_data"], user=BOSS, message_id=second.message_id)
            await until(lambda: any(text.startswith("Denied: request") for text in texts(server, BOSS)))
            # A button that was passed on: who presses it is no owner.
            server.bot.press(notices[2].buttons[0]["callback_data"], user=lucky)
            await until(lambda: "Only an owner of this bot can decide about that." in texts(server, lucky))
        assert len(home.json("pairing", "list", "--limit", "100")) == 48
        assert_nowhere(home, *(code_in(texts(server, user)[0]) for user in range(100, 160) if user not in turned_away))


async def test_of_staff_in_several_processes_one_decides(home: Home) -> None:
    async with TelegramServer() as server:
        add_telegram(home, server)
        async with home.runbots():
            server.bot.say("may I?", user=7)
            await until(lambda: texts(server, 7))
            (request,) = home.json("pairing", "list")
            acts = [
                ["verify", "shop", code_in(texts(server, 7)[0])],
                ["approve", str(request["id"]), "--reason", "I know them"],
                ["deny", str(request["id"])],
            ]
            racing = [
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "manage.py",
                    "pairing",
                    *act,
                    cwd=ROOT,
                    env=home.env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                for act in acts
            ]
            ended = [(await process.communicate(), process.returncode) for process in racing]
        assert sorted(str(code) for _, code in ended) == ["0", "1", "1"], ended
        for (_, error), code in ended:
            if code:
                assert re.search(rb"already, by os:\S+, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", error), error


async def test_one_person_on_telegram_and_slack(home: Home) -> None:
    async with TelegramServer() as telegram, SlackServer() as slack:
        add_telegram(home, telegram, "--setting", "allowed_users=7")
        add_slack(home, slack, "--setting", "allowed_users=U7")
        channel = slack.dm_channel("U7", slack.bot).id

        def on_slack() -> list[str]:
            return [sent.shown for sent in slack.sent if sent.channel == channel]

        async with home.runbots():
            telegram.bot.say("one", user=7)
            await until(lambda: len(texts(telegram, 7)) == 1)
            slack.dm("two", user="U7")
            await until(lambda: len(on_slack()) == 1)
            assert on_slack() == ["two <> as bot_slack_U7"]

            telegram.bot.say("/link", user=7)
            await until(lambda: len(texts(telegram, 7)) == 2)
            code = code_in(texts(telegram, 7)[1])
            slack.command("/link", code, user="U7")
            await until(lambda: len(on_slack()) == 2)
            (request,) = home.json("pairing", "list")
            assert (request["contact"], request["other"]) == ("telegram:7", "slack:U7")
            await manage(home, "pairing", "approve", str(request["id"]), "--reason", "the code fits", "--person", "ada")
            await until(lambda: len(on_slack()) == 3)

            slack.dm("three", user="U7")
            await until(lambda: len(on_slack()) == 4)
            assert on_slack()[3] == "three <telegram>one | slack>two> as ada"
            for number in range(5):  # on both at once
                telegram.bot.say(f"t{number}", user=7)
                slack.dm(f"s{number}", user="U7")
            await until(lambda: not home.json("journal", "list", "--state", "pending"))
            await until(lambda: not home.json("journal", "list", "--state", "claimed"))

            await manage(home, "identity", "unlink", "slack", "U7", "--reason", "a test")
            count = len(on_slack())
            slack.dm("last", user="U7")
            await until(lambda: len(on_slack()) == count + 1)
            assert "telegram" not in on_slack()[-1]
            assert on_slack()[-1].endswith("as bot_slack_U7")
        for session, platform in (("bot_telegram_7", "t"), ("bot_slack_U7", "s")):
            messages = home.json("sessions", "show", session)["messages"]
            assert not any(re.fullmatch(rf"[{'ts'.replace(platform, '')}]\d", item["text"]) for item in messages)
            talk = [item["role"] for item in messages if item["kind"] == "chat"]
            assert talk[0] == "user"
            assert not any(pair == ("assistant", "assistant") for pair in itertools.pairwise(talk))
        assert home.manage("ledger", check=False).returncode == 0
        assert_nowhere(home, code)


async def test_an_owner_on_slack_decides_by_button(home: Home) -> None:
    async with SlackServer() as server:
        add_slack(home, server, "--setting", "owners=UBOSS")
        boss = server.dm_channel("UBOSS", server.bot).id
        async with home.runbots():
            server.dm("I own this bot", user="UBOSS")
            server.dm("may I?", user="U1")
            await until(lambda: any(sent.buttons for sent in server.sent))
            (notice,) = [sent for sent in server.sent if sent.buttons]
            assert notice.channel == boss
            server.press(notice.channel, notice.ts, notice.buttons[0]["value"], user="UBOSS")
            asker = server.dm_channel("U1", server.bot).id
            await until(
                lambda: any(sent.shown.startswith("may I? <>") for sent in server.sent if sent.channel == asker)
            )
        assert home.json("pairing", "list", "--state", "approved")[0]["decided_by"] == "owner:slack:UBOSS"


async def test_an_owner_on_discord_decides_by_button(home: Home) -> None:
    async with DiscordServer() as server:
        bot = ("bots", "add", "shop", "--platform", "discord", "--policy", "pair", "--agent", "telling")
        token = ("--credential", f"token={server.bot.token}")
        home.manage(*bot, *token, "--setting", f"api_base_url={server.url}", "--setting", "owners=9")
        boss, asker = (server.dm_channel(user).id for user in ("9", "1"))

        def texts_in(channel: str) -> list[str]:
            return [sent.text for sent in server.sent if sent.channel == channel]

        async with home.runbots():
            await server.until(lambda: server.sessions, seconds=20)
            server.dm("I own this bot", user="9")
            server.dm("may I?", user="1")
            await until(lambda: any(sent.buttons for sent in server.sent))
            (notice,) = [sent for sent in server.sent if sent.buttons]
            assert notice.channel == boss
            server.press(boss, notice.id, notice.buttons[0]["custom_id"].partition(":")[2], user="9")
            await until(lambda: any(text.startswith("may I? <>") for text in texts_in(asker)))
            await until(lambda: any(text.startswith("Approved: request") for text in texts_in(boss)))
        assert server.interactions[0].responses == [{"type": 6}]
        assert home.json("pairing", "list", "--state", "approved")[0]["decided_by"] == "owner:discord:9"
