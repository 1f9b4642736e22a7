"""Messages on their way out."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from botsrt.core.states import OutboxSource, OutboxState
from botsrt.models.fields import account_field, id_field, platform_field, state_field
from botsrt.models.journal import JournalEntry
from botsrt.models.pairing import Pairing
from botsrt.models.sessions import BotSession
from botsrt.models.turns import Turn

#: What keeps its own order.
_CHAT = ("account", "channel_id", "thread_id")


class OutboxMessage(models.Model):
    """One part of an outgoing message. Parts leave in the order of their ids, chat by chat."""

    idempotency_key = models.CharField(max_length=200, unique=True)
    platform = platform_field()
    account = account_field()
    channel_id = id_field()
    thread_id = id_field(blank=True, default="")
    reply_to = id_field(blank=True, default="")
    session = models.ForeignKey(BotSession, on_delete=models.PROTECT, null=True, related_name="outbox")
    turn = models.ForeignKey(Turn, on_delete=models.SET_NULL, null=True, related_name="outbox")
    entry = models.ForeignKey(JournalEntry, on_delete=models.SET_NULL, null=True, related_name="outbox")
    source = state_field(OutboxSource)
    requested_by = models.CharField(max_length=150, blank=True, default="")
    text = models.TextField()
    buttons = models.JSONField(default=list)  # core.messages.Button as {"label": …, "data": …}
    pairing = models.ForeignKey(
        Pairing, on_delete=models.SET_NULL, null=True, related_name="outbox"
    )  # whose code it shows

    state = state_field(OutboxState, default=OutboxState.PENDING)
    edits = id_field(blank=True, default="")  # id at the platform of the preview that it replaces
    is_resend = models.BooleanField(default=False)  # an earlier sending may have arrived: the text is labelled
    attempts = models.PositiveIntegerField(default=0)  # calls to the platform that failed
    next_attempt_at = models.DateTimeField()
    worker_id = models.CharField(max_length=100, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True)
    platform_message_id = id_field(blank=True, default="")
    error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)  # this and the next: where the platform tells
    read_at = models.DateTimeField(null=True)

    class Meta:
        # One state to an index: SQLite proves ``state = ?`` but not ``state IN (?, ?)``.
        indexes = [
            models.Index(fields=[*_CHAT, "id"], condition=Q(state=OutboxState.PENDING), name="outbox_pending_chat"),
            models.Index(fields=[*_CHAT, "id"], condition=Q(state=OutboxState.SENDING), name="outbox_sending_chat"),
            models.Index(fields=["next_attempt_at", "id"], condition=Q(state=OutboxState.PENDING), name="outbox_due"),
            models.Index(fields=["lease_expires_at"], condition=Q(state=OutboxState.SENDING), name="outbox_lease"),
            models.Index(fields=[*_CHAT, "id"], condition=Q(state=OutboxState.UNKNOWN), name="outbox_unknown"),
            models.Index(fields=["id"], condition=Q(state=OutboxState.HELD), name="outbox_held"),
        ]

    def __str__(self) -> str:
        return f"{self.account}/{self.channel_id} {self.state}"
