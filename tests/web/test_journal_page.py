"""The journal: the list, one entry, and running entries again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from botsrt.core.errors import UnreadableUpdate
from botsrt.core.states import EntryState, OutboxState, RunMode
from botsrt.models import AuditEvent, Bot, JournalEntry, OutboxMessage
from botsrt.services import journal as service
from praisonweb.dashboard import paging
from praisonweb.dashboard.access import ALL_BOTS
from praisonweb.dashboard.queries import journal
from tests.factories import (
    BOB,
    NOW,
    a_bot,
    a_failure,
    a_message,
    answered,
    claim_one,
    entry,
    fail,
    finish,
    later,
    parked,
    receive,
    received,
)
from tests.web.acting import HARMLESS, HOSTILE, HTMX, badges, do, problem, read, rows, said, title

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _shop(bot: Bot) -> None:
    pass


def unreadable() -> int:
    entry_id = service.receive_unreadable(
        platform="web",
        account="shop",
        event_id="e1",
        raw={"update": 1},
        error=UnreadableUpdate("no chat"),
        now=NOW,
        max_raw_bytes=1_000,
    )
    assert entry_id is not None
    return entry_id


# -- the list ----


def test_without_messages_it_says_so(staff_client: Client) -> None:
    html = read(staff_client, "/journal/")
    assert "No message has come yet." in html
    assert "Clear filters" not in html


def test_a_row_says_who_wrote_what_and_how_it_stands(staff_client: Client) -> None:
    message = a_message("Where is it?", user_id="u7", display_name="Ann Lee")
    row = received(message)
    receive(message)
    html = read(staff_client, "/journal/")
    assert rows(html) == [str(row.pk)]
    for words in ("Ann Lee", "Where is it?", "1 duplicate", ">pending</span>", "shop"):
        assert words in html


def test_the_newest_come_first_and_pages_go_on_by_id(staff_client: Client) -> None:
    ids = [received(f"m{number}").pk for number in range(paging.PAGE_SIZE + 3)]
    first = read(staff_client, "/journal/")
    assert rows(first) == [str(pk) for pk in ids[:2:-1]]
    assert f"before={ids[3]}" in first
    second = read(staff_client, f"/journal/?before={ids[3]}")
    assert rows(second) == [str(pk) for pk in ids[2::-1]]
    assert "Older" not in second
    assert "Newest" in second


@pytest.mark.parametrize("before", ["x", "-1", "1" * 19, "\u0661"])
def test_a_page_that_cannot_be_is_not_found(staff_client: Client, before: str) -> None:
    assert staff_client.get("/journal/", {"before": before}).status_code == 404


def test_filters_choose(staff_client: Client) -> None:
    a_bot("second", platform="telegram")
    dead = parked(a_message("broken", user_id="u3")).entry
    plain = received(a_message("plain", user_id="u1", user_name="ann", display_name="Ann"))
    other = received(a_message("other words", account="second", platform="telegram", user_id="u2"))

    def found(query: str) -> list[str]:
        return rows(read(staff_client, f"/journal/?q={query}"))

    assert found("bot:second") == [str(other.pk)]
    assert found("platform:telegram") == [str(other.pk)]
    assert found("state:dead") == [str(dead.pk)]
    assert found("state:dead+state:pending") == [str(other.pk), str(plain.pk), str(dead.pk)]
    assert found("from:@ANN") == found("from:u1") == found("from:Ann") == [str(plain.pk)]
    assert found("has:failures") == [str(dead.pk)]
    assert found("is:failing") == [str(dead.pk)]
    assert found("OTHER+words") == [str(other.pk)]
    assert found("kind:edit") == []
    assert found("after:1h") == []
    assert len(found("before:1h")) == 3
    assert found("bot:second+state:dead") == []


def test_nothing_matches_is_not_nothing_there(staff_client: Client) -> None:
    received()
    html = read(staff_client, "/journal/?q=state:held")
    assert "Nothing matches." in html
    assert "Clear filters" in html
    html = read(staff_client, "/journal/?q=state:helt")
    assert problem(html).startswith("state: 'helt' is not one of")
    assert rows(html) == []


def test_facets_count_what_their_choice_would_show(staff_client: Client) -> None:
    a_bot("second")
    parked(a_message(user_id="u3", account="second"))
    received(a_message(user_id="u1"))
    received(a_message(user_id="u2", account="second"))
    shown = journal.read(filters=journal_filters("state:dead"), before=None, scope=ALL_BOTS, now=NOW)
    counts = {facet.title: {choice.label: choice.count for choice in facet.choices} for facet in shown.facets}
    assert counts["State"] == {"pending": "2", "dead": "1"}, "A facet leaves its own filter out."
    assert counts["Bot"] == {"second": "1"}


def journal_filters(text: str) -> Any:
    from praisonweb.dashboard import filters

    return filters.parse(text, keys=journal.KEYS, now=NOW)


def test_saved_views_count_what_waits(staff_client: Client) -> None:
    now = timezone.now()
    received(a_message(user_id="u1"), now=now - timedelta(minutes=5))
    received(a_message(user_id="u2"), now=now)
    html = read(staff_client, "/journal/")
    assert 'Stuck <span class="count">1</span>' in html
    assert len(rows(read(staff_client, "/journal/?q=is:stuck"))) == 1
    assert 'href="?q=is%3Astuck" aria-current="page"' in read(staff_client, "/journal/?q=is:stuck")


def test_words_are_looked_for_in_a_bounded_number_of_rows(staff_client: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(paging, "SEARCHED", 3)
    oldest = received("needle")
    for number in range(4):
        received(f"hay {number}")
    html = read(staff_client, "/journal/?q=needle")
    assert rows(html) == []
    assert "Search further back" in html
    further = html.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    assert rows(read(staff_client, f"/journal/{further}")) == [str(oldest.pk)]


def test_the_list_costs_the_same_however_long(staff_client: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        received(a_message(user_id=f"u{number}"))
    with django_assert_max_num_queries(10):
        read(staff_client, "/journal/")
    with django_assert_max_num_queries(12):
        read(staff_client, "/journal/?q=from:u1+hello+state:pending")


def test_hostile_text_is_shown_as_what_it_is(staff_client: Client) -> None:
    row = received(a_message(HOSTILE, display_name=HOSTILE, user_id=HOSTILE, raw={"x": HOSTILE}))
    for path in ("/journal/", *(f"/journal/{row.pk}/?tab={tab}" for tab in journal.TABS)):
        html = read(staff_client, path)
        assert "<script>alert" not in html
        assert "\u202e" not in html
    assert HARMLESS in read(staff_client, f"/journal/{row.pk}/")
    assert HARMLESS in read(staff_client, f"/journal/{row.pk}/?tab=raw")
    assert HARMLESS in read(staff_client, f"/journal/?q={HOSTILE}")
    assert read(staff_client, "/journal/").count(HARMLESS) == 2, "The name and the words, their marks made visible."


def test_a_script_gets_the_list_alone(staff_client: Client) -> None:
    received()
    part = read(staff_client, "/journal/?q=state:pending", part=True)
    assert part.strip().startswith('<div class="part" id="list" data-refresh="/journal/?q=state:pending">')


# -- one entry ----


def test_an_entry_has_its_own_page_with_tabs(staff_client: Client, django_assert_max_num_queries: Any) -> None:
    row = answered(a_message("Hello", raw={"update_id": 7}), "Hi there")
    for tab, words in {
        "message": "bot_web_user-1",
        "raw": "&quot;update_id&quot;: 7",
        "reply": "Hi there",
        "attempts": "Attempt 1",
        "trace": "Received and stored",
    }.items():
        with django_assert_max_num_queries(8):
            html = read(staff_client, f"/journal/{row.pk}/?tab={tab}")
        assert words in html, tab
        assert "answered" in badges(html)
    assert read(staff_client, f"/journal/{row.pk}/?tab=nonsense") != ""


def test_the_drawer_gets_the_entry_alone(staff_client: Client) -> None:
    row = received()
    part = read(staff_client, f"/journal/{row.pk}/?tab=reply", part=True)
    assert part.strip().startswith('<article class="part detail" id="entry"')
    assert "Nothing was said to this message yet." in part


def test_an_entry_that_is_gone_says_so(staff_client: Client) -> None:
    assert "There is no journal entry 99" in read(staff_client, "/journal/99/", status=404)
    assert "There is no journal entry 99" in read(staff_client, "/journal/99/", status=404, part=True)


def test_earlier_attempts_are_shown_and_those_of_other_messages_are_not(staff_client: Client) -> None:
    row = received("first")
    fail(claim_one(), a_failure("down", is_transient=True))
    now = entry(row.pk).available_at
    received("second", now=later(seconds=1))
    finish(claim_one(now=later(seconds=1)), now=later(seconds=2))
    finish(claim_one(now=now), "at last", now=now)
    html = read(staff_client, f"/journal/{row.pk}/?tab=attempts")
    assert html.count("<strong>Attempt") == 2
    assert "AgentError: down" in html
    trace = read(staff_client, f"/journal/{row.pk}/?tab=trace")
    assert trace.index("Received and stored") < trace.index("Turn failed") < trace.index("Turn finished")


def test_an_edit_is_marked_and_the_original_stays(staff_client: Client) -> None:
    item = parked("Helo")
    do(staff_client, f"/dlq/{item.pk}/edit/", text="Hello", reason="")
    html = read(staff_client, f"/journal/{item.entry_id}/")
    assert "Staff edited the text" in html
    assert "Helo</p>" in html
    assert "Hello</p>" in html


# -- replay ----


def test_the_question_names_verb_count_and_consequence(staff_client: Client) -> None:
    row = answered()
    html = read(staff_client, f"/journal/{row.pk}/replay/", part=True)
    assert title(html) == "Replay 1 message?"
    assert "The person may get an answer now." in html
    assert 'value="send"' in html
    assert JournalEntry.objects.get().state == EntryState.COMPLETED, "Asking changes nothing."


@pytest.mark.parametrize("mode", [RunMode.SEND, RunMode.HOLD])
def test_a_replay_runs_it_again(staff_client: Client, mode: RunMode) -> None:
    row = answered()
    assert do(staff_client, f"/journal/{row.pk}/replay/", mode=mode, reason="asked again") == f"/journal/{row.pk}/"
    row.refresh_from_db()
    assert (row.state, row.run_mode, row.requested_by, row.request_reason) == (
        EntryState.PENDING,
        mode,
        "alice",
        "asked again",
    )
    event = AuditEvent.objects.get(verb="journal.replay")
    assert (event.actor, event.address, event.reason) == ("alice", "127.0.0.1", "asked again")
    assert f"Message {row.pk} runs again." in said(staff_client)[0]


def test_the_stored_reply_is_sent_again(staff_client: Client) -> None:
    row = answered(reply="Hi")
    do(staff_client, f"/journal/{row.pk}/replay/", mode="again")
    assert list(OutboxMessage.objects.values_list("text", "is_resend").order_by("id")) == [("Hi", False), ("Hi", True)]


def test_a_dry_run_shows_the_reply_and_stores_nothing(staff_client: Client) -> None:
    row = answered("Say this", reply="earlier")
    before = (OutboxMessage.objects.count(), AuditEvent.objects.count())
    html = do(staff_client, f"/journal/{row.pk}/replay/", mode="dry-run", status=200)
    assert "Say this</p>" in html
    assert "Nothing was stored or sent." in html
    assert (OutboxMessage.objects.count(), AuditEvent.objects.count()) == before
    assert JournalEntry.objects.get().state == EntryState.COMPLETED


def test_a_dry_run_that_cannot_be_says_why(staff_client: Client) -> None:
    html = do(staff_client, f"/journal/{unreadable()}/replay/", mode="dry-run", status=200)
    assert "there is nothing to run" in problem(html)


def test_a_click_too_late_says_who_was_first(staff_client: Client) -> None:
    row = answered()
    service.replay(entry_id=row.pk, mode=RunMode.SEND, actor=BOB, reason="", now=NOW)
    html = do(staff_client, f"/journal/{row.pk}/replay/", mode="send", status=409)
    assert problem(html) == f"Journal entry {row.pk} is pending already: requested by bob."
    assert AuditEvent.objects.filter(verb="journal.replay").count() == 1
    page = read(staff_client, f"/journal/{row.pk}/")
    assert "disabled" in page
    assert "It is pending: it runs, or is about to." in page


def test_with_script_an_act_answers_without_a_page(staff_client: Client) -> None:
    row = answered()
    response = staff_client.post(f"/journal/{row.pk}/replay/", {"mode": "send"}, headers=HTMX)
    assert response.status_code == 204
    assert "runs again" in response["HX-Trigger"]
    late = staff_client.post(f"/journal/{row.pk}/replay/", {"mode": "send"}, headers=HTMX)
    assert late.status_code == 409
    assert "<html" not in late.content.decode()


def test_a_mode_that_does_not_exist_is_refused(staff_client: Client) -> None:
    row = answered()
    assert "Select a valid choice" in do(staff_client, f"/journal/{row.pk}/replay/", mode="burn", status=400)


def test_selected_entries_are_replayed_and_what_is_skipped_is_said(staff_client: Client) -> None:
    one, two = answered(a_message(user_id="u1")), answered(a_message(user_id="u2"))
    waiting = received(a_message(user_id="u3"))
    html = read(staff_client, f"/journal/replay/?id={one.pk}&id={two.pk}&id={waiting.pk}&id=x")
    assert title(html) == "Replay 3 messages?"
    assert "3 people may get an answer now. 3 are older than 6 h: replies to those are held for you." in html
    ids = f"{one.pk},{two.pk},{waiting.pk}"
    assert do(staff_client, "/journal/replay/", ids=ids, mode="send", back="/journal/?q=x") == "/journal/?q=x"
    (words,) = said(staff_client)
    assert words.startswith("2 messages replayed. 1 was skipped: ")
    assert JournalEntry.objects.filter(state=EntryState.PENDING).count() == 3


def test_nothing_selected_is_said(staff_client: Client) -> None:
    assert problem(read(staff_client, "/journal/replay/")) == "No message that could be replayed is selected."
    assert (
        problem(do(staff_client, "/journal/replay/", mode="send", ids="", status=409))
        == "No message that could be replayed is selected."
    )


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil"])
def test_going_back_never_leaves_the_site(staff_client: Client, back: str) -> None:
    row = answered()
    assert do(staff_client, f"/journal/{row.pk}/replay/", mode="send", back=back) == f"/journal/{row.pk}/"


def test_a_held_entry_links_to_its_reply(staff_client: Client) -> None:
    row = received()
    finish(claim_one(now=later(hours=7)), "late", now=later(hours=7))
    assert OutboxMessage.objects.get().state == OutboxState.HELD
    html = read(staff_client, f"/journal/{row.pk}/")
    link = f"/deliveries/?q=state:held+entry:{row.pk}"
    assert link in html
    assert "late" in read(staff_client, link)


def test_all_that_match_are_counted_and_never_more_than_is_shown(staff_client: Client) -> None:
    one = answered(a_message("needle", user_id="u1"))
    two = answered(a_message("needle", user_id="u2"))
    answered(a_message("hay", user_id="u3"))
    received(a_message("needle", user_id="u4"))
    listed = read(staff_client, "/journal/?q=state:completed+needle")
    link = listed.split(">Replay all that match<")[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    html = read(staff_client, link)
    assert title(html) == "Replay 2 messages?"
    assert f'value="{one.pk},{two.pk}"' in html, "Who has waited longest is helped first."
    assert 'name="back" value="/journal/?q=state:completed+needle"' in html
    assert title(read(staff_client, "/journal/replay/?all=state:nonsense")) == "Replay 0 messages?"
    assert "Replay all that match" not in read(staff_client, "/journal/"), "Without a filter that would be everything."
