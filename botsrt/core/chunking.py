"""Cut a text into parts that a platform takes.

Parts fit the limit in the platform's own unit, none is empty, and a code fence that is cut is closed at the end of
one part and opened again, with its language, in the next. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from typing import Literal

Unit = Literal["chars", "utf16"]

#: A fence line: three or more backticks or tildes, then the language. Source: CommonMark 4.5. A run of more than 16 is
#: taken for decoration, so that the room for closing a fence has a bound.
_FENCE = re.compile(r"^ {0,3}(`{3,16}|~{3,16})(?![`~])([^`\n]*)$")

_LOOKS_LIKE_A_FENCE = re.compile(r" {0,3}(```|~~~)")

#: Room that a cut keeps back for the line that closes a fence.
_CLOSING_ROOM = 17

#: A fence line that is longer is opened again without its language.
_MAX_REPEATED_CHARS = 20

#: Where to cut, best first: between paragraphs, lines, sentences, words.
_BREAKS = ("\n\n", "\n", ". ", " ")


def length(text: str, unit: Unit) -> int:
    """The size of ``text`` as the platform counts it; Telegram counts UTF-16 code units."""
    if unit == "chars":
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def chunk(text: str, *, limit: int, unit: Unit = "chars") -> list[str]:
    """Cut ``text`` into parts of at most ``limit`` units; an empty or blank text has no parts.

    Raises:
        ValueError: ``limit`` is too small to close and reopen a code fence.
    """
    if limit < 64:
        raise ValueError(f"limit: {limit} is too small; 64 is the least.")
    text = text.lstrip("\n").rstrip()
    parts: list[str] = []
    at = 0
    fence = ""  # the opening line of the code block that the rest begins inside; empty: none
    while at < len(text):
        opening = f"{fence}\n" if fence else ""
        stop, after = _cut(text, at, room=limit - len(opening), fence=fence, unit=unit)
        body = text[at:stop]
        left_open = _open_fence(body, fence)
        if _has_content(body) or len(body) == len(text):
            parts.append(opening + body + (f"\n{_marker(left_open)}" if left_open else ""))
        at, fence = _rest(text, after, left_open)
    return parts


def _cut(text: str, at: int, *, room: int, fence: str, unit: Unit) -> tuple[int, int]:
    """Where the part that begins at ``at`` ends, and where the rest begins."""
    end = at + _fitting(text[at : at + room], room=room, unit=unit)
    if end == len(text):
        left_open = _open_fence(text[at:], fence)
        if not left_open or length(text[at:], unit) + 1 + len(_marker(left_open)) <= room:
            return end, end
    room -= _CLOSING_ROOM
    end = at + _fitting(text[at : at + room], room=room, unit=unit)
    stop, after = _best_break(text, at, end)
    # A fence that would be opened in the last line of this part is opened in the next one instead.
    line_at = text.rfind("\n", at, stop) + 1
    is_opening = line_at and _FENCE.match(text[line_at:stop]) and not _open_fence(text[at : line_at - 1], fence)
    if is_opening and _has_content(text[at:line_at]):
        return line_at - 1, line_at
    return stop, after


def _best_break(text: str, at: int, end: int) -> tuple[int, int]:
    """The best break of ``text[at:end]`` in its second half: where the part ends and where the rest begins.

    Backticks within a line never come to stand at the beginning of a part: they would be a fence there.
    """
    middle = (at + end) // 2
    for mark in _BREAKS:
        found = text.rfind(mark, middle, end)
        while found > at and "\n" not in mark and _LOOKS_LIKE_A_FENCE.match(text, found + len(mark)):
            found = text.rfind(mark, middle, found)
        if found > at:
            return found + len(mark.rstrip()), found + len(mark)
    run_at = end
    while run_at > middle and text[run_at - 1] in "`~":
        run_at -= 1
    if middle < run_at and text[run_at] in "`~":
        end = run_at - 1
    return end, end


def _rest(text: str, after: int, fence: str) -> tuple[int, str]:
    """Where the next part really begins, and the fence that it begins inside."""
    if fence:
        # The fence was closed at the cut: what closes it in the text would open another.
        line_end = text.find("\n", after, after + 2 * _MAX_REPEATED_CHARS)
        line = text[after : line_end if line_end >= 0 else after + 2 * _MAX_REPEATED_CHARS]
        if _closes(line, fence):
            after, fence = after + len(line), ""
    if not fence:
        while text.startswith("\n", after):
            after += 1
    # A fence line too long to repeat in every part is repeated without its language.
    is_short = len(fence) <= _MAX_REPEATED_CHARS and fence.isascii()
    return after, fence if is_short else _marker(fence)


def _open_fence(body: str, fence: str) -> str:
    """The fence line that is still open at the end of ``body``, which begins inside ``fence``."""
    for line in body.split("\n"):
        if fence:
            fence = "" if _closes(line, fence) else fence
        elif _FENCE.match(line):
            fence = line
    return fence


def _closes(line: str, fence: str) -> bool:
    """Whether ``line`` closes the block that ``fence`` opened: the same marker or a longer one, and nothing else."""
    match = _FENCE.match(line)
    return match is not None and match[1].startswith(_marker(fence)) and not match[2].strip()


def _marker(fence: str) -> str:
    match = _FENCE.match(fence)
    return match[1] if match else ""


def _has_content(body: str) -> bool:
    """Whether there is more in ``body`` than blank lines and bare fences."""
    return any(
        line.strip() and not ((match := _FENCE.match(line)) and not match[2].strip()) for line in body.split("\n")
    )


def _fitting(text: str, *, room: int, unit: Unit) -> int:
    """How many leading characters of ``text`` fit into ``room`` units."""
    fitting = min(len(text), room)
    # A character is one unit or two, so at least half of what is over has to go; this never takes too many.
    while (over := length(text[:fitting], unit) - room) > 0:
        fitting -= (over + 1) // 2
    return fitting
