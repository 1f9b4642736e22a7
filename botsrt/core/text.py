"""Text from outside, made storable and safe to show in a log line or to a person."""

import math
import re
from collections.abc import Mapping

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

#: NUL cannot be stored by PostgreSQL; lone surrogates cannot be encoded at all. Both arrive in JSON from platforms.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

#: Control characters, the marks that turn the reading direction around (Unicode UAX 9), and the tag characters, with
#: which a name could carry words that only an agent sees.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]+"
)


def storable(text: str) -> str:
    """Replace what no database stores; everything else stays as the person wrote it."""
    if text.isascii() and "\x00" not in text:  # nearly always, and found at once
        return text
    return _UNSTORABLE.sub(REPLACEMENT, text)


def storable_json(value: object) -> object:
    """``value`` as JSON that every database takes: each string ``storable``, keys included; the unsayable as text."""
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item) for item in value]
    return storable(str(value))


def one_line(text: str, *, max_chars: int = 240) -> str:
    """A name or title as one harmless line: no newlines, control or direction marks, at most ``max_chars``."""
    line = " ".join(_INVISIBLE.sub(" ", text).split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"
