"""Find messages by their words: SQLite's FTS5 or PostgreSQL's full text search, behind one face.

Words are compared without regard to case, by their beginnings; all of them must be there. The index is made by a
migration and kept by the database itself.
"""

from __future__ import annotations

import re

from django.db import connection
from django.db.models import QuerySet

from botsrt.models import HistoryMessage

#: More words, and longer ones, find nothing that these do not.
_MAX_WORDS = 8
_MAX_WORD_CHARS = 40

_WORD = re.compile(r"\w+")

#: Whether a row has all words, as each database says it.
_CONDITIONS = {
    "sqlite": (
        "botsrt_historymessage.id IN (SELECT rowid FROM botsrt_history_search WHERE botsrt_history_search MATCH %s)"
    ),
    "postgresql": "to_tsvector('simple', botsrt_historymessage.text) @@ to_tsquery('simple', %s)",
}


def words_of(text: str) -> list[str]:
    """The words that ``text`` asks for; empty when it has none."""
    return [word[:_MAX_WORD_CHARS].lower() for word in _WORD.findall(text)[:_MAX_WORDS]]


def messages(text: str) -> QuerySet[HistoryMessage]:
    """The messages that have all words of ``text``; none for a text without words. The caller filters and orders."""
    words = words_of(text)
    if not words:
        return HistoryMessage.objects.none()
    query = (
        " ".join(f'"{word}"*' for word in words)
        if connection.vendor == "sqlite"
        else " & ".join(f"'{word}':*" for word in words)
    )
    # The condition is a constant, the words are a parameter.
    return HistoryMessage.objects.extra(where=[_CONDITIONS[connection.vendor]], params=[query])  # noqa: S610
