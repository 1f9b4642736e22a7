"""An installation in a folder of its own, and its real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: How long a process may take to come up, in seconds; generous, because machines that run tests are busy.
START_SECONDS = 40.0

#: Short leases, so that recovery is quick enough to be tested.
SETTINGS = {"BOTSRT_LEASE_SECONDS": "2", "BOTSRT_POLL_SECONDS": "0.1", "LOG_LEVEL": "INFO"}

#: Runs several commands of ``manage.py`` in one process, until one fails.
_EACH = """
import json, os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
for args in json.loads(sys.argv[1]):
    execute_from_command_line(["manage.py", *args])
"""


class Home:
    """One data folder and database, and the commands and processes that use it."""

    def __init__(self, path: Path, *, database_url: str = "", redis_url: str = "", **settings: str) -> None:
        self.path = path
        self._file = path / "praisonweb.sqlite3"
        passed_on = {name: value for name, value in os.environ.items() if not name.startswith("BOTSRT_")}
        self.env = {
            **passed_on,
            **SETTINGS,
            "PRAISON_HOME": str(path),
            "DATABASE_URL": database_url or f"sqlite:///{self._file}",
            "REDIS_URL": redis_url,
            "SECRET_KEY": "only-for-tests-" + 40 * "x",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **{f"BOTSRT_{name.upper()}": value for name, value in settings.items()},
        }

    def prepare(self, *commands: Sequence[str]) -> None:
        """Make the tables, then run ``manage.py`` with each of ``commands``: a process each would take its seconds."""
        if self._file.as_posix() in self.env["DATABASE_URL"]:
            self._file.write_bytes(_empty_database())
        else:
            commands = (("migrate", "--verbosity", "0"), *commands)
        if commands:
            self._run("-c", _EACH, json.dumps(commands))

    def manage(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``manage.py args`` to its end."""
        return self._run("manage.py", *args, check=check)

    def _run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *args], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
        return done

    def rows(self, query: str) -> list[Any]:
        """What a query finds in the installation's SQLite file."""
        with closing(sqlite3.connect(self._file)) as database:
            return database.execute(query).fetchall()

    def change(self, statement: str) -> None:
        """Change the installation's SQLite file behind its back: what would take days, for one."""
        with closing(sqlite3.connect(self._file, timeout=20)) as database, database:
            database.execute(statement)

    def json(self, *args: str) -> Any:
        """What ``manage.py args --json`` prints; the exit code is not looked at."""
        done = self.manage(*args, "--json", check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{args}: {done.stdout}{done.stderr}") from None

    @asynccontextmanager
    async def runbots(
        self, *args: str, program: tuple[str, ...] = ("manage.py", "runbots"), **env: str
    ) -> AsyncIterator[Process]:
        """A ready ``runbots``; stopped with SIGTERM, which must end in exit code 0, unless it was killed before."""
        process = await Process.start((*program, *args), env={**self.env, **env}, log=self.path / "runbots.log")
        try:
            await process.ready()
            yield process
        except BaseException:
            process.kill()
            await process.stop()
            raise
        await process.stop()


@cache
def _empty_database() -> bytes:
    """A SQLite file with all tables, made once: the migrations take seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.manage("migrate", "--verbosity", "0")
        return home._file.read_bytes()


class Process:
    """A running ``runbots``, ``serve`` or ``qcluster``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls, command: tuple[str, ...], *, env: Mapping[str, str], log: Path, start_new_session: bool = False
    ) -> Process:
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=ROOT,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                start_new_session=start_new_session,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None

    async def ready(self, command: str = "runbots") -> str:
        """Wait for the line that says that all is up, and return it."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(f"{command}: ready"):
                    return line
        raise AssertionError(f"{command} did not start:\n{self.log_tail()}")

    async def wait(self, *, seconds: float) -> int:
        """The exit code, within ``seconds``."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """SIGTERM; it must drain and exit with 0. A process that was killed is fine as it is."""
        if self._process.returncode is None:
            self._process.terminate()
            code = await self.wait(seconds=40)
            assert code == 0, f"runbots exited with {code}:\n{self.log_tail()}"
        else:
            await self._process.wait()

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-6_000:]
