"""Cut a text into parts that a platform takes.

Parts fit the limit in the platform's own unit, none is empty, and a code fence that is cut is closed at the end of
one part and opened again, with its language, in the next.
"""

from __future__ import annotations

import re
from typing import Literal

Unit = Literal["chars", "utf16"]

#: An opening or closing fence line: three or more backticks or tildes, then the language. Source: CommonMark 4.5.
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^`\n]{0,40})$")

#: Where to cut, best first: between paragraphs, lines, sentences, words.
_BREAKS = ("\n\n", "\n", ". ", " ")


def length(text: str, unit: Unit) -> int:
    """The size of ``text`` as the platform counts it; Telegram counts UTF-16 code units."""
    if unit == "chars":
        return len(text)
    return len(text) + sum(1 for character in text if character > "\uffff")


def chunk(text: str, *, limit: int, unit: Unit = "chars") -> list[str]:
    """Cut ``text`` into parts of at most ``limit`` units; an empty or blank text has no parts.

    Raises:
        ValueError: ``limit`` is too small to close and reopen a code fence.
    """
    if limit < 64:
        raise ValueError(f"limit: {limit} is too small; 64 is the least.")
    parts: list[str] = []
    rest = text.strip("\n")
    fence = ""  # the opening line of the code block that the rest begins inside; empty: none
    while rest.strip():
        opening = f"{fence}\n" if fence else ""
        if length(opening, unit) + length(rest, unit) <= limit:
            parts.append(opening + rest)
            break
        # Room for the closing line is kept back: a block that is open at the cut has to be closed.
        room = limit - length(opening, unit) - (length(_closing(fence), unit) + 1 if fence else 45)
        body, rest = _cut(rest, room=room, unit=unit)
        fence = _open_fence(body, fence)
        closing = f"\n{_closing(fence)}" if fence else ""
        if body.strip():
            parts.append(opening + body + closing)
        rest = rest if fence else rest.lstrip("\n")
    return parts


def _closing(fence: str) -> str:
    match = _FENCE.match(fence)
    return match.group(1) if match else ""


def _open_fence(body: str, fence: str) -> str:
    """The fence line that is still open at the end of ``body``, which begins inside ``fence``."""
    for line in body.split("\n"):
        match = _FENCE.match(line)
        if not match:
            continue
        if not fence:
            fence = line
        elif match.group(1).startswith(_closing(fence)) and not match.group(2).strip():
            fence = ""
    # A fence line too long to repeat in every part is repeated without its language.
    return fence if len(fence) <= 20 else _closing(fence)


def _cut(text: str, *, room: int, unit: Unit) -> tuple[str, str]:
    """Split ``text`` after at most ``room`` units, at the best break in the second half of the room."""
    end = _fitting(text, room=room, unit=unit)
    for mark in _BREAKS:
        at = text.rfind(mark, end // 2, end)
        if at > 0:
            keep = 0 if mark.isspace() else len(mark.rstrip())
            return text[: at + keep], text[at + len(mark) :]
    return text[:end], text[end:]


def _fitting(text: str, *, room: int, unit: Unit) -> int:
    """How many leading characters of ``text`` fit into ``room`` units; at least one."""
    if unit == "chars":
        return max(1, min(room, len(text)))
    used = 0
    for index, character in enumerate(text[:room]):
        used += 2 if character > "\uffff" else 1
        if used > room:
            return max(1, index)
    return max(1, min(room, len(text)))
