"""The permissions of the staff site. It has no tables of its own."""

from __future__ import annotations

from django.contrib.auth.models import Permission

from praisonweb.dashboard.access import Act


class Right(Permission):
    """Permission to do one of ``access.Act``. A proxy: Django makes the permissions that it declares."""

    class Meta:
        proxy = True
        default_permissions = ()
        permissions = [(act.value, f"May {act.words}") for act in Act]
