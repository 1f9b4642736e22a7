"""Foreign agent objects: whatever has ``achat(text)`` or ``chat(text)``, known by nothing else.

Such an object may keep the conversation in ``chat_history``. If its class says how it is copied (``__deepcopy__`` or
``__copy__``), each call has a copy of its own, with the stored history in it, and many run at once; the object itself
is never asked. What cannot be copied serves one conversation at a time: the stored history is put in for the length of
a call, and what was there before comes back after it. A blocking call that was given up keeps the object until its
thread has ended, so what it still writes lands in its own conversation's list. Objects without ``chat_history`` are
taken to keep nothing, and serve many conversations at once.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from botsrt.agents import threads
from botsrt.agents.threads import Gate
from botsrt.core.ports import AgentRequest

logger = logging.getLogger(__name__)

#: One lock per object; it goes when the object goes. Never keyed by ``id`` alone, which is used again.
_locks: WeakKeyDictionary[object, Gate] = WeakKeyDictionary()

#: The same for objects that cannot be keys there. Each is kept alive with its lock, so its id is never used again; they
#: are few: one per profile and version.
_pinned: dict[int, tuple[object, Gate]] = {}


#: Objects whose class says how they are copied, and which cannot be all the same.
_uncopyable: WeakSet[object] = WeakSet()


def is_one(target: object) -> bool:
    """Whether ``target`` is such an object."""
    return callable(getattr(target, "achat", None)) or callable(getattr(target, "chat", None))


async def ask(target: Any, request: AgentRequest, *, gate: Gate) -> Any:
    """What ``target`` answers to the request's text.

    Args:
        gate: the places for blocking calls of objects that keep no history.
    """
    has_history = hasattr(target, "chat_history")
    if has_history and (copied := _copy(target)) is not None:
        copied.chat_history = _messages(request)
        method = _method(copied)
        if inspect.iscoroutinefunction(method):
            return await method(request.text)
        return await threads.run(lambda: method(request.text), gate=gate)
    method = _method(target)
    if inspect.iscoroutinefunction(method):
        return await _chat_async(target, method, request) if has_history else await method(request.text)

    def chat() -> Any:
        with _history(target, request):
            return method(request.text)

    return await threads.run(chat, gate=lock_of(target) if has_history else gate)


async def _chat_async(target: Any, method: Callable[[str], Any], request: AgentRequest) -> Any:
    lock = lock_of(target)
    await lock.enter()
    try:
        with _history(target, request):
            return await method(request.text)
    finally:
        lock.leave()


def _copy(target: Any) -> Any:
    """A copy of ``target`` for one conversation; None: it has to be locked.

    Only where its class says how: what holds a connection or a limit open must not be doubled behind its back.
    """
    is_deep = hasattr(type(target), "__deepcopy__")
    if not (is_deep or hasattr(type(target), "__copy__")):
        return None
    with suppress(TypeError):  # no weak references
        if target in _uncopyable:
            return None
    try:
        copied = copy.deepcopy(target) if is_deep else copy.copy(target)
    except Exception as error:  # noqa: BLE001  somebody else's code, which may raise anything
        logger.info("%s cannot be copied, and answers one at a time: %s", type(target).__name__, error)
        copied = None
    if copied is None or copied is target:
        with suppress(TypeError):
            _uncopyable.add(target)
        return None
    return copied


def _method(target: Any) -> Callable[[str], Any]:
    """The way to ask ``target``: without blocking, if it has one."""
    is_achat_better = inspect.iscoroutinefunction(getattr(target, "achat", None))
    is_achat_alone = not callable(getattr(target, "chat", None))
    method: Callable[[str], Any] = target.achat if is_achat_better or is_achat_alone else target.chat
    return method


def lock_of(target: object) -> Gate:
    """The lock of ``target``: the same for every profile, bot and thread that uses it."""
    if type(target).__hash__ is object.__hash__:  # one that is hashed by its contents gets lost when they change
        try:
            return _locks.setdefault(target, Gate(1))
        except TypeError:  # no weak references: its class has __slots__
            pass
    return _pinned.setdefault(id(target), (target, Gate(1)))[1]


def _messages(request: AgentRequest) -> list[dict[str, str]]:
    return [{"role": item.role.value, "content": item.text} for item in request.history]


@contextmanager
def _history(target: Any, request: AgentRequest) -> Iterator[None]:
    """The conversation in ``target.chat_history``, if it has one, for the length of one call."""
    if not hasattr(target, "chat_history"):
        yield
        return
    before = target.chat_history
    target.chat_history = _messages(request)
    try:
        yield
    finally:
        target.chat_history = before
