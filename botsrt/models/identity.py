"""The people who write, as the platforms know them."""

from __future__ import annotations

from django.db import models

from botsrt.models.fields import id_field, name_field, platform_field


class Contact(models.Model):
    """One human's identity on one platform. Names are shown, never compared."""

    platform = platform_field()
    platform_user_id = id_field()
    user_name = name_field()
    display_name = name_field()
    is_blocked = models.BooleanField(default=False)
    is_reachable = models.BooleanField(default=True)  # False: the platform said that messages cannot be delivered
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["platform", "platform_user_id"], name="contact_identity"),
        ]

    def __str__(self) -> str:
        return f"{self.platform}:{self.platform_user_id}"
