"""Runs of an agent."""

from __future__ import annotations

import secrets
import time
import uuid

from django.db import models

from botsrt.core.states import RunMode, Trigger, TurnState
from botsrt.models.fields import session_id_field, state_field
from botsrt.models.sessions import BotSession


def new_turn_id() -> uuid.UUID:
    """A UUID version 7: random, and growing with time, so that new rows stand together in the index (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64) | (0b10 << 62) | secrets.randbits(62)
    return uuid.UUID(int=value)


class Turn(models.Model):
    """One run of the agent for one lane, over one or more entries; also the record of an attempt."""

    id = models.UUIDField(primary_key=True, default=new_turn_id, editable=False)
    lane = session_id_field()
    runs_aside = models.BooleanField(default=False)  # of a command that is answered while the lane's turn runs
    session = models.ForeignKey(BotSession, on_delete=models.PROTECT, related_name="turns")
    generation = models.PositiveIntegerField()  # the session's epoch at the start: a result of an older one is refused
    worker_id = models.CharField(max_length=100)
    lease_expires_at = models.DateTimeField()  # renewed by the worker's heartbeat
    deadline_at = models.DateTimeField()  # no renewal goes beyond: a run that hangs in a live worker ends too
    state = state_field(TurnState, default=TurnState.RUNNING)
    trigger = state_field(Trigger, default=Trigger.MESSAGE)
    run_mode = state_field(RunMode, default=RunMode.SEND)
    requested_by = models.CharField(max_length=150, blank=True, default="")
    request_reason = models.TextField(blank=True, default="")
    attempt = models.PositiveIntegerField(default=1)
    agent = models.CharField(max_length=63, blank=True, default="")
    agent_version = models.PositiveIntegerField(default=0)
    error_class = models.CharField(max_length=200, blank=True, default="")
    error_text = models.TextField(blank=True, default="")
    usage = models.JSONField(default=dict)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["lane", "runs_aside"],
                condition=models.Q(state=TurnState.RUNNING),
                name="turn_one_running_per_lane",
            ),
        ]
        indexes = [
            models.Index(
                fields=["lease_expires_at"], condition=models.Q(state=TurnState.RUNNING), name="turn_running_lease"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.lane} {self.state}"
