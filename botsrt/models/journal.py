"""Every inbound event. This table is the queue."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from botsrt.core.states import ChatType, EntryState, EventKind, Outcome, RunMode, Trigger
from botsrt.models.fields import account_field, id_field, platform_field, session_id_field, state_field
from botsrt.models.identity import Contact
from botsrt.models.sessions import BotSession
from botsrt.models.turns import Turn


def _in(state: EntryState) -> Q:
    """Condition of a partial index. One state each: SQLite proves ``state = ?`` but not ``state IN (?, ?)``."""
    return Q(state=state)


class JournalEntry(models.Model):
    """One inbound event, stored before it was acknowledged, with all that a re-run needs."""

    platform = platform_field()
    account = account_field()
    channel_id = id_field()
    message_id = id_field()
    revision = id_field(blank=True, default="")
    thread_id = id_field(blank=True, default="")
    chat_type = state_field(ChatType)
    kind = state_field(EventKind)
    lane = session_id_field(blank=True)  # its session's, as it was when the entry was last looked at
    session = models.ForeignKey(BotSession, on_delete=models.PROTECT, null=True, related_name="entries")
    command = models.CharField(
        max_length=20, blank=True, default=""
    )  # the runtime answers it: core.commands, or "button"
    runs_aside = models.BooleanField(default=False)  # a command that does not wait for the turn of its lane
    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, null=True, related_name="entries", db_index=False)
    payload = models.JSONField()  # core.messages.InboundMessage.to_payload
    raw = models.JSONField(null=True)  # the platform's own update; null: too large, or already removed
    edited_text = models.TextField(null=True)  # noqa: DJ001  null: staff did not edit it; the original stays in payload

    state = state_field(EntryState, default=EntryState.PENDING)
    outcome = state_field(Outcome, blank=True, default="")
    outcome_reason = models.TextField(blank=True, default="")  # a code of core.access, or the words of staff
    available_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)  # failed turns
    deaths = models.PositiveIntegerField(default=0)  # workers that died on it
    duplicates = models.PositiveIntegerField(default=0)
    interruptions = models.PositiveIntegerField(default=0)  # turns that were cancelled for a newer message
    runs_alone = models.BooleanField(default=False)  # a turn over several entries failed: this one is tried alone
    turn = models.ForeignKey(Turn, on_delete=models.SET_NULL, null=True, related_name="entries")  # the latest

    # The next turn's terms, set by an act of staff.
    trigger = state_field(Trigger, default=Trigger.MESSAGE)
    run_mode = state_field(RunMode, default=RunMode.SEND)
    requested_by = models.CharField(max_length=150, blank=True, default="")
    request_reason = models.TextField(blank=True, default="")

    received_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "journal entries"
        constraints = [
            models.UniqueConstraint(
                fields=["platform", "account", "channel_id", "message_id", "revision"], name="journal_key"
            ),
        ]
        indexes = [
            models.Index(fields=["contact", "received_at"], name="journal_contact"),  # counts a minute of one contact
            models.Index(fields=["available_at", "id"], condition=_in(EntryState.PENDING), name="journal_due"),
            models.Index(fields=["lane", "id"], condition=_in(EntryState.PENDING), name="journal_lane"),
            models.Index(
                fields=["available_at", "id"],
                condition=_in(EntryState.PENDING) & Q(runs_aside=True),
                name="journal_aside",
            ),
            models.Index(fields=["completed_at", "id"], condition=_in(EntryState.COMPLETED), name="journal_completed"),
            models.Index(fields=["completed_at", "id"], condition=_in(EntryState.DISCARDED), name="journal_discarded"),
            models.Index(fields=["id"], condition=_in(EntryState.HELD), name="journal_held"),
            models.Index(fields=["id"], condition=_in(EntryState.DEAD), name="journal_dead"),
            # What waits in a conversation in which thousands were answered. Written only when an entry gets there.
            models.Index(fields=["session"], condition=_in(EntryState.HELD), name="journal_held_session"),
            models.Index(fields=["session"], condition=_in(EntryState.DEAD), name="journal_dead_session"),
        ]

    def __str__(self) -> str:
        return f"{self.account}/{self.channel_id}/{self.message_id} {self.state}"
