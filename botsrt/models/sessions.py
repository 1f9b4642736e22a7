"""Conversations, as rows that are only ever appended."""

from __future__ import annotations

from django.db import models

from botsrt.core.states import Handler, HistoryKind, Role, SessionScope
from botsrt.models.fields import (
    account_field,
    actor_field,
    id_field,
    name_field,
    platform_field,
    session_id_field,
    state_field,
)
from botsrt.models.identity import Contact


class BotSession(models.Model):
    """The stored conversation of one contact, or of one group chat (or thread) with one bot."""

    session_id = session_id_field(unique=True)
    lane = (
        session_id_field()
    )  # core.keys.person_lane of a linked contact, else the session id; of a group its id always
    platform = platform_field()
    account = account_field()
    scope = state_field(SessionScope)
    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, null=True, related_name="sessions")  # per_user
    channel_id = id_field(blank=True, default="")  # per_chat
    thread_id = id_field(blank=True, default="")
    chat_name = name_field()
    handler = state_field(Handler, default=Handler.BOT)
    handler_by = actor_field(blank=True, default="")  # who has it in hand, or paused it
    handler_since = models.DateTimeField(null=True)
    epoch = models.PositiveIntegerField(default=1)  # grows when a running turn must not end: its generation is then old
    context_start = models.BigIntegerField(default=0)  # history rows up to this id are not shown to the agent
    runtime_state = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    last_activity_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True)  # closed after long silence; what is said later opens it again

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "channel_id", "thread_id"],
                condition=models.Q(scope=SessionScope.PER_CHAT),
                name="session_chat",
            ),
        ]
        indexes = [
            models.Index(fields=["last_activity_at"], name="session_activity"),
            models.Index(fields=["lane"], name="session_lane"),
        ]

    def __str__(self) -> str:
        return self.session_id

    @property
    def is_archived(self) -> bool:
        return self.archived_at is not None and self.archived_at >= self.last_activity_at


class HistoryMessage(models.Model):
    """One message of a conversation. Never rewritten; ids give the order in which things were added."""

    session = models.ForeignKey(BotSession, on_delete=models.PROTECT, related_name="history", db_index=False)
    turn = models.ForeignKey(
        "botsrt.Turn", on_delete=models.SET_NULL, null=True, related_name="history", db_index=False
    )
    ordinal = models.PositiveIntegerField(default=0)  # place within its turn
    entry = models.ForeignKey(
        "botsrt.JournalEntry", on_delete=models.SET_NULL, null=True, related_name="history", db_index=False
    )
    role = state_field(Role)
    kind = state_field(HistoryKind, default=HistoryKind.CHAT)
    sender_name = name_field()
    text = models.TextField(blank=True)
    attachments = models.JSONField(default=list)
    route = models.JSONField(default=dict)
    source = models.CharField(max_length=60, blank=True, default="")
    metadata = models.JSONField(default=dict)
    mirror_key = models.CharField(max_length=200, null=True, unique=True)  # noqa: DJ001  null: a turn wrote it
    created_at = models.DateTimeField()  # when it was written, by the platform's clock where it tells

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["turn", "ordinal"], name="history_turn_ordinal"),
            # A note has nowhere to go: nothing that sends could find a route in it.
            models.CheckConstraint(
                condition=~models.Q(kind=HistoryKind.NOTE) | models.Q(role=Role.SYSTEM, turn=None, route={}),
                name="history_note_is_internal",
            ),
        ]
        indexes = [
            models.Index(fields=["session", "id"], name="history_session"),
            models.Index(fields=["session", "created_at"], name="history_time"),  # jumps to a date
            models.Index(fields=["entry"], name="history_entry", condition=models.Q(entry__isnull=False)),
            models.Index(
                fields=["session", "id"], name="history_divider", condition=models.Q(kind=HistoryKind.DIVIDER)
            ),  # where contexts begin
        ]

    def __str__(self) -> str:
        return f"{self.session_id}#{self.pk} {self.role}"


class Recollection(models.Model):
    """What agents are given of a session beside the messages of its present context. Of few sessions there is one."""

    session = models.OneToOneField(BotSession, on_delete=models.CASCADE, primary_key=True, related_name="recollection")
    context_start = models.BigIntegerField()  # the session's: with another one it is over
    stretches = models.JSONField(default=list)  # of the history, [after, through] each, oldest first: they go on here
    summary = models.ForeignKey(HistoryMessage, on_delete=models.SET_NULL, null=True, related_name="+")  # null: none
    through = models.BigIntegerField(default=0)  # the summary is of what was said up to this id of the history …
    covers = models.JSONField(default=list)  # … in these sessions

    def __str__(self) -> str:
        return f"{self.session_id} from {self.context_start}"
