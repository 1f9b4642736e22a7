"""200 open pages and 50 messages/s: ``python -m bench.sockets`` prints one JSON line without sockets, one with.

A real ``runbots --web`` with a Telegram bot (``tests/fakes``) that echoes, on SQLite in a temporary folder. All of it
runs on one machine: what is measured includes what it costs to write the messages and to be 200 browsers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

#: People who write, in turn.
PEOPLE = 500

_SESSIONS = """
import time
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
user = User.objects.create_superuser("alice", password="alice")
for _ in range({count}):
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[-1]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    print("session", session.session_key)
"""


class Pages:
    """Open websockets, and when each heard first of a journal entry."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, str]] = []
        self.events = 0
        self.closed = 0

    async def stay(self, client: aiohttp.ClientSession, address: str, key: str, ready: asyncio.Event) -> None:
        known: set[str] = set()
        headers = {"Cookie": f"sessionid={key}", "Origin": address}
        url = f"{address}/ws/live/?topics=journal,outbox,people"
        async with client.ws_connect(url.replace("http", "ws", 1), headers=headers) as opened:
            ready.set()
            async for frame in opened:
                at, event = time.time(), json.loads(frame.data)
                self.events += 1
                if event["topic"] == "journal":
                    self.heard += [(at, row_id) for row_id in event["ids"] if row_id not in known]
                    known.update(event["ids"])
        self.closed += 1


async def _look(client: aiohttp.ClientSession, address: str, key: str, times: list[float]) -> None:
    """Read pages as one member of staff does, twice a second."""
    while True:
        for path in ("/", "/journal/", "/people/", "/deliveries/"):
            began = time.perf_counter()
            async with client.get(address + path, headers={"Cookie": f"sessionid={key}"}) as response:
                await response.read()
                assert response.status == 200, (path, response.status)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.5)


async def _write(server: Any, seconds: float, rate: int, said: dict[str, float]) -> None:
    """``rate`` messages a second."""
    began = time.perf_counter()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        text = f"message {number}"
        said[text] = time.perf_counter()
        server.bot.say(text, user=1_000 + number % PEOPLE)


async def measure(*, sockets: int, seconds: float, rate: int) -> dict[str, Any]:
    from tests.acceptance.home import Home
    from tests.fakes.telegram import TOKEN, TelegramServer

    os.environ["BOTSRT_ADAPTER_PACKAGES"] = "botsrt.adapters,bench.platforms"
    with tempfile.TemporaryDirectory(prefix="praisonweb-bench-") as folder:
        home = Home(Path(folder), adapter_packages="botsrt.adapters,bench.platforms")
        home.env |= {"LOG_LEVEL": "ERROR", "BOTSRT_LEASE_SECONDS": "60", "BOTSRT_POLL_SECONDS": "1"}
        home.manage("migrate", "--verbosity", "0")
        async with TelegramServer() as server:
            arrived: dict[str, float] = {}
            home.manage(
                *("bots", "add", "shop", "--platform", "telegram", "--policy", "allow", "--credential"),
                *(f"token={TOKEN}", "--setting", f"api_base_url={server.url}", "--setting", "mode=polling"),
            )
            home.manage(
                *("bots", "add", "watch", "--platform", "watch", "--policy", "deny"),
                *("--setting", f"file={folder}/gaps"),
            )
            shell = home.manage("shell", "-v0", "-c", _SESSIONS.format(count=sockets + 1)).stdout
            keys = [line.split()[1] for line in shell.splitlines() if line.startswith("session ")]
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = int(free.getsockname()[1])
            async with (
                home.runbots("--web", str(port)) as worker,
                aiohttp.ClientSession(connector=_unlimited()) as client,
            ):
                address = f"http://127.0.0.1:{port}"
                pages, times, said = Pages(), list[float](), dict[str, float]()
                tasks = []
                for key in keys[1:]:
                    ready = asyncio.Event()
                    tasks.append(asyncio.create_task(pages.stay(client, address, key, ready)))
                    await asyncio.wait_for(ready.wait(), 20)
                await _write(server, 5, rate, {})  # warm
                await asyncio.sleep(2)
                first, lines = len(server.sent), _lines(folder)
                times.clear()
                tasks.append(asyncio.create_task(_look(client, address, keys[0], times)))
                watcher = asyncio.create_task(_answers(server, first, arrived))
                began, busy = time.perf_counter(), _busy_seconds(worker.pid)
                await _write(server, seconds, rate, said)
                busy = (_busy_seconds(worker.pid) - busy) / (time.perf_counter() - began)
                gaps = [
                    gap for line in Path(folder, "gaps").read_text().splitlines()[lines:] for gap in json.loads(line)
                ]
                deadline = time.perf_counter() + 60
                while len(arrived) < len(said) and time.perf_counter() < deadline:
                    await asyncio.sleep(0.1)
                for task in (*tasks, watcher):
                    task.cancel()
                await asyncio.gather(*tasks, watcher, return_exceptions=True)
        received = _received(Path(folder, "praisonweb.sqlite3"))
    answers = [at - said[text] for text, at in arrived.items() if text in said]
    delays = [at - received[row_id] for at, row_id in pages.heard if row_id in received]
    return {
        "kind": "sockets",
        "database": "sqlite",
        "sockets": sockets,
        "messages_per_second": rate,
        "answered": f"{len(answers)} of {len(said)}",
        **_spread("answer", answers),
        **_spread("event", delays),
        "events": pages.events,
        "closed": pages.closed,
        "worker_cpu_percent": round(100 * busy),
        **_spread("page", times),
        **_spread("loop_gap", [gap / 1000 for gap in gaps]),
        "load": round(os.getloadavg()[0], 1),
    }


def _unlimited() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=0)


def _busy_seconds(pid: int) -> float:
    """Processor time of a process so far: what others do on the machine does not change it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(folder: str) -> int:
    return len(Path(folder, "gaps").read_text().splitlines())


async def _answers(server: Any, first: int, arrived: dict[str, float]) -> None:
    """Note when the platform got each answer. One answer may be to several messages."""
    while True:
        now = time.perf_counter()
        for sent in itertools.islice(server.sent, first, None):
            for text in sent.text.split("\n"):
                arrived.setdefault(text, now)
        first = len(server.sent)
        await asyncio.sleep(0.005)


def _received(path: Path) -> dict[str, float]:
    """Entry → when it was stored, in seconds since 1970."""
    import sqlite3

    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id, received_at FROM botsrt_journalentry").fetchall()
    return {str(pk): datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() for pk, at in rows}


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return {
        f"{name}_p50_ms": round(statistics.median(ordered) * 1000, 1),
        f"{name}_p99_ms": round(p99 * 1000, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=0, help="not used: it begins with an empty journal")
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=50)
    options = parser.parse_args()
    for count in (0, options.sockets):
        line = asyncio.run(measure(sockets=count, seconds=options.seconds, rate=options.rate))
        print(json.dumps(line), flush=True)
