"""The permissions of the staff site, and which bots a member of staff is limited to."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import models

from botsrt.models.fields import account_field
from praisonweb.dashboard.access import Act


class Right(Permission):
    """Permission to do one of ``access.Act``. A proxy: Django makes the permissions that it declares."""

    class Meta:
        proxy = True
        default_permissions = ()
        permissions = [(act.value, f"May {act.words}") for act in Act]


class BotLimit(models.Model):
    """A bot that a member of staff sees. Who has such rows sees these bots alone; who has none sees all."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="bot_limits")
    account = account_field()

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["user", "account"], name="bot_limit_once")]

    def __str__(self) -> str:
        return self.account
