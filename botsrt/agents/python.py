"""Functions and objects of your own as agents: ``target`` is ``package.module:attribute``.

A callable gets the request and returns a text, an ``AgentReply`` or None (say nothing). An object with ``achat`` or
``chat`` gets the text alone; its ``chat_history``, if it has one, holds the conversation's during the call, and such an
object serves one conversation at a time. Blocking code runs in threads of its own, off the event loop and off the
database thread. A blocking call that was given up cannot be stopped: its result is dropped, and an object serves nobody
else before it has ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from botsrt.agents.failures import as_agent_error
from botsrt.core.errors import AgentError, ConfigurationError
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option

logger = logging.getLogger(__name__)

#: One lock per agent object; it goes when the object goes. Never keyed by ``id``, which is used again.
_locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

#: Blocking chats whose turn has ended before them; they hold their object's lock until they end.
_left_behind: set[asyncio.Task[Any]] = set()


class Agent:
    settings: ClassVar[tuple[Option, ...]] = (
        Option(name="target", help="What answers, as package.module:attribute.", is_required=True),
    )

    def __init__(self, config: AgentConfig) -> None:
        self._target = _load(config.settings.get("target", ""))
        self._answer = _caller(self._target)

    async def run(self, request: AgentRequest) -> AgentReply:
        try:
            answer = await self._answer(request)
        except Exception as error:
            raise as_agent_error(error) from error
        if isinstance(answer, AgentReply):
            return answer
        if answer is None or isinstance(answer, str):
            return AgentReply(text=answer or "")
        raise AgentError(f"The agent returned {type(answer).__name__}; it must return str, AgentReply or None.")

    async def close(self) -> None:
        """The target is somebody else's."""


def _load(target: str) -> Any:
    """What ``target`` names; a class is instantiated.

    Raises:
        ConfigurationError: it names nothing usable.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"target: {target!r} is not of the form package.module:attribute.")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"target: the module {module_name} cannot be imported: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"target: {module_name} has no {attribute}.")
        found = getattr(found, name)
    return found() if inspect.isclass(found) else found


def _caller(target: Any) -> Callable[[AgentRequest], Any]:
    """How to ask ``target``: always a coroutine function.

    Raises:
        ConfigurationError: it can be neither called nor chatted with.
    """
    if hasattr(target, "achat") or hasattr(target, "chat"):
        return partial(_chat, target)
    if not callable(target):
        raise ConfigurationError(f"target: {type(target).__name__} is neither callable nor has chat or achat.")
    is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004
    return target if is_async else partial(_in_thread, target)


async def _chat(target: Any, request: AgentRequest) -> Any:
    """Ask an object with ``achat`` or ``chat``, one conversation at a time."""
    is_async = inspect.iscoroutinefunction(getattr(target, "achat", None))
    chat = asyncio.create_task(_chat_alone(target, request, is_async=is_async))
    try:
        answer = await asyncio.shield(chat)
    except asyncio.CancelledError:
        if is_async:
            chat.cancel()
            await asyncio.wait({chat})
        else:
            _left_behind.add(chat)
            chat.add_done_callback(_forget)
        raise
    if answer is None:
        raise AgentError("The agent gave no reply.")
    return answer if isinstance(answer, AgentReply) else str(answer)


async def _chat_alone(target: Any, request: AgentRequest, *, is_async: bool) -> Any:
    async with _lock_of(target):
        with _history(target, request):
            return await (target.achat(request.text) if is_async else _in_thread(target.chat, request.text))


def _forget(chat: asyncio.Task[Any]) -> None:
    _left_behind.discard(chat)
    if not chat.cancelled() and (error := chat.exception()):
        logger.info("a chat that was given up ended with %s", type(error).__name__)


async def _in_thread(function: Callable[..., Any], argument: Any) -> Any:
    """Call ``function`` in a new thread, with the context of this turn; cancelled, the thread runs on, unheard.

    A thread per call: a pool would be used up by calls that hang, and would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    def work() -> None:
        result, error = None, None
        try:
            result = context.run(function, argument)
        except BaseException as raised:  # noqa: BLE001  handed to the caller, whatever it is
            error = raised
        with suppress(RuntimeError):  # the loop has ended: nobody listens
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="agent", daemon=True).start()
    return await outcome


def _lock_of(target: Any) -> asyncio.Lock:
    try:
        return _locks.setdefault(target, asyncio.Lock())
    except TypeError:  # cannot be hashed or weakly referenced: the lock lives on the object, or on its class
        holder = target if hasattr(target, "__dict__") else type(target)
        if "_botsrt_lock" not in vars(holder):
            holder._botsrt_lock = asyncio.Lock()
        lock: asyncio.Lock = holder._botsrt_lock
        return lock


@contextmanager
def _history(target: Any, request: AgentRequest) -> Iterator[None]:
    """The conversation in ``target.chat_history`` for the length of one call; what was there comes back after it."""
    if not hasattr(target, "chat_history"):
        yield
        return
    before = target.chat_history
    target.chat_history = [{"role": str(item.role), "content": item.text} for item in request.history]
    try:
        yield
    finally:
        target.chat_history = before
