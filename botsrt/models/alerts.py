"""What the runtime tells staff by itself, and the counts by which it judges."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from botsrt.core.states import AlertKind, NoticeKind
from botsrt.models.fields import account_field, actor_field, state_field

#: Widest name of a place that notices go to: "mail", or a bot and a chat of it.
MAX_TARGET_CHARS = 500


class Alert(models.Model):
    """One bout of one trouble, from when it was seen first until it has been gone for a while."""

    kind = state_field(AlertKind)
    account = account_field(blank=True, default="")  # the bot that it is about; empty: all
    text = models.TextField()  # as it stands, in a sentence
    is_urgent = models.BooleanField()  # it is told in quiet hours, too
    raised_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = actor_field(blank=True, default="")
    cleared_at = models.DateTimeField(null=True)  # null: it is there

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "account"], condition=Q(cleared_at=None), name="alert_one_bout")
        ]
        indexes = [models.Index(fields=["cleared_at"], name="alert_cleared")]

    def __str__(self) -> str:
        return f"{self.kind} {self.account}".strip()


class AlertNotice(models.Model):
    """One thing to tell about an alert, at one place. It is told once; what cannot be told is tried again."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notices")
    kind = state_field(NoticeKind)
    number = models.PositiveIntegerField(default=0)  # of the reminder
    target = models.CharField(max_length=MAX_TARGET_CHARS)  # "mail", or "account/chat" or "account/chat/thread"
    text = models.TextField()
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()  # after quiet hours, or after a failure
    attempts = models.PositiveIntegerField(default=0)  # that failed
    error = models.TextField(blank=True, default="")
    closed_at = models.DateTimeField(null=True)  # told, or of no use any more
    is_told = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["alert", "kind", "number", "target"], name="alert_notice_once"),
        ]
        indexes = [models.Index(fields=["due_at"], condition=Q(closed_at=None), name="alert_notice_due")]

    def __str__(self) -> str:
        return f"{self.alert_id} {self.kind} {self.target}"


class Tally(models.Model):
    """A count that only grows, or a place up to which was counted. The rows that were counted may be gone."""

    name = models.CharField(max_length=40)  # "received", "answered", …; "cursor" for the places
    label = models.CharField(max_length=63, blank=True, default="")  # the bot, as a rule
    total = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.UniqueConstraint(fields=["name", "label"], name="tally_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.label}".strip()


class HourCount(models.Model):
    """Messages that came in through one bot within one hour."""

    account = account_field()
    hour = models.DateTimeField()  # its beginning
    messages = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "hour"], name="hour_count_once")]
        indexes = [models.Index(fields=["hour"], name="hour_count_hour")]

    def __str__(self) -> str:
        return f"{self.account} {self.hour:%Y-%m-%d %H}"
