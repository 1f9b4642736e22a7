"""Many rows in one statement, for the services on the way of every message.

The ORM inserts many rows, too; it takes several times as long to build the statement as the database to run it, and
does not say which rows a conflict left out. Everything here reads the same on SQLite and PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import connection, models
from django.db.models import NOT_PROVIDED

#: Values in one statement at most: SQLite takes 32,766.
_MAX_VALUES = 30_000


def insert(
    model: type[models.Model],
    rows: Sequence[Mapping[str, Any]],
    *,
    ignore_conflicts: bool = False,
    returning: Sequence[str] = (),
) -> list[tuple[Any, ...]]:
    """Insert ``rows``, each a mapping of the same columns to values; other columns get the model's defaults.

    Args:
        ignore_conflicts: leave out rows that a unique constraint refuses.
        returning: columns to return of each row that was inserted, in any order, as the database has them.
    """
    if not rows:
        return []
    columns = tuple(rows[0])
    head, row_sql = _statement(model, columns, connection.vendor)
    tail = (" ON CONFLICT DO NOTHING" if ignore_conflicts else "") + (
        f" RETURNING {', '.join(returning)}" if returning else ""
    )
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for chunk in _chunks(rows, len(columns)):
            given = _written(row[name] for row in chunk for name in columns)
            cursor.execute(head + ", ".join([row_sql] * len(chunk)) + tail, given)
            if returning:
                found += cursor.fetchall()
    return found


def values(rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """``(VALUES …)`` of ``rows`` and its parameters; the columns are called column1, column2, ….

    In PostgreSQL texts among them, and JSON, are of type text: to become another one they need ``cast``. Join it with
    CROSS JOIN and WHERE, so that SQLite begins with it.
    """
    row_sql = f"({', '.join(['%s'] * len(rows[0]))})"
    return f"(VALUES {', '.join([row_sql] * len(rows))})", [value for row in rows for value in row]


def fetch(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows that ``statement`` returns, as the database has them."""
    with connection.cursor() as cursor:
        cursor.execute(statement, _written(parameters))
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def execute(statement: str, parameters: Sequence[Any] = ()) -> int:
    """How many rows ``statement`` changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, _written(parameters))
        return int(cursor.rowcount)


def marks(items: Sequence[Any]) -> str:
    """As many placeholders as there are items: for IN."""
    return ", ".join(["%s"] * len(items))


# -- values as the database gives and takes them ----


def as_moment(value: Any) -> datetime:
    """A time that was read without the ORM; in SQLite it is UTC and does not say so."""
    time: datetime = value
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def as_json(value: Any) -> Any:
    """JSON that was read without the ORM: both databases give the text."""
    return json.loads(value) if isinstance(value, str) else value


def cast(expression: str, type_name: str) -> str:
    """``expression`` as PostgreSQL's ``type_name``; SQLite has no types that would matter."""
    return expression if connection.vendor == "sqlite" else f"CAST({expression} AS {type_name})"


def written(value: Any) -> Any:
    """A time, a UUID or JSON as the database takes it, and as it gives UUIDs back; anything else as it is."""
    (one,) = _written([value])
    return one


@lru_cache(maxsize=4_096)  # the moment of a batch stands in many of its columns
def _without_zone(time: datetime) -> str:
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def _json(value: dict[str, Any] | list[Any]) -> str:
    if not value:  # most are
        return "[]" if isinstance(value, list) else "{}"
    return json.dumps(value)


#: By the types that a database is not given as they are: how they are written, as Django writes them.
_WRITTEN: dict[str, dict[type, Callable[[Any], Any]]] = {
    "sqlite": {datetime: _without_zone, UUID: attrgetter("hex"), dict: _json, list: _json},
    "postgresql": {dict: _json, list: _json},
}


def _written(given: Iterable[Any]) -> list[Any]:
    types = _WRITTEN[connection.vendor]
    return [types[type(value)](value) if type(value) in types else value for value in given]


# -- the statement of an insert ----


def _chunks(rows: Sequence[Mapping[str, Any]], width: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    size = max(1, _MAX_VALUES // width)
    return (rows[start : start + size] for start in range(0, len(rows), size))


@cache
def _statement(model: type[models.Model], columns: tuple[str, ...], vendor: str) -> tuple[str, str]:
    """``INSERT … VALUES``, and the values of one row."""
    fields = {field.attname: field for field in model._meta.concrete_fields}
    others = [
        field for name, field in fields.items() if name not in columns and not isinstance(field, models.AutoField)
    ]
    names = [fields[name].column for name in columns] + [field.column for field in others]
    row = ", ".join(["%s"] * len(columns) + [_default(field) for field in others])
    quoted = ", ".join(f'"{name}"' for name in names)
    return f'INSERT INTO "{model._meta.db_table}" ({quoted}) VALUES ', f"({row})"  # noqa: S608  names of ours


def _default(field: models.Field[Any, Any]) -> str:
    """The default of a column, as SQL."""
    if field.default is NOT_PROVIDED and not field.null:
        raise TypeError(f"{field} has no default: give it.")
    (value,) = _written([field.get_default()])
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case str():
            return "'" + str(value).replace("'", "''").replace("%", "%%") + "'"
    raise TypeError(f"{field}: {value!r} cannot be written into a statement; give it.")
