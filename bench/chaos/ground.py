"""What the processes stand on, made for one run in a temporary folder: a small disk, a PostgreSQL, a Redis.

The disk is a tmpfs where we may mount one (as root), so that it can be filled; elsewhere it is the folder itself, and
``Disk.can_be_filled`` says so. On a tmpfs fsync costs nothing: durations are not those of a real disk.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

#: The user that PostgreSQL runs as where we are root, which it refuses.
_POSTGRES_USER = "postgres"

#: How long a service may take to come up or to end, in seconds.
_PATIENCE_SECONDS = 60.0

_DISK_BYTES = 2 << 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Disk:
    """A folder, on a disk of its own if possible."""

    def __init__(self, path: Path, *, can_be_filled: bool) -> None:
        self.path = path
        self.can_be_filled = can_be_filled

    @classmethod
    @contextmanager
    def made(cls, path: Path) -> Iterator[Disk]:
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=755", "chaos", str(path)]
        is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield cls(path, can_be_filled=is_mounted)
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", str(path)], check=False)

    async def be_full(self, seconds: float) -> None:
        """Take every byte that is or becomes free, for ``seconds``."""
        filler = self.path / "filler"
        until = time.monotonic() + seconds
        with filler.open("ab", buffering=0) as file:
            while time.monotonic() < until:
                free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
                for size in (free, 1 << 16, 1 << 12):
                    try:
                        if size:
                            os.posix_fallocate(file.fileno(), file.tell(), size)
                            file.seek(0, os.SEEK_END)
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                await asyncio.sleep(0.02)
        filler.unlink()

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)


class Sqlite:
    """One file; several processes on one machine share it."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path, timeout=30) as database:
            database.execute("PRAGMA query_only = 1")
            return database.execute(sql).fetchall()


class Postgres:
    """A server of its own, which may be killed."""

    name = "postgres"

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._log = log
        self._port = free_port()
        self._user = _POSTGRES_USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgres://chaos@127.0.0.1:{self._port}/chaos"

    @staticmethod
    def programs() -> Path | None:
        """Where ``initdb`` and ``postgres`` are."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        on_path = shutil.which("initdb")
        return found[-1].parent if found else Path(on_path).parent if on_path else None

    def make(self) -> None:
        programs = self.programs()
        assert programs is not None
        self._folder.mkdir()
        if self._user:
            shutil.chown(self._folder, self._user)
        data = str(self._folder / "data")
        command = [str(programs / "initdb"), "-D", data, "-U", "chaos", "-A", "trust", "--no-sync"]
        subprocess.run(command, user=self._user, check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        programs = self.programs()
        assert programs is not None
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "80",
            "shared_buffers": "64MB",
            "max_wal_size": "192MB",
            "restart_after_crash": "on",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", self._folder / "data", *options],
                user=self._user,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until it answers; one that has died meanwhile is started again."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                self.start()
            try:
                await asyncio.to_thread(self.rows, "SELECT 1", "postgres")
                return
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def rows(self, sql: str, database: str = "chaos") -> list[tuple[Any, ...]]:
        url = f"{self.url.rpartition('/')[0]}/{database}"
        with psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="harness") as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    async def stop(self, how: signal.Signals) -> None:
        """SIGTERM: smart; SIGINT: fast, its clients are cut off; SIGQUIT: at once, without a checkpoint."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 15)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            await asyncio.to_thread(self._process.wait)

    def kill_connections(self, chance: float) -> None:
        """Cut off each client by chance."""
        self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = 'chaos' AND application_name <> 'harness' AND random() < {chance:.2f}"
        )

    def kill_backend(self) -> None:
        """Kill -9 one backend, after which the server restarts all of them."""
        found = self.rows("SELECT pid FROM pg_stat_activity WHERE datname = 'chaos' AND application_name <> 'harness'")
        if found:
            with suppress(ProcessLookupError):
                os.kill(secrets.choice(found)[0], signal.SIGKILL)


class Redis:
    """A server of its own, without persistence."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._log = log
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._folder.mkdir(exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*command, "--dir", self._folder], stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
