"""The dead letter queue: park / retry / discard.

An item is the open case of its entry. There is no copy of the message: a retry makes the entry itself pending again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from botsrt.core import redact
from botsrt.core.actors import SYSTEM, Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.fingerprint import fingerprint, top_frame
from botsrt.core.states import DLQReason, DLQState, EntryState, EventKind, Outcome, RunMode, Trigger
from botsrt.models import DLQItem, JournalEntry
from botsrt.services import audit, entries, news

#: How long a discarded item can be taken back. Source: features, "DLQ".
UNDO_DISCARD = timedelta(days=30)

_MAX_ERROR_CHARS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong in a turn, redacted and ready to store."""

    error_class: str
    error_text: str
    traceback: str = ""
    frame: str = ""  # the innermost frame of ours or the agent's, as file:function
    is_transient: bool = False
    is_timeout: bool = False
    retry_after: timedelta | None = None

    @classmethod
    def of(
        cls,
        error: BaseException,
        *,
        is_transient: bool = False,
        is_timeout: bool = False,
        retry_after: timedelta | None = None,
    ) -> Failure:
        """The failure that ``error`` describes. An agent's error names its cause, so that groups tell causes apart."""
        cause = error.__cause__ or error
        return cls(
            error_class=type(cause).__name__[:200],
            error_text=redact.redact(str(error).removeprefix(f"{type(cause).__name__}: "))[:_MAX_ERROR_CHARS],
            traceback=redact.redacted_traceback(error),
            frame=top_frame(cause),
            is_transient=is_transient,
            is_timeout=is_timeout,
            retry_after=retry_after,
        )


def park(*, entry: JournalEntry, reason: DLQReason, failure: Failure, now: datetime) -> None:
    """Open the case of ``entry``, or open it again. The caller has made the entry dead in the same transaction."""
    print_ = fingerprint(
        account=entry.account, error_class=failure.error_class, error_text=failure.error_text, frame=failure.frame
    )
    DLQItem.objects.update_or_create(
        entry=entry,
        defaults={
            "account": entry.account,
            "state": DLQState.OPEN,
            "reason": reason,
            "error_class": failure.error_class,
            "error_text": failure.error_text,
            "traceback": failure.traceback,
            "fingerprint": print_,
            "attempts": entry.attempts,
            "last_failed_at": now,
            "next_retry_at": None,
            "closed_at": None,
            "closed_by": "",
            "close_reason": "",
        },
        create_defaults={
            "account": entry.account,
            "reason": reason,
            "error_class": failure.error_class,
            "error_text": failure.error_text,
            "traceback": failure.traceback,
            "fingerprint": print_,
            "attempts": entry.attempts,
            "first_failed_at": now,
            "last_failed_at": now,
        },
    )
    news.changed("dlq")


def retry(*, item_id: int, actor: Actor, reason: str = "", edited_text: str | None = None, now: datetime) -> None:
    """Run the entry of an open item again and send its answer.

    Args:
        edited_text: what the agent gets instead; the original stays readable. None: the text as it is.

    Raises:
        NotFound: there is no such item.
        InvalidInput: its entry has no readable message.
        Conflict: the item is not open any more; says who was first.
    """
    with transaction.atomic():
        item = _item(item_id)
        if item.entry.kind == EventKind.UNREADABLE:
            raise InvalidInput("item", f"{item_id} could not be read when it came, so it can only be discarded.")
        if not DLQItem.objects.filter(pk=item_id, state=DLQState.OPEN).update(
            state=DLQState.RETRYING, snoozed_until=None
        ):
            raise Conflict(_not_open(item))
        rows = JournalEntry.objects.filter(pk=item.entry_id, state=EntryState.DEAD)
        if not entries.requeue(rows, trigger=Trigger.RETRY, mode=RunMode.SEND, actor=actor, reason=reason, now=now):
            raise Conflict(f"The entry of item {item_id} is not dead any more.")
        if edited_text is not None:
            JournalEntry.objects.filter(pk=item.entry_id).update(edited_text=edited_text)
        audit.record(
            actor=actor,
            verb="dlq.retry",
            object_kind="dlq",
            object_id=item_id,
            reason=reason,
            before={"state": DLQState.OPEN},
            after={"state": DLQState.RETRYING, "edited": edited_text is not None},
            now=now,
        )
        news.changed("dlq", [item_id])


def discard(*, item_id: int, actor: Actor, reason: str, now: datetime) -> None:
    """Give an open item up. Can be taken back for 30 days.

    Raises:
        NotFound: there is no such item.
        InvalidInput: no reason was given.
        Conflict: the item is not open any more.
    """
    if not reason.strip():
        raise InvalidInput("reason", "say why the message is given up.")
    with transaction.atomic():
        item = _item(item_id)
        if not DLQItem.objects.filter(pk=item_id, state=DLQState.OPEN).update(
            state=DLQState.DISCARDED, closed_at=now, closed_by=actor.name, close_reason=reason
        ):
            raise Conflict(_not_open(item))
        JournalEntry.objects.filter(pk=item.entry_id, state=EntryState.DEAD).update(
            state=EntryState.DISCARDED, outcome=Outcome.DISCARDED, outcome_reason=reason, completed_at=now
        )
        audit.record(actor=actor, verb="dlq.discard", object_kind="dlq", object_id=item_id, reason=reason, now=now)
        news.changed("dlq", [item_id])
        news.changed("journal", [item.entry_id])


def undo_discard(*, item_id: int, actor: Actor, now: datetime) -> None:
    """Open a discarded item again.

    Raises:
        NotFound: there is no such item.
        Conflict: it is not discarded, or was discarded more than 30 days ago.
    """
    with transaction.atomic():
        item = _item(item_id)
        if not DLQItem.objects.filter(pk=item_id, state=DLQState.DISCARDED, closed_at__gt=now - UNDO_DISCARD).update(
            state=DLQState.OPEN, closed_at=None, closed_by="", close_reason=""
        ):
            raise Conflict(f"Item {item_id} is {item.state}; only a discard of the last 30 days can be undone.")
        JournalEntry.objects.filter(pk=item.entry_id, state=EntryState.DISCARDED).update(
            state=EntryState.DEAD, outcome=Outcome.DEAD, outcome_reason="", completed_at=now
        )
        audit.record(actor=actor, verb="dlq.undo_discard", object_kind="dlq", object_id=item_id, now=now)
        news.changed("dlq", [item_id])
        news.changed("journal", [item.entry_id])


def annotate(
    *,
    item_id: int,
    actor: Actor,
    now: datetime,
    note: str | None = None,
    assignee: str | None = None,
    snoozed_until: datetime | None = None,
) -> None:
    """Note, assign or snooze an item; None leaves a field as it is.

    Raises:
        NotFound: there is no such item.
    """
    changes = {
        name: value
        for name, value in (("note", note), ("assignee", assignee), ("snoozed_until", snoozed_until))
        if value is not None
    }
    with transaction.atomic():
        item = _item(item_id)
        before = {name: str(getattr(item, name) or "") for name in changes}
        DLQItem.objects.filter(pk=item_id).update(**changes)
        audit.record(
            actor=actor,
            verb="dlq.annotate",
            object_kind="dlq",
            object_id=item_id,
            before=before,
            after={name: str(value) for name, value in changes.items()},
            now=now,
        )
        news.changed("dlq", [item_id])


def annotate_group(
    *,
    fingerprint: str,
    actor: Actor,
    now: datetime,
    note: str | None = None,
    assignee: str | None = None,
    snoozed_until: datetime | None = None,
) -> int:
    """Note, assign or snooze all open items of a group; None leaves a field as it is. Returns how many.

    A snooze in the past ends one.

    Raises:
        NotFound: no item of the group is open (any more).
    """
    changes = {
        name: value
        for name, value in (("note", note), ("assignee", assignee), ("snoozed_until", snoozed_until))
        if value is not None
    }
    with transaction.atomic():
        items = DLQItem.objects.filter(fingerprint=fingerprint, state=DLQState.OPEN)
        newest = items.order_by("-pk").first()
        if newest is None:
            raise NotFound("No item of this group is open any more.")
        before = {name: str(getattr(newest, name) or "") for name in changes}
        count = items.update(**changes)
        audit.record(
            actor=actor,
            verb="dlq.annotate",
            object_kind="dlq_group",
            object_id=fingerprint,
            before=before,
            after={name: str(value) for name, value in changes.items()} | {"items": count},
            now=now,
        )
        news.changed("dlq")
        return count


def retrying(*, entry_ids: Collection[int]) -> None:
    """The entries run again for another reason than a retry: their items follow."""
    DLQItem.objects.filter(entry__in=entry_ids, state__in=(DLQState.OPEN, DLQState.DISCARDED)).update(
        state=DLQState.RETRYING, closed_at=None, closed_by="", close_reason=""
    )
    news.changed("dlq")


def resolve(*, entry_ids: Iterable[int], now: datetime) -> None:
    """The entries were answered: close their items."""
    DLQItem.objects.filter(entry__in=entry_ids, state__in=(DLQState.OPEN, DLQState.RETRYING)).update(
        state=DLQState.RESOLVED, closed_at=now, closed_by=SYSTEM.name
    )
    news.changed("dlq")


def _item(item_id: int) -> DLQItem:
    item = DLQItem.objects.select_related("entry").filter(pk=item_id).first()
    if item is None:
        raise NotFound(f"There is no dead letter item {item_id}.")
    return item


def _not_open(item: DLQItem) -> str:
    item.refresh_from_db()
    who = item.closed_by or item.entry.requested_by
    when = f" at {item.closed_at:%H:%M:%S} UTC" if item.closed_at else ""
    return f"Item {item.pk} is {item.state} already{f', by {who}' if who else ''}{when}."
