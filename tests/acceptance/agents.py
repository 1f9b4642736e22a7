"""Agents for real processes: targets of kind ``python``."""

from __future__ import annotations

import asyncio
import os
import time

from botsrt.core.ports import AgentRequest


async def timed(request: AgentRequest) -> str:
    """Echo after a moment, and record when the run began and ended, for all processes in one file."""
    _note("begin", request)
    await asyncio.sleep(0.02)
    _note("end", request)
    return request.text


def _note(what: str, request: AgentRequest) -> None:
    line = f"{time.monotonic_ns()} {what} {request.context.unified_user_id} {request.turn_id}\n"
    descriptor = os.open(os.environ["TIMELINE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
