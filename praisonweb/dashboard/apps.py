"""The staff site."""

from django.apps import AppConfig
from django.urls import register_converter


class DashboardConfig(AppConfig):
    name = "praisonweb.dashboard"
    verbose_name = "Staff site"

    def ready(self) -> None:
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
