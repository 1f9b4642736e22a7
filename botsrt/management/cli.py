"""What the commands share: verbs, tables or JSON, one clear line per error, honest exit codes."""

from __future__ import annotations

import getpass
import json
import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from botsrt.conf import ConfigError
from botsrt.core.actors import Actor
from botsrt.core.errors import BotsError
from botsrt.core.text import one_line

#: Widest cell of a table, in characters; the rest is shown by ``show`` and ``--json``.
_MAX_CELL = 44

_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class PlainErrorCommand(BaseCommand):
    """A command whose expected errors are one line and exit code 1, never a traceback."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (BotsError, ConfigError) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}. See: manage.py doctor") from error


class VerbCommand(PlainErrorCommand):
    """A command of several verbs: ``manage.py NOUN VERB``. Each verb is a method ``do_<verb>``."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        def add(name: str, help_text: str, *, prints_data: bool = False) -> ArgumentParser:
            verb = verbs.add_parser(name, help=help_text, description=help_text)
            if prints_data:
                verb.add_argument("--json", action="store_true", help="print JSON")
            return verb

        self.add_verbs(add)

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        """Declare the verbs with ``add(name, help, prints_data=…)``."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        verb: Callable[[dict[str, Any]], None] = getattr(self, f"do_{options['verb']}")
        verb(options)

    # -- printing ----

    def say(self, text: str) -> None:
        self.stdout.write(text)

    def show(self, options: Mapping[str, Any], data: Any) -> None:
        """One thing: JSON, or its fields a line each."""
        if options.get("json"):
            self.say(json.dumps(data, default=_plain, indent=2, ensure_ascii=False))
            return
        for name, value in data.items():
            shown = json.dumps(value, default=_plain, ensure_ascii=False) if isinstance(value, dict | list) else value
            self.say(f"{name + ':':18} {_plain_text(shown)}")

    def table(self, options: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
        """Several things: JSON, or a table; ``empty`` says what it means that there are none."""
        if options.get("json"):
            self.say(json.dumps(rows, default=_plain, indent=2, ensure_ascii=False))
            return
        if not rows:
            self.say(empty)
            return
        cells = [[one_line(str(_plain_text(value)), max_chars=_MAX_CELL) for value in row.values()] for row in rows]
        names = list(rows[0])
        widths = [max(len(line[column]) for line in [names, *cells]) for column in range(len(names))]
        for line in [names, *cells]:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def for_each(self, ids: Iterable[int], act: Callable[[int], str]) -> None:
        """Do ``act`` for each id and print what it says. One that cannot be done does not stop the others.

        Raises:
            CommandError: at the end, when any could not be done.
        """
        failed = 0
        for item_id in ids:
            try:
                self.say(act(item_id))
            except BotsError as error:
                failed += 1
                self.stderr.write(f"{item_id}: {error}")
        if failed:
            raise CommandError(f"{failed} could not be done; the others were.")


def actor() -> Actor:
    """The person at this shell."""
    return Actor(name=f"os:{getpass.getuser()}")


def pairs(words: Iterable[str] | None, *, flag: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping.

    Raises:
        CommandError: a word is not of the form NAME=VALUE.
    """
    found = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise CommandError(f"{flag}: {word!r} is not of the form NAME=VALUE.")
        found[name] = value
    return found


def since(text: str | None) -> datetime | None:
    """``24h``, ``7d`` or an ISO time, as an aware time.

    Raises:
        CommandError: it is none of these.
    """
    if text is None:
        return None
    if match := _SPAN.fullmatch(text):
        return timezone.now() - timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--since: {text!r} is neither a span (90m, 24h, 7d) nor an ISO time.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def add_paging(verb: ArgumentParser) -> None:
    """``--limit`` and ``--before``, for lists with the newest first."""
    verb.add_argument("--limit", type=int, default=50, metavar="N", help="rows (50)")
    verb.add_argument("--before", type=int, metavar="ID", help="only rows with a smaller id: the next page")


def page(rows: Any, options: Mapping[str, Any]) -> Any:
    """The page of the queryset ``rows`` that ``add_paging``'s options ask for."""
    if options["before"] is not None:
        rows = rows.filter(pk__lt=options["before"])
    return rows.order_by("-pk")[: max(options["limit"], 1)]


def age(at: datetime | None) -> str:
    """How long ago, in one unit."""
    if at is None:
        return "never"
    seconds = int((timezone.now() - at).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _plain_text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)
