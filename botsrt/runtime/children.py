"""The django-q2 cluster as a child process: it forks, so it never runs inside the event loop's process."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2): the signal a child gets when its parent dies


class TaskCluster:
    """``manage.py qcluster``, started, started again when it dies, and stopped with its parent."""

    def __init__(self, manage_py: Path) -> None:
        self._command = (sys.executable, str(manage_py), "qcluster")
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep the cluster running until cancelled; then stop it."""
        try:
            while True:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal reaches us alone, once
                    preexec_fn=_die_with_parent,
                )
                code = await self._process.wait()
                logger.error("the task cluster ended with %d; it is started again", code)
                await asyncio.sleep(5)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            logger.warning("the task cluster did not stop; it is killed")
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
