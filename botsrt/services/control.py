"""Run control: what runs and waits in a conversation, and how those who talk there end it or ask for it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from botsrt.core.actors import Actor
from botsrt.core.states import DLQReason, DLQState, EntryState, Handler, Outcome, RunMode, Trigger, TurnState
from botsrt.models import BotSession, DLQItem, JournalEntry, Turn
from botsrt.services import dlq, entrance, identity, lanes, news, notices, recording, turns

#: ``outcome_reason`` of an entry that ``/stop`` ended.
STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What goes on in a conversation."""

    handler: Handler
    running_since: datetime | None  # None: nothing runs
    waiting: int  # messages that no turn has taken


def doing(*, session_pk: int) -> Doing:
    """What runs and waits in the lane of this session. Commands that are answered beside it are not counted."""
    session = BotSession.objects.get(pk=session_pk)
    running = _running(session.lane).values_list("started_at", flat=True).first()
    waiting = JournalEntry.objects.filter(lane=session.lane, state=EntryState.PENDING, runs_aside=False)
    return Doing(handler=Handler(session.handler), running_since=running, waiting=waiting.count())


def stop(*, session_pk: int, before: int, now: datetime) -> int:
    """End what was said here before the entry ``before`` and is not answered yet: what runs, and what waits behind it.

    A running turn is cancelled: its late result is refused, and its worker is told to stop. What was said stays part of
    the conversation. What the gate would drop is left to it, and what a human has in hand to them.

    Returns:
        How many messages were stopped.
    """
    with transaction.atomic():
        # A turn that ends in this moment locks itself, then its session: so do we. From then on nothing can be claimed;
        # what was claimed in between is cancelled, too.
        lane = BotSession.objects.values_list("lane", flat=True).get(pk=session_pk)
        ran = _cancel(lane, before=before, now=now)
        session = lanes.locked(session_pk)
        if session.handler != Handler.BOT:
            return 0
        ran |= _cancel(session.lane, before=before, now=now)
        # What staff asked for is theirs to stop, unless it ran.
        is_ours = Q(pk__in=ran) | Q(lane=session.lane, trigger=Trigger.MESSAGE)
        waiting = _said(before).filter(is_ours, state=EntryState.PENDING)
        ids = [entry.id for entry in entrance.allowed(waiting.values_list("pk", flat=True), now=now)]
        if not ids:
            return 0
        recording.write_down_said(ids)
        JournalEntry.objects.filter(pk__in=ids, state=EntryState.PENDING).update(
            state=EntryState.COMPLETED, outcome=Outcome.SILENT, outcome_reason=STOPPED, completed_at=now
        )
        dlq.resolve(entry_ids=ids, now=now)
        news.changed("journal", ids)
        return len(ids)


def retry(*, session_pk: int, root_id: int, actor: Actor, now: datetime) -> bool:
    """Run the latest failed message of a contact in this session again, as staff do from the dead letter queue.

    A message on which workers died is not run: that is for staff to decide.

    Args:
        root_id: the contact, or the one it is an alias of.

    Returns:
        False when there is none.
    """
    with transaction.atomic():
        item = (
            DLQItem.objects.filter(
                state=DLQState.OPEN,
                reason__in=(DLQReason.FAILED, DLQReason.TIMED_OUT),
                entry__state=EntryState.DEAD,
                entry__session=session_pk,
                entry__contact__in=identity.ids_of(root_id),
            )
            .order_by("-entry")
            .first()
        )
        if item is None:
            return False
        dlq.retry(item_id=item.pk, actor=actor, reason="asked for it with /retry", now=now)
        notices.allow_again(key=turns.trouble_key(item.entry_id), now=now)
        return True


def _cancel(lane: str, *, before: int, now: datetime) -> set[int]:
    """Hand back the running turn of the lane, if it answers what was said before. Returns what waits again for that."""
    claimed = _said(before).filter(state=EntryState.CLAIMED)
    turns_of_ours = _running(lane).filter(Exists(claimed.filter(turn=OuterRef("pk"))), run_mode=RunMode.SEND)
    turn_ids = list(turns_of_ours.values_list("id", flat=True))
    entry_ids = set(claimed.filter(turn__in=turn_ids).values_list("pk", flat=True))
    return entry_ids if lanes.hand_back(Turn.objects.filter(id__in=turn_ids), now=now) else set()


def _said(before: int) -> QuerySet[JournalEntry]:
    """Messages for the agent that came before the entry ``before``."""
    return JournalEntry.objects.filter(command="", pk__lt=before)


def _running(lane: str) -> QuerySet[Turn]:
    return Turn.objects.filter(lane=lane, runs_aside=False, state=TurnState.RUNNING)
