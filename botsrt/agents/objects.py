"""Foreign agent objects: whatever has ``achat(text)`` or ``chat(text)``, known by nothing else.

Such an object may keep the conversation in ``chat_history``. Then it serves one conversation at a time: the stored
history is put in for the length of a call, and what was there before comes back after it. A blocking call that was
given up keeps the object until its thread has ended, so what it still writes lands in its own conversation's list.
Objects without ``chat_history`` are taken to keep nothing, and serve many conversations at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from botsrt.agents import threads
from botsrt.agents.threads import Gate
from botsrt.core.ports import AgentRequest

#: One lock per object; it goes when the object goes. Never keyed by ``id`` alone, which is used again.
_locks: WeakKeyDictionary[object, Gate] = WeakKeyDictionary()

#: The same for objects that cannot be keys there. Each is kept alive with its lock, so its id is never used again; they
#: are few: one per profile and version.
_pinned: dict[int, tuple[object, Gate]] = {}


def is_one(target: object) -> bool:
    """Whether ``target`` is such an object."""
    return callable(getattr(target, "achat", None)) or callable(getattr(target, "chat", None))


async def ask(target: Any, request: AgentRequest, *, gate: Gate) -> Any:
    """What ``target`` answers to the request's text.

    Args:
        gate: the places for blocking calls of objects that keep no history.
    """
    method = _method(target)
    has_history = hasattr(target, "chat_history")
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


@contextmanager
def _history(target: Any, request: AgentRequest) -> Iterator[None]:
    """The conversation in ``target.chat_history``, if it has one, for the length of one call."""
    if not hasattr(target, "chat_history"):
        yield
        return
    before = target.chat_history
    target.chat_history = [{"role": item.role.value, "content": item.text} for item in request.history]
    try:
        yield
    finally:
        target.chat_history = before
