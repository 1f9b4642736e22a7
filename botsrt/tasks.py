"""What the task cluster (django-q2) runs. Tasks write rows; they never call a platform."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.mail import EmailMessage
from django.db import DatabaseError, connection
from django.utils import timezone

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core.actors import Actor
from botsrt.core.alerting import MAIL
from botsrt.core.states import BulkState, BulkVerb
from botsrt.models import BulkOperation
from botsrt.services import alerts, archive, attachments, audit, bulk, figures, housekeeping
from botsrt.services.alerts import DueNotice
from botsrt.services.bulk import Progress
from botsrt.services.housekeeping import Due, Kind

#: How often housekeeping runs, in minutes.
HOUSEKEEPING_MINUTES = 10

#: How often somebody looks for bulk operations that nobody goes on with, in minutes: their task died.
BULK_MINUTES = 1

#: How often somebody looks after counts and alerts, in minutes.
WATCH_MINUTES = 1

#: Longest time that bulk operations keep other tasks, and the end of the cluster, waiting, in seconds; then they queue
#: up again.
BULK_SECONDS = 5

#: Rows of a bulk operation that whoever asks for it does at once, so that small ones are over with the click.
ROWS_AT_ONCE = 25

logger = logging.getLogger(__name__)


def keep_house() -> dict[str, Any]:
    """Remove what is over and old, archive what is silent: ``services.housekeeping``, ``services.archive``. Safe to run
    twice at once."""
    config, periods = conf.load(), retention_periods()
    report = housekeeping.run(
        now=timezone.now(),
        max_size=config.max_size,
        ttl=periods[Kind.JOURNAL],
        dlq_max_size=config.dlq_max_size,
        dlq_ttl=periods[Kind.DLQ],
        periods=periods,
    )
    ttl = timedelta(seconds=config.session_ttl_seconds)
    archived = archive.reap(ttl=ttl, now=timezone.now()) if ttl else 0
    kept = timedelta(seconds=config.kept_file_seconds)
    files = attachments.expire(before=timezone.now() - kept, most_bytes=config.max_kept_bytes)
    attachments.sweep()
    return {
        "files_removed": files,
        "sessions_archived": archived,
        "entries_removed": report.entries_removed,
        "dlq_items_removed": report.dlq_items_removed,
        "is_journal_full": report.is_journal_full,
        "removed": {str(kind): count for kind, count in report.removed.items()},
    }


def retention_periods() -> dict[Kind, timedelta | None]:
    """How long each kind is kept, as the settings say; None: for ever."""
    config = conf.load()
    seconds = {Kind.JOURNAL: config.ttl_seconds, Kind.DLQ: config.dlq_ttl_seconds} | {
        kind: 86_400 * getattr(config, f"keep_{kind}_days") for kind in Kind if kind not in (Kind.JOURNAL, Kind.DLQ)
    }
    return {kind: conf.period(value) for kind, value in seconds.items()}


def due_now() -> list[Due]:
    """What housekeeping would remove at this moment."""
    config = conf.load()
    return housekeeping.preview(
        now=timezone.now(),
        max_size=config.max_size,
        dlq_max_size=config.dlq_max_size,
        periods=retention_periods(),
    )


def apply_retention(*, actor: Actor) -> None:
    """Let the task cluster remove now what it would remove within minutes by itself; the audit keeps who asked."""
    from django_q.tasks import async_task

    _record_retention(actor)
    async_task(keep_house, save=False)


def apply_retention_here(*, actor: Actor) -> dict[str, int]:
    """Remove it in this process, however long it takes. Returns kind → how many rows."""
    _record_retention(actor)
    removed: dict[str, int] = keep_house()["removed"]
    return removed


def _record_retention(actor: Actor) -> None:
    audit.record(
        actor=actor,
        verb="retention.apply",
        object_kind="retention",
        object_id="all",
        after={str(due.kind): due.count + due.excess for due in due_now()},
        now=timezone.now(),
    )


def watch() -> None:
    """Count up what came in, raise and clear alerts, and tell staff. Safe to run twice at once.

    A part that fails is logged and leaves the others as they are.
    """
    config = conf.load()
    for part in (_count_up, _watch_alerts, _tell):
        try:
            part(config)
        except Exception:
            logger.exception("a part of the watch failed: %s", part.__name__.strip("_"))


def _count_up(config: RuntimeConfig) -> None:
    figures.count_up(now=timezone.now())


def _watch_alerts(config: RuntimeConfig) -> None:
    now = timezone.now()
    policy = config.alert_policy
    alerts.watch(findings=alerts.look(policy=policy, now=now), policy=policy, now=now)


def _tell(config: RuntimeConfig) -> None:
    """Mail first: the chats may belong to a bot that is the trouble."""
    due = alerts.due(now=timezone.now())
    _send_mail([notice for notice in due if notice.target == MAIL], config)
    alerts.tell_chats(due_notices=due, now=timezone.now())


def _send_mail(notices: Sequence[DueNotice], config: RuntimeConfig) -> None:
    """All in one message. What the server does not take is tried again."""
    if not notices:
        return
    first = notices[0].text.splitlines()[0][:120]
    more = f" (and {len(notices) - 1} more)" if len(notices) > 1 else ""
    message = EmailMessage(
        subject=f"[PraisonWeb] {first}{more}",
        body="\n\n".join(notice.text for notice in notices),
        to=list(config.alert_mail_to),
    )
    ids = [notice.id for notice in notices]
    try:
        message.send()
    except Exception as error:  # noqa: BLE001  whatever the server or the library says, the house is kept
        logger.warning("alerts could not be mailed: %s: %s", type(error).__name__, error)
        alerts.not_told(notice_ids=ids, error=f"{type(error).__name__}: {error}", now=timezone.now())
    else:
        alerts.told(notice_ids=ids, now=timezone.now())


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
    elif BulkOperation.objects.filter(pk=operation_id, verb=BulkVerb.ERASE).exists():
        settle()


def finish_bulk(operation_id: int) -> None:
    """Do all that is left of a bulk operation here, however long it takes; where another goes on with it, wait."""
    runner_id = _runner_id()
    running = BulkOperation.objects.filter(pk=operation_id, state=BulkState.RUNNING)
    while running.exists():
        if bulk.advance(operation_id=operation_id, runner_id=runner_id, now=timezone.now()) is not Progress.MOVED:
            time.sleep(0.1)
    settle()


def settle() -> None:
    """Let what was deleted leave SQLite's write-ahead log, too; it would be overwritten sooner or later."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rewrite_database() -> None:
    """Write the database's file anew, so that no page of it keeps an older copy of what was erased. Writers wait that
    long on SQLite; on PostgreSQL nobody does."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
    settle()


def run_bulk() -> int:
    """Go on with all bulk operations, a row of each at a time. Returns how many rows. Safe to run twice at once."""
    runner_id, moved, until = _runner_id(), 0, time.monotonic() + BULK_SECONDS
    has_more, erases = True, BulkOperation.objects.filter(state=BulkState.RUNNING, verb=BulkVerb.ERASE).exists()
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
    if erases:
        settle()
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

    regular = (
        ("housekeeping", keep_house, HOUSEKEEPING_MINUTES),
        ("bulk operations", run_bulk, BULK_MINUTES),
        ("watch", watch, WATCH_MINUTES),
    )
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
