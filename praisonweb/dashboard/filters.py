"""Filters as one line of text in the address: ``state:dead bot:shop before:2h hello``.

A token is ``key:value`` (``key:"two words"``); everything else is a free word, and so is whatever is in quotes. One key
given twice means either value, except for properties (``has:``, ``is:``), which add up. A key that the page does not
know, or a value that cannot be meant, is a problem that the page shows; it is never silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from botsrt.core.text import storable

#: Longest line that is read, in characters.
MAX_CHARS = 500

_PIECE = re.compile(r'(?:(?P<key>[a-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>\S+))')
_SPAN = re.compile(r"(\d{1,6})(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One kind of token that a page understands."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    is_time: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    key: str
    value: str

    def __str__(self) -> str:
        return f'{self.key}:"{self.value}"' if re.search(r"\s", self.value) or not self.value else self._plain()

    def _plain(self) -> str:
        return f"{self.key}:{self.value}"


def _as_word(word: str) -> str:
    """``word`` so that it is read as one word again, and not as a token."""
    return f'"{word}"' if re.search(r"\s", word) or _is_token(word) else word


def _is_token(text: str) -> bool:
    """Whether ``text`` is meant as ``key:value``; an address of the web is not."""
    piece = _PIECE.fullmatch(text)
    return piece is not None and piece["key"] is not None and not (piece["plain"] or "").startswith("//")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What one line says."""

    tokens: tuple[Token, ...] = ()
    words: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # tokens that the page does not know, as they were written
    problems: tuple[str, ...] = ()
    times: Mapping[str, datetime] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tokens or self.words or self.unknown)

    @property
    def text(self) -> str:
        """The line again, tidied."""
        return " ".join([*map(str, self.tokens), *self.unknown, *map(_as_word, self.words)])

    def values(self, key: str) -> list[str]:
        return [token.value for token in self.tokens if token.key == key]

    def has(self, key: str, value: str) -> bool:
        return value in self.values(key)

    def toggled(self, key: str, value: str) -> str:
        """The address of the list with this token added, or taken away when it is there."""
        token = Token(key=key, value=value)
        kept = tuple(other for other in self.tokens if other != token)
        tokens = kept if len(kept) < len(self.tokens) else (*self.tokens, token)
        return address(replace(self, tokens=tokens).text)

    def without_word(self, word: str) -> str:
        return address(replace(self, words=tuple(other for other in self.words if other != word)).text)

    def without_unknown(self, text: str) -> str:
        return address(replace(self, unknown=tuple(other for other in self.unknown if other != text)).text)

    @property
    def chips(self) -> list[Chip]:
        """Each part of the filter, with the address without it."""
        tokens = [Chip(text=str(token), url=self.toggled(token.key, token.value)) for token in self.tokens]
        unknown = [Chip(text=text, url=self.without_unknown(text)) for text in self.unknown]
        return [*tokens, *unknown, *(Chip(text=word, url=self.without_word(word)) for word in self.words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    text: str
    url: str


def address(text: str) -> str:
    """The query part of a list's address."""
    return f"?{urlencode({'q': text})}" if text else "?"


def parse(text: str, *, keys: Sequence[Key], now: datetime) -> Filters:
    """Read ``text``. What cannot be meant is among the problems."""
    known = {key.name: key for key in keys}
    tokens: list[Token] = []
    words: list[str] = []
    unknown: list[str] = []
    problems: list[str] = []
    times: dict[str, datetime] = {}
    for piece in _PIECE.finditer(storable(text[:MAX_CHARS])):
        name = piece["key"]
        value = piece["quoted"] if piece["quoted"] is not None else piece["plain"]
        if name not in known and _is_token(piece[0]):
            unknown.append(piece[0])
            problems.append(_no_such_filter(name, piece[0], known))
            continue
        if name not in known:
            words.append(value if name is None else piece[0])
            continue
        token = Token(key=name, value=value)
        if token in tokens:
            continue
        tokens.append(token)
        problems += _problems(known[name], value)
        if known[name].is_time and (at := moment(value, now=now)) is not None:
            times[name] = at
    if len(text) > MAX_CHARS:
        problems.append(f"Only the first {MAX_CHARS} characters of the filter were read.")
    return Filters(
        tokens=tuple(tokens),
        words=tuple(filter(None, words)),
        unknown=tuple(dict.fromkeys(unknown)),
        problems=tuple(problems),
        times=times,
    )


def moment(text: str, *, now: datetime) -> datetime | None:
    """``2h``, ``7d`` (ago), ``2026-11-20`` or ``2026-11-20T08:00``, as aware UTC; None: none of these."""
    try:
        if match := _SPAN.fullmatch(text):
            return now - timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _no_such_filter(name: str, piece: str, known: Iterable[str]) -> str:
    there_are, words = ", ".join(f"{key}:" for key in known), piece.replace('"', "")
    return f'There is no filter {name}: here, only {there_are}. For the words themselves use quotes: "{words}".'


def _problems(key: Key, value: str) -> Iterable[str]:
    if key.choices and value not in key.choices:
        yield f"{key.name}: {value!r} is not one of {', '.join(key.choices)}."
    if key.is_time and moment(value, now=datetime.now(UTC)) is None:
        yield f"{key.name}: {value!r} is no time; write 2h, 7d or 2026-11-20."


# -- facets ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One value of a facet, how many rows have it, and the address with it switched on or off."""

    label: str
    count: str
    url: str
    is_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    title: str
    choices: tuple[Choice, ...]


def facet(
    title: str, key: str, counts: Mapping[str, int], filters: Filters, *, is_partial: bool, order: Sequence[str] = ()
) -> Facet:
    """The values of ``key`` that rows have, and those that are switched on.

    Args:
        is_partial: not all rows were counted, so that there may be more of each.
        order: values in the order of showing; others follow by number.
    """
    values = {value for value, count in counts.items() if count} | set(filters.values(key))
    rank = {value: place for place, value in enumerate(order)}
    found = sorted(values, key=lambda value: (rank.get(value, len(rank)), -counts.get(value, 0), value))
    return Facet(
        title=title,
        choices=tuple(
            Choice(
                label=value,
                count=f"{counts.get(value, 0):,}{'+' if is_partial and counts.get(value) else ''}",
                url=filters.toggled(key, value),
                is_on=filters.has(key, value),
            )
            for value in found
        ),
    )
