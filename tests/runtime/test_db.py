"""The bridge: order, group commit, and one call's error staying its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from botsrt.core.errors import StorageUnavailable
from botsrt.models import Turn, Worker
from botsrt.runtime.db import Database
from botsrt.services.batches import batched, only
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


made_together: list[int] = []


def _add_all(calls: Sequence[dict[str, str]]) -> list[str | Exception]:
    """``add_with_others`` for many; one name is refused, another breaks whatever it is made with."""
    made_together.append(len(calls))
    if any(call["name"] == "poison" for call in calls):
        raise LookupError("poison")
    return [ValueError("no") if call["name"] == "refused" else add(call["name"]) for call in calls]


@batched(dict, _add_all)
def add_with_others(*, name: str) -> str:
    return only(_add_all([{"name": name}]))


async def _held_then(database: Database, *calls: Awaitable[object]) -> list[object]:
    """What the calls return that waited while the database was busy."""
    gate = threading.Event()
    first = asyncio.create_task(database.call(gate.wait, timeout=5))
    await asyncio.sleep(0)
    rest = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    gate.set()
    await first
    return list(await rest)


async def test_waiting_calls_of_a_service_are_made_together(database: Database) -> None:
    made_together.clear()
    found = await _held_then(
        database,
        database.call(add_with_others, name="a"),
        database.call(add, name="b"),
        database.call(add_with_others, name="refused"),
        database.call(add_with_others, name="c"),
    )
    assert made_together == [3]
    assert [str(one) for one in found] == ["a", "b", "no", "c"]
    assert isinstance(found[2], ValueError)
    assert await database.call(names) == ["a", "b", "c"]


@pytest.mark.parametrize("beside", [(), ("other",)])
async def test_a_call_that_breaks_those_made_with_it_fails_alone(database: Database, beside: tuple[str, ...]) -> None:
    made_together.clear()
    found = await _held_then(
        database,
        *(database.call(add_with_others, name=name) for name in ("a", "poison", "b")),
        *(database.call(add, name=name) for name in beside),
    )
    assert made_together == [3, 1, 1, 1]
    assert found[0] == "a"
    assert isinstance(found[1], LookupError)
    assert found[2:] == ["b", *beside]
    assert await database.call(names) == ["a", "b", *beside]


def add_for_nobody(name: str) -> str:
    """A row whose foreign key leads nowhere: the database says so in the commit, not before."""
    turn = Turn(lane=name, session_id=987_654, generation=1, worker_id=name, started_at=NOW)
    turn.lease_expires_at = turn.deadline_at = NOW
    turn.save(force_insert=True)
    return name


@pytest.mark.parametrize("count", [1, 3])
async def test_what_the_commit_refuses_fails_alone(database: Database, count: int) -> None:
    found = await _held_then(
        database,
        *(database.call(add, name=f"good {number}") for number in range(count - 1)),
        database.call(add_for_nobody, name="bad"),
        *(database.call(add_with_others, name=f"also good {number}") for number in range(count - 1)),
    )
    assert [isinstance(one, IntegrityError) for one in found] == [False] * (count - 1) + [True] + [False] * (count - 1)
    assert len(await database.call(names)) == 2 * (count - 1)


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
