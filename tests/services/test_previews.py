"""Answers that are shown while they are written: each has one end, whatever becomes of its turn."""

from __future__ import annotations

from datetime import datetime

import pytest

from botsrt.core.states import OutboxState
from botsrt.models import JournalEntry, OutboxMessage, Preview
from botsrt.services import outbox, previews, sessions, turns
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.previews import OpenPreview
from tests.factories import (
    ACCOUNT,
    NOW,
    WORKER,
    a_bot,
    a_message,
    abandon,
    answered,
    claim,
    claim_one,
    claim_sends,
    fail,
    finish,
    later,
    receive,
    received,
    send_all,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def begun(turn: ClaimedTurn) -> OpenPreview:
    preview = previews.begin(turn=turn, now=NOW)
    assert preview is not None
    return preview


def shown(turn: ClaimedTurn, message_id: str = "p-7") -> OpenPreview:
    """A preview that stands in the chat."""
    preview = begun(turn)
    previews.shown(preview_id=preview.id, platform_message_id=message_id)
    return preview


def left(now: datetime = NOW) -> list[str]:
    """The ids at the platform of what is to be removed."""
    return [preview.platform_message_id for preview in previews.leftovers(accounts=[ACCOUNT], now=now)]


# -- the good end ----


def test_the_answer_takes_the_place_of_its_preview():
    received()
    turn = claim_one()
    preview = shown(turn)
    assert finish(turn, ("one", "two"), preview_id=preview.id)
    assert list(OutboxMessage.objects.order_by("id").values_list("text", "edits")) == [("one", "p-7"), ("two", "")]
    assert not Preview.objects.exists()
    (claimed,) = claim_sends()
    assert (claimed.message.edits, claimed.message.text, claimed.is_resend) == ("p-7", "one", False)


def test_an_answer_whose_preview_may_stand_in_the_chat_is_labelled():
    received()
    turn = claim_one()
    assert finish(turn, ("one", "two"), preview_id=begun(turn).id)
    rows = OutboxMessage.objects.order_by("id").values_list("edits", "is_resend")
    assert list(rows) == [("", True), ("", False)]


def test_without_a_preview_nothing_is_edited():
    answered()
    assert OutboxMessage.objects.get().edits == ""


def test_it_waits_for_what_must_go_out_before():
    answered(a_message(user_id="ann"), "earlier")
    receive(a_message(user_id="bob"))
    turn = claim_one()
    assert previews.begin(turn=turn, now=NOW) is None
    assert send_all() == ["earlier"]
    assert previews.begin(turn=turn, now=NOW) is not None


def test_a_turn_that_is_over_shows_nothing_more():
    received()
    turn = claim_one()
    turns.release(turn_id=turn.id, available_at=NOW, now=NOW)
    assert previews.begin(turn=turn, now=NOW) is None


# -- nothing comes of it ----


def test_it_stays_while_its_turn_runs():
    received()
    shown(claim_one())
    assert left() == []


@pytest.mark.parametrize("end", ["failed", "handed back", "silent", "late", "refused"])
def test_it_is_removed_when_its_turn_ends_without_it(end: str):
    received()
    turn = claim_one()
    preview = shown(turn)
    match end:
        case "failed":
            fail(turn)
        case "handed back":
            turns.release(turn_id=turn.id, available_at=later(hours=1), now=NOW)
        case "silent":
            assert finish(turn, "", preview_id=preview.id)
        case "late":
            assert finish(turn, preview_id=preview.id, now=later(hours=7))
            assert OutboxMessage.objects.get().edits == ""
        case "refused":
            turns.release(turn_id=turn.id, available_at=NOW, now=NOW)
            assert not finish(turn, preview_id=preview.id)
    assert left() == ["p-7"]
    previews.forget(preview_id=preview.id)
    assert left() == []


def test_what_is_being_removed_becomes_no_answer():
    received()
    turn = claim_one()
    preview = shown(turn)
    Preview.objects.update(is_leaving=True)
    assert finish(turn, preview_id=preview.id)
    assert OutboxMessage.objects.get().edits == ""


def test_a_removal_that_failed_is_tried_again_later():
    received()
    turn = claim_one()
    preview = shown(turn)
    fail(turn)
    assert left() == ["p-7"]
    previews.remove_later(preview_id=preview.id, at=later(seconds=15))
    assert left() == []
    assert left(later(seconds=15)) == ["p-7"]


def test_a_first_call_that_may_be_under_way_is_left_alone():
    received()
    turn = claim_one()
    begun(turn)
    fail(turn)
    assert left(later(seconds=60)) == []
    assert left(later(seconds=121)) == [""]


# -- workers that die ----


def test_the_next_attempt_inherits_what_a_dead_worker_left():
    received()
    preview = shown(claim_one())
    abandon(now=later(seconds=31))
    assert left(later(seconds=32)) == []
    turn = claim_one(now=later(seconds=32))
    assert left(later(seconds=33)) == []
    inherited = previews.inherit(turn=turn)
    assert inherited is not None
    assert (inherited.id, inherited.platform_message_id, inherited.route) == (preview.id, "p-7", preview.route)
    assert finish(turn, "whole", preview_id=inherited.id, now=later(seconds=34))
    assert OutboxMessage.objects.values_list("text", "edits").get() == ("whole", "p-7")


def test_a_message_that_was_not_inherited_is_removed_after_the_answer():
    received()
    shown(claim_one())
    abandon(now=later(seconds=31))
    finish(claim_one(now=later(seconds=32)), now=later(seconds=33))
    assert left(later(seconds=33)) == ["p-7"]


def test_nothing_is_inherited_after_a_failure():
    received()
    turn = claim_one()
    shown(turn)
    fail(turn, is_transient=True)
    assert previews.inherit(turn=claim_one(now=later(minutes=1))) is None


def test_a_message_that_kills_workers_leaves_no_preview():
    received()
    shown(claim_one())
    abandon(now=later(seconds=31), max_worker_deaths=1)
    assert left(later(seconds=32)) == ["p-7"]


def test_a_burst_that_is_taken_apart_keeps_its_preview_for_its_first_message():
    received("one")
    received("two")
    preview = shown(claim_one())
    abandon(now=later(seconds=31))
    first = claim_one(now=later(seconds=32))
    assert [entry.message.text for entry in first.entries] == ["one"]
    inherited = previews.inherit(turn=first)
    assert inherited is not None
    assert finish(first, "to one", preview_id=inherited.id, now=later(seconds=33))
    second = claim_one(now=later(seconds=34))
    assert previews.inherit(turn=second) is None
    finish(second, "to two", now=later(seconds=35))
    assert list(OutboxMessage.objects.order_by("id").values_list("text", "edits")) == [
        ("to one", "p-7"),
        ("to two", ""),
    ]
    assert preview.id == inherited.id


def test_it_goes_with_its_message():
    row = received()
    turn = claim_one()
    shown(turn)
    finish(turn)
    JournalEntry.objects.filter(pk=row.pk).delete()
    assert not Preview.objects.exists()


# -- the outbox ----


@pytest.fixture
def edit() -> int:
    """The id of an answer that is being put in the place of its preview."""
    received()
    turn = claim_one()
    finish(turn, preview_id=shown(turn).id)
    (claimed,) = claim_sends()
    return claimed.message.outbox_id


def test_an_edit_that_was_cut_is_made_again_without_a_label(edit: int):
    outbox.mark_unknown(outbox_id=edit, worker_id=WORKER, error="cut", now=NOW)
    (again,) = claim_sends(now=later(minutes=5))
    assert (again.message.edits, again.is_resend, again.message.attempt) == ("p-7", False, 2)


def test_an_edit_of_a_dead_process_is_made_again_without_a_label(edit: int):
    assert outbox.expire_sending(now=later(seconds=31)) == 1
    (again,) = claim_sends(now=later(seconds=31))
    assert (again.message.edits, again.is_resend) == ("p-7", False)


def test_an_answer_whose_preview_is_gone_is_sent_anew(edit: int):
    assert outbox.send_anew(outbox_id=edit, worker_id=WORKER, error="gone", now=NOW)
    (again,) = claim_sends()
    assert (again.message.edits, again.is_resend) == ("", False)
    outbox.mark_unknown(outbox_id=edit, worker_id=WORKER, error="cut", now=NOW)
    assert OutboxMessage.objects.get().state == OutboxState.UNKNOWN


def test_nothing_is_edited_in_a_chat_that_moved():
    received(a_message(user_id="ann", channel_id="old"))
    received(a_message(user_id="bob", channel_id="old"))
    first, second = claim()
    shown(first, "p-8")
    finish(second, preview_id=shown(second).id)
    sessions.chat_migrated(account=ACCOUNT, old_channel_id="old", new_channel_id="new")
    assert OutboxMessage.objects.values_list("channel_id", "edits").get() == ("new", "")
    assert not Preview.objects.exists()
