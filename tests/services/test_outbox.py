"""Outgoing messages: strict order per chat, and an honest end for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.messages import SendReceipt
from botsrt.core.states import EntryState, OutboxState, Outcome
from botsrt.models import Contact, JournalEntry, OutboxMessage
from botsrt.services import outbox
from tests.factories import (
    ACCOUNT,
    ALICE,
    NOW,
    WORKER,
    a_bot,
    a_group_message,
    a_message,
    answered,
    claim_one,
    claim_sends,
    finish,
    later,
    receive,
    received,
    send_all,
    sent,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def state(outbox_id: int) -> str:
    return OutboxMessage.objects.get(pk=outbox_id).state


def test_an_answer_leaves_through_the_outbox():
    assert answered("Hello", "Hi there").outcome == Outcome.ANSWERED
    assert send_all() == ["Hi there"]
    assert OutboxMessage.objects.get().state == OutboxState.SENT


def test_parts_of_one_chat_leave_one_by_one_in_order():
    received()
    finish(claim_one(), ("one", "two", "three"))
    (first,) = claim_sends()
    assert claim_sends() == []
    sent(first)
    assert send_all() == ["two", "three"]


def test_chats_do_not_wait_for_each_other():
    for user in ("ann", "bob"):
        answered(a_message(user_id=user, channel_id=user), f"to {user}")
    assert len(claim_sends()) == 2


def test_a_rate_limit_uses_no_attempt_and_blocks_its_chat_alone():
    received(a_message(user_id="ann", channel_id="ann"))
    finish(claim_one(), ("one", "two"))
    (claimed,) = claim_sends()
    outbox.wait(
        outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="wait", until=later(seconds=9), is_attempt=False,
        now=NOW,
    )  # fmt: skip
    answered(a_message(user_id="bob", channel_id="bob"), "to bob")
    assert send_all() == ["to bob"]
    assert OutboxMessage.objects.get(text="one").attempts == 0
    assert send_all(now=later(seconds=10)) == ["one", "two"]


def test_a_failure_waits_longer_each_time():
    answered()
    now, waits = NOW, []
    for _ in range(3):
        (claimed,) = claim_sends(now=now)
        outbox.wait(
            outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="away", until=None, is_attempt=True, now=now
        )
        due = OutboxMessage.objects.get().next_attempt_at
        waits.append(due - now)
        now = due
    assert waits == sorted(waits)
    assert OutboxMessage.objects.get().attempts == 3


def test_a_dead_process_leaves_an_unknown_message_not_a_second_one():
    answered()
    (claimed,) = claim_sends()
    assert outbox.expire_sending(now=later(seconds=29)) == 0
    assert outbox.expire_sending(now=later(seconds=31)) == 1
    assert claim_sends(now=later(seconds=32)) == []
    assert state(claimed.message.outbox_id) == OutboxState.UNKNOWN


def test_a_receipt_is_proof_even_after_it_was_given_up():
    answered()
    (claimed,) = claim_sends()
    outbox.expire_sending(now=later(seconds=31))
    assert sent(claimed, now=later(seconds=40))
    assert send_all(now=later(seconds=41)) == []


def test_a_receipt_does_not_touch_what_another_worker_is_sending():
    answered()
    (claimed,) = claim_sends(worker_id="w1")
    outbox.expire_sending(now=later(seconds=31))
    outbox.resend(outbox_id=claimed.message.outbox_id, is_labelled=True, now=later(seconds=32))
    (again,) = claim_sends(worker_id="w2", now=later(seconds=33))
    assert again.is_resend
    assert not sent(claimed, worker_id="w1", now=later(seconds=34))
    assert sent(again, worker_id="w2", now=later(seconds=35))


def test_what_the_platform_denies_having_goes_without_a_label():
    answered()
    (claimed,) = claim_sends()
    outbox.mark_unknown(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    outbox.resend(outbox_id=claimed.message.outbox_id, is_labelled=False, now=NOW)
    (again,) = claim_sends()
    assert not again.is_resend


def test_what_the_platform_knows_by_its_key_goes_again_without_a_label_while_it_is_young():
    answered()
    (claimed,) = claim_sends()
    outbox.mark_unknown(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    assert outbox.repeat(accounts=["other"], made_after=later(seconds=-60), now=NOW) == 0
    assert outbox.repeat(accounts=[ACCOUNT], made_after=NOW, now=later(seconds=60)) == 0
    due: dict[str, Any] = {"accounts": [ACCOUNT], "limit": 9, "now": later(seconds=60)}
    assert len(outbox.unknown(**due, made_before=NOW)) == 1
    assert outbox.unknown(**due, made_before=later(seconds=-60)) == []
    assert outbox.repeat(accounts=[ACCOUNT], made_after=later(seconds=-60), now=NOW) == 1
    (again,) = claim_sends()
    assert not again.is_resend
    assert again.message.idempotency_key == claimed.message.idempotency_key


def test_later_messages_wait_only_where_an_unknown_one_is_decided_without_staff():
    received()
    finish(claim_one(), ("one", "two"))
    (claimed,) = claim_sends()
    outbox.mark_unknown(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)
    waiting: dict[str, Any] = {
        "worker_id": WORKER, "accounts": [ACCOUNT], "limit": 9, "lease": timedelta(seconds=30),
        "late_after": timedelta(hours=6), "now": NOW,
    }  # fmt: skip
    assert outbox.claim(**waiting, waits_for_unknown=[ACCOUNT]) == []
    assert [claim.message.text for claim in outbox.claim(**waiting)] == ["two"]


def test_what_could_not_be_sent_for_hours_waits_for_staff():
    answered()
    assert claim_sends(now=later(hours=7)) == []
    assert outbox.hold_late(late_after=timedelta(hours=6), now=later(hours=7)) == 1
    row = OutboxMessage.objects.get()
    outbox.resolve(outbox_id=row.pk, resolution="again", actor=ALICE, now=later(hours=8))
    assert send_all(now=later(hours=8)) == ["Hi"]


def test_a_blocked_bot_marks_its_contact_until_they_write_again():
    answered()
    (claimed,) = claim_sends()
    outbox.mark_gone(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error="blocked")
    assert not Contact.objects.get().is_reachable
    receive("back again", now=later(seconds=5))
    assert Contact.objects.get().is_reachable


def test_a_moved_chat_takes_along_what_waits():
    received(a_group_message())
    finish(claim_one(), ("one", "two"))
    (claimed,) = claim_sends()
    outbox.mark_migrated(outbox_id=claimed.message.outbox_id, worker_id=WORKER, new_channel_id="new", now=NOW)
    assert {claim.message.route.channel_id for claim in claim_sends()} == {"new"}
    assert set(OutboxMessage.objects.values_list("channel_id", flat=True)) == {"new"}


@pytest.mark.parametrize(
    ("resolution", "ends_as", "outcome"),
    [("again", OutboxState.PENDING, Outcome.ANSWERED), ("drop", OutboxState.DEAD, Outcome.DISCARDED)],
)
def test_a_held_reply_is_decided_with_all_its_parts(resolution, ends_as, outcome):
    received()
    finish(claim_one(now=later(hours=7)), ("one", "two"), now=later(hours=7))
    row = OutboxMessage.objects.first()
    assert row is not None
    with pytest.raises(InvalidInput, match="never sent"):
        outbox.resolve(outbox_id=row.pk, resolution="arrived", actor=ALICE, now=NOW)
    outbox.resolve(outbox_id=row.pk, resolution=resolution, actor=ALICE, reason="no", now=later(hours=8))
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {ends_as}
    assert JournalEntry.objects.get().outcome == outcome
    assert JournalEntry.objects.get().state != EntryState.HELD


def test_a_decided_message_is_not_decided_again():
    answered()
    row = OutboxMessage.objects.get()
    with pytest.raises(Conflict, match="pending already"):
        outbox.resolve(outbox_id=row.pk, resolution="drop", actor=ALICE, now=NOW)
    with pytest.raises(NotFound):
        outbox.resolve(outbox_id=4711, resolution="drop", actor=ALICE, now=NOW)


def test_a_stored_reply_goes_out_again_on_its_own_route():
    row = answered("Hello", "Hi")
    send_all()
    assert outbox.send_reply_again(entry_id=row.pk, actor=ALICE, reason="lost", now=NOW) == 1
    (claimed,) = claim_sends()
    assert (claimed.message.text, claimed.is_resend, claimed.message.route.channel_id) == ("Hi", True, "chat-1")


def test_errors_are_stored_without_tokens():
    answered()
    (claimed,) = claim_sends()
    token = "7000000001:AAF-a-telegram-token-that-is-long-enough"
    outbox.mark_dead(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error=f"POST /bot{token}/sendMessage")
    assert token not in OutboxMessage.objects.get().error


def test_a_receipt_of_any_length_fits():
    answered()
    (claimed,) = claim_sends()
    receipt = SendReceipt(platform_message_id="x" * 999)
    assert outbox.mark_sent(outbox_id=claimed.message.outbox_id, worker_id=WORKER, receipt=receipt, now=NOW)


def test_a_platform_that_tells_by_itself_is_given_time_to():
    answered("Hello", "Hi there")
    (claim,) = claim_sends()
    outbox.mark_unknown(outbox_id=claim.message.outbox_id, worker_id=WORKER, error="cut", now=NOW)

    def due(**when: float) -> int:
        patience = timedelta(seconds=10)
        claims = outbox.unknown(accounts=[ACCOUNT], patience=patience, limit=9, now=later(**when))
        return len(claims)

    assert len(outbox.unknown(accounts=[ACCOUNT], limit=9, now=NOW)) == 1
    assert (due(seconds=0), due(seconds=9), due(seconds=10)) == (0, 0, 1)
