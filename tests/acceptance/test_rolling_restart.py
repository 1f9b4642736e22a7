"""A new version goes live one worker at a time, under load: nothing lost, nothing twice, nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.home import Home, Process
from tests.fakes.telegram import FakeBot, TelegramServer

BOTS = 4
PEOPLE = 40
LEASE_SECONDS = 60.0

#: Messages a second, over all bots, for as long as workers come and go.
RATE = 4

#: Longest that anybody may wait for an answer. A bot changes hands within a second or two; the rest is for machines
#: that are busy with other tests. Whoever had to wait for a lease to run out would wait longer.
PATIENCE_SECONDS = 40.0

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.redis, pytest.mark.timeout(300)]


@pytest.fixture
def home(tmp_path: Path, postgres_url: str, redis_url: str) -> Home:
    home = Home(tmp_path, database_url=postgres_url, redis_url=redis_url, lease_seconds=str(LEASE_SECONDS))
    home.manage("migrate", "--verbosity", "0")
    return home


class Crowd:
    """People who write to all bots at a steady pace, each message once, and when they did."""

    def __init__(self, server: TelegramServer, bots: list[FakeBot]) -> None:
        self._server = server
        self._bots = bots
        self.said_at: dict[str, float] = {}
        self.answered_at: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            assert task.cancelled(), task.exception()

    async def hush(self) -> None:
        """Write no more, and wait until all is answered."""
        self._tasks[0].cancel()
        deadline = time.monotonic() + 30
        while missing := self.said_at.keys() - self.answered_at.keys():
            assert time.monotonic() < deadline, f"{len(missing)} messages were never answered: {sorted(missing)[:5]}"
            await asyncio.sleep(0.05)

    async def until_answered(self, count: int) -> None:
        """Until ``count`` more messages have been answered."""
        wanted, deadline = len(self.answered_at) + count, time.monotonic() + 30
        while len(self.answered_at) < wanted:
            assert time.monotonic() < deadline, "nobody answers any more"
            await asyncio.sleep(0.05)

    async def _write(self) -> None:
        number = 0
        while True:
            text = f"message-{number}"
            self.said_at[text] = time.monotonic()
            self._bots[number % BOTS].say(text, user=1_000 + number % PEOPLE)
            number += 1
            await asyncio.sleep(1 / RATE)

    async def _watch(self) -> None:
        seen = 0
        while True:
            for sent in itertools.islice(self._server.sent, seen, None):
                seen += 1
                for line in sent.text.split("\n"):
                    self.answered_at.setdefault(line, time.monotonic())
            await asyncio.sleep(0.01)


async def until_spread(home: Home, share: int) -> None:
    """Until every bot runs, and no worker holds more than ``share`` of them."""
    deadline = time.monotonic() + 40
    async with await psycopg.AsyncConnection.connect(home.env["DATABASE_URL"], autocommit=True) as database:
        while True:
            rows = await database.execute("SELECT worker_id FROM botsrt_adapterstate WHERE state = 'running'")
            held = Counter(worker for (worker,) in await rows.fetchall())
            if held.total() == BOTS and max(held.values()) <= share:
                return
            assert time.monotonic() < deadline, held
            await asyncio.sleep(0.1)


async def restart(home: Home, old: Process, stack: contextlib.AsyncExitStack) -> Process:
    """Drain one worker, then start the one that takes its place."""
    await old.stop()
    return await stack.enter_async_context(home.runbots())


async def test_nobody_notices_that_both_workers_are_replaced(home: Home) -> None:
    async with TelegramServer() as server, contextlib.AsyncExitStack() as stack:
        bots = []
        for number in range(BOTS):
            token = f"71000000{number:02}:FAKE-telegram-token-of-bot-{number:02}-xxxxxxxx"
            bots.append(server.add_bot(token, username=f"bot_{number}"))
            home.manage(
                *("bots", "add", f"bot{number}", "--platform", "telegram", "--policy", "allow", "--agent", "echo"),
                *("--credential", f"token={token}", "--setting", f"api_base_url={server.url}"),
            )
        first = await stack.enter_async_context(home.runbots())
        second = await stack.enter_async_context(home.runbots())
        await until_spread(home, BOTS // 2)
        async with Crowd(server, bots) as crowd:
            await crowd.until_answered(20)
            for old in (first, second):
                await restart(home, old, stack)
                await until_spread(home, BOTS // 2)
                await crowd.until_answered(20)
            await crowd.hush()

        lines = Counter(line for sent in server.sent for line in sent.text.split("\n"))
        assert lines == Counter(crowd.said_at.keys()), "Each is answered once, and none with a label."
        waits = {text: crowd.answered_at[text] - at for text, at in crowd.said_at.items()}
        worst = max(waits, key=lambda text: waits[text])
        assert waits[worst] < PATIENCE_SECONDS, f"{worst} waited {waits[worst]:.1f} s"
    ledger = home.json("ledger")
    assert ledger["open"] == 0
    assert home.manage("ledger", check=False).returncode == 0
