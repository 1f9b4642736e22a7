"""Failures that wait for staff."""

from __future__ import annotations

from django.db import models

from botsrt.core.states import DLQReason, DLQState
from botsrt.models.fields import account_field, state_field
from botsrt.models.journal import JournalEntry


class DLQItem(models.Model):
    """The open case of an entry whose turns failed. It refers to its entry; it is never a second message."""

    entry = models.OneToOneField(JournalEntry, on_delete=models.CASCADE, related_name="dlq_item")
    account = account_field()
    state = state_field(DLQState, default=DLQState.OPEN)
    reason = state_field(DLQReason)
    error_class = models.CharField(max_length=200)
    error_text = models.TextField()
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=16)
    attempts = models.PositiveIntegerField()
    first_failed_at = models.DateTimeField()
    last_failed_at = models.DateTimeField()
    next_retry_at = models.DateTimeField(null=True)  # an automatic retry is due then
    snoozed_until = models.DateTimeField(null=True)
    note = models.TextField(blank=True, default="")
    assignee = models.CharField(max_length=150, blank=True, default="")
    closed_at = models.DateTimeField(null=True)
    closed_by = models.CharField(max_length=150, blank=True, default="")
    close_reason = models.TextField(blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["state", "fingerprint"], name="dlq_group"),
            models.Index(fields=["closed_at"], condition=models.Q(closed_at__isnull=False), name="dlq_closed"),
        ]

    def __str__(self) -> str:
        return f"{self.error_class}: {self.error_text[:60]}"
