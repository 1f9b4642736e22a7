"""Agents that misbehave: targets of kind ``python``."""

from __future__ import annotations

import asyncio
import time

from botsrt.core.ports import AgentRequest


async def raises(request: AgentRequest) -> str:
    raise KeyError(request.text)


async def hangs(request: AgentRequest) -> str:
    await asyncio.Event().wait()
    return "never"


async def nothing(request: AgentRequest) -> None:
    return None


async def endless(request: AgentRequest) -> str:
    return "word " * 20_000


def blocks(request: AgentRequest) -> str:
    time.sleep(0.5)
    return "unblocked"
