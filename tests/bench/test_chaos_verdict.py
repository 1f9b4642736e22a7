"""The books of the chaos harness: clean ones pass, and each kind of wrong is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from bench.chaos.people import Chat, Post, Said
from bench.chaos.verdict import Books
from botsrt.models import HistoryMessage, JournalEntry, Turn
from tests.factories import a_bot, a_message, claim_one, finish, later, received, send_all

pytestmark = pytest.mark.django_db(transaction=True)

TOKENS = [f"p1.shop.{number}" for number in range(3)]


class Database:
    """The test's own database, as the harness reads it."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """Three messages, each answered once, in order."""
    record, posts = [], []
    for number, token in enumerate(TOKENS):
        received(a_message(f"{token} plain"), now=later(seconds=number))
        turn = claim_one(now=later(seconds=number))
        assert finish(turn, f"re {token} plain", now=later(seconds=number))
        posts += [Post("shop", "chat-1", text, is_labelled=False) for text in send_all(now=later(seconds=number))]
        record += [f"{number}1\tbegin\tlane\t{turn.id}\t", f"{number}2\tend\tlane\t{turn.id}\t"]
    path = tmp_path / "record"
    path.write_text("\n".join(record) + "\n")
    chat = Chat(
        person="p1",
        account="shop",
        platform="web",
        user_id="user-1",
        channel="chat-1",
        said=[Said(token, "plain", 0.0) for token in TOKENS],
        send=lambda text: lambda: True,
    )
    fleet: Any = SimpleNamespace(slots={}, members={}, running_workers=list)
    return Books(Database(), [chat], posts, {}, [], 8.0, path, fleet)  # type: ignore[arg-type]


def what(books: Books) -> list[str]:
    return [violation.what for violation in books.violations()]


def test_clean_books_pass(books: Books) -> None:
    assert what(books) == []
    assert books.summary["answered"] == len(TOKENS)


def test_an_answer_that_never_came(books: Books) -> None:
    del books.posts[1]
    assert what(books) == ["never answered"]


def test_a_second_answer_needs_a_label(books: Books) -> None:
    last = books.posts[-1]
    books.posts.append(Post(last.account, last.channel, last.text, is_labelled=True))
    assert what(books) == []
    books.entries.clear()
    books.posts.append(last)
    assert what(books) == ["answered 2 times without a label, replayed 0 times"]


def test_an_answer_in_somebody_elses_chat(books: Books) -> None:
    books.posts.append(Post("shop", "chat-1", "re p2.shop.0 plain", is_labelled=False))
    assert what(books) == ["somebody else's answer"]


def test_words_that_nobody_said(books: Books) -> None:
    books.posts.append(Post("shop", "chat-1", "Task completed", is_labelled=False))
    assert what(books) == ["something that nobody said"]


def test_answers_out_of_order(books: Books) -> None:
    books.posts.reverse()
    assert what(books) == ["out of order"] * 2


def test_a_message_that_is_not_stored(books: Books) -> None:
    books.chats[0].said.append(Said("p1.shop.3", "plain", 0.0))
    assert what(books) == ["stored 0 times"]


def test_a_history_with_a_hole(books: Books) -> None:
    HistoryMessage.objects.filter(text=f"re {TOKENS[1]} plain").delete()
    assert what(books) == ["its answer is 0 times in the history, replayed 0 times"]


def test_words_of_a_turn_that_was_given_up(books: Books) -> None:
    turn_id = JournalEntry.objects.latest("id").turn_id
    assert turn_id is not None
    Turn.objects.filter(pk=turn_id).update(state="cancelled")
    assert set(what(books)) == {"the history has words of a turn that is cancelled"}


def test_a_lane_that_ran_twice_at_once(books: Books) -> None:
    lines = books.record.read_text().splitlines()
    lines[1], lines[3] = lines[1].replace("02\t", "12\t"), lines[3]
    books.record.write_text("\n".join(lines))
    assert what(books) == ["a lane ran twice at once"]


def test_a_turn_that_was_taken_from_a_healthy_worker(books: Books) -> None:
    received(a_message("p1.shop.3 slow"), now=later(seconds=5))
    claim_one(now=later(seconds=5))
    Turn.objects.filter(state="running").update(state="abandoned", finished_at=later(seconds=14))
    assert "a turn was taken from a healthy worker" in what(books)


def test_what_is_left_at_the_end(books: Books) -> None:
    received(a_message("p1.shop.3 plain"), now=later(seconds=5))
    claim_one(now=later(seconds=5))
    assert {"1 turns run at the end", "1 entries wait at the end"} <= set(what(books))


def test_a_run_of_a_turn_that_was_given_up_is_none(books: Books) -> None:
    lines = books.record.read_text().splitlines()
    stale = received(a_message("p1.shop.3 plain"), now=later(seconds=5))
    turn = claim_one(now=later(seconds=5))
    Turn.objects.filter(pk=turn.id).update(state="cancelled", finished_at=later(seconds=6))
    JournalEntry.objects.filter(pk=stale.pk).delete()
    lines.insert(1, f"01\tbegin\tlane\t{turn.id}\t")
    books.record.write_text("\n".join(lines))
    assert "a lane ran twice at once" not in what(books)
