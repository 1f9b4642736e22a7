"""What was said to a message, for a caller who waits for it."""

from __future__ import annotations

from django.db.models import Q

from botsrt.core.messages import Answer
from botsrt.core.states import OutboxState, Outcome
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.services import codes

#: What waits for staff, or was given up, was not said.
_SAID = (OutboxState.PENDING, OutboxState.SENDING, OutboxState.SENT, OutboxState.UNKNOWN)


def to(*, platform: str, account: str, channel_id: str, message_id: str, revision: str) -> Answer:
    """The outcome of a message, and all that was said to it: the reply, and notices such as a pairing code."""
    entry = JournalEntry.objects.filter(
        platform=platform, account=account, channel_id=channel_id, message_id=message_id, revision=revision
    ).first()
    if entry is None or not entry.outcome:
        return Answer()
    mine = Q(entry=entry.pk) | Q(session=entry.session_id, reply_to=entry.message_id)
    if entry.turn_id:
        mine |= Q(turn=entry.turn_id)
    rows = OutboxMessage.objects.select_related("pairing").filter(mine, state__in=_SAID).order_by("id")
    texts = (codes.written_in(row.text, row.pairing) if row.pairing else row.text for row in rows)
    return Answer(outcome=Outcome(entry.outcome), texts=tuple(texts))
