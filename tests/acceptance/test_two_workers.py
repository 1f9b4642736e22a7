"""Two ``runbots`` on one database: no entry runs twice, no lane in parallel, one poller per bot, and takeover."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path

import pytest

from tests.acceptance.home import Home
from tests.fakes.telegram import TelegramServer
from tests.patience import SECOND

BOTS = 3
PEOPLE = 30
ROUNDS = 8
LEASE_SECONDS = 4.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.redis])])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """An installation on SQLite without services, or on PostgreSQL and Redis."""
    if request.param == "sqlite":
        home = Home(tmp_path, lease_seconds=str(LEASE_SECONDS))
    else:
        home = Home(
            tmp_path,
            database_url=request.getfixturevalue("postgres_url"),
            redis_url=request.getfixturevalue("redis_url"),
            lease_seconds=str(LEASE_SECONDS),
        )
    home.prepare()
    # Records when each run began and ended, in the file named by TIMELINE.
    home.env["TIMELINE"] = str(tmp_path / "timeline")
    home.manage("agents", "add", "timed", "--kind", "python", "--target", "tests.acceptance.agents:timed")
    return home


def add_bots(home: Home, server: TelegramServer) -> list[str]:
    """Bots of one platform, each with a token of its own."""
    tokens = [f"70000000{number:02}:FAKE-telegram-token-of-bot-{number:02}-xxxxxxxx" for number in range(BOTS)]
    for number, token in enumerate(tokens):
        server.add_bot(token, username=f"bot_{number}")
        home.manage(
            *("bots", "add", f"bot{number}", "--platform", "telegram", "--policy", "allow", "--agent", "timed"),
            *("--credential", f"token={token}", "--setting", f"api_base_url={server.url}"),
        )
    return tokens


async def until_settled(home: Home, *, received: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        report = await asyncio.to_thread(home.json, "ledger")
        waiting = [
            row
            for state in ("pending", "sending", "unknown")
            for row in await asyncio.to_thread(home.json, "outbox", "list", "--state", state)
        ]
        if report["received"] == received and not report["open"] and not waiting:
            return
        assert time.monotonic() < deadline, report
        await asyncio.sleep(0.1)


def assert_no_lane_ran_twice_at_once(home: Home) -> None:
    """The agents' own record: in a lane no run begins before the one before has ended, or died with its process."""
    running: dict[str, str] = {}
    lines = Path(home.env["TIMELINE"]).read_text().splitlines()
    ended = {line.split()[3] for line in lines if line.split()[1] != "begin"}
    for line in sorted(lines, key=lambda line: int(line.split()[0])):
        _, what, lane, turn = line.split()
        if what == "begin":
            assert running.get(lane) not in ended, f"{lane} ran twice at once: {running.get(lane)} and {turn}"
            running[lane] = turn
        else:
            assert running.pop(lane, None) == turn


async def test_they_share_the_work_and_one_takes_over(home: Home) -> None:
    async with TelegramServer() as server:
        tokens = add_bots(home, server)
        bots = [server.bots[token] for token in tokens]
        said: dict[int, list[str]] = {}

        def say(number: int) -> None:
            for user in range(PEOPLE):
                text = f"{number} from {user}"
                said.setdefault(1000 + user, []).append(text)
                bots[user % BOTS].say(text, user=1000 + user)

        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(home.runbots())
            second = await stack.enter_async_context(home.runbots())
            for number in range(ROUNDS):
                say(number)
                await asyncio.sleep(0)
            await until_settled(home, received=PEOPLE * ROUNDS)
            holders = {row["account"]: row for row in await asyncio.to_thread(home.json, "bots", "list")}
            assert all(row["state"] == "running" for row in holders.values())

            # Kill the one that polls the bots, in the middle of work; the other takes over bots and turns.
            poller = first if re.search(r"bot bot0 is running", first.log_tail()) else second
            say(ROUNDS)
            await asyncio.sleep(0.05)
            poller.kill()
            killed_at = time.monotonic()
            say(ROUNDS + 1)
            await server.until(lambda: any(f"{ROUNDS + 1} from" in sent.text for sent in server.sent), seconds=60)
            assert time.monotonic() - killed_at < 2 * LEASE_SECONDS * SECOND, "taking over took too long"
            await until_settled(home, received=PEOPLE * (ROUNDS + 2))

        for user, texts in said.items():
            lines = [line for sent in server.sent if sent.chat_id == user for line in sent.text.split("\n")]
            plain = [line for line in lines if not line.startswith("(")]
            assert set(plain) == set(texts)
            if not any(line.startswith("(") for line in lines):
                assert plain == texts
    assert_no_lane_ran_twice_at_once(home)
    assert home.manage("ledger", check=False).returncode == 0
