"""Agents that behave, and agents that do not: targets for the ``python`` kind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import httpx

from botsrt.core.errors import AgentUnavailable, FileUnavailable, TransientAgentError
from botsrt.core.ports import AgentReply, AgentRequest, HistoryItem

REQUESTS: list[AgentRequest] = []
SEEN_ATTEMPTS: list[int] = []
STARTED = asyncio.Event()
LET_GO = asyncio.Event()
URL = ""


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


class Summing:
    """Answers with what it was given; sums up to the count of what it was given, or fails."""

    def __init__(self) -> None:
        self.fails = False

    compact_after = 4

    async def __call__(self, request: AgentRequest) -> str:
        REQUESTS.append(request)
        return f"re {request.text}"

    async def summarize(self, items: Sequence[HistoryItem], *, earlier: str) -> AgentReply:
        if self.fails:
            raise RuntimeError("no")
        return AgentReply(text=f"{earlier}|{','.join(item.text for item in items)}")


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


async def dictates(request: AgentRequest) -> AsyncIterator[str]:
    """Say a part, wait until the test lets go, and say the rest."""
    REQUESTS.append(request)
    yield "Once upon"
    STARTED.set()
    await LET_GO.wait()
    yield " a time."


async def dictates_and_fails(request: AgentRequest) -> AsyncIterator[str]:
    """Say a part, and break when the test lets go."""
    yield "Once upon"
    await LET_GO.wait()
    raise LookupError("no more")


async def dictates_much(request: AgentRequest) -> AsyncIterator[str]:
    """More than one message holds, a word at a time."""
    for number in range(200):
        await asyncio.sleep(0.003)
        yield f"word{number} "


async def reads(request: AgentRequest) -> str:
    """Say what is in the file."""
    try:
        return f"{request.text}: {(await request.fetch(request.attachments[0])).decode()}"
    except FileUnavailable as error:
        return f"{request.text}: {error}"


class Caller:
    """Asks a model by itself, with a history of its own, as libraries do. The server is the one that ``URL`` names."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    async def achat(self, text: str) -> str:
        self.chat_history.append({"role": "user", "content": text})
        async with httpx.AsyncClient() as client:
            response = await client.post(
                f"{URL}/chat/completions", json={"model": "own", "messages": self.chat_history}, timeout=30
            )
        said: str = response.json()["choices"][0]["message"]["content"]
        self.chat_history.append({"role": "assistant", "content": said})
        return said


async def nothing(request: AgentRequest) -> None:
    return None


async def endless(request: AgentRequest) -> AgentReply:
    return AgentReply(text="word " * 20_000)
