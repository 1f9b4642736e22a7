"""Functions and objects of your own as agents: ``target`` is ``package.module:attribute``.

A callable gets the ``AgentRequest`` and returns a text, an ``AgentReply``, or None to say nothing. An object with
``achat`` or ``chat`` gets the text alone, and must answer. A class is made into an object once.

An asynchronous generator yields its answer in pieces, which are shown as they come; any other callable may show what it
has so far by ``request.show(text)``.

A target that also has ``steer(turn_id, text)`` can take messages while it runs, of bots whose ``busy`` is steer; it
returns whether it does.

``async`` code runs on the event loop and must not block it; code that is not ``async`` runs in threads of its own, off
the event loop and off the database thread. A blocking call that is cut off cannot be stopped: its answer is dropped.
Whatever the code raises comes out as an ``AgentError``; raise ``TransientAgentError`` or ``AgentUnavailable`` of
``botsrt.core.errors`` to have the message tried again.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from botsrt.agents import dotted, objects, threads
from botsrt.agents.base import BaseAgent
from botsrt.agents.failures import translated
from botsrt.agents.threads import Gate
from botsrt.core import ports
from botsrt.core.errors import AgentError, ConfigurationError, TransientAgentError
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option

#: Threads that may wait for a model or a disk at a time. As many as a worker runs turns by default; they cost little.
_DEFAULT_THREADS = 64
_MAX_THREADS = 1_000


class Agent(BaseAgent):
    settings = (
        Option(name="target", help="write what answers as package.module:attribute.", is_required=True),
        Option(
            name="max_threads", help="Blocking calls at a time; async code needs none.", default=str(_DEFAULT_THREADS)
        ),
    )

    def __init__(self, config: AgentConfig, *, target: Any = None) -> None:
        """Import the target, which may take a while; make agents off the event loop.

        Args:
            target: what answers, where it is at hand; the setting then only says what it is.
        """
        super().__init__(config)
        self._target = _load(self.setting("target")) if target is None else target
        self._gate = Gate(_count(self.setting("max_threads")))

    async def run(self, request: AgentRequest) -> AgentReply:
        with translated():
            if objects.is_one(self._target):
                return _spoken(await objects.ask(self._target, request, gate=self._gate))
            return _reply(await self._call(request))

    async def steer(self, turn_id: str, text: str) -> bool:
        """Ask the target, if it has a ``steer`` of its own, which must not block."""
        method = getattr(self._target, "steer", None)
        if not callable(method):
            return False
        taken = method(turn_id, text)
        return bool(await taken if inspect.isawaitable(taken) else taken)

    async def close(self) -> None:
        """An agent of the library holds connections open; other targets release by themselves what they hold."""
        if isinstance(self._target, _OfTheLibrary):
            await self._target.agent.close()

    async def _call(self, request: AgentRequest) -> Any:
        if _is_generator(self._target):
            return await _gathered(self._target(request), request)
        if _is_async(self._target):
            return await self._target(request)
        answer = await threads.run(lambda: self._target(request), gate=self._gate)
        return await answer if inspect.isawaitable(answer) else answer  # a wrapper around an async function


async def _gathered(pieces: AsyncGenerator[str, None], request: AgentRequest) -> str:
    """The answer of which a generator yields the pieces."""
    text = ""
    async with aclosing(pieces):
        async for piece in pieces:
            if not isinstance(piece, str):
                raise AgentError(f"The agent yielded {type(piece).__name__}; it must yield str.")
            text += piece
            request.show(text)
    return text


def _reply(answer: object) -> AgentReply:
    if answer is None:
        return AgentReply(text="")
    if isinstance(answer, str):
        return AgentReply(text=answer)
    if isinstance(answer, AgentReply) and isinstance(answer.text, str):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()  # else Python complains that nobody awaited it
    kind = f"AgentReply(text={type(answer.text).__name__})" if isinstance(answer, AgentReply) else type(answer).__name__
    raise AgentError(f"The agent returned {kind}; it must return str, AgentReply or None.")


def _spoken(answer: object) -> AgentReply:
    """The answer of an object that must answer: those that are known return None when their model cannot be reached."""
    reply = _reply(answer)
    if not reply.text.strip():
        raise TransientAgentError("The agent gave no reply.")
    return reply


# -- what the target names ----


def _load(target: str) -> Any:
    """What ``target`` names, ready to be asked; a class is made into an object.

    Raises:
        ConfigurationError: it names nothing that can be asked; says what to write.
    """
    found = dotted.named(target, setting="target")
    if callable(getattr(found, "for_turns", None)):
        return _OfTheLibrary(found.for_turns())
    if inspect.isclass(found):
        found = _made(found, target)
    if not objects.is_one(found):
        _check_callable(found, target)
    return found


class _OfTheLibrary:
    """An ``Agent`` of the library as a target: it answers with each request's history, not in its own conversation."""

    def __init__(self, agent: ports.Agent) -> None:
        self.agent = agent

    async def __call__(self, request: AgentRequest) -> AgentReply:
        return await self.agent.run(request)


def _made(found: type, target: str) -> Any:
    try:
        return found()
    except Exception as error:
        raise ConfigurationError(
            f"target: {target} is a class that cannot be made without arguments ({type(error).__name__}: {error}); "
            "make an object in the module, and name that."
        ) from error


def _check_callable(found: Any, target: str) -> None:
    if not callable(found):
        raise ConfigurationError(
            f"target: {target} is a {type(found).__name__}: neither callable nor an object with chat or achat."
        )
    try:
        inspect.signature(found).bind(object())
    except TypeError as error:
        raise ConfigurationError(
            f"target: {target} must take one argument, the request ({error}); write def answer(request): …"
        ) from error
    except ValueError:  # some that are written in C do not tell what they take
        return


def _is_async(target: Any) -> bool:
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


def _is_generator(target: Any) -> bool:
    return inspect.isasyncgenfunction(target) or inspect.isasyncgenfunction(getattr(target, "__call__", None))  # noqa: B004


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= _MAX_THREADS:
        raise ConfigurationError(f"max_threads: {text!r} is not a whole number from 1 to {_MAX_THREADS}.")
    return int(text)
