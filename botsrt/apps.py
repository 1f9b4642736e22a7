"""The runtime as one Django app."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class BotsrtConfig(AppConfig):
    name = "botsrt"
    verbose_name = "Bot runtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from botsrt import checks, extensions, tasks  # noqa: F401  checks register themselves
        from botsrt.core import commands

        commands.find_own_with(extensions.usable)
        post_migrate.connect(tasks.schedule, sender=apps.get_app_config("django_q"))
