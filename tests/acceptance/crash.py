"""Kill ``runbots`` at every step of a message's way, again and again, and look whether anybody noticed.

``python -m tests.acceptance.crash --rounds 50`` runs each step 50 times against a Telegram server on loopback, with
``--platform discord`` against a Discord. After each kill a new process is started; every message must be answered, none
twice without a label (at Discord, which knows a message that is sent again: none twice), and the ledger must balance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg

from tests.acceptance.home import Home, Process
from tests.fakes.discord import DiscordServer
from tests.fakes.telegram import TOKEN, TelegramServer

STEPS = (
    "before_receive_commit",
    "after_receive_commit",
    "during_run",
    "after_run",
    "before_finish_commit",
    "after_finish_commit",
    "during_send",
    "after_platform_took_it",
    "before_mark_sent",
)

#: Killed before this step nothing has been handed to the platform, so nothing may arrive twice, label or not.
_FIRST_SEND_STEP = STEPS.index("during_send")

#: Messages of a round, each from a person of their own, so that each has a lane and an answer of its own.
PEOPLE = 3

_PROGRAM = ("-m", "tests.acceptance.crashing_runbots")


class Platform(ABC):
    """One bot at a platform's server, and the people who write to it."""

    name: str
    token: str
    url: str
    knows_repetitions: bool  # a message that is sent again is no second one

    async def is_connected(self) -> None:  # noqa: B027  most keep what is said for a bot that is not there
        """Wait until what people write reaches the bot, sooner or later."""

    @abstractmethod
    def say(self, text: str, *, user: int) -> None: ...

    @abstractmethod
    def dawdle(self) -> None:
        """The next message of the bot is taken slowly."""

    @abstractmethod
    def forget(self) -> None:
        """Deliver nothing again of what was said so far."""

    @abstractmethod
    def answers(self, user: int) -> list[str]: ...


class Telegram(Platform):
    name, token, knows_repetitions = "telegram", TOKEN, False

    def __init__(self, server: TelegramServer) -> None:
        self.server, self.url = server, server.url

    def say(self, text: str, *, user: int) -> None:
        self.server.bot.say(text, user=user)

    def dawdle(self) -> None:
        self.server.fail_next("slow", seconds=0.4)

    def forget(self) -> None:
        self.server.bot.pending.clear()
        self.server.bot.again.clear()

    def answers(self, user: int) -> list[str]:
        return [sent.text for sent in self.server.sent if sent.chat_id == user]


class Discord(Platform):
    name, knows_repetitions = "discord", True

    def __init__(self, server: DiscordServer) -> None:
        self.server, self.url, self.token = server, server.url, server.bot.token

    async def is_connected(self) -> None:
        await self.server.until(lambda: self.server.sessions, seconds=20)

    def say(self, text: str, *, user: int) -> None:
        self.server.dm(text, user=str(user))

    def dawdle(self) -> None:
        self.server.fail_next("slow", seconds=0.4)

    def forget(self) -> None:
        self.server.forget_events()

    def answers(self, user: int) -> list[str]:
        channel = self.server.dm_channel(str(user))
        return [sent.text for sent in self.server.sent if sent.channel == channel.id]


@asynccontextmanager
async def _serving(name: str) -> AsyncIterator[Platform]:
    if name == "discord":
        async with DiscordServer() as discord:
            yield Discord(discord)
    else:
        async with TelegramServer() as telegram:
            yield Telegram(telegram)


@dataclass
class Score:
    rounds: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    without_redelivery: Counter[str] = field(default_factory=Counter)
    slowest_recovery_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


class Harness:
    """One installation that dies over and over."""

    def __init__(self, home: Home, platform: Platform, *, lease_seconds: float) -> None:
        self.home = home
        self.platform = platform
        self.lease_seconds = lease_seconds
        self.score = Score()
        self._next_user = 10_000

    async def run(self, steps: list[str], rounds: int) -> Score:
        process = await self._start()
        await self.platform.is_connected()
        self.platform.say("first", user=self._next_user)  # a session at Discord is found again by what came in it
        await self._settle("first", [self._next_user], process=process)
        for number in range(rounds):
            for step in steps:  # in turn, so that every kind of restart meets every kind of leftover
                process = await self._round(process, step, number)
                if self.score.violations:
                    process.kill()
                    return self.score
        await process.stop()
        return self.score

    async def _round(self, process: Process, step: str, number: int) -> Process:
        """Kill ``process`` at ``step`` and return its successor, after everything has settled."""
        (self.home.path / "crash").write_text(step)
        if step == "during_send":
            self.platform.dawdle()
        said = {}
        for _ in range(PEOPLE):
            self._next_user += 1
            text = f"{step} {number} from {self._next_user}"
            said[self._next_user] = text
            self.platform.say(text, user=self._next_user)
        await process.wait(seconds=20)
        if STEPS.index(step) > 0 and await asyncio.to_thread(_journaled, list(said)) == PEOPLE:
            self.platform.forget()
            self.score.without_redelivery[step] += 1
        successor = await self._start()
        began = time.monotonic()
        await self._settle(step, list(said), process=successor)
        self.score.slowest_recovery_seconds = max(self.score.slowest_recovery_seconds, time.monotonic() - began)
        self.score.rounds[step] += 1
        self._check_answers(step, said)
        await self._check_ledger(step)
        return successor

    async def _start(self) -> Process:
        process = await Process.start(_PROGRAM, env=self.home.env, log=self.home.path / "runbots.log")
        await process.ready()
        return process

    async def _settle(self, step: str, users: list[int], *, process: Process) -> None:
        """Wait until nothing is open any more."""
        deadline = time.monotonic() + 30
        while not await asyncio.to_thread(_is_settled, users):
            if time.monotonic() > deadline:
                self.score.violations.append(f"{step}: not settled after 30 s\n{process.log_tail()}")
                return
            await asyncio.sleep(0.05)

    def _check_answers(self, step: str, said: dict[int, str]) -> None:
        for user, text in said.items():
            answers = self.platform.answers(user)
            plain = [answer for answer in answers if answer == text]
            labelled = [answer for answer in answers if answer != text and answer.endswith(text)]
            self.score.labelled[step] += len(labelled)
            if not answers:
                self.score.violations.append(f"{step}: {text!r} was never answered")
            elif len(plain) > 1:
                self.score.violations.append(f"{step}: {text!r} was answered {len(plain)} times without a label")
            elif len(answers) > 1 and self.platform.knows_repetitions:
                self.score.violations.append(f"{step}: {text!r} was answered twice: {answers}")
            elif len(plain) + len(labelled) != len(answers):
                self.score.violations.append(f"{step}: {text!r} got a wrong answer: {answers}")

    async def _check_ledger(self, step: str) -> None:
        leaks = await asyncio.to_thread(_leaks, self.lease_seconds)
        if leaks:
            self.score.violations.append(f"{step}: ledger: {leaks}")


# -- looking into the installation's database; runs in threads, Django is set up in ``main`` ----


def _add_bot(platform: Platform) -> None:
    from django.utils import timezone

    from botsrt.core.actors import SYSTEM
    from botsrt.core.states import UnknownUserPolicy
    from botsrt.runtime import platforms
    from botsrt.services import bots

    bots.add(
        account="shop",
        platform=platform.name,
        shape=platforms.shape(platform.name),
        changes=bots.Changes(
            policy=UnknownUserPolicy.ALLOW,
            credentials={"token": platform.token},
            settings={"api_base_url": platform.url},
        ),
        actor=SYSTEM,
        now=timezone.now(),
    )


def _journaled(users: list[int]) -> int:
    from botsrt.models import JournalEntry

    return JournalEntry.objects.filter(contact__platform_user_id__in=[str(user) for user in users]).count()


def _is_settled(users: list[int]) -> bool:
    from botsrt.models import JournalEntry, OutboxMessage

    # In the order of a message's way: what moves on meanwhile is met at its next station.
    if _journaled(users) < len(users):
        return False
    if JournalEntry.objects.filter(state__in=("pending", "claimed")).exists():
        return False
    return not OutboxMessage.objects.filter(state__in=("pending", "sending", "unknown")).exists()


def _leaks(lease_seconds: float) -> str:
    from django.utils import timezone

    from botsrt.services import ledger

    report = ledger.check(since=None, lease=timedelta(seconds=lease_seconds), now=timezone.now())
    failed = report.ends["dead"] + report.ends["held"] + report.ends["discarded"]
    return "" if report.is_balanced and not failed and not report.open else str(report)


# -- the program ----


async def _main(options: argparse.Namespace, home: Home) -> Score:
    async with _serving(options.platform) as platform:
        home.prepare()
        home.env["CRASH_PLATFORM"] = platform.name
        await asyncio.to_thread(_add_bot, platform)
        harness = Harness(home, platform, lease_seconds=float(home.env["BOTSRT_LEASE_SECONDS"]))
        return await harness.run(options.step or list(STEPS), options.rounds)


@contextmanager
def _database(kind: str) -> Iterator[str]:
    """The URL of an empty database; "" is SQLite in the data folder."""
    if kind == "sqlite":
        yield ""
        return
    url = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    name = f"praisonweb_crash_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{url.rpartition('/')[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="kills at each step")
    parser.add_argument("--step", action="append", choices=STEPS, help="only this step (repeatable)")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--platform", choices=("telegram", "discord"), default="telegram")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="praisonweb-crash-") as folder, _database(options.database) as url:
        home = Home(Path(folder), database_url=url)
        os.environ.update(home.env, DJANGO_SETTINGS_MODULE="praisonweb.settings")
        import django

        django.setup()
        score = asyncio.run(_main(options, home))
    report = {
        "platform": options.platform,
        "database": options.database,
        "kills": score.rounds.total(),
        "per_step": dict(score.rounds),
        "recovered_without_redelivery": score.without_redelivery.total(),
        "sent_again_with_label": score.labelled.total(),
        "slowest_recovery_seconds": round(score.slowest_recovery_seconds, 2),
        "violations": len(score.violations),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(report))
    for violation in score.violations:
        print(violation, file=sys.stderr)
    return 1 if score.violations else 0


if __name__ == "__main__":
    sys.exit(main())
