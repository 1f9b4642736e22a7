"""``manage.py ledger``: does every message have one owner and one end?"""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.management import cli
from botsrt.services import ledger


class Command(cli.PlainErrorCommand):
    help = "received = answered + silent + held + dead + discarded + open. Names every leak; exit code 1 on one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", metavar="T", help="only what came since then: 24h, 7d or an ISO time")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        report = ledger.check(
            since=cli.since(options["since"]),
            lease=timedelta(seconds=conf.load().lease_seconds),
            now=timezone.now(),
        )
        if options["json"]:
            self.print_json(_as_json(report))
        else:
            self._print(report)
        if not report.is_balanced:
            raise SystemExit(1)

    def _print(self, report: ledger.Ledger) -> None:
        for name, count in [("received", report.received), *report.ends.items(), ("open", report.open)]:
            self.stdout.write(f"{name:12} {count:>9}")
        self.stdout.write(f"{'duplicates':12} {report.duplicates:>9}  (redeliveries, silent)")
        for leak in report.leaks:
            more = " …" if leak.count > len(leak.ids) else ""
            self.stdout.write(f"LEAK {leak.count} {leak.rule}: {', '.join(leak.ids)}{more}")
        self.stdout.write("balanced" if report.is_balanced else "NOT balanced")


def _as_json(report: ledger.Ledger) -> dict[str, Any]:
    return {
        "received": report.received,
        "duplicates": report.duplicates,
        "ends": report.ends,
        "open": report.open,
        "leaks": [{"rule": leak.rule, "count": leak.count, "ids": leak.ids} for leak in report.leaks],
        "balanced": report.is_balanced,
    }
