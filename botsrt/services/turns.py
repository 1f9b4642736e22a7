"""Every way a turn can end but the good one (``services.finishing``): each is one function and one commit.

Each ending is a filtered update on the running turn: a late result of a turn that was abandoned, stopped or overtaken
changes nothing, and its caller is told.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from botsrt.core import backoff
from botsrt.core.states import DLQReason, EntryState, Outcome, TurnState
from botsrt.models import BotSession, JournalEntry, Turn
from botsrt.services import dlq, news, notices, nudge
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.notices import Address


def fail(
    *, turn: ClaimedTurn, failure: Failure, max_attempts: int, notice_after: timedelta, notice_text: str, now: datetime
) -> bool:
    """End a turn whose agent failed: its entries are tried again later, or parked in the dead letter queue.

    Entries of a turn over several are tried again one by one, so that one bad message takes no other with it. The
    person is told once, when the next try is more than ``notice_after`` away.

    Args:
        notice_text: what they are told; empty: nothing.

    Returns:
        False when the turn is no longer running: nothing was changed.
    """
    state = TurnState.TIMED_OUT if failure.is_timeout else TurnState.FAILED
    with transaction.atomic():
        if not end(turn.id, state, now=now, error_class=failure.error_class, error_text=failure.error_text):
            return False
        claimed = JournalEntry.objects.filter(turn=turn.id, state=EntryState.CLAIMED)
        entries = list(claimed)
        if len(entries) > 1:
            claimed.update(state=EntryState.PENDING, attempts=F("attempts") + 1, runs_alone=True, available_at=now)
            nudge.journal()
            news.changed("journal", turn.entry_ids)
            return True
        for entry in entries:
            entry.attempts += 1
            if failure.is_transient and not failure.is_timeout and entry.attempts < max_attempts:
                wait = max(backoff.before_turn(entry.attempts + 1), failure.retry_after or timedelta())
                _wait(entry, until=now + wait)
                is_far = wait > notice_after
            else:
                _die(
                    entry,
                    reason=DLQReason.TIMED_OUT if failure.is_timeout else DLQReason.FAILED,
                    failure=failure,
                    now=now,
                )
                is_far = True
            if is_far and notice_text:
                _tell_of_trouble(turn, entry, text=notice_text, now=now)
        nudge.journal()
        news.changed("journal", turn.entry_ids)
        return True


def give_up(*, turn: ClaimedTurn, failure: Failure, now: datetime) -> bool:
    """End a turn that failed, where whoever asked has heard why and nobody else waits: its entries are discarded.

    Returns:
        False when the turn is no longer running: nothing was changed.
    """
    state = TurnState.TIMED_OUT if failure.is_timeout else TurnState.FAILED
    with transaction.atomic():
        if not end(turn.id, state, now=now, error_class=failure.error_class, error_text=failure.error_text):
            return False
        JournalEntry.objects.filter(turn=turn.id, state=EntryState.CLAIMED).update(
            state=EntryState.DISCARDED,
            outcome=Outcome.DISCARDED,
            outcome_reason=f"{failure.error_class}: {failure.error_text}",
            attempts=F("attempts") + 1,
            completed_at=now,
        )
        news.changed("journal", turn.entry_ids)
        return True


def set_apart(turn_id: uuid.UUID, failure: Failure, *, now: datetime) -> None:
    """Park the message that nobody can read any more; of several each goes on alone, so that the right one is found."""
    end(turn_id, TurnState.FAILED, now=now, error_class=failure.error_class, error_text=failure.error_text)
    claimed = JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED)
    entries = list(claimed)
    if len(entries) > 1:
        claimed.update(state=EntryState.PENDING, runs_alone=True)
        nudge.journal()
        return
    for entry in entries:
        _die(entry, reason=DLQReason.UNREADABLE, failure=failure, now=now)


def release(*, turn_id: uuid.UUID, available_at: datetime, reason: Failure | None = None, now: datetime) -> bool:
    """Hand a running turn back without using up an attempt: drain, a stopped bot, an agent that cannot run now.

    Args:
        reason: what the agent said, for staff.

    Returns:
        False when the turn is no longer running.
    """
    with transaction.atomic():
        said: dict[str, Any] = {"error_class": reason.error_class, "error_text": reason.error_text} if reason else {}
        if not end(turn_id, TurnState.CANCELLED, now=now, **said):
            return False
        JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED).update(
            state=EntryState.PENDING, available_at=available_at
        )
        nudge.journal()
        news.changed("journal")
        return True


def renew(*, worker_id: str, turn_ids: Collection[uuid.UUID], lease: timedelta, now: datetime) -> set[uuid.UUID]:
    """Keep the claims of running turns. Returns the ids that this worker has lost, and must stop running: abandoned,
    cancelled by somebody else, or past their deadline. Turns that ended well are not among them."""
    with transaction.atomic():
        turns = Turn.objects.filter(id__in=turn_ids)
        running = turns.filter(worker_id=worker_id, state=TurnState.RUNNING)
        running.filter(deadline_at__gt=now).update(lease_expires_at=now + lease)
        is_taken = Q(state__in=(TurnState.ABANDONED, TurnState.CANCELLED))
        is_too_late = Q(state=TurnState.RUNNING, deadline_at__lte=now)
        return set(turns.filter(is_taken | is_too_late).values_list("id", flat=True))


def abandon_expired(*, max_worker_deaths: int, now: datetime) -> int:
    """End the turns whose workers fell silent; their entries become pending again, or poison. Returns how many turns.

    Entries of a turn over several go on one by one, so that the one that kills workers is found.
    """
    with transaction.atomic():
        expired = Turn.objects.filter(state=TurnState.RUNNING, lease_expires_at__lte=now)
        ids = list(expired.values_list("id", flat=True)[:500])
        ended = [turn_id for turn_id in ids if end(turn_id, TurnState.ABANDONED, now=now)]
        for turn_id in ended:
            _give_back_or_poison(
                JournalEntry.objects.filter(turn=turn_id, state=EntryState.CLAIMED),
                max_worker_deaths=max_worker_deaths,
                now=now,
            )
        if ended:
            nudge.journal()
            news.changed("journal")
        return len(ended)


def _give_back_or_poison(entries: QuerySet[JournalEntry], *, max_worker_deaths: int, now: datetime) -> None:
    rows = list(entries)
    for entry in rows:
        entry.deaths += 1
        if entry.deaths >= max_worker_deaths and len(rows) == 1:
            failure = Failure(
                error_class="WorkerDied",
                error_text=f"{entry.deaths} workers died or fell silent while they ran this message.",
            )
            _die(entry, reason=DLQReason.POISON, failure=failure, now=now)
        else:
            entry.runs_alone = entry.runs_alone or len(rows) > 1
            _wait(entry, until=now)


def end(turn_id: uuid.UUID, state: TurnState, *, now: datetime, generation: int | None = None, **fields: Any) -> bool:
    """Move a running turn to its end. The row count says who won."""
    running = Turn.objects.filter(id=turn_id, state=TurnState.RUNNING)
    if generation is not None:
        # No join: Django would put all conditions into a subquery, which PostgreSQL looks at only once. After it waited
        # for another end of the turn it would find it running still.
        session = BotSession.objects.filter(pk=OuterRef("session"), epoch=generation)
        running = running.filter(Exists(session))
    return bool(running.update(state=state, finished_at=now, **fields))


def _wait(entry: JournalEntry, *, until: datetime) -> None:
    entry.state, entry.available_at = EntryState.PENDING, until
    entry.save(update_fields=["state", "available_at", "attempts", "deaths", "runs_alone"])


def _die(entry: JournalEntry, *, reason: DLQReason, failure: Failure, now: datetime) -> None:
    entry.state, entry.outcome, entry.completed_at = EntryState.DEAD, Outcome.DEAD, now
    entry.save(update_fields=["state", "outcome", "completed_at", "attempts", "deaths"])
    dlq.park(entry=entry, reason=reason, failure=failure, now=now)


def _tell_of_trouble(turn: ClaimedTurn, entry: JournalEntry, *, text: str, now: datetime) -> None:
    """One notice for an entry, however often it fails: the key sees to that."""
    address = Address(
        platform=entry.platform,
        account=entry.account,
        channel_id=entry.channel_id,
        thread_id=entry.thread_id,
        reply_to=turn.route.reply_to,
        session_pk=turn.session_pk,
    )
    notices.tell(address, text, key=trouble_key(entry.pk), entry_id=entry.pk, now=now)


def trouble_key(entry_id: int) -> str:
    """The key of the one notice that tells a person of trouble with their message."""
    return f"trouble:{entry_id}"
