"""Reads ``talks.txt`` and ``small_talk.txt``, which say how they are to be read."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from botsrt.management.demo import story

_FOLDER = Path(__file__).parent

_HEAD = re.compile(r"@ (?P<who>\S+) (?P<desk>\S+) (?P<count>\d+)(?P<unit>[mhd])(?: in #(?P<chat>\S+))?")
_BY_SOMEBODY = re.compile(r"(?P<name>\w+)(?: (?P<verb>\w+)(?: (?P<object>[\w.-]+))?)?(?:: (?P<text>.*))?")
_FILE = re.compile(r" ?\[(\w+) ([\w.-]+)\]")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

#: Marks of lines that say who acts.
_SIGNED = ("=", "#", "~", "!")

#: How many small questions each hour of the day has, by UTC; a working day in Europe.
_BY_HOUR = (1, 0, 1, 0, 1, 2, 4, 8, 12, 14, 13, 10, 8, 11, 13, 14, 11, 8, 6, 5, 4, 3, 2, 1)

#: The last small question is this old: what comes later is in the talks.
_QUIET = timedelta(minutes=15)

#: Not earlier, so that those who ask already have access.
_SMALL_TALK_SINCE = {"travel": timedelta(hours=12)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    mark: str
    text: str = ""
    name: str = ""  # who acts, or where a mirror comes from
    verb: str = ""
    object: str = ""
    files: tuple[tuple[str, str], ...] = ()  # kind, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    who: str
    desk: str
    ago: timedelta
    chat: str = ""
    lines: tuple[Line, ...]


def all_talks(*, now: datetime, chance: random.Random) -> list[Talk]:
    """The written talks and small ones in between, the oldest first."""
    return sorted([*_written(), *_small(now, chance)], key=lambda talk: -talk.ago)


def _written() -> Iterator[Talk]:
    blocks = (_FOLDER / "talks.txt").read_text(encoding="utf-8").split("\n@ ")[1:]
    for block in blocks:
        head, *lines = f"@ {block}".strip().splitlines()
        found = _HEAD.fullmatch(head)
        assert found is not None, head
        yield Talk(
            who=found["who"],
            desk=found["desk"],
            ago=timedelta(**{_UNITS[found["unit"]]: int(found["count"])}),
            chat=found["chat"] or "",
            lines=tuple(_line(line) for line in lines if line),
        )


def _line(line: str) -> Line:
    mark, _, text = line.partition(" ")
    if mark == ">":
        return Line(mark=mark, text=_FILE.sub("", text), files=tuple(_FILE.findall(text)))
    if mark not in _SIGNED:
        return Line(mark=mark, text=text)
    found = _BY_SOMEBODY.fullmatch(text)
    assert found is not None, line
    return Line(
        mark=mark,
        text=found["text"] or "",
        name=found["name"],
        verb=found["verb"] or "",
        object=found["object"] or "",
    )


def _small(now: datetime, chance: random.Random) -> Iterator[Talk]:
    rows = (_FOLDER / "small_talk.txt").read_text(encoding="utf-8").splitlines()
    questions = [row.split(" | ") for row in rows if " | " in row]
    hour = now.replace(minute=0, second=0, microsecond=0)
    for back in range(24):
        at = hour - timedelta(hours=back)
        for _ in range(_BY_HOUR[at.hour]):
            ago = now - at - timedelta(seconds=chance.uniform(0, 3_600))
            desk = chance.choice(list(story.REGULARS))
            who = chance.choice(story.REGULARS[desk])
            _, question, answer = chance.choice([row for row in questions if row[0] == story.TOPICS[desk]])
            if _QUIET < ago < _SMALL_TALK_SINCE.get(desk, timedelta(days=2)):
                lines = (Line(mark=">", text=question), Line(mark="<", text=answer))
                yield Talk(who=who, desk=desk, ago=ago, lines=lines)
