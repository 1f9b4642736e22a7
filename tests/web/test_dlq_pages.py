"""Dead letters: groups, items, and every act on them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from botsrt.core.errors import UnreadableUpdate
from botsrt.core.states import DLQState, EntryState, Trigger
from botsrt.models import AuditEvent, Bot, DLQItem, JournalEntry
from botsrt.services import dlq as service
from botsrt.services import journal
from tests.factories import BOB, NOW, a_bot, a_message, answered, claim_one, entry, fail, later, parked
from tests.web.acting import HARMLESS, HOSTILE, HTMX, badges, do, problem, read, rows, said, title

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _shop(bot: Bot) -> None:
    pass


def parked_for(*people: str, text: str = "order 17 is missing", **failure: Any) -> list[DLQItem]:
    return [parked(a_message("Hello", user_id=person), text=text, **failure) for person in people]


def state(item: DLQItem) -> str:
    item.refresh_from_db()
    return item.state


# -- groups ----


def test_without_failures_it_is_calm(staff_client: Client) -> None:
    assert "Nothing waits here." in read(staff_client, "/dlq/")
    assert "Nothing matches." in read(staff_client, "/dlq/?q=bot:other")


def test_like_failures_are_one_group_with_its_people(staff_client: Client) -> None:
    one, two, three = parked_for("u1", "u2", "u2")
    (other,) = parked_for("u3", text="no such model")
    html = read(staff_client, "/dlq/")
    assert rows(html) == [other.fingerprint, one.fingerprint], "The one that failed last comes first."
    assert one.fingerprint == two.fingerprint == three.fingerprint
    assert "<strong>3</strong>" in html
    assert "2 people wait" in html
    assert "AgentError: no such model" in html


def test_groups_can_be_filtered(staff_client: Client) -> None:
    a_bot("second")
    (mine,) = parked_for("u1")
    other = parked(a_message(account="second", user_id="u2"), is_timeout=True, text="too slow")
    service.annotate_group(fingerprint=mine.fingerprint, actor=BOB, assignee="bob", now=NOW)

    def found(query: str) -> list[str]:
        return rows(read(staff_client, f"/dlq/?q={query}"))

    assert found("bot:second") == found("reason:timed_out") == found("slow") == [other.fingerprint]
    assert found("is:unassigned") == [other.fingerprint]
    assert found("assignee:bob") == [mine.fingerprint]
    assert found("state:resolved") == []
    assert problem(read(staff_client, "/dlq/?q=reason:bad")).startswith("reason: 'bad' is not one of")


def test_pages_of_groups_go_on(staff_client: Client, monkeypatch: Any) -> None:
    for number in range(52):
        parked(a_message(user_id=f"u{number}"), error_class=f"Error{chr(65 + number % 26)}{chr(65 + number // 26)}")
    first = read(staff_client, "/dlq/")
    assert len(rows(first)) == 50
    further = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    assert len(rows(read(staff_client, f"/dlq/{further}"))) == 2


def test_the_pages_cost_the_same_however_much_there_is(
    staff_client: Client, django_assert_max_num_queries: Any
) -> None:
    items = parked_for(*(f"u{number}" for number in range(15)))
    with django_assert_max_num_queries(5):
        read(staff_client, "/dlq/")
    with django_assert_max_num_queries(6):
        read(staff_client, f"/dlq/groups/{items[0].fingerprint}/")
    with django_assert_max_num_queries(9):
        read(staff_client, f"/dlq/{items[0].pk}/")


def test_hostile_text_is_shown_as_what_it_is(staff_client: Client) -> None:
    item = parked(a_message(HOSTILE, display_name=HOSTILE), text=HOSTILE, error_class=HOSTILE, traceback=HOSTILE)
    service.annotate(item_id=item.pk, actor=BOB, note=HOSTILE, assignee=HOSTILE, now=NOW)
    for path in ("/dlq/", f"/dlq/groups/{item.fingerprint}/", f"/dlq/{item.pk}/"):
        html = read(staff_client, path)
        assert "<script>alert" not in html
        assert "\u202e" not in html
    assert HARMLESS in read(staff_client, f"/dlq/{item.pk}/")


# -- one item ----


def test_an_item_shows_message_error_attempts_and_history(staff_client: Client) -> None:
    answered(a_message("Before", user_id="u1"), "An earlier answer")
    item = parked(a_message("Where is it?", user_id="u1"), now=later(minutes=1), traceback="File agent.py, line 3")
    answered(a_message("After", user_id="u1"), "A later answer", now=later(minutes=2))
    html = read(staff_client, f"/dlq/{item.pk}/")
    for words in ("Where is it?", "File agent.py, line 3", "The agent broke.", "Attempt 1", "An earlier answer"):
        assert words in html
    assert "A later answer" not in html, "The agent did not have it when it failed."
    assert badges(html)[0] == "open"


def test_what_is_gone_says_so(staff_client: Client) -> None:
    assert "There is no dead letter item 99" in read(staff_client, "/dlq/99/", status=404)
    assert "There is no dead letter item 99" in read(staff_client, "/dlq/99/note/", status=404)
    assert "There is no dead letter item 99" in read(staff_client, "/dlq/99/edit/", status=404)
    assert "There is no group" in read(staff_client, f"/dlq/groups/{'0' * 16}/", status=404)
    assert "There is no dead letter item 99 (any more)." in do(staff_client, "/dlq/99/retry/", status=404)


def test_an_unreadable_item_can_only_be_discarded(staff_client: Client) -> None:
    journal.receive_unreadable(
        platform="web", account="shop", event_id="e", raw={}, error=UnreadableUpdate("x"), now=NOW, max_raw_bytes=10
    )
    item = DLQItem.objects.get()
    html = read(staff_client, f"/dlq/{item.pk}/")
    assert "so it can only be discarded" in html
    assert f'href="/dlq/{item.pk}/retry/' not in html
    assert "can only be discarded" in problem(do(staff_client, f"/dlq/{item.pk}/retry/", status=400))
    do(staff_client, f"/dlq/{item.pk}/discard/", reason="junk")
    assert state(item) == DLQState.DISCARDED


# -- acts on one item ----


def test_a_retry_runs_the_entry_again(staff_client: Client) -> None:
    (item,) = parked_for("u1")
    assert title(read(staff_client, f"/dlq/{item.pk}/retry/")) == "Retry 1 message?"
    assert do(staff_client, f"/dlq/{item.pk}/retry/", reason="mended") == f"/dlq/{item.pk}/"
    assert state(item) == DLQState.RETRYING
    assert said(staff_client) == [f"Item {item.pk} runs again."]


def test_a_click_too_late_says_who_was_first(staff_client: Client) -> None:
    (item,) = parked_for("u1")
    service.retry(item_id=item.pk, actor=BOB, now=NOW)
    for act in ("retry", "discard"):
        html = do(staff_client, f"/dlq/{item.pk}/{act}/", reason="x", status=409)
        assert problem(html) == f"Item {item.pk} is retrying already, by bob."
    assert "It is retrying already, by bob." in read(staff_client, f"/dlq/{item.pk}/")


def test_an_edited_retry_starts_from_the_text_as_it_is(staff_client: Client) -> None:
    item = parked("Helo <b>")
    assert "Helo &lt;b&gt;</textarea>" in read(staff_client, f"/dlq/{item.pk}/edit/")
    do(staff_client, f"/dlq/{item.pk}/edit/", text="  Hello\n", reason="")
    assert entry(item.entry_id).edited_text == "  Hello\n"
    assert state(item) == DLQState.RETRYING


def test_a_discard_needs_a_reason_and_can_be_undone(staff_client: Client) -> None:
    (item,) = parked_for("u1")
    assert "This field is required." in do(staff_client, f"/dlq/{item.pk}/discard/", reason=" ", status=400)
    response = staff_client.post(f"/dlq/{item.pk}/discard/", {"reason": "spam"}, headers=HTMX)
    assert json.loads(response["HX-Trigger"])["pw:done"] == {
        "text": f"Item {item.pk} is discarded.",
        "undo": f"/dlq/{item.pk}/undo/",
    }
    html = read(staff_client, f"/dlq/{item.pk}/")
    assert "Undo the discard" in html
    assert "spam" in html
    do(staff_client, f"/dlq/{item.pk}/undo/")
    assert state(item) == DLQState.OPEN
    assert entry(item.entry_id).state == EntryState.DEAD
    assert "is open; only a discard" in problem(do(staff_client, f"/dlq/{item.pk}/undo/", status=409))


def test_note_assign_take_and_snooze(staff_client: Client) -> None:
    (item,) = parked_for("u1")
    do(staff_client, f"/dlq/{item.pk}/note/", note="asked the shop")
    do(staff_client, f"/dlq/{item.pk}/assign/", assignee="bob")
    assert 'value="alice"' in read(staff_client, f"/dlq/{item.pk}/assign/?me=1"), "Take: it is filled in."
    do(staff_client, f"/dlq/{item.pk}/snooze/", span="4 h")
    item.refresh_from_db()
    assert (item.note, item.assignee) == ("asked the shop", "bob")
    assert item.snoozed_until is not None
    assert timedelta(hours=3) < item.snoozed_until - timezone.now() <= timedelta(hours=4)
    assert rows(read(staff_client, "/dlq/")) == []
    assert rows(read(staff_client, "/dlq/?q=is:snoozed")) == [item.fingerprint]
    assert "failed for good" not in read(staff_client, "/")
    do(staff_client, f"/dlq/{item.pk}/snooze/", span="none")
    assert rows(read(staff_client, "/dlq/")) == [item.fingerprint]
    do(staff_client, f"/dlq/{item.pk}/assign/", assignee="")
    item.refresh_from_db()
    assert item.assignee == ""
    assert AuditEvent.objects.filter(verb="dlq.annotate").count() == 5


# -- acts on a group ----


def test_a_group_is_counted_before_it_is_retried_and_its_ids_are_fixed(staff_client: Client) -> None:
    one, two = parked_for("u1", "u2")
    path = f"/dlq/groups/{one.fingerprint}/retry/"
    html = read(staff_client, path)
    assert title(html) == "Retry 2 messages?"
    assert "2 people may get an answer now. 2 are older than 6 h" in html
    assert f'value="{one.pk},{two.pk}"' in html
    (late,) = parked_for("u3")
    do(staff_client, path, ids=f"{one.pk},{two.pk}", reason="mended", pace="all")
    assert [state(item) for item in (one, two, late)] == [DLQState.RETRYING, DLQState.RETRYING, DLQState.OPEN]
    assert said(staff_client) == ["2 messages queued to run again."]


def test_what_a_colleague_did_meanwhile_is_skipped_and_said(staff_client: Client) -> None:
    one, two = parked_for("u1", "u2")
    service.discard(item_id=two.pk, actor=BOB, reason="spam", now=NOW)
    do(staff_client, f"/dlq/groups/{one.fingerprint}/retry/", ids=f"{one.pk},{two.pk}", pace="all")
    (words,) = said(staff_client)
    assert words.startswith(f"1 message queued to run again. 1 was skipped: Item {two.pk} is discarded already, by bob")
    assert state(two) == DLQState.DISCARDED
    assert claim_one(now=timezone.now()).trigger == Trigger.RETRY


def test_a_group_is_discarded_with_a_reason(staff_client: Client) -> None:
    one, two = parked_for("u1", "u2")
    path = f"/dlq/groups/{one.fingerprint}/discard/"
    assert title(read(staff_client, path)) == "Discard 2 messages?"
    ids = f"{one.pk},{two.pk}"
    assert "This field is required." in do(staff_client, path, ids=ids, status=400)
    do(staff_client, path, ids=ids, reason="the shop is closed")
    assert set(JournalEntry.objects.values_list("state", flat=True)) == {EntryState.DISCARDED}
    html = read(staff_client, f"/dlq/groups/{one.fingerprint}/?state=discarded")
    assert rows(html) == [str(two.pk), str(one.pk)]
    assert "No message of this group is open any more." in html
    assert problem(read(staff_client, path)).startswith("Nothing here is open any more")


def test_selected_items_are_retried_or_discarded(staff_client: Client) -> None:
    one, two, three = parked_for("u1", "u2", "u3")
    assert title(read(staff_client, f"/dlq/retry/?id={one.pk}&id={two.pk}")) == "Retry 2 messages?"
    do(staff_client, "/dlq/retry/", ids=f"{one.pk}")
    do(staff_client, "/dlq/discard/", ids=f"{two.pk}", reason="spam")
    assert [state(item) for item in (one, two, three)] == [DLQState.RETRYING, DLQState.DISCARDED, DLQState.OPEN]
    assert "nothing is selected" in problem(read(staff_client, "/dlq/discard/"))


def test_a_group_has_a_note_and_somebody_who_looks_after_it(staff_client: Client) -> None:
    one, two = parked_for("u1", "u2")
    base = f"/dlq/groups/{one.fingerprint}"
    do(staff_client, f"{base}/note/", note="the order service is down")
    do(staff_client, f"{base}/assign/", assignee="alice")
    do(staff_client, f"{base}/snooze/", span="1 h")
    assert said(staff_client)[-1] == "2 messages: snoozed for 1 h."
    html = read(staff_client, "/dlq/?q=is:snoozed")
    assert "the order service is down" in html
    assert "alice</span>" in html
    assert {item.assignee for item in DLQItem.objects.all()} == {"alice"}
    for item in (one, two):
        service.retry(item_id=item.pk, actor=BOB, now=NOW)
    assert problem(read(staff_client, f"{base}/note/")) == "No item of this group is open any more."


def test_a_second_failure_comes_back_to_its_group(staff_client: Client) -> None:
    (item,) = parked_for("u1")
    do(staff_client, f"/dlq/{item.pk}/retry/")
    fail(claim_one(now=timezone.now()), text="order 18 is missing")
    assert state(item) == DLQState.OPEN
    assert rows(read(staff_client, "/dlq/")) == [item.fingerprint]
    assert "2 failed" in read(staff_client, f"/dlq/groups/{item.fingerprint}/")


def test_all_that_match_are_counted_and_never_more_than_is_shown(staff_client: Client) -> None:
    a_bot("second")
    one, two = parked_for("u1"), parked(a_message(account="second", user_id="u2"))
    listed = read(staff_client, "/dlq/?q=bot:second")
    link = listed.split(">Retry</a>")[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    html = read(staff_client, link)
    assert title(html) == "Retry 1 message?"
    assert f'value="{two.pk}"' in html
    assert "All that match" not in read(staff_client, "/dlq/?q=state:discarded")
    assert title(read(staff_client, "/dlq/discard/?all=state:discarded")) == "Discard 0 messages?"
    assert state(one[0]) == DLQState.OPEN
