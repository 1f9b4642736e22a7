"""Processes that run the runtime."""

from __future__ import annotations

from django.db import models


class Worker(models.Model):
    """One ``runbots`` process. A stale beat means that nothing is known about it, not that it is fine."""

    id = models.CharField(primary_key=True, max_length=100)
    host = models.CharField(max_length=100)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=40)
    accounts = models.JSONField(default=list)  # the bots whose adapters it runs
    running_turns = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    last_beat_at = models.DateTimeField()
    lease_seconds = models.FloatField()  # how long after a beat it counts as alive
    stopped_at = models.DateTimeField(null=True)  # it said goodbye

    def __str__(self) -> str:
        return self.id
