"""What the task cluster (django-q2) runs. Tasks write rows; they never call a platform."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from datetime import timedelta
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from botsrt import conf
from botsrt.services import bulk, housekeeping
from botsrt.services.bulk import Progress

#: How often housekeeping runs, in minutes.
HOUSEKEEPING_MINUTES = 10

#: How often somebody looks for bulk operations that nobody goes on with, in minutes: their task died.
BULK_MINUTES = 1

#: Longest time that bulk operations keep other tasks, and the end of the cluster, waiting, in seconds; then they queue
#: up again.
BULK_SECONDS = 5

#: Rows of a bulk operation that whoever asks for it does at once, so that small ones are over with the click.
ROWS_AT_ONCE = 25

logger = logging.getLogger(__name__)


def keep_house() -> dict[str, Any]:
    """Remove what is over and old; see ``services.housekeeping``. Safe to run twice at once."""
    config = conf.load()
    report = housekeeping.run(
        now=timezone.now(),
        max_size=config.max_size,
        ttl=timedelta(seconds=config.ttl_seconds),
        dlq_max_size=config.dlq_max_size,
        dlq_ttl=timedelta(seconds=config.dlq_ttl_seconds),
    )
    return {
        "entries_removed": report.entries_removed,
        "dlq_items_removed": report.dlq_items_removed,
        "is_journal_full": report.is_journal_full,
    }


def begin_bulk(**operation: Any) -> int:
    """``services.bulk.begin``, the first rows at once, and the rest by the task cluster. Returns the operation's id."""
    operation_id = bulk.begin(**operation, now=timezone.now())
    go_on(operation_id)
    return operation_id


def go_on(operation_id: int) -> None:
    """Do the next rows of a bulk operation here, and leave the rest to the task cluster."""
    runner_id = _runner_id()
    progress = Progress.MOVED
    for _ in range(ROWS_AT_ONCE + 1):  # the last one finds out that it is over
        if progress is Progress.MOVED:
            progress = bulk.advance(operation_id=operation_id, runner_id=runner_id, now=timezone.now())
    bulk.release(runner_id=runner_id)
    if progress is not Progress.OVER:
        _queue_bulk()


def run_bulk() -> int:
    """Go on with all bulk operations, a row of each at a time. Returns how many rows. Safe to run twice at once."""
    runner_id, moved, until = _runner_id(), 0, time.monotonic() + BULK_SECONDS
    has_more = True
    while has_more and time.monotonic() < until:
        try:
            progress = [
                bulk.advance(operation_id=operation_id, runner_id=runner_id, now=timezone.now())
                for operation_id in bulk.running()
            ]
        except DatabaseError as error:
            logger.warning("bulk operations wait: %s", error)
            progress = [Progress.WAITS]
        moved += progress.count(Progress.MOVED)
        has_more = any(step is not Progress.OVER for step in progress)
        if has_more and Progress.MOVED not in progress:
            time.sleep(0.5)
    bulk.release(runner_id=runner_id)
    if has_more:
        _queue_bulk()
    return moved


def _runner_id() -> str:
    return f"{socket.gethostname()[:50]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def _queue_bulk() -> None:
    from django_q.tasks import async_task

    async_task(run_bulk, save=False)


def schedule(sender: Any, **kwargs: Any) -> None:
    """Write down what runs regularly. Called after every ``migrate``; repeating it changes nothing."""
    from django_q.models import Schedule

    regular = (("housekeeping", keep_house, HOUSEKEEPING_MINUTES), ("bulk operations", run_bulk, BULK_MINUTES))
    for name, task, minutes in regular:
        Schedule.objects.update_or_create(
            name=name,
            defaults={
                "func": f"{task.__module__}.{task.__name__}",
                "schedule_type": Schedule.MINUTES,
                "minutes": minutes,
                "repeats": -1,
            },
        )
