"""Signals: the first SIGTERM or SIGINT asks the process to drain; one that takes too long is ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

logger = logging.getLogger(__name__)


def on_signal(*, hard_after_seconds: float) -> asyncio.Event:
    """An event that is set by the first SIGTERM or SIGINT; ``hard_after_seconds`` later the process exits with 1.

    A second signal changes nothing: whoever is in a hurry sends SIGKILL, and the next start recovers.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def begin(name: str) -> None:
        if stop.is_set():
            return
        logger.info("%s: draining", name)
        stop.set()
        loop.call_later(hard_after_seconds, _give_up)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin, number.name)
    return stop


def _give_up() -> None:
    logger.critical("draining took too long; exiting now, the next start recovers what is left")
    os._exit(1)
