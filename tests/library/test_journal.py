"""``InboundJournal`` and ``InboundDLQ``: the promises of their document, on files of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from botsrt import BotSessionManager, InboundDLQ, InboundJournal
from botsrt.api import loop
from botsrt.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound, UnreadableUpdate
from botsrt.core.states import EntryState, Outcome
from botsrt.models import JournalEntry
from tests.acceptance.home import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal(file: Path) -> InboundJournal:
    return InboundJournal(path=file, claim_timeout=30)


def read(owner: InboundJournal | InboundDLQ, function: Callable[..., Any], **arguments: Any) -> Any:
    return loop.run(owner.database.call(function, **arguments))


def states(journal: InboundJournal) -> list[str]:
    found: list[str] = read(journal, lambda: list(JournalEntry.objects.order_by("id").values_list("state", flat=True)))
    return found


def test_a_message_is_new_once(journal: InboundJournal) -> None:
    key = journal.receive("telegram", "shop", "c1", "1", {"text": "hello"})
    assert key is not None
    assert key.startswith("telegram:shop:c1:1:")
    assert journal.receive("telegram", "shop", "c1", "1", {"text": "hello"}) is None
    assert journal.receive("telegram", "other", "c1", "1") is not None
    assert journal.receive("telegram", "shop", "c2", "1") is not None
    assert journal.receive("slack", "shop", "c1", "1") is not None
    assert read(journal, lambda: JournalEntry.objects.order_by("id")[0].duplicates) == 1


def test_it_is_in_no_other_database(journal: InboundJournal, tmp_path: Path) -> None:
    journal.receive("telegram", "shop", "c1", "1")
    assert not JournalEntry.objects.exists()
    other = InboundJournal(path=str(tmp_path / "other.sqlite"))
    assert other.receive("telegram", "shop", "c1", "1") is not None


def test_a_claimed_entry_is_completed(journal: InboundJournal) -> None:
    key = journal.receive("telegram", "shop", "c1", "1")
    assert key
    with journal.claim(key):
        assert states(journal) == [EntryState.CLAIMED]
        with pytest.raises(Conflict), journal.claim(key):
            pass
        assert journal.complete(key)
    assert states(journal) == [EntryState.COMPLETED]
    assert not journal.complete(key)
    with pytest.raises(Conflict), journal.claim(key):
        pass


def test_an_entry_that_is_not_completed_waits_again(journal: InboundJournal) -> None:
    key = journal.receive("telegram", "shop", "c1", "1")
    assert key
    with pytest.raises(ZeroDivisionError), journal.claim(key):
        raise ZeroDivisionError
    assert states(journal) == [EntryState.PENDING]
    with journal.claim(key):
        pass


async def test_messages_of_one_conversation_can_be_claimed_together(journal: InboundJournal) -> None:
    one, two = (journal.receive("telegram", "shop", "c1", str(number)) for number in (1, 2))
    assert one
    assert two
    async with journal.aclaim(one), journal.aclaim(two):
        journal.complete(two)
    assert states(journal) == [EntryState.PENDING, EntryState.COMPLETED]


def test_only_stale_claims_are_replayed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    dying = f"""
import os
from botsrt import InboundJournal
journal = InboundJournal(path={str(path)!r}, claim_timeout=1)
keys = [journal.receive("telegram", "shop", "c1", str(number)) for number in range(3)]
held = journal.claim(keys[0])
held.__enter__()
journal.complete(keys[1])
os._exit(9)
"""
    home = {"PRAISON_HOME": str(tmp_path / "praison"), "PYTHONPATH": str(ROOT)}
    env = {name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL")}
    assert subprocess.run([sys.executable, "-c", dying], env={**env, **home}, timeout=90).returncode == 9
    journal = InboundJournal(path=path, claim_timeout=1)
    deadline = time.monotonic() + 20
    while not (replayed := journal.replay()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert replayed == 1
    assert journal.replay() == 0
    assert states(journal) == [EntryState.PENDING, EntryState.COMPLETED, EntryState.PENDING]


def test_a_live_claim_is_not_replayed(journal: InboundJournal) -> None:
    key = journal.receive("telegram", "shop", "c1", "1")
    assert key
    with journal.claim(key):
        assert journal.replay() == 0


def test_completed_entries_beyond_the_size_go_and_others_stay(tmp_path: Path) -> None:
    journal = InboundJournal(path=tmp_path / "small.sqlite", max_size=5)
    waiting = [journal.receive("telegram", "shop", "waiting", str(number)) for number in range(4)]
    for number in range(20):
        key = journal.receive("telegram", "shop", "done", str(number))
        assert key
        journal.complete(key)
    assert states(journal).count(EntryState.PENDING) == 4
    assert len(states(journal)) <= 6
    assert all(key and journal.complete(key) for key in waiting)


def test_completed_entries_go_when_they_are_old(tmp_path: Path) -> None:
    journal = InboundJournal(path=tmp_path / "short.sqlite", max_size=1_00, ttl_seconds=0.01)
    first = journal.receive("telegram", "shop", "c", "1")
    assert first
    journal.complete(first)
    time.sleep(0.05)
    journal.receive("telegram", "shop", "c", "2")
    with pytest.raises(NotFound), journal.claim(first):
        pass


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"path": ""}, "not the path of a file"),
        ({"path": ":memory:"}, "not the path of a file"),
        ({"path": "/"}, "is a folder"),
        ({"path": "mysql://host/name"}, "only SQLite and PostgreSQL"),
    ],
)
def test_a_place_that_is_none_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        InboundJournal(**options)


def test_numbers_and_keys_that_are_none_are_refused(journal: InboundJournal, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="claim_timeout"):
        InboundJournal(path=tmp_path / "j.sqlite", claim_timeout=0)
    with pytest.raises(InvalidInput, match="key"):
        journal.complete("telegram:shop")
    with pytest.raises(UnreadableUpdate):
        journal.receive("telegram", "shop", "c1", "")


def test_a_file_that_is_no_database_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are long enough to be no empty file\n" * 50)
    with pytest.raises(ConfigurationError, match=r"notes\.txt cannot be used"):
        InboundJournal(path=path).receive("telegram", "shop", "c1", "1")
    assert path.read_text().startswith("my notes")


def test_a_password_is_not_shown() -> None:
    url = "postgresql://shop:tall-secret@127.0.0.1:1/nothing"
    journal, dlq = InboundJournal(path=url), InboundDLQ(path=url)
    with pytest.raises(ConfigurationError, match="cannot be used") as caught:
        journal.receive("telegram", "shop", "c1", "1")
    for shown in (repr(journal), repr(dlq), str(caught.value)):
        assert "127.0.0.1" in shown
        assert "tall-secret" not in shown


def test_threads_share_a_journal(journal: InboundJournal) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda number: journal.receive("web", "a", "c", str(number % 50)), range(200)))
    assert len([key for key in keys if key]) == 50


# -- the dead letter queue ----


def test_a_failed_message_is_listed_once_newest_first(tmp_path: Path) -> None:
    dlq = InboundDLQ(path=tmp_path / "dlq.sqlite")
    first = dlq.enqueue(platform="telegram", user_id="1", prompt="one", error="boom", chat_id="c", user_name="Ann")
    again = {"platform": "telegram", "user_id": "2", "prompt": "two", "account": "shop", "message_id": "9"}
    second = dlq.enqueue(**again, error="bang")
    assert dlq.enqueue(**again, error="bang again") == second
    listed = dlq.list()
    assert [entry.id for entry in listed] == [second, first]
    assert (listed[0].error, listed[0].attempts) == ("Failed: bang again", 2)
    assert (listed[1].chat_id, listed[1].user_name) == ("c", "Ann")
    assert [entry.id for entry in dlq.list(limit=1)] == [second]
    assert dlq.purge() == 2
    assert dlq.list() == ()


async def test_two_replays_at_once_try_each_item_once(tmp_path: Path) -> None:
    dlq = InboundDLQ(path=tmp_path / "dlq.sqlite")
    for number in range(10):
        dlq.enqueue(platform="web", user_id="1", prompt=str(number), error="boom")
    tried: list[str] = []

    async def handler(entry: Any) -> bool:
        tried.append(entry.prompt)
        await asyncio.sleep(0.01)
        return int(entry.prompt) % 2 == 0

    counts = await asyncio.gather(dlq.replay(handler), dlq.replay(handler))
    assert sum(done for done, _ in counts) == 5
    assert sorted(entry.prompt for entry in dlq.list()) == ["1", "3", "5", "7", "9"]
    assert [prompt for prompt in tried if int(prompt) % 2 == 0] == sorted(set(tried) - {"1", "3", "5", "7", "9"})


async def test_journal_and_queue_in_one_file_have_one_owner_for_a_message(tmp_path: Path) -> None:
    path = tmp_path / "both.sqlite"
    journal, dlq = InboundJournal(path=path), InboundDLQ(path=path)
    session = BotSessionManager(platform="slack", ingress_journal=journal, dlq=dlq)

    def broken(request: Any) -> str:
        raise LookupError("nothing found")

    with pytest.raises(Exception, match="nothing found"):
        await session.chat(broken, "U1", "hello", message_id="1", account="desk")
    assert states(journal) == [EntryState.DEAD]
    (entry,) = dlq.list()
    assert (entry.prompt, entry.account, entry.attempts) == ("hello", "desk", 1)


async def test_journal_and_queue_in_two_files_have_one_owner_for_a_message(tmp_path: Path) -> None:
    journal, dlq = InboundJournal(path=tmp_path / "j.sqlite"), InboundDLQ(path=tmp_path / "d.sqlite")
    session = BotSessionManager(platform="slack", ingress_journal=journal, dlq=dlq)

    def broken(request: Any) -> str:
        raise LookupError("nothing found")

    with pytest.raises(Exception, match="nothing found"):
        await session.chat(broken, "U1", "hello", message_id="1", account="desk")
    outcomes = read(journal, lambda: list(JournalEntry.objects.values_list("state", "outcome")))
    assert outcomes == [(EntryState.DISCARDED, Outcome.DISCARDED)]
    assert [entry.prompt for entry in dlq.list()] == ["hello"]
