"""Answers that are shown while they are written: each is a message of the platform, known here before it is sent.

A preview has one of three ends. The answer takes its place, in the commit that ends the turn: the outbox edits that
message instead of sending another. Or the worker dies, and the next attempt inherits it. Or nothing comes of it, and it
is removed from the chat.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from botsrt.core.messages import OutboundMessage, Route
from botsrt.core.states import EntryState, OutboxState, TurnState
from botsrt.models import OutboxMessage, Preview, Turn
from botsrt.services.claimed import ClaimedTurn

#: A first call is over after this long, whatever became of it; longer than any call may last.
_CALL_LASTS = timedelta(minutes=2)

#: Previews that are removed in one go at most.
_MAX_LEFTOVERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPreview:
    """A message that stands in a chat, or perhaps does."""

    id: int
    account: str
    route: Route
    platform_message_id: str  # empty: the call that sent it was cut, or is under way

    def message(self, text: str, *, is_unfinished: bool = True) -> OutboundMessage:
        """What an adapter gets to show ``text`` in it."""
        return OutboundMessage(
            outbox_id=0,
            idempotency_key=f"preview:{self.id}",
            account=self.account,
            route=self.route,
            text=text,
            attempt=1,
            edits=self.platform_message_id,
            is_unfinished=is_unfinished,
        )


def begin(*, turn: ClaimedTurn, now: datetime) -> OpenPreview | None:
    """Note that a preview is about to be sent. None: the turn is over, or something of the chat must go out before."""
    chat = {"account": turn.account, "channel_id": turn.route.channel_id, "thread_id": turn.route.thread_id}
    with transaction.atomic():
        if not Turn.objects.filter(pk=turn.id, state=TurnState.RUNNING).exists():
            return None
        for state in (OutboxState.PENDING, OutboxState.SENDING):
            if OutboxMessage.objects.filter(**chat, state=state).exists():
                return None
        row = Preview.objects.create(
            **chat,
            turn_id=turn.id,
            entry_id=turn.entries[0].id,
            reply_to=turn.route.reply_to,
            next_attempt_at=now,
            created_at=now,
        )
        return _open(row)


def shown(*, preview_id: int, platform_message_id: str) -> None:
    """The platform took it."""
    Preview.objects.filter(pk=preview_id).update(platform_message_id=platform_message_id[:200])


def forget(*, preview_id: int) -> None:
    """It does not stand in the chat, or nothing can be done about it."""
    Preview.objects.filter(pk=preview_id).delete()


def inherit(*, turn: ClaimedTurn) -> OpenPreview | None:
    """What a worker left in the chat that died over the entries of ``turn``, which goes on with it; None: nothing."""
    with transaction.atomic():
        left = Preview.objects.filter(entry__in=turn.entry_ids, turn__state=TurnState.ABANDONED, is_leaving=False)
        row = left.order_by("-id").first()
        if row is None:
            return None
        mine = Preview.objects.filter(pk=row.pk, turn=row.turn_id, is_leaving=False).update(turn=turn.id)
        return _open(row) if mine else None


def leftovers(*, accounts: Collection[str], now: datetime) -> list[OpenPreview]:
    """Previews of ``accounts`` of which nothing will come; from now on they can only be removed."""
    with transaction.atomic():
        is_awaited = Q(
            turn__state=TurnState.ABANDONED, entry__state__in=(EntryState.PENDING, EntryState.CLAIMED), is_leaving=False
        )
        may_be_under_way = Q(platform_message_id="", created_at__gt=now - _CALL_LASTS)
        due = Preview.objects.filter(account__in=accounts, next_attempt_at__lte=now)
        over = due.exclude(turn__state=TurnState.RUNNING).exclude(is_awaited).exclude(may_be_under_way)
        return [
            _open(row)
            for row in over.order_by("id")[:_MAX_LEFTOVERS]
            if Preview.objects.filter(pk=row.pk, turn=row.turn_id).update(is_leaving=True)
        ]


def remove_later(*, preview_id: int, at: datetime) -> None:
    """It could not be removed now."""
    Preview.objects.filter(pk=preview_id).update(next_attempt_at=at)


def _open(row: Preview) -> OpenPreview:
    return OpenPreview(
        id=row.pk,
        account=row.account,
        route=Route(channel_id=row.channel_id, thread_id=row.thread_id, reply_to=row.reply_to),
        platform_message_id=row.platform_message_id,
    )
