"""Bots, the agents that answer for them, and what their adapters are doing."""

from __future__ import annotations

from django.db import models

from botsrt.core.states import AdapterStatus, UnknownUserPolicy
from botsrt.models.fields import account_field, platform_field, state_field


class AgentProfile(models.Model):
    """What answers: a kind (echo, python, …) with its settings. ``version`` grows with every change."""

    name = models.CharField(max_length=63, unique=True)
    kind = models.CharField(max_length=30)
    instructions = models.TextField(blank=True, default="")
    settings = models.JSONField(default=dict)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Bot(models.Model):
    """One configured bot. ``account`` is its stable name, part of every dedup key; each change raises ``version``."""

    account = account_field(unique=True)
    platform = platform_field()
    agent = models.ForeignKey(AgentProfile, on_delete=models.PROTECT, related_name="bots")
    policy = state_field(UnknownUserPolicy, default=UnknownUserPolicy.DENY)
    settings = models.JSONField(default=dict)
    credentials = models.JSONField(default=dict)  # name → "env:NAME" or encrypted; see core.credentials
    is_enabled = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.account


class AdapterState(models.Model):
    """What the adapter of one bot is doing, and which worker holds the lease on it."""

    bot = models.OneToOneField(Bot, on_delete=models.CASCADE, related_name="adapter", primary_key=True)
    worker_id = models.CharField(max_length=100, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True)  # null or past: any worker may take it
    state = state_field(AdapterStatus, default=AdapterStatus.STOPPED)
    state_since = models.DateTimeField()
    identity = models.CharField(max_length=300, blank=True, default="")  # who the platform says we are
    applied_version = models.PositiveIntegerField(default=0)
    applied_config = models.JSONField(default=dict)  # the settings and sealed credentials that last worked
    error = models.TextField(blank=True, default="")
    restarts = models.PositiveIntegerField(default=0)
    last_inbound_at = models.DateTimeField(null=True)
    last_outbound_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.bot_id} {self.state}"
