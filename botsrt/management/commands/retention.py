"""``manage.py retention``: what is over and old."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from botsrt import tasks
from botsrt.management import cli


class Command(cli.PlainErrorCommand):
    help = "Say what would be removed now, by kind; with --apply, remove it. Nothing unfinished is ever removed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--preview", action="store_true", help="change nothing; this is what happens without it, too")
        what.add_argument("--apply", action="store_true", help="remove it")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"]:
            removed = tasks.apply_retention_here(actor=cli.actor())
            if options["json"]:
                self.print_json({"removed": removed})
                return
            for kind, count in removed.items():
                self.stdout.write(f"{kind:12} {count:>9} removed")
            return
        due = tasks.due_now()
        if options["json"]:
            self.print_json(
                [
                    {
                        "kind": one.kind,
                        "days": one.period and one.period.total_seconds() / 86_400,
                        "due": one.count,
                        "oldest": one.oldest,
                        "excess": one.excess,
                    }
                    for one in due
                ]
            )
            return
        self.stdout.write(f"{'kind':12} {'kept':>10} {'due':>9} {'too many':>9}  oldest")
        for one in due:
            kept = cli.span(one.period.total_seconds()) if one.period else "for ever"
            oldest = f"{one.oldest:%Y-%m-%d}" if one.oldest else "-"
            self.stdout.write(f"{one.kind:12} {kept:>10} {one.count:>9} {one.excess:>9}  {oldest}")
        self.stdout.write("Nothing was changed. To remove it now: --apply")
