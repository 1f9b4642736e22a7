"""The event loop of the library: one thread in which its databases and agents live, whatever loop or thread calls.

Code that is not asynchronous waits for what it asked; code of any event loop awaits it without blocking its own.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from botsrt import conf
from botsrt.api import project
from botsrt.core import ports
from botsrt.core.errors import ConfigurationError
from botsrt.runtime.databases import Place, bridge, place
from botsrt.runtime.db import Database

T = TypeVar("T")

#: How long the end of the program waits for what is being stored, in seconds.
_CLOSE_SECONDS = 5.0

_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_closing: set[asyncio.Future[None]] = set()  # kept so that they are not collected
_databases: dict[Place | None, Database] = {}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What ``coroutine`` returns; interrupted, it is cancelled. For code that is not asynchronous.

    Raises:
        ConfigurationError: called on the library's own loop, as an asynchronous tool would: it would wait for itself.
    """
    loop = _running()
    if _current_loop() is loop:
        coroutine.close()
        raise ConfigurationError("An asynchronous tool must await achat or chat; start would wait for itself.")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def arun(coroutine: Coroutine[Any, Any, T]) -> T:
    """The same, for code of any event loop; cancelled, it cancels."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, _running()))


def database(location: Any = None) -> Database:
    """The bridge to the database at ``location`` (a path, or a URL); None: to the project's. One for each.

    Raises:
        ConfigurationError: it names no database.
    """
    where = None if location is None else place(location)
    with _starting:
        if where not in _databases:
            _databases[where] = (
                Database(max_batch=conf.load().max_batch, enter=project.check_database)
                if where is None
                else bridge(where)
            )
        return _databases[where]


def close_with(owner: object, agent: ports.Agent) -> None:
    """Release what ``agent`` holds open when ``owner`` is no more. The agent must not refer to it."""
    weakref.finalize(owner, _close_soon, agent).atexit = False


def _close_soon(agent: ports.Agent) -> None:
    """Called by the garbage collector, so wherever it likes: a lock that is waited for here may be our own."""
    if _loop is not None:
        _loop.call_soon_threadsafe(_close_now, agent)


def _close_now(agent: ports.Agent) -> None:
    task = asyncio.ensure_future(agent.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _running() -> asyncio.AbstractEventLoop:
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="botsrt library", daemon=True).start()
            atexit.register(_close)
        return _loop


def _close() -> None:
    """At the end of the program: let what is being stored be stored."""
    for one in _databases.values():
        one.join(_CLOSE_SECONDS)
