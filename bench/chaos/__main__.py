"""Run everything at once under faults, then check the books: ``python -m bench.chaos --seed 1 --seconds 60``.

Prints what happens to standard error and one JSON line to standard output. Exit code 1: something is wrong; the logs,
the record and the violations are kept. The seed decides what is said and what fails; when two things happen at once is
up to the machine, so a seed repeats the kind of run, not each of its moments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import __main__ as bench
from bench.chaos import faults as faults_module
from bench.chaos.faults import Faults
from bench.chaos.fleet import Fleet
from bench.chaos.ground import Disk, Postgres, Redis, Sqlite, free_port
from bench.chaos.people import EVENTS, HOLDING, HOOKED, PAIRING, POLLED, SOCKET, People, Platforms
from bench.chaos.plants import PLANTS
from bench.chaos.staff import NAME, PASSWORD, Staff
from bench.chaos.verdict import Books, Violation
from tests.acceptance.home import Home
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TelegramServer

#: Short, so that much can be taken over in a minute; long enough for a machine that has more to do.
LEASE_SECONDS = 5.0

#: How long everything may take to come to rest after the last fault, in seconds: a bulk operation whose runner died
#: waits for the next minute.
QUIET_SECONDS = 240.0

WEBHOOK_SECRET = "only-for-the-chaos"

#: Every message is to be answered, however fast the machine lets people write; refusing some has tests of its own.
_UNLIMITED = ("--setting", "max_per_minute=0")

_ERROR = re.compile(r"\S+ \S+ (?:ERROR|CRITICAL)\s+(.*)")


@dataclass(kw_only=True)
class Run:
    options: argparse.Namespace
    disk: Disk
    logs: Path
    _ended: list[Violation] = field(default_factory=list)

    async def judge(self) -> dict[str, Any]:
        """Make everything, let it run, and return the report."""
        options = self.options
        chance = random.Random(options.seed)
        database, redis = await self._services()
        home = self._home(database.url, redis.url if redis else "")
        async with (
            TelegramServer() as telegram,
            SlackServer() as slack,
        ):
            site_port = free_port()
            fleet = Fleet(home, self.logs, LEASE_SECONDS, site_port, options.workers)
            self._say("making bots, agents and staff")
            await self._furnish(home, telegram, slack, site_port)
            platforms = Platforms(telegram, slack)
            people = People(platforms, chance=random.Random(chance.random()), rate=options.rate, persons=options.people)
            staff = Staff(fleet.site_url, database, people, self._mended, chance=random.Random(chance.random()))
            postgres = database if isinstance(database, Postgres) else None
            faults = Faults(
                random.Random(chance.random()), fleet, platforms, staff, self.disk, postgres, redis,
                options.fault_rate, options.faults,
            )  # fmt: skip
            try:
                self._say("starting processes")
                await fleet.start_all()
                began = time.monotonic()
                people.start()
                staff.start()
                watching = asyncio.create_task(self._watch(people, platforms, faults))
                reviving = asyncio.create_task(self._revive(fleet))
                await faults.run(options.seconds)
                await asyncio.sleep(max(0.0, options.seconds - (time.monotonic() - began)))
                await people.stop()
                await staff.stop()
                wrote_seconds = time.monotonic() - began
                self._say("faults are over")
                await faults.none()
                stuck = await self._rest(database, platforms, staff)
                watching.cancel()
                reviving.cancel()
                books = Books(
                    database, people.chats, list(platforms.posts()), staff.replies, faults.happened, LEASE_SECONDS,
                    self._record, fleet,
                )  # fmt: skip
                violations = [
                    *self._ended,
                    *stuck,
                    *await asyncio.to_thread(books.violations),
                    *await books.of_processes(),
                ]
                violations += await asyncio.to_thread(self._ledger, home)
                violations += [Violation("a fault did not end as it should", error) for error in faults.errors]
                violations += [Violation(problem, "shutdown") for problem in await fleet.stop_all()]
                return self._report(faults, staff, books, violations, wrote_seconds)
            finally:
                await staff.close()
                fleet.kill_all()
                if redis:
                    redis.thaw()
                    redis.kill()
                if isinstance(database, Postgres):
                    self.disk.free()
                    await database.stop(signal.SIGINT)

    # -- make ----

    @property
    def _record(self) -> Path:
        return self.logs / "agents.record"

    @property
    def _mended(self) -> Path:
        return self.logs / "mended"

    async def _services(self) -> tuple[Sqlite | Postgres, Redis | None]:
        if self.options.database == "sqlite":
            return Sqlite(self.disk.path / "praisonweb.sqlite3"), None
        self._say("making PostgreSQL and Redis")
        postgres = Postgres(self.disk.path / "postgres", self.logs / "postgres.log")
        await asyncio.to_thread(postgres.make)
        await postgres.ready()
        await asyncio.to_thread(postgres.rows, "CREATE DATABASE chaos", "postgres")
        redis = Redis(self.logs / "redis", self.logs / "redis.log")
        redis.start()
        return postgres, redis

    def _home(self, database_url: str, redis_url: str) -> Home:
        home = Home(
            self.disk.path,
            database_url=database_url,
            redis_url=redis_url,
            lease_seconds=str(LEASE_SECONDS),
            poll_seconds="1",
            send_timeout_seconds="5",
            max_restart_seconds="3",
            run_timeout_seconds="60",
            claim_timeout_seconds="90",
            drain_seconds="8",
            max_size="1000000",
        )
        self._mended.mkdir()
        self._record.touch()
        home.env |= {
            "CHAOS_RECORD": str(self._record),
            "CHAOS_MENDED": str(self._mended),
            "CHAOS_SLOW_SECONDS": str(LEASE_SECONDS * 1.5),
            "CHAOS_PLANT": self.options.plant,
            "CHAOS_TASKS": os.devnull,
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        }
        return home

    async def _furnish(self, home: Home, telegram: TelegramServer, slack: SlackServer, site_port: int) -> None:
        # The platforms pass on again what was not taken, but not so often that this is all there is to do.
        slack.ack_seconds, slack.retry_seconds = 8.0, 1.0
        telegram.webhook_retry_seconds = (0.5, 2.0)
        await asyncio.to_thread(home.manage, "migrate", "--verbosity", "0")
        agent = ("agents", "add", "quoting", "--kind", "python", "--target", "bench.chaos.agents:answer")
        await asyncio.to_thread(home.manage, *agent)
        commands: list[tuple[str, ...]] = [("createsuperuser", "--noinput", "--username", NAME, "--email", "")]
        commands += self._bots(telegram, slack, f"http://127.0.0.1:{site_port}")
        await asyncio.gather(*(asyncio.to_thread(home.manage, *command) for command in commands))

    @staticmethod
    def _bots(telegram: TelegramServer, slack: SlackServer, site: str) -> Iterator[tuple[str, ...]]:
        """The commands that add the bots."""
        more: tuple[str, ...]
        for number, account in enumerate((POLLED, HOLDING, HOOKED, PAIRING)):
            token = f"70000001{number:02}:FAKE-telegram-token-of-bot-{number:02}-xxxxxxxx"
            telegram.add_bot(token, username=account)
            more = ()
            if account == HOLDING:
                more = ("--setting", "unknown_sends=hold")
            if account == HOOKED:
                more = ("--setting", "mode=webhook", "--setting", f"webhook_url={site}")
                more += ("--credential", f"webhook_secret={WEBHOOK_SECRET}")
            yield (
                *("bots", "add", account, "--platform", "telegram", "--agent", "quoting"),
                *("--policy", "pair" if account == PAIRING else "allow"),
                *_UNLIMITED,
                *("--credential", f"token={token}", "--setting", f"api_base_url={telegram.url}"),
                *more,
            )
        for account in (SOCKET, EVENTS):
            bot = slack.add_bot(account)
            more = ("--credential", f"app_token={bot.app_token}")
            if account == EVENTS:
                bot.events_url = f"{site}/hooks/slack/{account}/"
                more = ("--setting", "mode=events", "--credential", f"signing_secret={bot.signing_secret}")
            yield (
                *("bots", "add", account, "--platform", "slack", "--agent", "quoting", "--policy", "allow"),
                *_UNLIMITED,
                *("--credential", f"bot_token={bot.bot_token}", "--setting", f"api_base_url={slack.url}"),
                *more,
            )

    # -- watch ----

    async def _watch(self, people: People, platforms: Platforms, faults: Faults) -> None:
        while True:
            await asyncio.sleep(10)
            self._say(
                f"{people.said} messages, {len(platforms.answers)} answered, {len(faults.happened)} faults, "
                f"not taken: {' '.join(f'{account} {len(some)}' for account, some in sorted(people.untaken.items()))}"
            )

    async def _revive(self, fleet: Fleet) -> None:
        while True:
            await asyncio.sleep(1)
            self._ended += [Violation("a process ended by itself", name) for name in await fleet.revive()]

    async def _rest(self, database: Sqlite | Postgres, platforms: Platforms, staff: Staff) -> list[Violation]:
        """Wait until nothing is under way any more; twice, for what staff have done in between."""
        began = time.monotonic()
        for _ in range(2):
            await self._tidy(staff)
            while open_ := await self._open(database, platforms):
                if time.monotonic() - began > QUIET_SECONDS:
                    return [Violation(f"not at rest after {QUIET_SECONDS:g} s", json.dumps(open_))]
                await asyncio.sleep(0.5)
        self._say(f"at rest after {time.monotonic() - began:.0f} s")
        await asyncio.sleep(LEASE_SECONDS / 2)
        platforms.look()
        return []

    @staticmethod
    async def _tidy(staff: Staff) -> None:
        for attempt in range(3):  # everything works again: only the first request after an outage may fail
            try:
                await staff.tidy()
                return
            except Exception:
                if attempt == 2:
                    raise
                await asyncio.sleep(1)

    @staticmethod
    async def _open(database: Sqlite | Postgres, platforms: Platforms) -> dict[str, int]:
        """What is under way: nothing is left out that moves by itself."""
        queries = {
            "entries": "botsrt_journalentry WHERE state IN ('pending', 'claimed')",
            "sends": "botsrt_outboxmessage WHERE state IN ('pending', 'sending')",
            "unknown": f"botsrt_outboxmessage WHERE state = 'unknown' AND account <> '{HOLDING}'",
            "bulk": "botsrt_bulkoperation WHERE state = 'running'",
            "retrying": "botsrt_dlqitem WHERE state = 'retrying'",
        }
        union = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {table}" for name, table in queries.items())
        counts = {name: count for name, count in await asyncio.to_thread(database.rows, union) if count}
        return counts | ({"events": platforms.waiting} if platforms.waiting else {})

    @staticmethod
    def _ledger(home: Home) -> list[Violation]:
        done = home.manage("ledger", "--json", check=False)
        return [Violation("the ledger is not clean", done.stdout + done.stderr)] if done.returncode else []

    def _report(
        self, faults: Faults, staff: Staff, books: Books, violations: list[Violation], seconds: float
    ) -> dict[str, Any]:
        why = {kind: why for kind, why in faults.possible().items() if why and kind in self.options.faults}
        kinds = Counter(violation.what for violation in violations)
        for text, count in self._errors_logged().most_common(10):
            self._say(f"logged {count} times: {text}")
        (self.logs / "violations.json").write_text(json.dumps([vars_of(v) for v in violations], indent=1))
        (self.logs / "faults.json").write_text(json.dumps([vars(fault) for fault in faults.happened], indent=1))
        return {
            "kind": "chaos",
            "database": "postgresql+redis" if self.options.database == "postgres" else "sqlite",
            "seed": self.options.seed,
            **({"plant": self.options.plant} if self.options.plant else {}),
            "seconds": round(seconds),
            "workers": self.options.workers,
            "faults": faults.counts.total(),
            "fault_kinds": dict(sorted(faults.counts.items())),
            **({"not_possible": why} if why else {}),
            **dict(sorted(books.summary.items())),
            "staff_acts": dict(sorted(staff.acts.items())),
            "violations": len(violations),
            "what": [f"{count} x {what}" for what, count in kinds.most_common(20)],
            "where": [f"{violation.what}: {violation.where}"[:400] for violation in violations[:20]],
        }

    def _errors_logged(self) -> Counter[str]:
        """What the processes call an error, without its numbers. No violation: what people see is what counts."""
        found: Counter[str] = Counter()
        for log in self.logs.glob("*-*.log"):
            for line in log.read_text(errors="replace").splitlines():
                if match := _ERROR.match(line):
                    found[re.sub(r"[0-9a-f-]*\d[0-9a-f-]*", "…", match[1])[:120]] += 1
        return found

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def vars_of(violation: Violation) -> dict[str, str]:
    return {"what": violation.what, "where": violation.where}


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="praisonweb-chaos-"))
    folder.chmod(0o755)  # PostgreSQL runs as somebody else
    print(f"seed {options.seed}, logs in {folder}", file=sys.stderr, flush=True)
    logs = folder / "logs"
    logs.mkdir()
    began = time.monotonic()
    is_clean = False
    try:
        with Disk.made(folder / "disk") as disk:
            report = asyncio.run(Run(options=options, disk=disk, logs=logs).judge())
        report["minutes"] = round((time.monotonic() - began) / 60, 1)
        is_clean = not report["violations"]
        for line in report["where"]:
            print(line, file=sys.stderr)
        print(json.dumps(report), flush=True)
        if options.results:
            bench.add({name: _short(value) for name, value in report.items() if name not in ("what", "where")})
    finally:
        if is_clean and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs are kept in {folder}", file=sys.stderr, flush=True)
    return 0 if is_clean else 1


def _short(value: object) -> object:
    """A table of counts as one text."""
    return ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="a random one is printed")
    parser.add_argument("--seconds", type=float, default=60, help="of load under faults (60)")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="postgres")
    parser.add_argument("--faults", default="", help=f"kinds, comma-separated; all: {', '.join(faults_module.WEIGHTS)}")
    parser.add_argument("--fault-rate", type=float, default=1.0, help="faults a second (1)")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second at most (100)")
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--plant", choices=PLANTS, default="", help="a bug that must be found: exit code 1")
    parser.add_argument("--results", action="store_true", help="keep the report in bench/RESULTS.md")
    parser.add_argument("--keep", action="store_true", help="keep the logs in any case")
    options = parser.parse_args()
    default = PLANTS[options.plant].faults if options.plant else tuple(faults_module.WEIGHTS)
    options.faults = tuple(options.faults.split(",")) if options.faults else default
    if unknown := set(options.faults) - set(faults_module.WEIGHTS):
        parser.error(f"--faults: there is no {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
