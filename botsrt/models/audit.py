"""Who did what, why, and what it changed."""

from __future__ import annotations

from typing import Any

from django.db import models


class AuditEvent(models.Model):
    """One act of staff or of the system, written in the transaction of the act. Append-only; ``services.erasing`` alone
    takes words out of it, and ``services.housekeeping`` old events, where a setting says so."""

    at = models.DateTimeField()
    actor = models.CharField(max_length=150)
    address = models.CharField(max_length=64, blank=True, default="")
    verb = models.CharField(max_length=60)  # "dlq.retry", "bots.add"
    object_kind = models.CharField(max_length=40)
    object_id = models.CharField(max_length=600)
    reason = models.TextField(blank=True, default="")
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)

    class Meta:
        indexes = [models.Index(fields=["object_kind", "object_id", "id"], name="audit_object")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor} {self.verb} {self.object_kind} {self.object_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("An audit event is never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("An audit event is never deleted.")
