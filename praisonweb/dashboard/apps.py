"""The staff site."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate
from django.urls import register_converter


class DashboardConfig(AppConfig):
    name = "praisonweb.dashboard"
    verbose_name = "Staff site"

    def ready(self) -> None:
        from praisonweb.dashboard import access, sign_ins
        from praisonweb.dashboard.converters import (
            AccountConverter,
            FingerprintConverter,
            IdConverter,
            PlatformConverter,
        )

        register_converter(AccountConverter, "account")
        register_converter(PlatformConverter, "platform")
        register_converter(IdConverter, "id")
        register_converter(FingerprintConverter, "fingerprint")
        post_migrate.connect(sign_ins.schedule, sender=apps.get_app_config("django_q"), dispatch_uid="sessions")
        post_migrate.connect(access.make_roles, sender=self, dispatch_uid="roles")
        sign_ins.connect()
