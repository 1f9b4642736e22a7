"""The pace of a bot: bursts that become one turn, and what a message does to the turn that runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from botsrt.core.errors import InvalidInput
from botsrt.core.messages import Attachment, InboundMessage
from botsrt.core.states import ChatType, EntryState, EventKind, Outcome, Proof, RunMode, TurnState, UnknownUserPolicy
from botsrt.models import HistoryMessage, OutboxMessage, Turn
from botsrt.services import bots, claims, entrance, identity, inline, journal, ledger, pace
from botsrt.services.bots import Changes
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    SHAPE,
    a_bot,
    a_group_message,
    a_message,
    answered,
    claim,
    claim_one,
    entry,
    fail,
    finish,
    later,
    receive,
    received,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db

PHOTO = Attachment(kind="photo", reference="file-1")


def set_pace(**settings: str) -> None:
    bots.change(account="shop", shape=SHAPE, changes=Changes(settings=settings), actor=ALICE, now=NOW)


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def assert_balanced() -> None:
    report = ledger.check(since=None, lease=LEASE, now=NOW)
    assert report.is_balanced, report


# -- bursts ----


def burst(count: int, *, every_ms: int, **fields: str) -> list[int]:
    """``count`` messages of one contact; the first one now."""
    found = [
        receive(a_message(f"m{number}", **fields), now=later(milliseconds=every_ms * number)) for number in range(count)
    ]
    return [entry_id for entry_id in found if entry_id is not None]


def test_a_burst_waits_for_its_latest_message_and_is_one_turn():
    set_pace(debounce_ms="1000")
    ids = burst(5, every_ms=600)
    assert claim(now=later(milliseconds=4 * 600 + 999)) == []
    assert claim_one(now=later(milliseconds=4 * 600 + 1000)).entry_ids == ids


def test_messages_of_a_bot_without_debounce_do_not_wait():
    assert received().available_at == NOW


def test_a_burst_that_never_ends_is_answered_all_the_same():
    set_pace(debounce_ms="1000")
    ids = burst(30, every_ms=900)
    turn = claim_one(now=later(seconds=10))
    assert turn.entry_ids == ids[: len(turn.entry_ids)]
    assert len(turn.entry_ids) >= 10


def test_a_redelivery_does_not_prolong_the_burst():
    set_pace(debounce_ms="1000")
    message = a_message()
    row = received(message)
    assert receive(message, now=later(milliseconds=900)) is None
    assert entry(row.pk).available_at == later(seconds=1)


def test_a_file_ends_the_burst_and_is_answered_with_it():
    set_pace(debounce_ms="1000")
    text = received("look at this")
    photo = received(a_message("", attachments=(PHOTO,)), now=later(milliseconds=100))
    assert claim_one(now=later(milliseconds=100)).entry_ids == [text.pk, photo.pk]


def test_a_pressed_button_does_not_wait():
    set_pace(debounce_ms="1000")
    row = received(a_message("vote:1", kind=EventKind.CALLBACK))
    assert claim_one().entry_ids == [row.pk]


def test_commands_beside_the_lane_do_not_end_the_burst():
    set_pace(debounce_ms="1000")
    row = received("one")
    asked = received("/status", now=later(milliseconds=100))
    assert claim_one(now=later(milliseconds=100)).entry_ids == [asked.pk]
    assert claim_one(now=later(seconds=1)).entry_ids == [row.pk]


def test_a_new_conversation_begins_after_the_burst_that_came_before():
    set_pace(debounce_ms="1000")
    said = received("one")
    new = received("/new", now=later(milliseconds=100))
    turn = claim_one(now=later(milliseconds=100))
    assert turn.entry_ids == [said.pk]
    finish(turn)
    assert claim_one(now=later(milliseconds=100)).entry_ids == [new.pk]


def test_bursts_of_one_contact_in_a_group_and_in_private_stay_apart():
    set_pace(debounce_ms="1000")
    private = received("psst")
    public = received(a_group_message("hello all"), now=later(milliseconds=500))
    assert claim_one(now=later(seconds=1)).entry_ids == [private.pk]
    assert claim_one(now=later(milliseconds=1500)).entry_ids == [public.pk]


def test_bursts_of_two_members_do_not_wait_for_each_other():
    set_pace(debounce_ms="1000")
    ann = received(a_group_message("hello", user_id="ann"))
    received(a_group_message("hi", user_id="bob"), now=later(milliseconds=900))
    assert claim_one(now=later(seconds=1)).entry_ids == [ann.pk]


def test_a_retry_keeps_its_time():
    set_pace(debounce_ms="1000")
    row = received()
    fail(claim_one(now=later(seconds=1)), is_transient=True, now=later(seconds=1))
    due = entry(row.pk).available_at
    received(now=later(seconds=2))
    assert entry(row.pk).available_at == due


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "60001", "²", "9" * 5_000])
def test_a_debounce_that_is_no_time_is_refused(value):
    with pytest.raises(InvalidInput, match="debounce_ms"):
        set_pace(debounce_ms=value)


# -- albums ----


def a_part(number: int, text: str = "", *, album: str = "a1", **fields: Any) -> InboundMessage:
    photo = Attachment(kind="photo", reference=f"file-{number}")
    return a_message(text, attachments=(photo,), album=album, **fields)


@pytest.mark.parametrize("debounce", ["0", "300", "3000"])
def test_an_album_is_one_turn_without_debounce_too(debounce):
    set_pace(debounce_ms=debounce)
    ids = [received(a_part(number), now=later(milliseconds=100 * number)).pk for number in range(10)]
    wait = max(1000, int(debounce))
    assert claim(now=later(milliseconds=900 + wait - 1)) == []
    turn = claim_one(now=later(milliseconds=900 + wait))
    assert turn.entry_ids == ids
    finish(turn)
    assert {entry(pk).outcome for pk in ids} == {Outcome.ANSWERED}
    assert_balanced()


def test_what_is_said_while_an_album_comes_is_answered_with_it():
    part = received(a_part(1))
    other = received("how are you?", user_id="user-2", channel_id="chat-2")
    said = received("which one is better?", now=later(milliseconds=200))
    assert claim_one(now=later(milliseconds=200)).entry_ids == [other.pk]
    assert claim(now=later(milliseconds=1199)) == []
    assert claim_one(now=later(milliseconds=1200)).entry_ids == [part.pk, said.pk]


def test_what_is_said_after_an_album_does_not_wait():
    finish(claim_one(now=received(a_part(1)).available_at))
    assert received("and?", now=later(seconds=2)).available_at == later(seconds=2)


def test_albums_of_one_contact_in_a_group_and_in_private_stay_apart():
    private = [received(a_part(number)).pk for number in range(2)]
    group: dict[str, Any] = {"channel_id": "group-1", "chat_type": ChatType.GROUP, "is_mentioned": True}
    public = [received(a_part(number, album="a2", **group)).pk for number in range(2)]
    claimed = claim(now=later(seconds=1))
    assert sorted(turn.entry_ids for turn in claimed) == [private, public]
    assert {turn.route.channel_id for turn in claimed} == {"chat-1", "group-1"}


def test_an_album_whose_caption_names_the_bot_is_meant_for_it_as_a_whole():
    group: dict[str, Any] = {"channel_id": "group-1", "chat_type": ChatType.GROUP}
    ours = [received(a_part(1, **group)), received(a_part(2, "@shop look", is_mentioned=True, **group))]
    theirs = received(a_part(3, album="a2", **group))
    allowed = entrance.allowed([row.pk for row in (*ours, theirs)], now=NOW)
    assert [entry.id for entry in allowed] == [row.pk for row in ours]


def test_what_a_program_asks_keeps_its_time():
    received("one")
    finish(claim_one())
    asked = entry(inline.say(session_id="bot_web_user-1", text="two", actor=ALICE, now=NOW))
    received(a_part(1))
    received("three")
    assert entry(asked.pk).available_at == asked.available_at


# -- saying that one is busy ----


def test_who_writes_while_the_bot_works_is_told_once():
    set_pace(busy_ack="One moment, please.")
    received("one")
    running = claim_one()
    received("two")
    received("three")
    assert send_all() == ["One moment, please."]
    finish(running, "first", now=NOW)
    again = claim_one()
    received("four")
    assert send_all() == ["first", "One moment, please."]
    finish(again)
    assert_balanced()


def test_nobody_is_told_where_nothing_runs_or_nothing_is_said():
    set_pace(busy_ack="One moment, please.")
    received("one")
    received("two")
    running = claim_one()
    received("/status")
    assert not OutboxMessage.objects.exists()
    set_pace(busy_ack="")
    received("three")
    assert not OutboxMessage.objects.exists()
    assert finish(running)


def test_who_would_get_no_answer_is_told_nothing_and_interrupts_nobody():
    set_pace(busy_ack="One moment, please.", busy="interrupt", allowed_users="ann")
    bots.change(account="shop", shape=SHAPE, changes=Changes(policy=UnknownUserPolicy.DENY), actor=ALICE, now=NOW)
    received(a_group_message("hello", user_id="ann"))
    running = claim_one()
    received(a_group_message("me too", user_id="eve"))
    received(a_message("not to the bot", user_id="ann", channel_id="group-1", chat_type=ChatType.GROUP))
    assert not OutboxMessage.objects.exists()
    assert finish(running)


# -- interrupting ----


def test_a_newer_message_takes_the_place_of_the_run():
    set_pace(busy="interrupt")
    first = received("a cake, please")
    running = claim_one()
    second = received("no, two", now=later(seconds=1))
    assert Turn.objects.get(pk=running.id).state == TurnState.CANCELLED
    assert not finish(running, "One cake.")
    again = claim_one(now=later(seconds=1))
    assert again.entry_ids == [first.pk, second.pk]
    assert again.attempt == 1
    finish(again, "Two cakes.")
    assert send_all() == ["Two cakes."]
    assert entry(first.pk).outcome == entry(second.pk).outcome == Outcome.ANSWERED
    assert_balanced()


def test_by_default_a_newer_message_waits():
    received("one")
    running = claim_one()
    received("two")
    assert finish(running)


def test_a_storm_of_messages_does_not_starve_the_answer():
    set_pace(busy="interrupt", busy_ack="Again, then.")
    received("0")
    for number in range(1, pace.MAX_INTERRUPTIONS + 1):
        claim_one()
        received(str(number))
    running = claim_one()
    received("and another")
    received("and another")
    assert finish(running, "at last")
    assert len(running.entries) == pace.MAX_INTERRUPTIONS + 1
    assert send_all() == ["Again, then.", "at last"], "the run that began again is still the first message's"
    assert Turn.objects.filter(state=TurnState.CANCELLED).count() == pace.MAX_INTERRUPTIONS


def test_an_interrupted_burst_goes_on_as_a_burst():
    set_pace(busy="interrupt", debounce_ms="1000")
    first = received("one")
    claim_one(now=later(seconds=1))
    second = received("two", now=later(seconds=2))
    third = received("three", now=later(milliseconds=2500))
    assert claim(now=later(milliseconds=3400)) == []
    assert claim_one(now=later(milliseconds=3500)).entry_ids == [first.pk, second.pk, third.pk]


def test_a_message_from_elsewhere_does_not_interrupt():
    set_pace(busy="interrupt")
    a_bot("desk", platform="slack", settings={"busy": "interrupt"})
    answered(a_message("hi", platform="slack", account="desk", user_id="U1"))
    answered(a_message("hi"))
    for platform, user_id in (("web", "user-1"), ("slack", "U1")):
        identity.link(
            platform=platform,
            user_id=user_id,
            unified_user_id="ada",
            proof=Proof.STAFF,
            reason="known",
            actor=ALICE,
            now=NOW,
        )
    received("one")
    running = claim_one()
    received(a_message("two", platform="slack", account="desk", user_id="U1"))
    assert finish(running), "the next turn could not have taken both"


def test_what_runs_alone_is_not_interrupted():
    set_pace(busy="interrupt")
    row = answered("hello")
    journal.replay(entry_id=row.pk, mode=RunMode.SEND, actor=ALICE, reason="", now=NOW)
    replayed = claim_one()
    newer = received("one more thing")
    assert finish(replayed)
    assert claim_one().entry_ids == [newer.pk]


def test_commands_do_not_interrupt():
    set_pace(busy="interrupt")
    received("one")
    running = claim_one()
    received("/status")
    received("/new")
    assert finish(running)


@pytest.mark.django_db(transaction=True)
def test_a_run_ends_or_is_interrupted_and_never_both():
    set_pace(busy="interrupt")
    for number in range(8):
        user = {"user_id": f"u{number}", "channel_id": f"c{number}"}
        first = received(a_message("one", **user))
        running = claim_one()
        did_end, second = at_once(partial(finish, running, "the end"), partial(receive, a_message("two", **user)))
        left = claim_one()
        assert left.entry_ids == ([second] if did_end else [first.pk, second])
        finish(left)
    assert_balanced()


# -- steering ----


def test_what_waits_behind_a_run_joins_it_and_is_answered_with_it():
    first = received("one")
    running = claim_one()
    second = received("two")
    joined = pace.join(turn_id=running.id, now=NOW)
    assert [item.id for item in joined] == [second.pk]
    assert pace.join(turn_id=running.id, now=NOW) == []
    assert claim() == []
    finish(replace(running, entries=(*running.entries, *joined)), "both")
    assert entry(first.pk).outcome == entry(second.pk).outcome == Outcome.ANSWERED
    said = HistoryMessage.objects.order_by("id").values_list("text", flat=True)
    assert list(said) == ["one", "two", "both"]
    assert_balanced()


def test_what_is_not_taken_is_answered_by_the_next_turn():
    received("one")
    running = claim_one()
    second = received("two")
    pace.join(turn_id=running.id, now=NOW)
    pace.leave(turn_id=running.id, entry_ids=[second.pk])
    finish(running)
    assert claim_one().entry_ids == [second.pk]


def test_what_joined_and_was_not_taken_before_the_end_waits_for_the_next_turn():
    received("one")
    running = claim_one()
    second = received("two")
    pace.join(turn_id=running.id, now=NOW)
    assert finish(running)
    pace.leave(turn_id=running.id, entry_ids=[second.pk])
    assert entry(second.pk).state == EntryState.PENDING
    assert claim_one().entry_ids == [second.pk]
    assert_balanced()


def test_a_failed_run_takes_nothing_that_joined_with_it():
    first = received("one")
    running = claim_one()
    second = received("two")
    pace.join(turn_id=running.id, now=NOW)
    fail(running)
    assert claim_one().entry_ids == [first.pk]
    assert entry(second.pk).state == EntryState.PENDING
    assert_balanced()


def test_only_what_the_turn_could_have_taken_joins_it():
    received("one")
    running = claim_one()
    received(a_message("elsewhere", channel_id="c2"))
    received("/new")
    received("after")
    assert pace.join(turn_id=running.id, now=NOW) == []
    finish(running)
    assert pace.join(turn_id=running.id, now=NOW) == []
    assert_balanced()


def test_when_something_is_due_next():
    assert claims.next_due_at(now=NOW) is None
    set_pace(debounce_ms="1000")
    received()
    assert claims.next_due_at(now=NOW) == NOW + timedelta(seconds=1)
    assert claims.next_due_at(now=later(seconds=1)) is None
