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
    only = models.JSONField(null=True)  # the bots that it may run; null: any
    # The database has these defaults, too: workers of an older version run beside it while it is brought up.
    is_draining = models.BooleanField(default=False, db_default=False)  # it stops: it takes no more bots
    running_turns = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    last_beat_at = models.DateTimeField()
    # Longest time its event loop stood still, since the beat before.
    loop_gap_seconds = models.FloatField(default=0, db_default=0.0)
    lease_seconds = models.FloatField()  # how long after a beat it counts as alive
    stopped_at = models.DateTimeField(null=True)  # it said goodbye

    def __str__(self) -> str:
        return self.id
