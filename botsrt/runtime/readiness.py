"""Can this process do its work? Asked by load balancers and monitors, so it is cheap and never waits long.

The database is asked on a thread of its own, one question at a time, and the answer is remembered for a moment: a
database that hangs costs one thread, and a flood of questions one query a second.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from botsrt.runtime import pulse

#: How long anybody waits for the database, in seconds.
_PATIENCE_SECONDS = 2.0

#: How long an answer of the database is given again, in seconds.
_REMEMBERED_SECONDS = 1.0

#: A loop that wakes a sleeper later than this does not keep up, in seconds.
_LATE_SECONDS = 1.0

_SLEEP_SECONDS = 0.01

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must be well. ``reason`` names no secret and no host: strangers read it."""

    name: str
    reason: str = ""  # empty: it is well

    @property
    def is_ok(self) -> bool:
        return not self.reason


async def check() -> list[Check]:
    """Every check of this process; a worker's beat only where one runs. Takes little more than two seconds at most."""
    begun_at = time.monotonic()
    await asyncio.sleep(_SLEEP_SECONDS)
    late = time.monotonic() - begun_at - _SLEEP_SECONDS
    loop = Check(name="event_loop", reason=f"it was {late:.1f} s late" if late > _LATE_SECONDS else "")
    return [*await _database.ask(), loop, *_workers()]


def _workers() -> list[Check]:
    if not pulse.running:
        return []
    age = max((beating.beat_age_seconds for beating in pulse.running.values() if not beating.is_fresh), default=None)
    return [Check(name="worker", reason="" if age is None else f"no beat for {age:.0f} s")]


class _Database:
    """Asks the database, and remembers what it said."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._answer: Future[list[Check]] | None = None
        self._is_migrated = False  # once true it stays so: migrations are not taken back under a running process

    async def ask(self) -> list[Check]:
        answer, asked_at = self._question()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asyncio.shield(asyncio.wrap_future(answer))
        except TimeoutError:
            seconds = time.monotonic() - asked_at
            return [Check(name="database", reason=f"it has not answered for {seconds:.0f} s")]

    def _question(self) -> tuple[Future[list[Check]], float]:
        """The question that is open or was answered just now, else a new one; and when it was asked."""
        with self._lock:
            now = time.monotonic()
            is_old = self._answer is not None and self._answer.done() and now - self._asked_at > _REMEMBERED_SECONDS
            if self._answer is None or is_old:
                self._answer, self._asked_at = Future(), now
                threading.Thread(target=self._work, args=(self._answer,), name="readiness", daemon=True).start()
            return self._answer, self._asked_at

    def _work(self, answer: Future[list[Check]]) -> None:
        try:
            answer.set_result(self._look())
        except BaseException as error:  # whoever waits must hear of it
            answer.set_exception(error)
            raise
        finally:
            connection.close()

    def _look(self) -> list[Check]:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            self._is_migrated = self._is_migrated or not self._has_pending_migrations()
        except DatabaseError as error:
            logger.warning("not ready: %s", error)
            return [Check(name="database", reason="it cannot be reached")]
        migrations = Check(name="migrations", reason="" if self._is_migrated else "some are not applied")
        return [Check(name="database"), migrations]

    @staticmethod
    def _has_pending_migrations() -> bool:
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


_database = _Database()
