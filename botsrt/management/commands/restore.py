"""``manage.py restore``: let a backup take the place of the database."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.management import archive, cli
from botsrt.models import Bot, Contact, HistoryMessage, JournalEntry, Worker
from botsrt.services import restored

#: A worker that has been silent for so many of its leases is dead.
_LEASES = 3

#: Tables that an error names.
_MAX_NAMED = 10


class Command(cli.PlainErrorCommand):
    help = "Restore a backup. Stop all processes first. What was to be sent when it was made is of unknown fate."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="that backup has written")
        parser.add_argument("--force", action="store_true", help="what is in the database now is lost")
        parser.add_argument("--hold", action="store_true", help="replies to what was open then wait for staff")

    def handle(self, *args: Any, **options: Any) -> None:
        with archive.opened(Path(options["file"]).expanduser()) as (manifest, copy):
            archive.check_fits(manifest)
            _check_target(force=options["force"])
            made_at = datetime.fromisoformat(manifest.made_at)
            found = archive.put_in_place(
                manifest,
                copy,
                settle=lambda: restored.settle(
                    made_at=made_at, holds_replies=options["hold"], actor=cli.actor(), now=timezone.now()
                ),
            )
        self.stdout.write(f"Restored: as it was at {made_at:%Y-%m-%d %H:%M:%S} UTC.")
        self.stdout.write(f"{found.unknown} messages of unknown fate, {found.open} messages that wait for an answer.")
        if manifest.key_id != archive.key_id():
            self.stderr.write("SECRET_KEY is another one than then: set it (or SECRET_KEY_FALLBACKS), or give each")
            self.stderr.write("bot its credentials again. See: manage.py doctor")


def _check_target(*, force: bool) -> None:
    """Raises:
    CommandError: somebody works with the database, it is not empty, or another application has tables in it.
    """
    names = archive.tables()
    if foreign := archive.foreign_tables():
        more = f" and {len(foreign) - _MAX_NAMED} more" if len(foreign) > _MAX_NAMED else ""
        raise CommandError(
            f"The database has tables of another application: {', '.join(foreign[:_MAX_NAMED])}{more}. A restore needs "
            "a database of its own, --force or not; nothing was changed."
        )
    if JournalEntry._meta.db_table in names:
        _check_rest()
        filled = [
            model.__name__
            for model in (Bot, JournalEntry, Contact, HistoryMessage, get_user_model())
            if model._default_manager.exists()
        ]
    else:
        filled = names[:_MAX_NAMED]
    if filled and not force:
        raise CommandError(f"The database is not empty ({', '.join(filled)}): with --force, what is in it is lost.")


def _check_rest() -> None:
    """Raises:
    CommandError: a worker runs.
    """
    now = timezone.now()
    beats = Worker.objects.filter(stopped_at=None).values_list("last_beat_at", "lease_seconds")  # older ones had these
    if any((now - last_beat_at).total_seconds() < _LEASES * seconds for last_beat_at, seconds in beats):
        raise CommandError("A worker runs on this database. Stop all processes first; nothing was changed.")
