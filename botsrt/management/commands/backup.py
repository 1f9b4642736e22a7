"""``manage.py backup``: the whole database as one file."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.utils import timezone

from botsrt.management import archive, cli
from botsrt.services import audit


class Command(cli.PlainErrorCommand):
    help = "Write the whole database into one file, while everything runs. The key of the credentials is not in it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="such as praisonweb.tar; it must not exist")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["file"]).expanduser()
        made = archive.write(path, now=timezone.now())
        audit.record(
            actor=cli.actor(),
            verb="backup.write",
            object_kind="database",
            object_id="all",
            after={"file": str(path.absolute()), "bytes": made.bytes, "sha256": made.sha256},
            now=timezone.now(),
        )
        if options["json"]:
            self.print_json({"file": str(path), "bytes": made.bytes, "sha256": made.sha256, "made_at": made.made_at})
            return
        self.stdout.write(f"Written: {path} ({made.bytes:,} bytes of {made.vendor}, SHA-256 {made.sha256})")
        self.stdout.write("Not in it:")
        for line in made.not_included:
            self.stdout.write(f"  {line}")
