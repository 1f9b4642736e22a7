"""The project that the library works in: the one whose Django is set up, else this one, in a plain script."""

from __future__ import annotations

import fcntl
import os

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from botsrt.core.errors import ConfigurationError

#: The settings of a script that names none. They are all from the environment (docs/operations.md).
_OWN_SETTINGS = "praisonweb.settings"


def set_up() -> None:
    """Django is set up afterwards.

    Raises:
        ConfigurationError: the project does not have the runtime among its apps.
    """
    if apps.loading:  # whoever loads the apps imports us: they are ready before we are used
        return
    if not settings.configured:
        os.environ.setdefault(ENVIRONMENT_VARIABLE, _OWN_SETTINGS)
    if not apps.ready:
        django.setup()
    if not apps.is_installed("botsrt"):
        raise ConfigurationError(
            f"INSTALLED_APPS of {os.environ.get(ENVIRONMENT_VARIABLE, 'the settings')} lacks botsrt; add it, with "
            "channels and django_q."
        )


def check_database() -> None:
    """The tables of the project's database are there. In a script with this project's settings they are made.

    Raises:
        ConfigurationError: they are not up to date, and another project decides when they are.
    """
    if _is_current():
        return
    if getattr(settings, "SETTINGS_MODULE", "") != _OWN_SETTINGS:
        raise ConfigurationError("The project's database is not up to date; run: manage.py migrate")
    lock = os.open(settings.PRAISON_HOME / "migrate.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process at a time
        if not _is_current():
            call_command("migrate", verbosity=0)
    finally:
        os.close(lock)


def _is_current() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())
