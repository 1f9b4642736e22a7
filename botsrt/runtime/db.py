"""The bridge: the only place where asynchronous code meets the ORM.

One database thread. It takes all waiting calls, runs each in its own savepoint of one transaction, commits once, and
only then resolves the callers: calls that arrive while a commit is under way share the next one. One call's error
rolls back that call alone. Waiting calls of one service that can be made together (``services.batches``) are made as
one, in the order in which they were made; if that fails, one by one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
    transaction,
)

from botsrt import conf
from botsrt.core.errors import StorageUnavailable
from botsrt.services.batches import together

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Errors of the database itself (gone, locked, full, deadlock), as opposed to errors of a statement.
_DATABASE_FAILED = (OperationalError, InterfaceError)


#: How often the connection is looked after, and how long it is used at most.
_LOOK_AFTER_SECONDS = 1.0
_CONNECTION_SECONDS = 60


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
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()  # None: nothing comes after it
        self._guard = threading.Lock()  # between those who call and who closes
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._looked_at = 0.0

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
        with self._guard:
            if self._is_closing:
                raise StorageUnavailable("The process is stopping; its database thread has ended.")
            if self._thread is None:
                self._start(loop)
            self._waiting.put(call)
        result: T = await call.future
        return result

    async def close(self) -> None:
        """Finish what waits, then end the thread and its connection."""
        await asyncio.to_thread(self.join)

    def join(self, seconds: float | None = None) -> None:
        """``close``, for code that is not asynchronous; it waits no longer than ``seconds``."""
        with self._guard:
            self._is_closing = True
            self._waiting.put(None)
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
            try:
                self._look_after_connection()
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
            # Unlike a request's, this thread lives as long as the process.
            kept = {"CONN_MAX_AGE": _CONNECTION_SECONDS, "CONN_HEALTH_CHECKS": True}
            connection.settings_dict = {**connection.settings_dict, **kept}
        except Exception as error:  # noqa: BLE001  handed to every caller
            return error
        return None

    def _look_after_connection(self) -> None:
        """Replace a connection that is broken or too old; asking the server before every batch would cost a trip.

        One that breaks in between fails a batch before its commit, which is then made again.
        """
        if time.monotonic() - self._looked_at > _LOOK_AFTER_SECONDS:
            close_old_connections()
            self._looked_at = time.monotonic()

    def _take(self) -> list[_Call]:
        """All calls that wait, up to the largest batch; empty when the bridge is closing and nothing waits."""
        found: list[_Call] = []
        call = self._waiting.get()
        while call is not None:
            found.append(call)
            if len(found) == self._max_batch:
                return found
            try:
                call = self._waiting.get_nowait()
            except Empty:
                return found
        if found:
            self._waiting.put(None)  # for the next look
        return found

    def _run(self, batch: list[_Call]) -> None:
        """Run ``batch`` in one transaction; when the database fails before the commit, each call in its own."""
        jobs = _jobs(batch)
        if len(jobs) == 1:
            self._run_job_alone(jobs[0])
            return
        is_committing = False
        try:
            with transaction.atomic():
                for calls in jobs:
                    self._run_job(calls)
                is_committing = True
        except _DATABASE_FAILED as error:
            close_old_connections()
            if is_committing:
                # Whether a lost commit took place cannot be known, so nothing may be repeated here.
                self._fail(batch, error)
            else:
                self._run_one_by_one(batch)
        except IntegrityError:  # a constraint that is looked at in the commit: it did not take place
            self._run_one_by_one(batch)

    def _run_one_by_one(self, calls: list[_Call]) -> None:
        for call in calls:
            self._run_job_alone([call])

    def _run_job(self, calls: list[_Call]) -> None:
        """Make calls of one service, as one where they are several, within the transaction that is open."""
        try:
            with transaction.atomic():
                _make(calls)
        except _DATABASE_FAILED:
            raise
        except Exception as error:  # noqa: BLE001  handed to the caller whose it is
            if len(calls) == 1:
                calls[0].error = error
            else:
                logger.debug("%d calls of %s are made one by one: %r", len(calls), calls[0].function, error)
                for call in calls:
                    self._run_job([call])

    def _run_job_alone(self, calls: list[_Call]) -> None:
        """As ``_run_job``, in a transaction of its own."""
        is_committing = False
        try:
            with transaction.atomic():
                _make(calls)
                is_committing = True
        except _DATABASE_FAILED as error:
            close_old_connections()
            if is_committing or len(calls) == 1:
                self._fail(calls, error)
            else:
                self._run_one_by_one(calls)
        except Exception as error:
            # A constraint that is looked at in the commit undoes it. After anything else the commit is done, and what
            # was to happen then broke.
            if is_committing and not isinstance(error, IntegrityError):
                raise
            if len(calls) == 1:
                calls[0].result, calls[0].error = None, error
            else:
                logger.debug("%d calls of %s are made one by one: %r", len(calls), calls[0].function, error)
                self._run_one_by_one(calls)

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


def _make(calls: list[_Call]) -> None:
    """Make one call, or several of one service together."""
    for call in calls:
        call.result, call.error = None, None
    service = together(calls[0].function)
    if service is None or len(calls) == 1:
        (call,) = calls
        call.result = call.function(**call.arguments)
        return
    for call, result in zip(calls, service([call.arguments for call in calls]), strict=True):
        call.result, call.error = (None, result) if isinstance(result, Exception) else (result, None)


def _jobs(batch: list[_Call]) -> list[list[_Call]]:
    """The calls, those of one service that can be made together in one list, where the first of them stands."""
    jobs: list[list[_Call]] = []
    open_jobs: dict[Callable[..., Any], list[_Call]] = {}
    for call in batch:
        if call.function in open_jobs:
            open_jobs[call.function].append(call)
            continue
        jobs.append([call])
        if together(call.function) is not None:
            open_jobs[call.function] = jobs[-1]
    return jobs


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
