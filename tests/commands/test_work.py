"""``journal``, ``dlq``, ``outbox``, ``sessions``, ``ledger`` and ``doctor``."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from botsrt.core.errors import UnreadableUpdate
from botsrt.models import DLQItem, JournalEntry, OutboxMessage
from botsrt.services import journal
from tests.factories import NOW, a_bot, a_message, answered, claim_one, finish, parked, received

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


# -- journal ----


def test_entries_are_listed_newest_first_by_page(manage) -> None:
    ids = [received(f"message {number}").pk for number in range(3)]
    rows = manage("journal", "list", "--json", "--limit", "2").json
    assert [row["id"] for row in rows] == [ids[2], ids[1]]
    rows = manage("journal", "list", "--json", "--before", str(ids[1])).json
    assert [row["id"] for row in rows] == [ids[0]]
    assert manage("journal", "list", "--state", "dead", "--json").json == []
    assert manage("journal", "list", "--account", "other", "--json").json == []


def test_the_table_is_readable_and_harmless(manage) -> None:
    received("line one\nline two \x1b[31m\u202ered")
    out = manage("journal", "list").out
    assert "line one line two [31m red" in out
    assert len(out.splitlines()) == 2


def test_an_entry_is_shown_with_its_reply(manage) -> None:
    entry = answered("hello", "Hi there")
    shown = manage("journal", "show", str(entry.pk), "--json").json
    assert shown["message"]["text"] == "hello"
    assert shown["reply"][0]["text"] == "Hi there"
    assert shown["outcome"] == "answered"


def test_an_unknown_entry_is_an_error(manage) -> None:
    ran = manage("journal", "show", "12345")
    assert (ran.code, ran.err.strip()) == (1, "CommandError: There is no journal entry 12345.")


def test_replaying_makes_entries_pending_and_says_which_could_not(manage) -> None:
    entry = answered("hello")
    ran = manage("journal", "replay", str(entry.pk), "99999", "--reason", "asked for it")
    assert ran.code == 1
    assert "99999: There is no journal entry" in ran.err
    row = JournalEntry.objects.get(pk=entry.pk)
    assert (row.state, row.run_mode, row.request_reason) == ("pending", "send", "asked for it")


def test_replaying_twice_says_that_it_runs_already(manage) -> None:
    entry = answered("hello")
    manage("journal", "replay", str(entry.pk))
    ran = manage("journal", "replay", str(entry.pk))
    assert ran.code == 1
    assert "pending already" in ran.err


def test_a_reply_can_be_held_or_sent_again(manage) -> None:
    entry = answered("hello", "Hi")
    assert manage("journal", "replay", str(entry.pk), "--mode", "again").code == 0
    assert OutboxMessage.objects.filter(text="Hi", is_resend=True).count() == 1
    assert manage("journal", "replay", str(entry.pk), "--mode", "hold").code == 0
    assert JournalEntry.objects.get(pk=entry.pk).run_mode == "hold"


def test_a_dry_run_shows_the_answer_and_stores_nothing(manage) -> None:
    entry = answered("hello", "an earlier answer")
    before = (JournalEntry.objects.values_list("state", "turn").get(), OutboxMessage.objects.count())
    ran = manage("journal", "replay", str(entry.pk), "--mode", "dry-run")
    assert (ran.code, ran.out.strip()) == (0, f"{entry.pk}: hello")
    assert (JournalEntry.objects.values_list("state", "turn").get(), OutboxMessage.objects.count()) == before


def test_a_dry_run_can_print_json_of_those_that_ran(manage) -> None:
    entry = answered("hello")
    ran = manage("journal", "replay", str(entry.pk), "99999", "--mode", "dry-run", "--json")
    assert ran.code == 1
    assert ran.json == [{"id": entry.pk, "text": "hello", "usage": {}, "metadata": {}}]
    assert "99999: There is no journal entry" in ran.err
    assert manage("journal", "replay", str(entry.pk), "--json").code == 1


def test_an_entry_of_a_burst_shows_the_reply_of_its_turn(manage) -> None:
    first, second = received("one"), received("two")
    finish(claim_one(), "to both")
    for entry in (first, second):
        assert [part["text"] for part in manage("journal", "show", str(entry.pk), "--json").json["reply"]] == [
            "to both"
        ]


def test_stats_count_every_state(manage) -> None:
    parked("two")
    received("one")
    stats = manage("journal", "stats", "--json").json
    states = {"pending": 1, "claimed": 0, "completed": 0, "held": 0, "dead": 1, "discarded": 0}
    assert states.items() <= stats.items()
    assert (stats["entries"], stats["max_size"], stats["duplicates"]) == (2, 50_000, 0)
    assert stats["oldest_waiting_since"] == NOW.isoformat()


# -- dlq ----


def test_items_are_shown_retried_and_discarded(manage) -> None:
    first, second = parked("one"), parked("two")
    assert {row["id"] for row in manage("dlq", "list", "--json").json} == {first.pk, second.pk}
    assert manage("dlq", "show", str(first.pk), "--json").json["message"]["text"] == "one"
    assert manage("dlq", "retry", str(first.pk)).code == 0
    assert manage("dlq", "discard", str(second.pk), "--reason", "spam").code == 0
    assert list(DLQItem.objects.order_by("id").values_list("state", flat=True)) == ["retrying", "discarded"]
    assert manage("dlq", "undo", str(second.pk)).code == 0
    assert DLQItem.objects.get(pk=second.pk).state == "open"


def test_retry_all_follows_the_filter(manage) -> None:
    one = parked("one", text="first way to fail")
    two = parked("two", text="second way to fail")
    assert one.fingerprint != two.fingerprint
    assert "Retrying 1 items" in manage("dlq", "retry", "--all", "--fingerprint", one.fingerprint).out
    assert DLQItem.objects.get(pk=two.pk).state == "open"


def test_retry_all_leaves_what_could_not_be_read(manage) -> None:
    journal.receive_unreadable(
        platform="web",
        account="shop",
        event_id="e1",
        raw={"odd": 1},
        error=UnreadableUpdate("no id"),
        now=NOW,
        max_raw_bytes=1_000,
    )
    parked("one")
    ran = manage("dlq", "retry", "--all")
    assert ran.code == 0
    assert "Retrying 1 items. 1 could not be read when they came" in ran.out
    assert sorted(DLQItem.objects.values_list("state", flat=True)) == ["open", "retrying"]


def test_retry_all_of_one_bot_leaves_the_others(manage) -> None:
    a_bot("other")
    parked("one")
    mine = parked(a_message("two", account="other"))
    assert manage("dlq", "retry", "--all", "--account", "other").code == 0
    assert list(DLQItem.objects.filter(state="retrying")) == [mine]
    assert [row["account"] for row in manage("dlq", "list", "--json").json] == ["shop"]
    assert manage("dlq", "list", "--account", "other", "--json").json == []


def test_discarding_without_words_is_refused(manage) -> None:
    item = parked("one")
    ran = manage("dlq", "discard", str(item.pk), "--reason", "  ")
    assert ran.code == 1
    assert "say why" in ran.err
    assert DLQItem.objects.get().state == "open"


def test_an_edited_retry_keeps_the_original(manage) -> None:
    item = parked("helo")
    assert manage("dlq", "retry", str(item.pk), "--text", "hello").code == 0
    entry = JournalEntry.objects.get()
    assert (entry.edited_text, entry.payload["text"]) == ("hello", "helo")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["retry"], 1),
        (["retry", "1", "--all"], 1),
        (["retry", "1", "--fingerprint", "x"], 1),
        (["retry", "1", "2", "--text", "x"], 1),
        (["retry", "one"], 2),
        (["discard", "1"], 2),
        (["show", "77777"], 1),
        (["retry", "77777"], 1),
    ],
)
def test_nonsense_is_refused(manage, args: list[str], code: int) -> None:
    ran = manage("dlq", *args)
    assert ran.code == code
    assert "Traceback" not in ran.err


# -- outbox ----


def test_an_unknown_message_is_decided(manage) -> None:
    answered("hello", "Hi")
    OutboxMessage.objects.update(state="unknown")
    (row,) = manage("outbox", "list", "--state", "unknown", "--json").json
    assert manage("outbox", "resolve", str(row["id"]), "--as", "arrived").code == 0
    assert OutboxMessage.objects.get().state == "sent"
    ran = manage("outbox", "resolve", str(row["id"]), "--as", "again")
    assert ran.code == 1
    assert "sent already" in ran.err
    assert manage("outbox", "resolve", str(row["id"]), "--as", "maybe").code == 2


# -- sessions ----


def test_a_session_is_shown_with_its_messages(manage) -> None:
    answered("hello", "Hi")
    (row,) = manage("sessions", "list", "--json").json
    assert row["session"] == "bot_web_user-1"
    shown = manage("sessions", "show", "bot_web_user-1", "--json").json
    assert [(message["role"], message["text"]) for message in shown["messages"]] == [
        ("user", "hello"),
        ("assistant", "Hi"),
    ]
    assert "Hi" in manage("sessions", "show", "bot_web_user-1").out
    assert manage("sessions", "show", "bot_web_nobody").code == 1


def test_sessions_are_paged_by_activity(manage) -> None:
    for number in range(3):
        answered(a_message(user_id=f"u{number}"), now=NOW + timedelta(minutes=number))
    rows = manage("sessions", "list", "--json", "--limit", "2").json
    assert [row["session"] for row in rows] == ["bot_web_u2", "bot_web_u1"]
    rows = manage("sessions", "list", "--json", "--before", "bot_web_u1").json
    assert [row["session"] for row in rows] == ["bot_web_u0"]
    assert manage("sessions", "list", "--account", "other", "--json").json == []
    assert manage("sessions", "list", "--before", "bot_web_nobody").code == 1


# -- ledger, doctor ----


def test_the_ledger_balances(manage) -> None:
    answered("hello")
    parked("two")
    ran = manage("ledger", "--json")
    assert ran.code == 0
    assert ran.json["received"] == 2
    assert ran.json["ends"] == {"answered": 1, "silent": 0, "held": 0, "dead": 1, "discarded": 0}


def test_a_leak_is_named_and_exits_with_1(manage) -> None:
    entry = answered("hello")
    OutboxMessage.objects.all().delete()
    ran = manage("ledger")
    assert ran.code == 1
    assert f"LEAK 1 answered entries without a reply: {entry.pk}" in ran.out


def test_the_ledger_looks_back_as_far_as_told(manage) -> None:
    answered("hello", now=timezone.now())
    assert manage("ledger", "--since", "1h", "--json").json["received"] == 1
    assert manage("ledger", "--since", "2100-01-01", "--json").json["received"] == 0
    ran = manage("ledger", "--since", "yesterday")
    assert ran.code == 1
    assert "neither a span" in ran.err


def test_doctor_says_what_to_do(manage) -> None:
    findings = {finding["subject"]: finding for finding in manage("doctor", "--json").json}
    assert findings["database"]["level"] == "ok"
    assert findings["workers"]["level"] == "warn"
    assert "runbots" in findings["workers"]["advice"]


def test_doctor_finds_a_missing_variable(manage) -> None:
    a_bot("other", credentials={"token": "env:NOT_SET_ANYWHERE"})
    ran = manage("doctor")
    assert ran.code == 1
    assert "NOT_SET_ANYWHERE is not set; export it" in ran.out
