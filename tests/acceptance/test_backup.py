"""A backup of a running installation, and its restoration: with real processes, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.home import Home
from tests.acceptance.test_pairing_flow import texts, until
from tests.fakes.telegram import TOKEN, TelegramServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def _there_and_back(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    home.manage("migrate", "--verbosity", "0")
    async with TelegramServer() as server:
        home.manage(
            *("bots", "add", "shop", "--platform", "telegram", "--policy", "allow"),
            *("--credential", f"token={TOKEN}", "--setting", f"api_base_url={server.url}"),
        )
        async with home.runbots() as worker:
            server.bot.say("before", user=7)
            await until(lambda: texts(server, 7) == ["before"])
            made = home.json("backup", str(archive))
            assert len(made["sha256"]) == 64
            server.bot.say("after", user=7)
            await until(lambda: texts(server, 7) == ["before", "after"])
            refused = home.manage("restore", str(archive), "--force", check=False)
            assert (refused.returncode, "A worker runs" in refused.stderr) == (1, True)
            assert worker.pid
        refused = home.manage("restore", str(archive), check=False)
        assert (refused.returncode, "not empty" in refused.stderr) == (1, True)
        assert "Restored: as it was at" in home.manage("restore", str(archive), "--force", "--hold").stdout
        said = home.json("sessions", "resume", "--session-id", "bot_telegram_7", "--show-history")["messages"]
        assert [message["text"] for message in said] == ["before", "before"]
        assert home.manage("ledger", check=False).returncode == 0
        async with home.runbots():
            server.bot.say("again", user=7)
            await until(lambda: texts(server, 7)[-1] == "again")
        assert home.manage("ledger", check=False).returncode == 0


async def test_restored_on_sqlite(tmp_path: Path) -> None:
    await _there_and_back(Home(tmp_path / "home"), tmp_path)


@pytest.mark.postgres
@pytest.mark.pg_dump
async def test_restored_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "home").mkdir()
    await _there_and_back(Home(tmp_path / "home", database_url=postgres_url), tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.manage("migrate", "--verbosity", "0")
    home.manage("bots", "add", "shop", "--platform", "web")
    return home


def _rewritten(archive: Path, change: Callable[[dict[str, Any]], None], *, spoils: bool = False) -> Path:
    """A copy of the backup with another manifest, or with a byte of the database changed."""
    folder = archive.parent / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if spoils:
        database = folder / manifest["member"]
        data = bytearray(database.read_bytes())
        data[len(data) // 2] ^= 1
        database.write_bytes(data)
    changed = archive.with_name("changed.tar")
    with tarfile.open(changed, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    return changed


def _is_refused(home: Home, archive: Path, why: str) -> None:
    done = home.manage("restore", str(archive), "--force", check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert [bot["account"] for bot in home.json("bots", "list")] == ["shop"], "nothing was changed"


def test_what_cannot_be_restored_changes_nothing(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    assert "SECRET_KEY" in home.manage("backup", str(archive)).stdout
    again = home.manage("backup", str(archive), check=False)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    assert archive.stat().st_mode & 0o077 == 0, "nobody else may read it"

    _is_refused(home, _rewritten(archive, lambda manifest: None, spoils=True), "checksum is wrong")
    _is_refused(
        home,
        _rewritten(archive, lambda manifest: manifest["migrations"].append("botsrt.9999_future")),
        "does not know botsrt.9999_future",
    )
    _is_refused(home, _rewritten(archive, lambda manifest: manifest.update(format=99)), "newer version")
    _is_refused(home, _rewritten(archive, lambda manifest: manifest.update(member="../evil")), "names no database")
    _is_refused(home, _rewritten(archive, lambda manifest: manifest.update(vendor="postgresql")), "names no database")
    nothing = tmp_path / "nothing.tar"
    nothing.write_bytes(b"\0" * 10_240)
    _is_refused(home, nothing, "manifest.json is missing")
    nothing.write_bytes(b"no tar")
    _is_refused(home, nothing, "nothing.tar")


def test_another_key_is_told(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    home.manage("backup", str(archive))
    other = Home(tmp_path / "other")
    other.env["SECRET_KEY"] = "another-key-for-tests-" + 40 * "y"
    (tmp_path / "other").mkdir()
    done = other.manage("restore", str(archive))
    assert "SECRET_KEY is another one" in done.stderr
    assert [bot["account"] for bot in other.json("bots", "list")] == ["shop"]


# -- what else is in the database ----


def _run_sql(home: Home, *statements: str) -> None:
    with closing(sqlite3.connect(home.path / "praisonweb.sqlite3")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_another_applications_tables_are_never_lost(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    home.manage("backup", str(archive))
    for name, with_ours in (("theirs", False), ("both", True)):
        other = Home(tmp_path / name)
        other.path.mkdir()
        if with_ours:
            other.prepare()
        _run_sql(other, "CREATE TABLE orders (item TEXT)", "INSERT INTO orders VALUES ('a lamp')")
        for force in ((), ("--force",)):
            refused = other.manage("restore", str(archive), *force, check=False)
            assert (refused.returncode, "another application: orders." in refused.stderr) == (1, True), refused.stderr
        assert other.rows("SELECT item FROM orders") == [("a lamp",)]


def test_tables_without_a_journal_are_asked_for(home: Home, tmp_path: Path) -> None:
    archive, other = tmp_path / "backup.tar", Home(tmp_path / "other")
    home.manage("backup", str(archive))
    other.path.mkdir()
    _run_sql(other, "CREATE TABLE auth_user (username TEXT)", "INSERT INTO auth_user VALUES ('ann')")
    refused = other.manage("restore", str(archive), check=False)
    assert (refused.returncode, "not empty (auth_user)" in refused.stderr) == (1, True), refused.stderr
    assert other.rows("SELECT username FROM auth_user") == [("ann",)]
    other.manage("restore", str(archive), "--force")
    assert [bot["account"] for bot in other.json("bots", "list")] == ["shop"]


@pytest.mark.postgres
@pytest.mark.pg_dump
def test_only_our_tables_are_dumped_and_dropped_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    archive, home = tmp_path / "backup.tar", Home(tmp_path / "home", database_url=postgres_url)
    home.path.mkdir()
    home.prepare()
    with psycopg.connect(postgres_url, autocommit=True) as database:
        said = "What does CREATE SCHEMA public; do?"
        database.execute("INSERT INTO django_session VALUES ('key', %s, now())", [said])
        database.execute("CREATE TABLE orders (item text)")
        home.manage("backup", str(archive))
        for force in ((), ("--force",)):
            refused = home.manage("restore", str(archive), *force, check=False)
            assert (refused.returncode, "another application: orders." in refused.stderr) == (1, True), refused.stderr
        database.execute("DROP TABLE orders")
        database.execute("CREATE VIEW keys AS SELECT session_key FROM django_session")
        refused = home.manage("restore", str(archive), "--force", check=False)
        assert (refused.returncode, "view keys depends on" in refused.stderr) == (1, True), refused.stderr
        database.execute("DROP VIEW keys")
        home.manage("restore", str(archive), "--force")
        tables = {name for (name,) in database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        assert "botsrt_journalentry" in tables
        assert not {"orders", "botsrt_unsettled"} & tables
        assert database.execute("SELECT session_data FROM django_session").fetchall() == [(said,)]


# -- a restore that ends half-way ----

#: The migration runs once more, and fails.
_BREAKS_MIGRATE = "DELETE FROM django_migrations WHERE app = 'botsrt' AND name = '0011_previews'"


def test_what_cannot_be_settled_never_takes_the_place_on_sqlite(home: Home, tmp_path: Path) -> None:
    archive, other = tmp_path / "backup.tar", Home(tmp_path / "other")
    other.path.mkdir()
    other.prepare(("bots", "add", "desk", "--platform", "web"))
    _run_sql(home, _BREAKS_MIGRATE)
    home.manage("backup", str(archive))
    assert other.manage("restore", str(archive), "--force", check=False).returncode == 1
    assert [bot["account"] for bot in other.json("bots", "list")] == ["desk"]
    assert not list(other.path.glob(".praisonweb-*"))


@pytest.mark.postgres
@pytest.mark.pg_dump
async def test_nothing_is_sent_before_it_is_settled_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    home = Home(tmp_path / "home", database_url=postgres_url)
    home.path.mkdir()
    home.prepare()
    home.manage("backup", str(good))
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(_BREAKS_MIGRATE)
    home.manage("backup", str(bad))
    assert home.manage("restore", str(bad), "--force", check=False).returncode == 1
    refused = home.manage("runbots", check=False)
    assert (refused.returncode, "A restore was not finished" in refused.stderr) == (1, True), refused.stderr
    home.manage("restore", str(good), "--force")
    async with home.runbots():
        pass


def test_a_file_that_is_in_use_is_not_replaced(home: Home, tmp_path: Path) -> None:
    archive = tmp_path / "backup.tar"
    home.manage("backup", str(archive))
    home.manage("bots", "add", "desk", "--platform", "web")
    with closing(sqlite3.connect(home.path / "praisonweb.sqlite3")) as site:
        site.execute("SELECT count(*) FROM botsrt_bot").fetchone()
        refused = home.manage("restore", str(archive), "--force", check=False)
        assert (refused.returncode, "A process works with the database" in refused.stderr) == (1, True), refused.stderr
    assert [bot["account"] for bot in home.json("bots", "list")] == ["desk", "shop"]
    home.manage("restore", str(archive), "--force")
    assert [bot["account"] for bot in home.json("bots", "list")] == ["shop"]


# -- the rest ----


def test_a_backup_is_audited(home: Home, tmp_path: Path) -> None:
    made = home.json("backup", str(tmp_path / "backup.tar"))
    ((verb, after),) = home.rows("SELECT verb, after FROM botsrt_auditevent WHERE object_kind = 'database'")
    assert (verb, json.loads(after)["sha256"]) == ("backup.write", made["sha256"])


@pytest.mark.postgres
def test_the_programs_of_postgresql_connect_as_the_url_says(tmp_path: Path, postgres_url: str) -> None:
    home = Home(tmp_path / "home", database_url=f"{postgres_url}?sslmode=disable&sslrootcert=/none/ca.pem")
    home.prepare()
    program = tmp_path / "bin" / "pg_dump"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$PGSSLMODE $PGSSLROOTCERT" >&2\nexit 1\n')
    program.chmod(0o755)
    home.env["PATH"] = f"{program.parent}:{home.env['PATH']}"
    failed = home.manage("backup", str(tmp_path / "backup.tar"), check=False)
    assert "pg_dump: disable /none/ca.pem" in failed.stderr
