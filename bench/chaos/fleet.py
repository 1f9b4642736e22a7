"""The processes under test: workers, a site, a task cluster. Each start is a member with a name and log of its own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.home import Home, Process

#: Where Debian's package has it.
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)

_PROGRAM = ("-m", "bench.chaos.process")


@dataclass(eq=False)
class Member:
    """One process."""

    name: str  # also of its database connections
    slot: str
    process: Process
    clock_seconds: float = 0.0  # how far its clock is ahead
    files_at_rest: int = 0
    is_stopped: bool = False
    was_killed: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_up(self) -> bool:
        return not self.process.is_over

    def files(self) -> int:
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def signal_all(self, number: signal.Signals) -> None:
        """To the process and its children."""
        self.was_killed |= number == signal.SIGKILL
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@dataclass
class Fleet:
    home: Home
    logs: Path
    lease_seconds: float
    site_port: int
    workers: int
    members: dict[str, Member] = field(default_factory=dict)  # by slot: who is there now
    slots: dict[int, str] = field(default_factory=dict)  # of every process that there ever was
    _starts: int = 0
    _starting: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def site_url(self) -> str:
        return f"http://127.0.0.1:{self.site_port}"

    async def start_all(self) -> None:
        await asyncio.gather(*(self.start(slot) for slot in self._all_slots()))

    def _all_slots(self) -> list[str]:
        return [*(f"worker{number}" for number in range(self.workers)), "site", "cluster"]

    async def start(self, slot: str, *, clock_seconds: float = 0.0) -> Member:
        """Start what is not there, and wait until it is ready. One that dies while it starts is started again."""
        async with self._starting.setdefault(slot, asyncio.Lock()):
            found = self.members.get(slot)
            if found is not None and found.is_up:
                return found
            deadline = time.monotonic() + 120
            while True:
                member = await self._start(slot, clock_seconds)
                try:
                    if slot != "cluster":
                        await member.process.ready("serve" if slot == "site" else "runbots")
                        await asyncio.sleep(0.5)
                    member.files_at_rest = member.files()
                    return member
                except (AssertionError, TimeoutError):
                    if time.monotonic() > deadline:
                        raise
                    member.signal_all(signal.SIGKILL)
                    await asyncio.sleep(0.5)  # the database or the disk may be away

    async def _start(self, slot: str, clock_seconds: float) -> Member:
        self._starts += 1
        name = f"{slot}-{self._starts}"
        arguments = {"site": ("serve", str(self.site_port)), "cluster": ("qcluster",)}.get(slot, ("runbots",))
        env = {**self.home.env, "PGAPPNAME": name, "CHAOS_TASKS": str(self.logs / f"{name}.tasks")}
        if clock_seconds:
            env |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{clock_seconds:+.2f}", "DONT_FAKE_MONOTONIC": "1"}
        process = await Process.start(
            (*_PROGRAM, *arguments), env=env, log=self.logs / f"{name}.log", start_new_session=True
        )
        member = Member(name, slot, process, clock_seconds=clock_seconds)
        self.members[slot] = member
        self.slots[process.pid] = slot
        return member

    def kill(self, slot: str) -> None:
        """Kill -9, with all children."""
        self.members[slot].signal_all(signal.SIGKILL)

    async def over(self, slot: str) -> None:
        await self.members[slot].process.wait(seconds=30)

    async def revive(self) -> list[str]:
        """Start again what ended though nobody killed it, as a supervisor of the host would. Returns their names."""
        gone = [member for member in self.members.values() if not member.is_up and not member.was_killed]
        for member in gone:
            member.was_killed = True  # told once
            await self.start(member.slot)
        return [member.name for member in gone]

    def running_workers(self) -> list[Member]:
        found = (self.members.get(f"worker{number}") for number in range(self.workers))
        return [member for member in found if member is not None and member.is_up and not member.is_stopped]

    def any_worker(self, chance: random.Random) -> Member | None:
        """One that may be harmed: another one goes on."""
        running = self.running_workers()
        return chance.choice(running) if len(running) > 1 else None

    async def tasks_of(self, member: Member) -> list[str]:
        """The names of the tasks in its event loop."""
        path = self.logs / f"{member.name}.tasks"
        path.unlink(missing_ok=True)
        os.kill(member.pid, signal.SIGUSR2)
        deadline = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > deadline:
                return []
            await asyncio.sleep(0.05)
        names: list[str] = json.loads(path.read_text())
        return names

    async def stop_all(self) -> list[str]:
        """SIGTERM to all; who did not end well, and how."""
        problems = []
        for member in self.members.values():
            if member.is_up:
                os.kill(member.pid, signal.SIGTERM)
        for member in self.members.values():
            try:
                code = await member.process.wait(seconds=40)
            except TimeoutError:
                problems.append(f"{member.name} did not end within 40 s of SIGTERM")
                continue
            finally:
                member.signal_all(signal.SIGKILL)
            if code:
                problems.append(f"{member.name} ended with {code}")
        return problems

    def kill_all(self) -> None:
        for member in self.members.values():
            member.signal_all(signal.SIGCONT)
            member.signal_all(signal.SIGKILL)
