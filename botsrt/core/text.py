"""Text from outside, made storable and safe to show in a log line or to a person."""

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: NUL cannot be stored by PostgreSQL; lone surrogates cannot be encoded at all. Both arrive in JSON from platforms.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

#: Control characters, and the marks that turn the reading direction around (Unicode UAX 9).
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")


def storable(text: str) -> str:
    """Replace what no database stores; everything else stays as the person wrote it."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def storable_json(value: object) -> object:
    """``storable`` for every string, keys included, of a JSON value."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    return value


def one_line(text: str, *, max_chars: int = 240) -> str:
    """A name or title as one harmless line: no newlines, control or direction marks, at most ``max_chars``."""
    line = " ".join(_INVISIBLE.sub(" ", text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
