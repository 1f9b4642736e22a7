"""Databases of one's own, beside the project's: an SQLite file or a PostgreSQL URL, with the same tables.

Services use the default connection, and connections belong to threads: so a bridge whose thread has another default
connection is a bridge to another database, and no service knows (docs/adr/0007). The tables are made on first use, by
one process at a time.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import environ
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import ConnectionHandler

from botsrt import conf
from botsrt.core.errors import ConfigurationError
from botsrt.core.redact import redact
from botsrt.runtime.db import Database
from botsrt.services import nudge

#: As in the project's settings: a writer waits for its turn, and what is committed survives a power cut.
_SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;",
}

_EXAMPLES = "write the path of a file, or postgresql://user:password@host/name"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is. Two names of one place are equal."""

    engine: str
    name: str  # of a file: its absolute path
    url: str = ""  # of a server

    def __str__(self) -> str:
        return redact(self.url or self.name)


def place(location: str | os.PathLike[str]) -> Place:
    """The place that a path or a URL names; ``~`` is the home folder.

    Raises:
        ConfigurationError: it names none.
    """
    text = os.fspath(location)
    if "://" not in text:
        return _file(text)
    try:
        found = environ.Env.db_url_config(text)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{redact(text)}: not the URL of a database; {_EXAMPLES}.") from error
    match found.get("ENGINE"):
        case "django.db.backends.sqlite3":
            return _file(str(found["NAME"]))
        case "django.db.backends.postgresql":
            return Place(engine=found["ENGINE"], name=str(found["NAME"]), url=text)
    raise ConfigurationError(f"{redact(text)}: only SQLite and PostgreSQL can be used; {_EXAMPLES}.")


def _file(text: str) -> Place:
    if not text.strip() or text.startswith(":"):
        raise ConfigurationError(f"{text!r} is not the path of a file; {_EXAMPLES}.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{text}: there is no such home folder; write the whole path.") from error
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name a file in it.")
    return Place(engine="django.db.backends.sqlite3", name=os.path.realpath(path))


def bridge(where: Place) -> Database:
    """A bridge to the database at ``where``. Its first call makes what is missing: folder, file, tables.

    The calls of the bridge raise ConfigurationError where the database cannot be used.
    """
    return Database(max_batch=conf.load().max_batch, enter=partial(_enter, where))


def _enter(where: Place) -> None:
    """Make the database at ``where`` the default one of this thread."""
    nudge.mute()
    try:
        if not where.url:
            Path(where.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connections[DEFAULT_DB_ALIAS] = ConnectionHandler({DEFAULT_DB_ALIAS: _settings(where)})[DEFAULT_DB_ALIAS]
        _migrate(where)
    except (OSError, DatabaseError) as error:
        raise ConfigurationError(f"The database {where} cannot be used: {redact(str(error)).strip()}") from error


def _settings(where: Place) -> dict[str, Any]:
    if where.url:
        return dict(environ.Env.db_url_config(where.url))
    return {"ENGINE": where.engine, "NAME": where.name, "OPTIONS": _SQLITE_OPTIONS}


def _migrate(where: Place) -> None:
    """Bring the tables of the runtime up to date; those of the site are made by ``manage.py migrate``, if ever."""
    if _is_current():
        return
    with _alone(where):
        if not _is_current():  # nobody else has done it meanwhile
            executor = MigrationExecutor(connection)
            executor.migrate(executor.loader.graph.leaf_nodes("botsrt"))


def _is_current() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes("botsrt"))


@contextmanager
def _alone(where: Place) -> Iterator[None]:
    """One process at a time."""
    if where.url:
        with _advisory_lock():
            yield
        return
    descriptor = os.open(f"{where.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _advisory_lock() -> Iterator[None]:
    key = zlib.crc32(b"botsrt migrations")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [key])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [key])
