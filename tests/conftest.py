"""Where the tests run: a data folder of their own, and SQLite in it or the PostgreSQL of ``TEST_DATABASE_URL``.

Markers ``postgres``, ``redis`` and ``browser`` name a service that a test needs beside the database of the suite. It is
skipped where the service is missing, and fails there when ``CI=true``: a pipeline must not pass by skipping.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import reload
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections
from django.db.models.signals import post_migrate
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone
from pytest_django import DjangoDbBlocker

#: Removed at the end of the run. Processes that tests start inherit it, unless they are given another.
HOME = Path(tempfile.mkdtemp(prefix="praisonweb-tests-"))

#: Servers beside the suite's own database.
POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")

hypothesis.settings.register_profile("tests", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("tests")


def _use_test_settings() -> None:
    """Read the settings again, from an environment that holds nothing but what the tests want.

    pytest-django has imported them already, from the environment of whoever started the tests.
    """
    for name in [name for name in os.environ if name.startswith(("BOTSRT_", "PRAISONWEB_"))]:
        del os.environ[name]
    os.environ["PRAISON_HOME"] = str(HOME)
    os.environ["SECRET_KEY"] = "only-for-tests-" + 40 * "x"
    os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{HOME / 'suite.sqlite3'}"
    for name in ("REDIS_URL", "SECRET_KEY_FALLBACKS", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DEBUG", "BEHIND_HTTPS"):
        os.environ.pop(name, None)
    reload(sys.modules["praisonweb.settings"])
    settings._setup()  # type: ignore[misc]
    reload(sys.modules["axes.conf"])  # it writes its defaults into the settings when it is first imported
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # Django's own is slow on purpose
    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        # A file, not memory: threads and processes have connections of their own, as in production.
        database["TEST"] = {"NAME": str(HOME / "test.sqlite3")}
        database["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL;PRAGMA synchronous=OFF;"
    _forget_connections()


def _forget_connections() -> None:
    """Let Django connect by the settings as they are now; it keeps the first ones it reads."""
    for alias in connections:
        with suppress(AttributeError):  # not connected so far
            del connections[alias]
    connections._settings = None  # type: ignore[attr-defined]
    connections.__dict__.pop("settings", None)


_use_test_settings()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


# -- services that a test needs ----


@cache
def _missing_postgres() -> str:
    try:
        psycopg.connect(POSTGRES_URL, connect_timeout=2).close()
    except psycopg.OperationalError as error:
        return f"no PostgreSQL at TEST_POSTGRES_URL: {error}"
    return ""


@cache
def _missing_redis() -> str:
    parts = urlsplit(REDIS_URL)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=2).close()
    except OSError as error:
        return f"no Redis at TEST_REDIS_URL: {error}"
    return ""


def _missing_pg_dump() -> str:
    return "" if shutil.which("pg_dump") else "no pg_dump on this machine"


@cache
def _missing_browser() -> str:
    return "" if _chromium() else "no chromium on this machine"


def _chromium() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )


_MISSING: dict[str, Callable[[], str]] = {
    "postgres": _missing_postgres,
    "redis": _missing_redis,
    "pg_dump": _missing_pg_dump,
    "browser": _missing_browser,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, missing in _MISSING.items():
        if item.get_closest_marker(name) and (reason := missing()):
            if os.environ.get("CI") == "true":
                pytest.fail(f"{reason}, and CI must not skip.", pytrace=False)
            pytest.skip(reason)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A new, empty PostgreSQL database, for processes that a test starts. Mark the test ``postgres``."""
    name = f"praisonweb_test_{secrets.token_hex(6)}"
    with psycopg.connect(POSTGRES_URL, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlsplit(POSTGRES_URL)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url() -> str:
    """A Redis that tests may write to. Mark the test ``redis``."""
    return REDIS_URL


@pytest.fixture
def chromium() -> str:
    """The path of a browser. Mark the test ``browser``."""
    path = _chromium()
    assert path
    return path


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_modify_db_settings: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """The test database; at the end, connections that threads have left open are closed so that it can be dropped.

    pytest-django's own makes none where no test is marked; here a module's fixture may be what asks for it, and must
    never meet the real one.
    """
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, serialized_aliases=set())
    yield
    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        teardown_databases(made, verbosity=0)


# -- every test starts alike ----


def _restore_what_migrations_added(sender: object, **kwargs: object) -> None:
    """Tests with real transactions end in emptied tables; Django sends ``post_migrate`` after emptying them."""
    if getattr(sender, "label", "") == "botsrt":
        from botsrt.models import AgentProfile

        now = timezone.now()
        AgentProfile.objects.get_or_create(name="echo", defaults={"kind": "echo", "created_at": now, "updated_at": now})


post_migrate.connect(_restore_what_migrations_added)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """What a process remembers for ever is forgotten between tests: configuration, secrets, the sender of nudges."""
    from botsrt import conf
    from botsrt.core import redact
    from botsrt.services import news, nudge

    conf.load.cache_clear()
    yield
    conf.load.cache_clear()
    redact._known.clear()
    news.send_with(None)
    nudge.send_with(None)
