"""A backup: one tar file with a manifest and the database. Written and read here; nothing else knows its form.

The manifest has the checksum of the database, the migrations that it had, and the name of the key with which its
credentials are sealed. The key itself is never in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.utils.crypto import salted_hmac

from botsrt import __version__
from botsrt.core.text import one_line

T = TypeVar("T")

#: Grows when an older program could no longer read what a newer one writes.
FORMAT = 1

_MANIFEST = "manifest.json"
_MEMBERS = {"sqlite": "database.sqlite3", "postgresql": "database.dump"}

#: A manifest is small; whatever is larger is none.
_MAX_MANIFEST_BYTES = 1_000_000

_BLOCK = 1 << 20

#: Our own tables begin so, whichever version made them.
_PREFIX = "botsrt_"

#: It is there from the moment at which a backup is in PostgreSQL until what it had to send is settled.
_UNSETTLED = "botsrt_unsettled"

#: The schema itself among the contents of a dump; it is there.
_SCHEMA_ENTRY = re.compile(r"\d+; \d+ \d+ (SCHEMA - |COMMENT - SCHEMA |ACL - SCHEMA )public ")

#: How long a restore waits for others to close the SQLite file, in seconds.
_ALONE_SECONDS = 2.0

#: What the programs of PostgreSQL take from the environment of what ``OPTIONS`` may have.
_OPTION_VARIABLES = {
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "hostaddr": "PGHOSTADDR",
    "krbsrvname": "PGKRBSRVNAME",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "requirepeer": "PGREQUIREPEER",
    "service": "PGSERVICE",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "sslcert": "PGSSLCERT",
    "sslcompression": "PGSSLCOMPRESSION",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}

#: What a backup does not have, told where one is made and where one is restored.
NOT_INCLUDED = (
    "SECRET_KEY: without the key of that time the credentials of bots cannot be opened. Keep it elsewhere.",
    "The environment: settings, and credentials written as env:NAME.",
    "identity.json, if the resolver is a file.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    format: int
    made_at: str  # ISO time, UTC
    version: str
    vendor: str  # sqlite or postgresql
    member: str  # the database in the archive
    bytes: int
    sha256: str
    migrations: tuple[str, ...]
    key_id: str  # names the key that seals the credentials
    not_included: tuple[str, ...] = NOT_INCLUDED


def write(path: Path, *, now: datetime) -> Manifest:
    """Make a backup while everything runs.

    Raises:
        CommandError: the file is there already, or the database cannot be copied.
    """
    if path.exists():
        raise CommandError(f"{path}: there is such a file already.")
    with _folder(path.parent) as folder:
        copy = folder / _MEMBERS[connection.vendor]
        (_copy_sqlite if connection.vendor == "sqlite" else _dump_postgres)(copy)
        manifest = Manifest(
            format=FORMAT,
            made_at=now.isoformat(),
            version=__version__,
            vendor=connection.vendor,
            member=copy.name,
            bytes=copy.stat().st_size,
            sha256=_sha256(copy),
            migrations=tuple(_migrations_in(copy) if connection.vendor == "sqlite" else _applied()),
            key_id=key_id(),
        )
        (folder / _MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
        whole = folder / "archive.tar"
        with tarfile.open(whole, "w") as tar:
            for name in (_MANIFEST, copy.name):
                tar.add(folder / name, arcname=name)
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        whole.chmod(0o600)
        os.replace(whole, path)
    return manifest


@contextmanager
def opened(path: Path) -> Iterator[tuple[Manifest, Path]]:
    """The manifest of a backup and its database, unpacked beside the target and checked.

    Raises:
        CommandError: it is no backup, damaged, or newer than this program.
    """
    near = Path(settings.DATABASES["default"]["NAME"]).parent if connection.vendor == "sqlite" else None
    try:
        with tarfile.open(path, "r:") as tar, _folder(near) as folder:
            manifest = _manifest(_read(tar, _MANIFEST, most=_MAX_MANIFEST_BYTES))
            copy = folder / manifest.member
            with copy.open("wb") as file:
                shutil.copyfileobj(_member(tar, manifest.member), file, _BLOCK)
            if copy.stat().st_size != manifest.bytes or _sha256(copy) != manifest.sha256:
                raise CommandError(f"{path}: the checksum is wrong. The file is damaged; nothing was changed.")
            yield manifest, copy
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CommandError(f"{path}: {error}") from error


def check_fits(manifest: Manifest) -> None:
    """Raises:
    CommandError: the backup is of another kind of database, or of a newer program.
    """
    if manifest.vendor != connection.vendor:
        raise CommandError(f"The backup is of {manifest.vendor}, and DATABASE_URL is of {connection.vendor}.")
    known = {f"{app}.{name}" for app, name in MigrationLoader(None).disk_migrations or {}}
    newer = sorted(set(manifest.migrations) - known)
    if newer:
        raise CommandError(
            f"The backup is of a newer version ({manifest.version}): this program does not know {', '.join(newer[:3])}"
            f"{' …' if len(newer) > 3 else ''}. Install that version first; nothing was changed."
        )


def tables() -> list[str]:
    """The tables of the database, in alphabetical order."""
    if connection.vendor == "sqlite":
        return sorted(connection.introspection.table_names())
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        return [name for (name,) in cursor.fetchall()]


def foreign_tables() -> list[str]:
    """Those that another application has in the same database."""
    ours = _known_tables()
    return [name for name in tables() if not _is_ours(name, ours)]


def put_in_place(manifest: Manifest, copy: Path, *, settle: Callable[[], T]) -> T:
    """Let the backup's database take the place of the project's, whole or not at all, and migrate it.

    Nothing is sent from it before it is settled: on SQLite it takes the place only then, and on PostgreSQL
    ``check_settled`` refuses until then.

    Args:
        settle: called once, when the ORM works with the migrated copy. What it returns is returned.

    Raises:
        CommandError: it cannot be put there.
    """
    if manifest.vendor == "sqlite":
        with _working_on(copy):
            call_command("migrate", verbosity=0)
            settled = settle()
        _replace_sqlite(copy)
        return settled
    _replace_postgres(copy)
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        settled = settle()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE public.{_UNSETTLED}")
    return settled


def check_settled() -> None:
    """Raises:
    CommandError: a restore has ended half-way, and what the backup had to send is not settled.
    """
    if connection.vendor == "postgresql" and _UNSETTLED in tables():
        raise CommandError(
            "A restore was not finished: what waited to be sent when the backup was made may have been sent since. "
            "Run it again: manage.py restore FILE --force"
        )


def key_id() -> str:
    """A name for the key of this installation, from which it cannot be computed."""
    return salted_hmac("botsrt.backup", "key").hexdigest()[:16]


def _known_tables() -> frozenset[str]:
    return frozenset(connection.introspection.django_table_names()) | {"django_migrations"}


def _is_ours(name: str, known: frozenset[str]) -> bool:
    return name in known or name.startswith(_PREFIX)


# -- SQLite ----


def _copy_sqlite(target: Path) -> None:
    connection.ensure_connection()
    with closing(sqlite3.connect(target)) as copy:
        connection.connection.backup(copy)  # a snapshot: writers go on
        copy.execute("PRAGMA journal_mode=DELETE")  # one file
        (verdict,) = copy.execute("PRAGMA quick_check").fetchone()
    if verdict != "ok":
        raise CommandError(f"The copy of the database is damaged: {verdict}")
    target.chmod(0o600)


def _migrations_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT app, name FROM django_migrations ORDER BY id").fetchall()
    return [f"{app}.{name}" for app, name in rows]


@contextmanager
def _working_on(copy: Path) -> Iterator[None]:
    """Let the ORM work with the copy instead of the project's database."""
    connections.close_all()
    target, connection.settings_dict["NAME"] = connection.settings_dict["NAME"], str(copy)
    try:
        yield
    finally:
        connections.close_all()
        connection.settings_dict["NAME"] = target
    with closing(sqlite3.connect(copy)) as database:
        database.execute("PRAGMA journal_mode=DELETE")  # one file again


def _check_alone(target: Path) -> None:
    """Raises:
    CommandError: a process has the file open. It would go on to write into the old file, which nobody reads any more.
    """
    problem = "it is in use"
    try:
        with closing(sqlite3.connect(target, timeout=_ALONE_SECONDS)) as database:
            # To leave the write-ahead log is refused while anybody else is there.
            (mode,) = database.execute("PRAGMA journal_mode=DELETE").fetchone()
        if mode == "delete":
            return
    except sqlite3.Error as error:
        problem = str(error)
    raise CommandError(
        f"A process works with the database ({one_line(problem, max_chars=200)}). Stop all processes first, the site "
        "and the task cluster, too; nothing was changed."
    )


def _replace_sqlite(copy: Path) -> None:
    target = Path(settings.DATABASES["default"]["NAME"])
    connections.close_all()
    _check_alone(target)
    copy.chmod(0o600)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    # The log beside the old file belongs to that: read together with the new one it would destroy it.
    for ending in ("-wal", "-shm", "-journal"):
        target.with_name(target.name + ending).unlink(missing_ok=True)
    os.replace(copy, target)


# -- PostgreSQL ----


def _applied() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name FROM django_migrations ORDER BY id")
        return [f"{app}.{name}" for app, name in cursor.fetchall()]


def _dump_postgres(target: Path) -> None:
    ours = _known_tables()
    wanted = [f"--table=public.{_quoted(name)}" for name in tables() if _is_ours(name, ours)]
    _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", *wanted, "--file", str(target))


def _replace_postgres(copy: Path) -> None:
    """In one transaction: our tables go, what is in the backup comes, and a mark that it is not settled.

    No CASCADE: whatever else hangs on our tables, such as a view, is somebody's, and makes it fail.
    """
    ours = _known_tables()
    names = ", ".join(f"public.{_quoted(name)}" for name in tables() if _is_ours(name, ours))
    connections.close_all()
    contents, script = copy.with_name("contents.txt"), copy.with_name("restore.sql")
    before, after = copy.with_name("before.sql"), copy.with_name("after.sql")
    before.write_text(f"DROP TABLE {names};\n" if names else "")
    after.write_text(f"CREATE TABLE IF NOT EXISTS public.{_UNSETTLED} ();\n")
    listed = _run("pg_restore", "--list", str(copy), connects=False)
    contents.write_text("".join(line for line in listed.splitlines(True) if not _SCHEMA_ENTRY.match(line)))
    whole = ("--use-list", str(contents), "--file", str(script), str(copy))
    _run("pg_restore", "--no-owner", "--no-privileges", *whole, connects=False)
    files = [word for file in (before, script, after) for word in ("-f", str(file))]
    _run("psql", "--quiet", "--no-psqlrc", "-1", "-v", "ON_ERROR_STOP=1", *files)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _run(program: str, *arguments: str, connects: bool = True) -> str:
    """What the program prints."""
    path = shutil.which(program)
    if path is None:
        raise CommandError(f"{program} is not installed: backups of PostgreSQL need the package postgresql-client.")
    database = settings.DATABASES["default"]
    named = ("--dbname", str(database["NAME"])) if connects else ()
    done = subprocess.run(  # noqa: S603  a program of PostgreSQL, no shell
        [path, *named, *arguments], env={**os.environ, **_login(database)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandError(f"{program}: {done.stderr.strip()[-1_000:] or f'exit code {done.returncode}'}")
    return done.stdout


def _login(database: Mapping[str, Any]) -> dict[str, str]:
    """Passed by the environment: arguments can be read by everybody on the machine."""
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD"}
    login = {variable: str(database[name]) for variable, name in names.items() if database.get(name)}
    options = database.get("OPTIONS") or {}
    return login | {_OPTION_VARIABLES[name]: str(value) for name, value in options.items() if name in _OPTION_VARIABLES}


# -- the file ----


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    """A folder for what is half done; nobody else reads it."""
    with tempfile.TemporaryDirectory(prefix=".praisonweb-", dir=parent) as name:
        yield Path(name)


def _manifest(data: bytes) -> Manifest:
    try:
        values = json.loads(data)
        _check_types(values)
        if values["format"] > FORMAT:
            raise CommandError(f"The backup is of a newer version ({values['version']}), which writes another format.")
        manifest = Manifest(**{**values, "migrations": tuple(values["migrations"]), "not_included": NOT_INCLUDED})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandError(f"The manifest cannot be read: {type(error).__name__}.") from error
    if manifest.member != _MEMBERS.get(manifest.vendor):
        raise CommandError("The manifest cannot be read: it names no database.")
    return manifest


def _check_types(values: Mapping[str, Any]) -> None:
    """Raises:
    TypeError: a field is of another type than ``Manifest`` says.
    """
    numbers, lists = ("format", "bytes"), ("migrations", "not_included")
    for name in Manifest.__dataclass_fields__:
        type_ = int if name in numbers else list if name in lists else str
        if not isinstance(values[name], type_) or isinstance(values[name], bool):
            raise TypeError(name)
    if not all(isinstance(name, str) for name in values["migrations"]):
        raise TypeError("migrations")
    datetime.fromisoformat(values["made_at"])


def _member(tar: tarfile.TarFile, name: str) -> Any:
    try:
        found = tar.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise CommandError(f"It is no backup: {name} is missing.")
    return found


def _read(tar: tarfile.TarFile, name: str, *, most: int) -> bytes:
    data: bytes = _member(tar, name).read(most + 1)
    if len(data) > most:
        raise CommandError(f"It is no backup: {name} is too large.")
    return data


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
