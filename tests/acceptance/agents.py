"""Agents for real processes: targets of kind ``python``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from botsrt.core.context import get_session_context
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


async def telling(request: AgentRequest) -> str:
    """Say what it was shown. Over "slow" it thinks for long."""
    if request.text == "slow":
        await asyncio.sleep(20)
    shown = [f"{item.platform}>{item.text}" for item in request.history if item.role == "user"]
    return f"{request.text} <{' | '.join(shown)}> as {request.context.unified_user_id}"


_answered = 0


async def mended(request: AgentRequest) -> str:
    """Fail until there is the file that MENDED names; then answer as many messages as it says, and hold the rest."""
    global _answered
    mended_file = Path(os.environ["MENDED"])
    if not mended_file.exists():
        raise LookupError("the order service does not answer")
    while _answered >= int(mended_file.read_text()):
        await asyncio.sleep(0.05)
    _answered += 1
    return f"{request.text}, at last"


def who_writes() -> str:
    """Say who writes."""
    return get_session_context().user_id


async def dictates(request: AgentRequest) -> AsyncIterator[str]:
    """A word at a time, slowly."""
    for word in f"You said: {request.text}, and that is all.".split(" "):
        yield f"{word} "
        await asyncio.sleep(0.4)
