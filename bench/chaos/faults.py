"""What goes wrong, by chance. A fault has a kind, begins, and ends by itself; when is written down."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bench.chaos.fleet import FAKETIME, Fleet, Member
from bench.chaos.ground import Disk, Postgres, Redis
from bench.chaos.people import Platforms
from bench.chaos.staff import Staff
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TelegramServer

#: How often each kind is chosen, compared with the others.
WEIGHTS = {
    "kill_worker": 3,
    "stop_worker": 2,
    "restart_postgres": 2,
    "kill_connections": 10,
    "kill_redis": 5,
    "fill_disk": 2,
    "platform": 30,
    "wrong_clock": 1.5,
    "kill_cluster": 1,
    "kill_site": 1.5,
}

#: Kinds that need a service or a tool that not every run has.
NEEDS_POSTGRES = ("restart_postgres", "kill_connections", "kill_redis")

#: A wrong clock is wrong by up to this part of a lease: docs/operations.md asks for clocks that agree, and more than
#: this is taken for the silence of others.
_CLOCK_OF_LEASE = 0.33


@dataclass(eq=False)
class Happened:
    kind: str
    whom: str  # a slot, or empty: all
    began: float  # epoch seconds
    ended: float | None = None
    detail: str = ""


@dataclass(eq=False)
class Faults:
    chance: random.Random
    fleet: Fleet
    platforms: Platforms
    staff: Staff
    disk: Disk
    postgres: Postgres | None
    redis: Redis | None
    rate: float  # faults a second
    wanted: tuple[str, ...]
    happened: list[Happened] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # what went wrong with going wrong
    _database: asyncio.Lock = field(default_factory=asyncio.Lock)
    _network: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def possible(self) -> dict[str, str]:
        """Kind → why it cannot happen here; empty: it can."""
        why: dict[str, str] = {}
        for kind in WEIGHTS:
            why[kind] = ""
            if kind in NEEDS_POSTGRES and self.postgres is None:
                why[kind] = "there is no such service on SQLite"
        if not self.disk.can_be_filled:
            why["fill_disk"] = "only root may mount a small disk"
        if FAKETIME is None:
            why["wrong_clock"] = "libfaketime is not installed"
        return why

    @property
    def counts(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.happened)

    async def run(self, seconds: float) -> None:
        """Faults for ``seconds``; those under way end afterwards."""
        kinds = [kind for kind, why in self.possible().items() if not why and kind in self.wanted]
        acts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {kind: getattr(self, f"_{kind}") for kind in kinds}
        until = time.monotonic() + seconds
        while True:
            await asyncio.sleep(self.chance.expovariate(self.rate))
            if time.monotonic() > until:
                break
            kind = self.chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            task = asyncio.create_task(acts[kind](), name=f"fault {kind}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        while self._tasks:
            await asyncio.wait(set(self._tasks), timeout=60)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.errors.append(f"{task.get_name()}: {type(error).__name__}: {error}")

    def _note(self, kind: str, whom: str = "", detail: str = "") -> Happened:
        fault = Happened(kind, whom, time.time(), detail=detail)
        self.happened.append(fault)
        return fault

    # -- processes ----

    async def _kill_worker(self) -> None:
        if member := self.fleet.any_worker(self.chance):
            fault = self._note("kill_worker", member.slot, member.name)
            await self._replace(member)
            fault.ended = time.time()

    async def _replace(self, member: Member, *, clock_seconds: float = 0.0) -> None:
        """Kill -9; after a while another one is started in its place."""
        self.fleet.kill(member.slot)
        await self.fleet.over(member.slot)
        if self.chance.random() < 0.5:  # else its successor takes over before the leases run out
            await asyncio.sleep(self.chance.uniform(0, 1.5 * self.fleet.lease_seconds))
        await self.fleet.start(member.slot, clock_seconds=clock_seconds)

    async def _stop_worker(self) -> None:
        """SIGSTOP past its lease; then it goes on, and believes that it has what it had."""
        if member := self.fleet.any_worker(self.chance):
            fault = self._note("stop_worker", member.slot, member.name)
            member.is_stopped = True
            os.kill(member.pid, signal.SIGSTOP)
            await asyncio.sleep(self.fleet.lease_seconds * self.chance.uniform(1.2, 2.0))
            os.kill(member.pid, signal.SIGCONT)
            await asyncio.sleep(0.2)
            member.is_stopped = False
            fault.ended = time.time()

    async def _wrong_clock(self) -> None:
        if member := self.fleet.any_worker(self.chance):
            ahead = self.fleet.lease_seconds * self.chance.uniform(0.1, _CLOCK_OF_LEASE) * self.chance.choice((-1, 1))
            fault = self._note("wrong_clock", member.slot, f"{ahead:+.2f} s")
            await self._replace(member, clock_seconds=ahead)
            fault.ended = time.time()

    async def _kill_site(self) -> None:
        fault = self._note("kill_site", "site")
        self.fleet.kill("site")
        await self.fleet.over("site")
        await asyncio.sleep(self.chance.uniform(0, 2))
        await self.fleet.start("site")
        fault.ended = time.time()

    async def _kill_cluster(self) -> None:
        """In a bulk operation, as soon as enough was said for one."""
        is_bulk = False
        try:
            is_bulk = await self.staff.bulk()
        except Exception:  # noqa: BLE001  the database is away: then without
            is_bulk = False
        fault = self._note("kill_cluster", "cluster", "in a bulk operation" if is_bulk else "")
        await asyncio.sleep(self.chance.uniform(0, 4.0))
        self.fleet.kill("cluster")
        await self.fleet.over("cluster")
        await asyncio.sleep(self.chance.uniform(0, 3))
        await self.fleet.start("cluster")
        fault.ended = time.time()

    # -- services ----

    async def _restart_postgres(self) -> None:
        assert self.postgres is not None
        async with self._database:
            how = self.chance.choice((signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
            fault = self._note("restart_postgres", "", {2: "fast", 3: "immediate", 9: "a backend killed"}[how.value])
            if how == signal.SIGKILL:
                await asyncio.to_thread(self.postgres.kill_backend)
            else:
                await self.postgres.stop(how)
            await asyncio.sleep(self.chance.uniform(0, 2))
            await self.postgres.ready()
            fault.ended = time.time()

    async def _kill_connections(self) -> None:
        assert self.postgres is not None
        async with self._database:
            fault = self._note("kill_connections")
            await asyncio.to_thread(self.postgres.kill_connections, self.chance.choice((0.2, 0.6, 1.0)))
            fault.ended = time.time()

    async def _kill_redis(self) -> None:
        assert self.redis is not None
        if self.chance.random() < 0.3:
            fault = self._note("kill_redis", "", "hangs")
            self.redis.freeze()
            await asyncio.sleep(self.chance.uniform(0.5, 4))
            self.redis.thaw()
        else:
            fault = self._note("kill_redis")
            self.redis.kill()
            await asyncio.sleep(self.chance.uniform(0, 3))
            self.redis.start()
        fault.ended = time.time()

    async def _fill_disk(self) -> None:
        async with self._database:
            fault = self._note("fill_disk")
            await self.disk.be_full(self.chance.uniform(1, 4))
            if self.postgres is not None:
                await self.postgres.ready()
            fault.ended = time.time()

    # -- platforms ----

    async def _platform(self) -> None:
        """The next few calls fail in some way, or the whole platform is away for a moment."""
        if self.chance.random() < 0.5:
            await self._telegram()
        else:
            await self._slack()

    async def _telegram(self) -> None:
        server, times = self.platforms.telegram, self.chance.randint(1, 4)
        kind = self.chance.choice(
            ("rate_limit", "error", "bare", "cut_before", "cut_after", "slow", "hang_after", "poll", "away")
        )
        self._note("platform", "platform", f"telegram {kind}")
        if kind == "away":
            async with self._network:
                await server.lose_network()
                await asyncio.sleep(self.chance.uniform(0.3, 3))
                await server.restore_network()
        elif kind == "poll":
            failing = self.chance.choice(("error", "bare", "cut_before", "cut_after", "rate_limit"))
            server.fail_next(failing, method="getUpdates", times=min(times, 3))  # type: ignore[arg-type]
            await self._for_a_while(server)
        else:
            seconds = {"slow": self.chance.uniform(0.2, 1.0), "hang_after": 8.0}.get(kind, 0.0)
            server.fail_next(kind, times=times, retry_after=self.chance.randint(1, 2), seconds=seconds)  # type: ignore[arg-type]
            await self._for_a_while(server)

    async def _for_a_while(self, server: TelegramServer | SlackServer) -> None:
        """The fault just set ends also when fewer calls come than it has for them: else they would pile up."""
        fault = server._faults[-1]
        await asyncio.sleep(self.chance.uniform(0.5, 2.5))
        with suppress(ValueError):
            server._faults.remove(fault)  # type: ignore[arg-type]

    async def _slack(self) -> None:
        server, times = self.platforms.slack, self.chance.randint(1, 4)
        kind = self.chance.choice(
            ("429", "error", "status", "cut_before", "cut_after", "slow", "hang", "drop", "duplicates", "history")
        )
        self._note("platform", "platform", f"slack {kind}")
        if kind == "drop":
            server.drop_connections()
        elif kind == "duplicates":
            server.duplicates(0.3, seed=self.chance.getrandbits(32))
            await asyncio.sleep(2)
            server.duplicates(0.0)
        elif kind == "history":  # so that it cannot tell what it has
            server.fail_next("status", method="conversations.history", times=times)
            await self._for_a_while(server)
        else:
            seconds = {"slow": self.chance.uniform(0.1, 0.5), "hang": 8.0}.get(kind, 0.0)
            server.fail_next(kind, times=times, retry_after=self.chance.randint(1, 2), seconds=seconds)  # type: ignore[arg-type]
            await self._for_a_while(server)

    # -- the end ----

    async def none(self) -> None:
        """Everything works again, and every process is as it should be."""
        self.disk.free()
        if self.postgres is not None:
            await self.postgres.ready()
        if self.redis is not None:
            self.redis.thaw()
            self.redis.start()
        self.platforms.telegram._faults.clear()
        self.platforms.slack._faults.clear()
        self.platforms.slack.duplicates(0.0)
        for slot, member in list(self.fleet.members.items()):
            if member.clock_seconds and member.is_up:
                self.fleet.kill(slot)
                await self.fleet.over(slot)
        await self.fleet.start_all()
