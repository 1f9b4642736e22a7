"""Find messages by their words: SQLite's FTS5 or PostgreSQL's full text search, behind one face.

Words are compared without regard to case, by their beginnings; all of them must be there. The index is made by a
migration and kept by the database itself. A search costs about the same for words of every message and for words of
none.
"""

from __future__ import annotations

import re

from django.db import connection
from django.db.models import QuerySet

from botsrt.models import HistoryMessage

#: More words, and longer ones, find nothing that these do not.
_MAX_WORDS = 8
_MAX_WORD_CHARS = 40

#: Newest messages with the words that one search takes; the next one goes on from there.
WINDOW = 5_000

#: PostgreSQL reads messages from the newest on when at least these many of the newest have the words.
_SAMPLE = 1_000
_COMMON = 30

_WORD = re.compile(r"\w+")

_MAX_ID = 2**63 - 1

_SQLITE = """SELECT rowid FROM botsrt_history_search
    WHERE botsrt_history_search MATCH %s AND rowid < %s ORDER BY rowid DESC LIMIT %s"""

_HAS_WORDS = "to_tsvector('simple', botsrt_historymessage.text) @@ to_tsquery('simple', %s)"

#: Asked for the newest of rare words, the planner would read a million messages backwards; this has to use the index.
_POSTGRESQL = f"""WITH found AS MATERIALIZED (SELECT id FROM botsrt_historymessage WHERE {_HAS_WORDS})
    SELECT id FROM found WHERE id < %s ORDER BY id DESC LIMIT %s"""  # noqa: S608  constants; the words are a parameter

_IN_SAMPLE = f"""SELECT count(*) FROM (SELECT text FROM botsrt_historymessage ORDER BY id DESC LIMIT {_SAMPLE})
    AS botsrt_historymessage WHERE {_HAS_WORDS}"""  # noqa: S608


#: Pages of the index that are rewritten at once when deleted words leave it.
_MERGED_PAGES = 500


def forget_deleted() -> bool:
    """Let words of deleted messages leave SQLite's index, a part at a time: until they are merged away, it only marks
    them as deleted. Returns whether nothing was left to do. PostgreSQL does so by itself, with autovacuum.

    Source: SQLite FTS5, "The 'merge' Command".
    """
    if connection.vendor != "sqlite":
        return True
    with connection.cursor() as cursor:
        before = connection.connection.total_changes
        cursor.execute(
            "INSERT INTO botsrt_history_search(botsrt_history_search, rank) VALUES ('merge', %s)", [-_MERGED_PAGES]
        )
        changes: int = connection.connection.total_changes - before
    return changes < 2


def words_of(text: str) -> list[str]:
    """The words that ``text`` asks for; empty when it has none."""
    return [word[:_MAX_WORD_CHARS].lower() for word in _WORD.findall(text)[:_MAX_WORDS]]


def newest(text: str, *, before: int | None = None) -> tuple[QuerySet[HistoryMessage], int | None]:
    """The newest messages that have all words of ``text``; none for a text without words.

    Args:
        before: only those with a smaller id.

    Returns:
        What was found, for the caller to filter and order, and where the search ended, to go on from there; None: these
        are all.
    """
    rows = HistoryMessage.objects.filter(pk__lt=before) if before is not None else HistoryMessage.objects.all()
    words = words_of(text)
    if not words:
        return rows.none(), None
    is_sqlite = connection.vendor == "sqlite"
    query = " ".join(f'"{word}"*' for word in words) if is_sqlite else " & ".join(f"'{word}':*" for word in words)
    with connection.cursor() as cursor:
        if not is_sqlite:
            cursor.execute(_IN_SAMPLE, [query])
            if cursor.fetchone()[0] >= _COMMON:
                return rows.extra(where=[_HAS_WORDS], params=[query]), None  # noqa: S610  a constant and a parameter
        limit = _MAX_ID if before is None else before
        cursor.execute(_SQLITE if is_sqlite else _POSTGRESQL, [query, limit, WINDOW])
        ids = [pk for (pk,) in cursor.fetchall()]
    return rows.filter(pk__in=ids), ids[-1] if len(ids) == WINDOW else None
