"""Migrations under an older version: its processes go on beside the new tables while an installation is brought up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.migrations import AddField, CreateModel
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED

from botsrt.models import Worker
from botsrt.services import sql
from tests.factories import NOW

#: The last migration of the version that may run beside this one.
_OLDER = "0011"


def _operations() -> Iterator[Any]:
    migrations = MigrationLoader(None).disk_migrations or {}
    for (app, name), migration in sorted(migrations.items()):
        if app == "botsrt" and name[:4] > _OLDER:
            yield from migration.operations


def test_what_an_older_version_does_not_write_has_a_default_in_the_database() -> None:
    own = {operation.name.lower() for operation in _operations() if isinstance(operation, CreateModel)}
    added = [operation for operation in _operations() if isinstance(operation, AddField)]
    assert added
    refused = [
        f"{operation.model_name}.{operation.name}"
        for operation in added
        if operation.model_name.lower() not in own
        and not operation.field.null
        and operation.field.db_default is NOT_PROVIDED
    ]
    assert refused == []


@pytest.mark.django_db
def test_a_worker_of_an_older_version_can_say_that_it_is_there() -> None:
    values = {
        "id": "w1",
        "host": "h",
        "pid": 1,
        "version": "0",
        "accounts": "[]",
        "running_turns": 0,
        "started_at": sql.written(NOW),
        "last_beat_at": sql.written(NOW),
        "lease_seconds": 30.0,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO botsrt_worker ({', '.join(values)}) VALUES ({sql.marks(list(values))})", [*values.values()]
        )
    worker = Worker.objects.get()
    assert (worker.is_draining, worker.loop_gap_seconds, worker.only) == (False, 0, None)


@pytest.mark.django_db
def test_many_rows_at_once_get_these_defaults_as_well() -> None:
    row = {"id": "w1", "host": "h", "pid": 1, "version": "0", "accounts": [], "started_at": NOW, "last_beat_at": NOW}
    sql.insert(Worker, [row | {"lease_seconds": 30.0}])
    worker = Worker.objects.get()
    assert (worker.is_draining, worker.loop_gap_seconds) == (False, 0)
