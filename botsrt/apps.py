"""The runtime as one Django app."""

from django.apps import AppConfig


class BotsrtConfig(AppConfig):
    name = "botsrt"
    verbose_name = "Bot runtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from botsrt import checks  # noqa: F401  registers the system checks
