"""Answers that stand in a chat while they are written."""

from __future__ import annotations

from django.db import models

from botsrt.models.fields import account_field, id_field
from botsrt.models.journal import JournalEntry
from botsrt.models.turns import Turn


class Preview(models.Model):
    """One unfinished message of a bot. The row is there before the message, and goes when the message is finished,
    or is gone."""

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="previews")  # that writes it now
    entry = models.ForeignKey(JournalEntry, on_delete=models.CASCADE, related_name="previews")  # the first it answers
    account = account_field()
    channel_id = id_field()
    thread_id = id_field(blank=True, default="")
    reply_to = id_field(blank=True, default="")
    platform_message_id = id_field(blank=True, default="")  # empty: the first call is under way, or was cut
    is_leaving = models.BooleanField(default=False)  # it is being removed from the chat
    next_attempt_at = models.DateTimeField()  # of the removal
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.account}/{self.channel_id}"
