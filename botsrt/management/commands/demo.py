"""``manage.py demo``: data to look at, for an empty database of somebody who tries or develops the site."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone

from botsrt import conf
from botsrt.management import cli
from botsrt.management.demo import player
from botsrt.models import Contact, JournalEntry

#: Parts of the names that people give to the installation that matters.
_PRODUCTION = ("prod", "live")


class Command(cli.PlainErrorCommand):
    help = "Fill an empty database with realistic people, conversations, failures and pairings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--add", action="store_true", help="also where there are messages already")
        parser.add_argument(
            "--alive-minutes",
            type=int,
            default=5,
            help="how long the workers of the demo count as alive; after that real ones take their bots over (5)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if any(word in settings.ENVIRONMENT.lower() for word in _PRODUCTION):
            raise CommandError(f"PRAISONWEB_ENVIRONMENT is {settings.ENVIRONMENT}: demo data does not belong there.")
        if JournalEntry.objects.exists() and not options["add"]:
            raise CommandError("There are messages already. For demo data beside them: demo --add")
        alive = timedelta(minutes=options["alive_minutes"])
        player.fill(config=conf.load(), alive=alive, now=timezone.now())
        self.stdout.write(
            f"{Contact.objects.count()} people, {JournalEntry.objects.count()} messages. "
            "See them: make run (no bot of the demo reaches a platform)."
        )
