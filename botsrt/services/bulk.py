"""Bulk operations: one act of staff on many rows. Begin / advance / stop / resume.

Which rows is fixed at the beginning. They are done one by one, each in one transaction with its result, so that neither
a crash nor a second runner does a row twice, and so that nobody waits for the write lock. Whoever goes on with an
operation holds its lease; when they die, the next one takes it over.

A canary takes 1 row, then 5, then 25, then the rest, and looks at the results of a step before it begins the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import accumulate
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import Count, F, Q

from botsrt.core.actors import Actor
from botsrt.core.errors import BotsError, Conflict, InvalidInput, NotFound
from botsrt.core.states import BulkItemState, BulkState, BulkVerb, DLQState, EntryState, RunMode
from botsrt.models import BulkItem, BulkOperation, DLQItem
from botsrt.services import audit, dlq, erasing, journal, news, outbox

#: Rows of one operation. More is a second operation.
MAX_ITEMS = 10_000

#: Rows in the first steps of a canary. Source: screens, "DLQ".
CANARY_STEPS = (1, 5, 25)

#: How long a runner may be silent before another goes on in its place.
LEASE = timedelta(seconds=30)

#: How long a canary waits for the results of a step.
PATIENCE = timedelta(minutes=10)

_MAX_DETAIL_CHARS = 1_000

_INSERTED_AT_ONCE = 500

logger = logging.getLogger(__name__)


class Progress(Enum):
    """What one call of ``advance`` did."""

    MOVED = "moved"  # a row or a step was done
    WAITS = "waits"  # for the results of the canary's step
    OVER = "over"  # finished, stopped, or in somebody else's hands


def begin(
    *,
    verb: BulkVerb,
    object_ids: Sequence[int],
    actor: Actor,
    reason: str = "",
    options: Mapping[str, Any] | None = None,
    is_canary: bool = False,
    now: datetime,
) -> int:
    """Write the operation down with its rows, which are done in the order given. Nothing is done yet.

    Args:
        options: what the verb needs: ``mode`` (a RunMode) for a replay.
        is_canary: step by step; for retries only, because only these can fail the same way again.

    Raises:
        InvalidInput: no row, too many rows, or something that the verb cannot do.
    """
    ids = list(dict.fromkeys(object_ids))
    _check(verb, ids, reason=reason, options=options or {}, is_canary=is_canary)
    sizes = CANARY_STEPS if is_canary else ()
    with transaction.atomic():
        operation = BulkOperation.objects.create(
            verb=verb,
            options=dict(options or {}),
            reason=reason,
            asked_by=actor.name,
            address=actor.address,
            total=len(ids),
            steps=_sizes(len(ids), sizes),
            created_at=now,
            moved_at=now,
        )
        ends = list(accumulate(sizes))
        BulkItem.objects.bulk_create(
            (
                BulkItem(
                    operation=operation,
                    ordinal=ordinal,
                    object_id=object_id,
                    step=sum(ordinal >= end for end in ends),
                )
                for ordinal, object_id in enumerate(ids)
            ),
            batch_size=_INSERTED_AT_ONCE,
        )
        _record("begin", operation, actor=actor, reason=reason, now=now, does=verb, rows=len(ids))
        return operation.pk


def _check(verb: BulkVerb, ids: Collection[int], *, reason: str, options: Mapping[str, Any], is_canary: bool) -> None:
    if not ids:
        raise InvalidInput("rows", "select at least one.")
    if len(ids) > MAX_ITEMS:
        raise InvalidInput("rows", f"{len(ids):,} are too many; {MAX_ITEMS:,} are possible at a time.")
    if verb is BulkVerb.DISCARD and not reason.strip():
        raise InvalidInput("reason", "say why the messages are given up.")
    if verb is BulkVerb.ERASE:
        erasing.check(contact_ids=ids)
    if verb is BulkVerb.REPLAY and options.get("mode") not in tuple(RunMode):
        raise InvalidInput("mode", f"is one of {', '.join(RunMode)}.")
    if is_canary and verb is not BulkVerb.RETRY:
        raise InvalidInput("canary", "only retries can go step by step.")


def _sizes(total: int, first: Sequence[int]) -> list[int]:
    """The sizes of the steps, the rest included: 40 rows of a canary are 1, 5, 25, 9."""
    sizes, left = [], total
    for size in (*first, total):
        if left:
            sizes.append(min(size, left))
            left -= sizes[-1]
    return sizes


def _record(
    verb: str, operation: BulkOperation, *, actor: Actor, now: datetime, reason: str = "", **after: object
) -> None:
    audit.record(
        actor=actor,
        verb=f"bulk.{verb}",
        object_kind="operation",
        object_id=operation.pk,
        reason=reason,
        after=after,
        now=now,
    )
    news.changed("operations", [operation.pk])


# -- going on ----


def running() -> list[int]:
    """The operations that are under way, whoever holds them."""
    return list(BulkOperation.objects.filter(state=BulkState.RUNNING).order_by("pk").values_list("pk", flat=True))


def advance(*, operation_id: int, runner_id: str, now: datetime) -> Progress:
    """Do the next row, or look whether the next step may begin."""
    with transaction.atomic():
        free = Q(lease_expires_at=None) | Q(lease_expires_at__lte=now) | Q(runner_id=runner_id)
        if not BulkOperation.objects.filter(free, pk=operation_id, state=BulkState.RUNNING).update(
            runner_id=runner_id, lease_expires_at=now + LEASE
        ):
            return Progress.OVER
        operation = BulkOperation.objects.get(pk=operation_id)
        item = operation.items.filter(state=BulkItemState.WAITING, step=operation.step).order_by("ordinal").first()
        if item is None:
            return _after_step(operation, now=now)
        _do(operation, item, now=now)
        return Progress.MOVED


def release(*, runner_id: str) -> None:
    """Let others go on with what this runner holds, at once."""
    BulkOperation.objects.filter(runner_id=runner_id, state=BulkState.RUNNING).update(lease_expires_at=None)


def _do(operation: BulkOperation, item: BulkItem, *, now: datetime) -> None:
    state, detail = BulkItemState.DONE, ""
    is_over: bool | None = True
    fingerprint = _fingerprint(item.object_id) if operation.verb == BulkVerb.RETRY else ""
    try:
        with transaction.atomic():
            is_over = _ACTS[BulkVerb(operation.verb)](operation, item.object_id, now)
    except BotsError as error:
        state, detail = BulkItemState.SKIPPED, str(error)[:_MAX_DETAIL_CHARS]
    except DatabaseError:
        raise  # busy or away: the same row is tried again
    except Exception as error:
        logger.exception("row %d of bulk operation %d", item.object_id, operation.pk)
        state, detail = BulkItemState.SKIPPED, f"An unexpected {type(error).__name__}; the log says more."
    if is_over is False:
        state = BulkItemState.WAITING
    BulkItem.objects.filter(pk=item.pk).update(
        state=state, detail=detail, fingerprint=fingerprint, done_at=None if state is BulkItemState.WAITING else now
    )
    BulkOperation.objects.filter(pk=operation.pk).update(moved_at=now)
    news.changed("operations", [operation.pk])


def _fingerprint(item_id: int) -> str:
    return DLQItem.objects.filter(pk=item_id).values_list("fingerprint", flat=True).first() or ""


def _by(operation: BulkOperation) -> Actor:
    return Actor(name=operation.asked_by, address=operation.address)


def _retry(operation: BulkOperation, item_id: int, now: datetime) -> None:
    dlq.retry(item_id=item_id, actor=_by(operation), reason=operation.reason, now=now)


def _discard(operation: BulkOperation, item_id: int, now: datetime) -> None:
    dlq.discard(item_id=item_id, actor=_by(operation), reason=operation.reason, now=now)


def _replay(operation: BulkOperation, entry_id: int, now: datetime) -> None:
    mode = RunMode(operation.options["mode"])
    journal.replay(entry_id=entry_id, mode=mode, actor=_by(operation), reason=operation.reason, now=now)


def _resolve(operation: BulkOperation, outbox_id: int, now: datetime) -> None:
    outbox.resolve(
        outbox_id=outbox_id, resolution=operation.verb, actor=_by(operation), reason=operation.reason, now=now
    )


def _erase(operation: BulkOperation, contact_id: int, now: datetime) -> bool:
    return erasing.step(contact_id=contact_id, actor=_by(operation), reason=operation.reason, now=now)


#: What is done to a row. False: there is more to do to it, so it is the next one again.
_ACTS: Mapping[BulkVerb, Callable[[BulkOperation, int, datetime], bool | None]] = {
    BulkVerb.RETRY: _retry,
    BulkVerb.DISCARD: _discard,
    BulkVerb.REPLAY: _replay,
    BulkVerb.ARRIVED: _resolve,
    BulkVerb.AGAIN: _resolve,
    BulkVerb.DROP: _resolve,
    BulkVerb.ERASE: _erase,
}


# -- between two steps ----


@dataclass(frozen=True, slots=True, kw_only=True)
class _Results:
    """What became of the messages that a step ran again."""

    ran: int
    open: int  # no result yet
    failed: int
    failed_alike: int  # in the same way as before

    @property
    def verdict(self) -> str:
        """Why the next step should not begin; empty: it may."""
        if self.failed_alike:
            return f"{self.failed_alike} of the {self.ran} in this step failed the same way again."
        if self.failed and self.failed == self.ran:
            return f"All {self.ran} in this step failed, in another way than before."
        return ""


def _after_step(operation: BulkOperation, *, now: datetime) -> Progress:
    rows = BulkOperation.objects.filter(pk=operation.pk)
    if operation.step + 1 >= len(operation.steps):
        rows.update(state=BulkState.FINISHED, finished_at=now, moved_at=now, lease_expires_at=None)
        _record("finish", operation, actor=_by(operation), now=now)
        return Progress.OVER
    results = _results(operation)
    if results.verdict:
        return _halt(operation, results.verdict, now=now)
    if results.open:
        if operation.step_ends_at is None:
            rows.update(step_ends_at=now + PATIENCE)
        elif operation.step_ends_at <= now:
            verb = "has" if results.open == 1 else "have"
            minutes = PATIENCE.total_seconds() / 60
            why = f"{results.open} of the {results.ran} in this step {verb} no result after {minutes:g} min."
            return _halt(operation, why, now=now)
        return Progress.WAITS
    rows.update(step=F("step") + 1, step_ends_at=None, moved_at=now)
    news.changed("operations", [operation.pk])
    return Progress.MOVED


def _results(operation: BulkOperation) -> _Results:
    done = operation.items.filter(step=operation.step, state=BulkItemState.DONE)
    before = dict(done.values_list("object_id", "fingerprint"))
    now = DLQItem.objects.filter(pk__in=before).values_list("pk", "state", "fingerprint", "entry__state")
    failed = [(pk, fingerprint) for pk, state, fingerprint, _ in now if state == DLQState.OPEN]
    return _Results(
        ran=len(before),
        open=sum(entry_state in (EntryState.PENDING, EntryState.CLAIMED) for _, _, _, entry_state in now),
        failed=len(failed),
        failed_alike=sum(before[pk] == fingerprint for pk, fingerprint in failed),
    )


def _halt(operation: BulkOperation, why: str, *, now: datetime) -> Progress:
    BulkOperation.objects.filter(pk=operation.pk).update(
        state=BulkState.STOPPED, note=why, moved_at=now, lease_expires_at=None
    )
    _record("halt", operation, actor=_by(operation), now=now, why=why)
    return Progress.OVER


# -- acts of staff on an operation ----


def stop(*, operation_id: int, actor: Actor, now: datetime) -> None:
    """Leave the rest as it is. What was done stays done.

    Raises:
        NotFound: there is no such operation.
        Conflict: it is not running (any more).
    """
    with transaction.atomic():
        operation = _operation(operation_id)
        if not BulkOperation.objects.filter(pk=operation_id, state=BulkState.RUNNING).update(
            state=BulkState.STOPPED, stopped_by=actor.name, note="", moved_at=now, lease_expires_at=None
        ):
            raise Conflict(_state_of(operation))
        _record("stop", operation, actor=actor, now=now)


def resume(*, operation_id: int, actor: Actor, now: datetime) -> None:
    """Go on with the rest of a stopped operation; a canary goes on with its next step, whatever the last one said.

    Raises:
        NotFound: there is no such operation.
        Conflict: it is not stopped (any more).
    """
    with transaction.atomic():
        operation = _operation(operation_id)
        is_between = not operation.items.filter(state=BulkItemState.WAITING, step=operation.step).exists()
        if not BulkOperation.objects.filter(pk=operation_id, state=BulkState.STOPPED, step=operation.step).update(
            state=BulkState.RUNNING,
            step=min(operation.step + is_between, len(operation.steps) - 1),
            step_ends_at=None,
            stopped_by="",
            note="",
            moved_at=now,
        ):
            raise Conflict(_state_of(operation))
        _record("resume", operation, actor=actor, now=now)


def counts(*, operation_ids: Collection[int]) -> Mapping[int, Mapping[str, int]]:
    """Operation → state of its rows → how many."""
    found: dict[int, dict[str, int]] = {pk: dict.fromkeys(BulkItemState, 0) for pk in operation_ids}
    rows = BulkItem.objects.filter(operation__in=operation_ids).values_list("operation", "state")
    for operation_id, state, count in rows.annotate(count=Count("pk")).order_by():
        found[operation_id][state] = count
    return found


def _operation(operation_id: int) -> BulkOperation:
    operation = BulkOperation.objects.filter(pk=operation_id).first()
    if operation is None:
        raise NotFound(f"There is no bulk operation {operation_id}.")
    return operation


def _state_of(operation: BulkOperation) -> str:
    operation.refresh_from_db()
    who = f", by {operation.stopped_by}" if operation.stopped_by else ""
    return f"Operation {operation.pk} is {operation.state} already{who}, since {operation.moved_at:%H:%M:%S} UTC."
