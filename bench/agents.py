"""Agents that answer at once, wait, misbehave, or are made anew for each message: targets of kind ``python``."""

from __future__ import annotations

import asyncio
import time

from botsrt.agents import objects
from botsrt.agents.threads import Gate
from botsrt.core.ports import AgentRequest

_GATE = Gate(64)


async def at_once(request: AgentRequest) -> str:
    return request.text


async def waits_50_ms(request: AgentRequest) -> str:
    await asyncio.sleep(0.05)
    return request.text


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


class _Remembering:
    """What a foreign package offers: it keeps the conversation in itself."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    async def achat(self, text: str) -> str:
        self.chat_history.append({"role": "user", "content": text})
        return f"{text}, after {len(self.chat_history) - 1}"


async def recreated(request: AgentRequest) -> object:
    """A new agent object for each message, as careless code makes them."""
    return await objects.ask(_Remembering(), request, gate=_GATE)
