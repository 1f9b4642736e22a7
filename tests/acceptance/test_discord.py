"""Discord as people meet it: real ``runbots``, the gateway's and the API's own protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.acceptance.home import Home
from tests.fakes.discord import DiscordServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BOB = "502"


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        yield server


@pytest.fixture
async def home(tmp_path: Path, server: DiscordServer) -> Home:
    """An installation with one bot that echoes."""
    home = Home(tmp_path)
    await asyncio.to_thread(home.prepare, addition(server))
    return home


def addition(server: DiscordServer, *, token: str = "") -> tuple[str, ...]:
    bot = ("bots", "add", "shop", "--platform", "discord", "--policy", "allow")
    return (
        *bot, "--credential", f"token={token or server.bot.token}", "--setting", f"api_base_url={server.url}"
    )  # fmt: skip


async def until(condition: Callable[[], object], *, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


async def connected(server: DiscordServer, *, times: int = 1) -> None:
    await server.until(lambda: server.bot.connection_count >= times, seconds=30)


def texts(server: DiscordServer, channel: str) -> list[str]:
    return [sent.text for sent in server.standing(channel)]


async def test_a_direct_message_a_mention_and_a_command_are_answered_once(home: Home, server: DiscordServer) -> None:
    direct, thread = server.dm_channel("501").id, server.add_thread("bread").id
    async with home.runbots():
        await connected(server)
        server.dm("hello")
        asked = server.mention("and you?", channel=thread, user=BOB)
        server.say("not for the bot", user=BOB)
        await until(lambda: texts(server, direct) and texts(server, thread))
        assert texts(server, direct) == ["hello"]
        (answer,) = server.standing(thread)
        assert answer.reply_to == asked
        server.command("whoami")
        server.command("status", channel=server.bot.channel_id, user=BOB)
        await until(lambda: len(texts(server, direct)) == 2 and texts(server, server.bot.channel_id))
        for interaction in server.interactions:
            (response,) = interaction.responses
            assert response["type"] == 4, "No sign that somebody is thinking stays."
            assert response["data"]["flags"] == 64
    assert len(server.sent) == 4
    report = home.json("ledger")
    assert (report["received"], report["ends"]["answered"]) == (4, 4)
    assert "aW50ZXJhY3Rpb24" not in str(home.rows("SELECT raw, payload FROM botsrt_journalentry"))


async def test_what_is_said_to_a_dead_process_is_answered_by_the_next(home: Home, server: DiscordServer) -> None:
    direct = server.dm_channel("501").id
    async with home.runbots() as process:
        await connected(server)
        server.dm("before")
        await until(lambda: texts(server, direct) == ["before"])
        process.kill()
        await process.wait(seconds=10)
    server.dm("to nobody")
    server.dm("a new face", user=BOB)
    async with home.runbots():
        await until(lambda: len(texts(server, direct)) == 2 and texts(server, server.dm_channel(BOB).id))
        assert len(server.sessions) == 1, "The session goes on."
        server.dm("after")
        await until(lambda: len(texts(server, direct)) == 3)
    assert texts(server, direct) == ["before", "to nobody", "after"]
    assert home.manage("ledger", check=False).returncode == 0


async def test_a_session_that_is_gone_is_made_up_for(home: Home, server: DiscordServer) -> None:
    direct = server.dm_channel("501").id
    async with home.runbots():
        await connected(server)
        server.dm("before")
        await until(lambda: texts(server, direct) == ["before"])
    server.dm("over night")
    server.expire_sessions()
    async with home.runbots():
        await until(lambda: texts(server, direct) == ["before", "over night"])
    assert len(server.sessions) == 2


async def test_a_wrong_token_and_a_refused_intent_are_named(home: Home, server: DiscordServer) -> None:
    def shown() -> tuple[str, str]:
        (bot,) = home.json("bots", "list")
        return bot["state"], bot["error"]

    server.revoke()
    async with home.runbots():
        await until(lambda: shown() == ("credential_error", "Discord refused the token."))
        found = await asyncio.to_thread(home.manage, "doctor", check=False)
        assert "Discord refused the token." in found.stdout
        server.bot.is_revoked = False
        await asyncio.to_thread(home.manage, "bots", "set", "shop", "--setting", "message_content=on")
        await until(lambda: shown()[0] == "failed" and "Message Content Intent" in shown()[1])
        await asyncio.to_thread(home.manage, "bots", "set", "shop", "--setting", "message_content=off")
        await until(lambda: shown() == ("running", ""))
