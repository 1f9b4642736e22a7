"""Plain scripts in a folder of their own: no Django settings named, a home folder that is empty."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.home import ROOT

#: How long a script may take, in seconds; generous, because machines that run tests are busy.
SECONDS = 90.0

_numbers = itertools.count(1)

_IMPORT = re.compile(r"^from praisonai(?:agents)?(?:\.\w+)* import", re.MULTILINE)


def ported(example: str) -> str:
    """An example of the documents with the import lines changed, and nothing else."""
    return _IMPORT.sub("from botsrt import", example)


class Scripts:
    """Where scripts run, and with which environment."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        kept = ("PATH", "LANG", "LC_ALL", "TMPDIR")
        self.env = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HOME": str(self.home),
            "PRAISON_HOME": str(folder / "praison"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "BOTSRT_POLL_SECONDS": "0.1",
            "BOTSRT_LEASE_SECONDS": "3",
            "LOG_LEVEL": "WARNING",
            **env,
        }

    async def run(self, code: str, **env: str) -> str:
        """What a script prints; it must end well."""
        process = await self._start(code, **env)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{code}\n{out.decode()}{err.decode()}"
        return out.decode()

    async def fail(self, code: str, **env: str) -> str:
        """What a script that must not end well complains of."""
        process = await self._start(code, **env)
        async with asyncio.timeout(SECONDS):
            _, err = await process.communicate()
        assert process.returncode not in (0, None)
        return err.decode()

    @asynccontextmanager
    async def running(self, code: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A script that runs until SIGTERM, after which it must end by itself, and well."""
        process = await self._start(code, **env)
        try:
            yield process
            assert process.returncode is None, "it ended by itself"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
            assert process.returncode == 0, f"{out.decode()}{err.decode()}"
        finally:
            if process.returncode is None:
                process.kill()
                out, err = await process.communicate()
                sys.stderr.write(f"{out.decode()}{err.decode()}")

    async def manage(self, *args: str, **env: str) -> tuple[int, str]:
        """``manage.py args``: the exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "manage.py"),
            *args,
            cwd=self.folder,
            env={**self.env, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SECONDS):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def _start(self, code: str, **env: str) -> asyncio.subprocess.Process:
        path = self.folder / f"script{next(_numbers)}.py"
        path.write_text(code)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(path),
            cwd=self.folder,
            env={**self.env, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
