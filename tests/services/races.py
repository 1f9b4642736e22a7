"""Two callers at once, each on a thread with a database connection of its own.

Tests that use these need real commits: mark them ``django_db(transaction=True)``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from django.db import connection, connections, transaction

#: Longest wait for a caller to be blocked, or to end.
_DEADLINE_SECONDS = 20.0


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Start all calls at the same moment. Their results, or the exceptions they raised, in the order of the calls."""
    barrier = threading.Barrier(len(calls))
    futures = [_start(call, after=barrier.wait) for call in calls]
    return [future.exception(_DEADLINE_SECONDS) or future.result() for future in futures]


@contextmanager
def while_uncommitted(first: Callable[[], Any], second: Callable[[], Any]) -> Iterator[tuple[Any, Future[Any]]]:
    """Run ``first`` here, and ``second`` elsewhere before ``first`` is committed, which is at the end of the block.

    Yields:
        What ``first`` returned, and the future of ``second``, which waits for a lock or is done.
    """
    with transaction.atomic():
        result = first()
        future = _start(second)
        _until_it_waits(future)
        yield result, future


def _start(call: Callable[[], Any], after: Callable[[], object] = lambda: None) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            after()
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=run, daemon=True).start()
    return future


def _until_it_waits(future: Future[Any]) -> None:
    """Return when the call of ``future`` waits for a lock, or is done. SQLite lets nobody even begin."""
    if connection.vendor != "postgresql":
        return
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not future.done() and time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.005)
