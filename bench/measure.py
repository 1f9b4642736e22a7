"""One measurement in a process of its own: ``python -m bench.measure KIND --entries N`` prints one JSON line.

The database is the one of ``DATABASE_URL``, which must be empty.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
os.environ["BOTSRT_ADAPTER_PACKAGES"] = "botsrt.adapters,bench.platforms"
os.environ.setdefault("LOG_LEVEL", "CRITICAL")
django.setup()

from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench import world  # noqa: E402
from bench.platforms.null import Adapter  # noqa: E402
from botsrt import conf  # noqa: E402
from botsrt.core.messages import InboundMessage  # noqa: E402
from botsrt.runtime import garbage  # noqa: E402
from botsrt.runtime.db import Database  # noqa: E402
from botsrt.runtime.intake import Intake  # noqa: E402
from botsrt.runtime.worker import Worker  # noqa: E402
from botsrt.services import claims, finishing, journal, news, nudge, sessions  # noqa: E402
from botsrt.services import identity as identity_service  # noqa: E402
from botsrt.services.claimed import ClaimedTurn  # noqa: E402
from botsrt.services.finishing import Result  # noqa: E402

CALLERS = 64

#: Functions of ``bench.agents``, each behind a bot of its own.
MISBEHAVING = ("raises", "hangs", "nothing", "endless", "blocks")
SECONDS = float(os.environ.get("BENCH_SECONDS", "8"))


async def receive(database: Database) -> dict[str, Any]:
    """New messages of 1,000 contacts through ``journal.receive``."""

    async def one(number: int) -> None:
        await database.call(
            journal.receive,
            message=world.message(number % world.CONTACTS + 1, number),
            now=timezone.now(),
            max_raw_bytes=262_144,
        )

    return await _load(one)


async def cycle(database: Database) -> dict[str, Any]:
    """Receive, claim and finish, each through the bridge; claimed as a worker claims, for all that wait at a time."""
    desk = _Desk(database)

    async def one(number: int) -> None:
        message = world.message(number % world.CONTACTS + 1, number)
        entry_id = await database.call(journal.receive, message=message, now=timezone.now(), max_raw_bytes=262_144)
        assert entry_id is not None
        if turn := await desk.turn_of(entry_id):
            result = Result(parts=("ok",), text="ok", agent="bench", agent_version=1)
            await database.call(
                finishing.finish, turn=turn, result=result, late_after=timedelta(hours=6), now=timezone.now()
            )

    return await _load(one)


class _Desk:
    """Claims turns as a worker's pump does, and hands them to those who received their entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._places: defaultdict[int, asyncio.Future[ClaimedTurn | None]] = defaultdict(asyncio.Future)
        self._waiting = 0
        self._claiming: asyncio.Task[None] | None = None

    async def turn_of(self, entry_id: int) -> ClaimedTurn | None:
        """The turn over the entry; None for whom another caller finishes it."""
        self._waiting += 1
        if self._claiming is None:
            self._claiming = asyncio.create_task(self._claim())
        turn = await self._places[entry_id]
        del self._places[entry_id]
        self._waiting -= 1
        return turn

    async def _claim(self) -> None:
        while self._waiting:
            claimed = await self._database.call(
                claims.claim,
                worker_id="bench",
                limit=CALLERS,
                aside_limit=1,
                accounts=None,
                max_entries_per_turn=50,
                lease=timedelta(seconds=60),
                claim_timeout=timedelta(seconds=360),
                now=timezone.now(),
            )
            for turn in claimed:
                first, *others = turn.entry_ids
                self._places[first].set_result(turn)
                for entry_id in others:
                    self._places[entry_id].set_result(None)
            await asyncio.sleep(0)
        self._claiming = None


async def turn(database: Database) -> dict[str, Any]:
    """Whole turns: received, gated, answered by the echo agent, finished, sent. Counted when sent."""
    return await _answering(database, account=world.ACCOUNT, contacts=world.CONTACTS, config=conf.load())


async def alone(database: Database) -> dict[str, Any]:
    """Whole turns of one contact, who writes again when answered."""
    await database.call(world.add_bot, account="alone", agent="at_once")
    return await _answering(database, account="alone", contacts=1, config=conf.load())


async def shared(database: Database) -> dict[str, Any]:
    """Whole turns of 1,000 contacts of one agent that takes 50 ms for each, in 256 slots."""
    await database.call(world.add_bot, account="shared", agent="waits_50_ms")
    config = dataclasses.replace(conf.load(), concurrency=256)
    return await _answering(database, account="shared", contacts=world.CONTACTS, config=config)


async def _answering(database: Database, *, account: str, contacts: int, config: conf.RuntimeConfig) -> dict[str, Any]:
    """Answers per second of one worker, while everybody waits for their answer before they write again."""
    worker = Worker(database=database, config=config)
    await worker.start()
    intake = Intake(database, platform="null", account=account)
    numbers = itertools.count()
    stop = asyncio.Event()
    unanswered = asyncio.Semaphore(contacts)
    Adapter.on_sent = lambda message: unanswered.release()

    async def writer() -> None:
        while not stop.is_set():
            await unanswered.acquire()
            await intake.receive(_message(account, next(numbers), contacts=contacts))

    writers = [asyncio.create_task(writer()) for _ in range(min(CALLERS, contacts))]
    await asyncio.sleep(1)  # warm
    gaps = asyncio.create_task(_loop_gaps())
    before, started, worked = Adapter.sent, time.perf_counter(), time.process_time()
    await asyncio.sleep(SECONDS)
    count = Adapter.sent - before
    rate, cpu = count / (time.perf_counter() - started), (time.process_time() - worked) / max(count, 1)
    gaps.cancel()
    stop.set()
    await asyncio.gather(*writers)
    await worker.stop()
    return {"per_second": round(rate), "cpu_us": round(cpu * 1_000_000), **await gaps}


async def latency(database: Database) -> dict[str, Any]:
    """From the call of the sink to the call of the platform: one message at a time, in a process with nothing to do."""
    await database.call(world.add_bot, account="idle", agent="at_once")
    worker = Worker(database=database, config=conf.load())
    await worker.start()
    intake = Intake(database, platform="null", account="idle")
    sent: asyncio.Queue[float] = asyncio.Queue()
    Adapter.on_sent = lambda message: sent.put_nowait(time.perf_counter())
    times = []
    for number in range(500):
        began = time.perf_counter()
        await intake.receive(_message("idle", number, contacts=world.CONTACTS))
        times.append(await sent.get() - began)
        await asyncio.sleep(0.02)
    await worker.stop()
    return {"messages": len(times), **_percentiles(times)}


def _message(account: str, number: int, *, contacts: int) -> InboundMessage:
    return dataclasses.replace(world.message(number % contacts + 1, number), account=account)


def _percentiles(times: list[float]) -> dict[str, float]:
    times.sort()
    return {
        "p50_ms": round(statistics.median(times) * 1000, 1),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
    }


async def misbehaving(database: Database) -> dict[str, Any]:
    """The loop's gaps while agents raise, hang, block, say nothing and say 100,000 characters, 5 messages/s each."""
    for name in MISBEHAVING:
        await database.call(world.add_bot, account=name, agent=name)
    worker = Worker(database=database, config=dataclasses.replace(conf.load(), run_timeout_seconds=1.0))
    await worker.start()
    intakes = {name: Intake(database, platform="null", account=name) for name in MISBEHAVING}
    contacts = itertools.count(1)

    async def write(seconds: float) -> None:
        for _ in range(int(seconds * 5)):
            for name, intake in intakes.items():
                number = next(contacts)
                await intake.receive(dataclasses.replace(world.message(number, number), account=name))
            await asyncio.sleep(0.2)

    await write(1)  # warm
    gaps = asyncio.create_task(_loop_gaps())
    await write(SECONDS)
    gaps.cancel()
    await worker.stop()
    return {"sent": Adapter.sent, **await gaps}


async def memory(database: Database) -> dict[str, Any]:
    """How the process grows with 10,000 contacts, each answered once, after 2,000 to warm up."""
    worker = Worker(database=database, config=conf.load())
    await worker.start()
    intake = Intake(database, platform="null", account=world.ACCOUNT)

    async def answer(first: int, last: int) -> None:
        goal = Adapter.sent + last - first
        for start in range(first, last, 200):
            numbers = range(start, min(start + 200, last))
            await asyncio.gather(*(intake.receive(world.message(number + 1, number)) for number in numbers))
        while Adapter.sent < goal:
            await asyncio.sleep(0.02)

    await answer(0, 2_000)
    before = _resident_kib()
    await answer(2_000, 12_000)
    grown = _resident_kib() - before
    await worker.stop()
    return {"kib_per_10000_contacts": grown, "resident_mib": round((before + grown) / 1024)}


async def _load(one: Callable[[int], Awaitable[None]]) -> dict[str, Any]:
    """Run ``one`` from 64 callers for a while: calls per second, their times, and the loop's gaps."""
    numbers = itertools.count()
    times: list[float] = []
    deadline = time.perf_counter() + SECONDS

    async def caller() -> None:
        while time.perf_counter() < deadline:
            began = time.perf_counter()
            await one(next(numbers))
            times.append(time.perf_counter() - began)

    news.send_with(lambda topic, ids: None)
    nudge.send_with(lambda kind: None)  # nobody listens here; a worker would coalesce them
    gaps = asyncio.create_task(_loop_gaps())
    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    seconds = time.perf_counter() - began
    gaps.cancel()
    return {"per_second": round(len(times) / seconds), **_percentiles(times), **await gaps}


async def _loop_gaps() -> dict[str, float]:
    """How late the loop wakes a task that sleeps 2 ms, until cancelled."""
    gaps = []
    try:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            gaps.append(time.perf_counter() - began - 0.002)
    except asyncio.CancelledError:
        gaps.sort()
        return {
            "loop_gap_p99_ms": round(gaps[int(len(gaps) * 0.99)] * 1000, 1),
            "loop_gap_max_ms": round(gaps[-1] * 1000, 1),
        }


def _resident_kib() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def identity(database: Database) -> dict[str, Any]:
    """Who a contact is, and what an agent is shown of the person: one caller, one call after the other."""
    contacts = int(os.environ.get("BENCH_CONTACTS", "100000"))
    await database.call(world.link, contacts=contacts)
    times: dict[str, list[float]] = {"resolve": [], "load": []}
    chance = random.Random(7)
    for _ in range(4_000):
        contact = chance.randrange(contacts) + 1
        for name, service, arguments in (
            ("resolve", identity_service.persons_of, {"contact_ids": [contact]}),
            ("load", sessions.history, {"session_pk": contact, "max_messages": 100}),
        ):
            began = time.perf_counter()
            found = await database.call(service, **arguments)
            times[name].append(time.perf_counter() - began)
            assert found
    figures: dict[str, float] = {"contacts": contacts}
    for name, taken in times.items():
        taken.sort()
        figures[f"{name}_p50_ms"] = round(statistics.median(taken) * 1000, 2)
        figures[f"{name}_p99_ms"] = round(taken[int(len(taken) * 0.99)] * 1000, 2)
    return figures


KINDS = {
    "identity": identity,
    "receive": receive,
    "cycle": cycle,
    "turn": turn,
    "alone": alone,
    "shared": shared,
    "latency": latency,
    "misbehaving": misbehaving,
    "memory": memory,
}


async def _main(kind: str) -> dict[str, Any]:
    database = Database(max_batch=conf.load().max_batch)
    garbage.spare_what_stays()
    try:
        return await KINDS[kind](database)
    finally:
        await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--entries", type=int, default=0)
    options = parser.parse_args()
    world.make(entries=options.entries)
    figures = asyncio.run(_main(options.kind))
    line = {"kind": options.kind, "database": connection.vendor, "entries": options.entries, **figures}
    print(json.dumps(line), flush=True)
