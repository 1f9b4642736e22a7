"""Acts of staff on many rows."""

from __future__ import annotations

from django.db import models

from botsrt.core.states import BulkItemState, BulkState, BulkVerb
from botsrt.models.fields import actor_field, state_field


class BulkOperation(models.Model):
    """One act on many rows. Which rows was fixed when it was asked for; they are done one by one, in order."""

    verb = state_field(BulkVerb)
    options = models.JSONField(default=dict)  # what the act needs beside the row: {"mode": "hold"}
    reason = models.TextField(blank=True, default="")
    asked_by = actor_field()
    address = models.CharField(max_length=64, blank=True, default="")
    state = state_field(BulkState, default=BulkState.RUNNING)
    total = models.PositiveIntegerField()
    steps = models.JSONField(default=list)  # sizes of a canary's first steps; the rest is one more step
    step = models.PositiveIntegerField(default=0)  # the one under way, from 0
    step_ends_at = models.DateTimeField(null=True)  # a canary waits no longer for the results of its step
    runner_id = models.CharField(max_length=100, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True)  # until then nobody else goes on with it
    note = models.TextField(blank=True, default="")  # why it stopped
    stopped_by = actor_field(blank=True, default="")
    created_at = models.DateTimeField()
    moved_at = models.DateTimeField()  # a row was done, or it was stopped or resumed
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=models.Q(state=BulkState.RUNNING), name="bulk_running"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.total} {self.state}"


class BulkItem(models.Model):
    """One row of a bulk operation, and what became of it."""

    operation = models.ForeignKey(BulkOperation, on_delete=models.CASCADE, related_name="items")
    ordinal = models.PositiveIntegerField()
    object_id = models.BigIntegerField()
    step = models.PositiveIntegerField(default=0)
    state = state_field(BulkItemState, default=BulkItemState.WAITING)
    detail = models.TextField(blank=True, default="")  # why it was skipped
    fingerprint = models.CharField(max_length=16, blank=True, default="")  # a retry: how it had failed before
    done_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["operation", "ordinal"], name="bulk_item_place"),
            models.UniqueConstraint(fields=["operation", "object_id"], name="bulk_item_once"),
        ]
        indexes = [models.Index(fields=["operation", "state", "ordinal"], name="bulk_item_state")]

    def __str__(self) -> str:
        return f"{self.object_id} {self.state}"
