"""What the commands share: verbs, tables or JSON, one clear line per error, honest exit codes."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from botsrt.conf import ConfigError
from botsrt.core.actors import Actor
from botsrt.core.errors import BotsError
from botsrt.core.redact import redact
from botsrt.core.text import one_line

#: Width of a table where nobody says how wide the terminal is, in characters.
_COLUMNS = 100

#: Widest and narrowest cell of free text, in characters; the rest is shown by ``show`` and ``--json``.
_MAX_CELL = 60
_MIN_CELL = 6

#: What could move the cursor, change colours, or turn the reading direction around. Line breaks and tabs may stay.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: The largest id that the databases have.
_MAX_ID = 2**63 - 1

#: Rows that one call lists at most.
_MAX_LIMIT = 10_000

_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class PlainErrorCommand(BaseCommand):
    """A command whose expected errors are one line and exit code 1, never a traceback."""

    #: Warnings belong to ``doctor`` and to what runs for long, not in front of every table.
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (BotsError, ConfigError) as error:
            raise CommandError(redact(str(error))) from error
        except DatabaseError as error:
            problem = one_line(redact(str(error)), max_chars=500)
            raise CommandError(f"The database cannot be used: {problem.rstrip('.')}. See: manage.py doctor") from error

    def print_json(self, data: Any) -> None:
        """ASCII, so that no terminal is upset by what people wrote."""
        self.stdout.write(json.dumps(data, default=_as_text, indent=2))


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

    def show(self, options: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """One thing: JSON, or its fields a line each; what has several lines stands below its name."""
        if options.get("json"):
            self.print_json(data)
            return
        for name, value in data.items():
            text = _field(value)
            self.say(f"{name}:\n{_indented(text)}" if "\n" in text else f"{name + ':':18} {text}")

    def table(
        self,
        options: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        *,
        empty: str,
        whole: Collection[str] = (),
        only_json: Collection[str] = (),
    ) -> None:
        """Several things: JSON, or a table as wide as the terminal; ``empty`` says what it means that there are none.

        Args:
            whole: columns that are never cut, because their values are typed into other commands.
            only_json: columns that the table has no room for.
        """
        if options.get("json"):
            self.print_json(rows)
            return
        if not rows:
            self.say(empty)
            return
        names = [name for name in rows[0] if name not in only_json]
        cells = [[one_line(_cell(row[name]), max_chars=500) for name in names] for row in rows]
        is_cut = [name not in whole and any(isinstance(row[name], str) for row in rows) for name in names]
        widths = _widths([names, *cells], is_cut)
        for line in [names, *cells]:
            fitted = (one_line(cell, max_chars=width).ljust(width) for cell, width in zip(line, widths, strict=True))
            self.say("  ".join(fitted).rstrip())

    def for_each(self, ids: Iterable[int], act: Callable[[int], str]) -> None:
        """Do ``act`` for each id and print what it says, if anything. One that fails does not stop the others.

        Raises:
            CommandError: at the end, when any could not be done.
        """
        wanted = list(dict.fromkeys(ids))
        failed = []
        for item_id in wanted:
            try:
                said = act(item_id)
                if said:
                    self.say(harmless(said))
            except BotsError as error:
                failed.append(item_id)
                self.stderr.write(f"{item_id}: {redact(str(error))}")
        if failed:
            others = "; the others were" if len(failed) < len(wanted) else ""
            raise CommandError(f"{len(failed)} could not be done{others}: {', '.join(map(str, failed))}.")


def actor() -> Actor:
    """The person at this shell."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return Actor(name=f"os:{user}"[:150])


def pairs(words: Iterable[str] | None, *, flag: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping.

    Raises:
        CommandError: a word is not of the form NAME=VALUE, or a name is given twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals:
            # The word itself may be a secret whose name was forgotten.
            shown = f"{word!r} is" if flag != "--credential" else "one is"
            raise CommandError(f"{flag}: {shown} not of the form NAME=VALUE.")
        if name in found:
            raise CommandError(f"{flag}: {name} is given twice.")
        found[name] = value
    return found


def since(text: str | None) -> datetime | None:
    """``24h``, ``7d`` or an ISO time, as an aware time.

    Raises:
        CommandError: it is none of these.
    """
    if text is None:
        return None
    try:
        if match := _SPAN.fullmatch(text):
            return timezone.now() - timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise CommandError(f"--since: {text!r} is neither a span (90m, 24h, 7d) nor an ISO time.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def row_id(text: str) -> int:
    """An argument that is the id of a row; argparse says what is wrong with it."""
    return _whole_number(text, most=_MAX_ID)


def limit(text: str) -> int:
    """An argument that says how many rows are wanted."""
    return _whole_number(text, most=_MAX_LIMIT)


def add_paging(verb: ArgumentParser) -> None:
    """``--limit`` and ``--before``, for lists with the newest first."""
    verb.add_argument("--limit", type=limit, default=50, metavar="N", help="rows (50)")
    verb.add_argument("--before", type=row_id, metavar="ID", help="only rows with a smaller id: the next page")


def page(rows: Any, options: Mapping[str, Any]) -> Any:
    """The page of the queryset ``rows`` that ``add_paging``'s options ask for."""
    if options["before"] is not None:
        rows = rows.filter(pk__lt=options["before"])
    return rows.order_by("-pk")[: options["limit"]]


def age(at: datetime | None) -> str:
    """How long ago, or how far ahead, in one unit."""
    if at is None:
        return "never"
    seconds = int((timezone.now() - at).total_seconds())
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A length of time in one unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def harmless(text: str) -> str:
    """``text`` with its lines, without what a terminal would obey."""
    return _UNSAFE.sub(" ", text)


def _whole_number(text: str, *, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not 1 <= int(text) <= most:
        raise ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 to {most}")
    return int(text)


def _widths(lines: Sequence[Sequence[str]], is_cut: Sequence[bool]) -> list[int]:
    """Column widths that fit the terminal, as far as columns may be cut: the widest gives way first."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(is_cut))]
    widths = [min(width, _MAX_CELL) if cut else width for width, cut in zip(widths, is_cut, strict=True)]
    room = max(shutil.get_terminal_size((_COLUMNS, 24)).columns, _COLUMNS) - 2 * (len(widths) - 1)
    while sum(widths) > room:
        width, column = max(((width, column) for column, width in enumerate(widths) if is_cut[column]), default=(0, 0))
        if width <= _MIN_CELL:
            break
        widths[column] -= 1
    return widths


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return age(value) if isinstance(value, datetime) else str(value)


def _field(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, dict | list):
        return harmless(json.dumps(value, default=_as_text, indent=2, ensure_ascii=False))
    return harmless(f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
