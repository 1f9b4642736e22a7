"""What people give to the ``python`` kind."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from botsrt.core.context import get_session_context
from botsrt.core.errors import AgentUnavailable, ConfigurationError
from botsrt.core.ports import AgentReply, AgentRequest

NUMBER = 42


def shout(request: AgentRequest) -> str:
    return request.text.upper()


async def whisper(request: AgentRequest) -> str:
    return request.text.lower()


def reply(request: AgentRequest) -> AgentReply:
    return AgentReply(text=request.text, usage={"tokens": 3})


def nothing(request: AgentRequest) -> None:
    return None


def number(request: AgentRequest) -> int:
    return NUMBER


def half_a_reply(request: AgentRequest) -> AgentReply:
    return AgentReply(text=None)  # type: ignore[arg-type]


def streams(request: AgentRequest) -> Any:
    yield request.text


async def dictates(request: AgentRequest) -> AsyncIterator[str]:
    """Piece by piece."""
    for word in ("Hello", ", ", request.text):
        yield word


async def dictates_a_number(request: AgentRequest) -> AsyncIterator[Any]:
    yield "Hello "
    yield NUMBER


async def breaks_off(request: AgentRequest) -> AsyncIterator[str]:
    yield "Hello "
    raise LookupError(request.text)


def shows(request: AgentRequest) -> str:
    """In a thread."""
    request.show("thinking")
    return "done"


def wrapped(request: AgentRequest) -> Any:
    """Not async itself, as a decorated function often is."""
    return whisper(request)


def who(request: AgentRequest) -> str:
    return f"{get_session_context().user_id} in {threading.current_thread().name}"


def raises(request: AgentRequest) -> str:
    raise LookupError(request.text)


def stops(request: AgentRequest) -> str:
    return next(iter(()))


def exits(request: AgentRequest) -> str:
    sys.exit("enough")


async def exits_async(request: AgentRequest) -> str:
    sys.exit("enough")


def misconfigured(request: AgentRequest) -> str:
    raise ConfigurationError("no model is named")


def unavailable(request: AgentRequest) -> str:
    raise AgentUnavailable("no key")


def takes_nothing() -> str:
    return ""


def takes_two(request: AgentRequest, model: str) -> str:
    return model


class Shop:
    """A class that is called, and has methods of its own."""

    opened = 0

    def __init__(self) -> None:
        type(self).opened += 1

    def __call__(self, request: AgentRequest) -> str:
        return f"shop: {request.text}"

    def ask(self, request: AgentRequest) -> str:
        return f"asked: {request.text}"


class AsyncShop:
    async def __call__(self, request: AgentRequest) -> str:
        return f"async shop: {request.text}"


class NeedsArguments:
    def __init__(self, model: str) -> None:
        self.model = model


class Chatter:
    """Keeps its conversation, as the agents of other libraries do."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    def chat(self, text: str) -> str:
        said = [message["content"] for message in self.chat_history]
        self.chat_history.append({"role": "user", "content": text})
        return f"{said} then {text}"


class Plain:
    """Keeps nothing."""

    async def achat(self, text: str) -> str:
        return f"plain: {text}"


class Mute:
    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer

    def chat(self, text: str) -> str | None:
        return self.answer


shop = Shop()
partial = functools.partial(takes_two, model="small")
empty = Mute("")
