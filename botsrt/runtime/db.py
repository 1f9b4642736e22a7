"""The bridge: the only place where asynchronous code meets the ORM.

One database thread. It takes all waiting calls, runs each in its own savepoint of one transaction, commits once, and
only then resolves the callers: calls that arrive while a commit is under way share the next one. One call's error
rolls back that call alone. Calls run in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, connections, transaction

from botsrt import conf
from botsrt.core.errors import StorageUnavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Errors of the database itself (gone, locked, full, deadlock), as opposed to errors of a statement.
_DATABASE_FAILED = (OperationalError, InterfaceError)


@dataclass(slots=True, kw_only=True)
class _Call:
    function: Callable[..., Any]
    arguments: dict[str, Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """Runs service functions on the database thread. Belongs to the event loop that first calls it."""

    def __init__(self, *, max_batch: int, enter: Callable[[], None] | None = None) -> None:
        """
        Args:
            enter: called first on the database thread, for a database other than the project's
                (``runtime.databases``); what it raises is raised by every call.
        """
        self._max_batch = max_batch
        self._enter = enter
        self._waiting: deque[_Call] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False

    async def call(self, function: Callable[..., T], /, **arguments: Any) -> T:
        """What ``function(**arguments)`` returns, after its transaction is committed.

        A cancelled caller does not stop a call that has begun; its effects are committed all the same.

        Raises:
            StorageUnavailable: the database did not commit; nothing was stored (or, if the connection was lost in the
                commit itself, it may have been: services tolerate a repetition).
            Exception: whatever ``function`` raised; its own changes were rolled back.
        """
        loop = asyncio.get_running_loop()
        call = _Call(function=function, arguments=arguments, future=loop.create_future())
        with self._ready:
            if self._is_closing:
                raise StorageUnavailable("The process is stopping; its database thread has ended.")
            self._waiting.append(call)
            if self._thread is None:
                self._start(loop)
            self._ready.notify()
        result: T = await call.future
        return result

    async def close(self) -> None:
        """Finish what waits, then end the thread and its connection."""
        await asyncio.to_thread(self.join)

    def join(self, seconds: float | None = None) -> None:
        """``close``, for code that is not asynchronous; it waits no longer than ``seconds``."""
        with self._ready:
            self._is_closing = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)
        self._thread.start()

    # -- the database thread ----

    def _work(self) -> None:
        obstacle = self._entered()
        while batch := self._take():
            if obstacle is not None:
                for call in batch:
                    call.error = obstacle
                self._resolve(batch)
                continue
            close_old_connections()
            try:
                self._run(batch)
            except Exception as error:  # the callers must hear of anything, or they wait for ever
                logger.exception("the database bridge failed")
                for call in batch:
                    call.error = error
            self._resolve(batch)
        connections.close_all()

    def _entered(self) -> Exception | None:
        """What keeps the database from being used; None: nothing."""
        try:
            if self._enter is not None:
                self._enter()
        except Exception as error:  # noqa: BLE001  handed to every caller
            return error
        return None

    def _take(self) -> list[_Call]:
        """All calls that wait, up to the largest batch; empty when the bridge is closing and nothing waits."""
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._is_closing)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]

    def _run(self, batch: list[_Call]) -> None:
        """Run ``batch`` in one transaction; when the database fails before the commit, each call in its own."""
        is_committing = False
        try:
            with transaction.atomic():
                for call in batch:
                    self._run_one(call)
                is_committing = True
        except _DATABASE_FAILED as error:
            close_old_connections()
            if is_committing:
                # Whether a lost commit took place cannot be known, so nothing may be repeated here.
                self._fail(batch, error)
            else:
                for call in batch:
                    self._run_alone(call)

    @staticmethod
    def _run_one(call: _Call) -> None:
        call.result, call.error = None, None
        try:
            with transaction.atomic():
                call.result = call.function(**call.arguments)
        except _DATABASE_FAILED:
            raise
        except Exception as error:  # noqa: BLE001  handed to the caller
            call.error = error

    def _run_alone(self, call: _Call) -> None:
        try:
            with transaction.atomic():
                self._run_one(call)
        except _DATABASE_FAILED as error:
            close_old_connections()
            self._fail([call], error)

    @staticmethod
    def _fail(batch: list[_Call], cause: Exception) -> None:
        for call in batch:
            call.error = StorageUnavailable(f"The database did not take it ({type(cause).__name__}: {cause}).")
            call.error.__cause__ = cause

    def _resolve(self, batch: list[_Call]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_settle, batch)
        except RuntimeError:  # the loop is closed: nobody waits any more
            logger.debug("the event loop ended before %d database calls did", len(batch))


def _settle(batch: list[_Call]) -> None:
    for call in batch:
        if call.future.done():  # its caller was cancelled
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


@cache
def database() -> Database:
    """The bridge of this process: the runtime's, and the one that webhooks and websockets of the site use."""
    return Database(max_batch=conf.load().max_batch)
