"""Agents that behave, and agents that do not: targets for the ``python`` kind."""

from __future__ import annotations

import asyncio
import time

from botsrt.core.errors import AgentUnavailable, TransientAgentError
from botsrt.core.ports import AgentReply, AgentRequest

REQUESTS: list[AgentRequest] = []
SEEN_ATTEMPTS: list[int] = []
STARTED = asyncio.Event()
LET_GO = asyncio.Event()


async def listing(request: AgentRequest) -> str:
    """Say how much history there is, and what was asked."""
    REQUESTS.append(request)
    return f"{len(request.history)}: {request.text}"


async def raises(request: AgentRequest) -> str:
    raise KeyError(f"order {request.text}")


async def raises_on_bad(request: AgentRequest) -> str:
    if "bad" in request.text:
        raise ValueError("bad word")
    return f"fine: {request.text}"


async def transient(request: AgentRequest) -> str:
    SEEN_ATTEMPTS.append(request.attempt)
    if len(SEEN_ATTEMPTS) < 2:
        raise TransientAgentError("the provider is busy")
    return "at last"


async def unavailable(request: AgentRequest) -> str:
    raise AgentUnavailable("no key")


async def hangs(request: AgentRequest) -> str:
    await asyncio.Event().wait()
    return "never"


async def waits(request: AgentRequest) -> str:
    """Wait until the test lets go."""
    REQUESTS.append(request)
    STARTED.set()
    await LET_GO.wait()
    return f"waited: {request.text}"


class Steered:
    """Answers what it was asked, and what it was told while it waited; after three texts it takes no more."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    async def __call__(self, request: AgentRequest) -> str:
        REQUESTS.append(request)
        texts = self.texts[request.turn_id] = [request.text]
        STARTED.set()
        await LET_GO.wait()
        return " + ".join(texts)

    def steer(self, turn_id: str, text: str) -> bool:
        texts = self.texts[turn_id]
        if len(texts) == 3:
            return False
        texts.append(text)
        return True


steered = Steered()


def blocks(request: AgentRequest) -> str:
    """Sit in synchronous code."""
    time.sleep(0.5)
    return "unblocked"


async def nothing(request: AgentRequest) -> None:
    return None


async def endless(request: AgentRequest) -> AgentReply:
    return AgentReply(text="word " * 20_000)
