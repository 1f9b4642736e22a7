"""The bridge: order, group commit, and one call's error staying its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from django.db import OperationalError, connection, transaction

from botsrt.core.errors import StorageUnavailable
from botsrt.models import Worker
from botsrt.runtime.db import Database
from tests.factories import NOW

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    bridge = Database(max_batch=64)
    yield bridge
    await bridge.close()


def add(name: str) -> str:
    Worker.objects.create(id=name, host="h", pid=1, version="1", started_at=NOW, last_beat_at=NOW, lease_seconds=1)
    return name


def names() -> list[str]:
    return sorted(Worker.objects.values_list("id", flat=True))


async def test_returns_what_the_service_returns(database: Database) -> None:
    assert await database.call(add, name="a") == "a"
    assert await database.call(names) == ["a"]


async def test_one_calls_error_rolls_back_that_call_alone(database: Database) -> None:
    def add_and_raise(name: str) -> None:
        add(name)
        raise LookupError("no")

    good, bad, also_good = await asyncio.gather(
        database.call(add, name="a"),
        database.call(add_and_raise, name="b"),
        database.call(add, name="c"),
        return_exceptions=True,
    )
    assert (good, also_good) == ("a", "c")
    assert isinstance(bad, LookupError)
    assert await database.call(names) == ["a", "c"]


async def test_a_broken_constraint_rolls_back_that_call_alone(database: Database) -> None:
    results = await asyncio.gather(*(database.call(add, name="same") for _ in range(3)), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, True]


async def test_calls_that_wait_share_one_commit(database: Database) -> None:
    commits: list[int] = []
    gate = threading.Event()

    def hold() -> None:
        gate.wait(5)

    def add_counted(name: str) -> None:
        add(name)
        transaction.on_commit(lambda: commits.append(names_at_commit()))

    def names_at_commit() -> int:
        return Worker.objects.count()

    first = asyncio.create_task(database.call(hold))
    await asyncio.sleep(0)
    rest = [asyncio.create_task(database.call(add_counted, name=f"w{number}")) for number in range(20)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *rest)
    assert commits == [20] * 20


async def test_calls_run_in_the_order_in_which_they_were_made(database: Database) -> None:
    seen: list[int] = []

    def note(number: int) -> None:
        seen.append(number)

    await asyncio.gather(*(database.call(note, number=number) for number in range(200)))
    assert seen == list(range(200))


async def test_results_come_only_after_the_commit(database: Database) -> None:
    await database.call(add, name="a")
    other = Database(max_batch=8)
    assert await other.call(names) == ["a"]
    await other.close()


async def test_a_failing_database_fails_one_call_and_spares_its_neighbours(database: Database) -> None:
    gate = threading.Event()

    def hold() -> None:
        gate.wait(5)

    def full(name: str) -> None:
        add(name)
        raise OperationalError("database or disk is full")

    first = asyncio.create_task(database.call(hold))
    await asyncio.sleep(0)
    calls = [database.call(add, name="a"), database.call(full, name="b"), database.call(add, name="c")]
    rest = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    gate.set()
    await first
    results = await asyncio.gather(*rest, return_exceptions=True)
    assert results[0] == "a"
    assert isinstance(results[1], StorageUnavailable)
    assert results[2] == "c"
    assert await database.call(names) == ["a", "c"]


async def test_a_lost_connection_is_replaced(database: Database) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection to lose; the suite on PostgreSQL runs this")

    def backend() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])

    pid = await database.call(backend)
    from asgiref.sync import sync_to_async

    def kill() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])

    await sync_to_async(kill)()
    results = await asyncio.gather(*(database.call(add, name=f"w{n}") for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, str | StorageUnavailable) for result in results)
    assert await database.call(add, name="later") == "later"


async def test_a_cancelled_caller_does_not_stop_the_others(database: Database) -> None:
    gate = threading.Event()

    def hold() -> None:
        gate.wait(5)

    impatient = asyncio.create_task(database.call(hold))
    patient = asyncio.create_task(database.call(add, name="a"))
    await asyncio.sleep(0)
    impatient.cancel()
    gate.set()
    assert await patient == "a"
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_closed_bridge_says_so(database: Database) -> None:
    await database.call(names)
    await database.close()
    with pytest.raises(StorageUnavailable, match="stopping"):
        await database.call(names)
