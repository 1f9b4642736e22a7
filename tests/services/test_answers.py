"""What was said to a message, for a caller who waits for it."""

from __future__ import annotations

import pytest

from botsrt.core.messages import Answer
from botsrt.core.states import OutboxState, Outcome, UnknownUserPolicy
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.services import answers
from tests.factories import ACCOUNT, PLATFORM, a_bot, a_message, answered, claim_one, finish, receive, received

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot(policy=UnknownUserPolicy.ALLOW)


def to(message_id: str, *, account: str = ACCOUNT, revision: str = "") -> Answer:
    return answers.to(platform=PLATFORM, account=account, channel_id="chat-1", message_id=message_id, revision=revision)


def test_nothing_is_known_of_what_was_never_received() -> None:
    assert to("m-0") == Answer()


def test_a_message_that_waits_has_no_outcome() -> None:
    receive(a_message("Hello", message_id="m-1"))
    assert to("m-1") == Answer()
    claim_one()
    assert to("m-1") == Answer()


def test_all_parts_of_an_answer_are_told_in_order_also_before_they_are_sent() -> None:
    received(a_message("Hello", message_id="m-1"))
    finish(claim_one(), ("one", "two", "three"))
    assert to("m-1") == Answer(outcome=Outcome.ANSWERED, texts=("one", "two", "three"))


def test_messages_that_were_answered_together_have_one_answer() -> None:
    for number in (1, 2):
        receive(a_message(f"Hello {number}", message_id=f"m-{number}"))
    finish(claim_one(), ("Hi both",))
    assert to("m-1") == to("m-2") == Answer(outcome=Outcome.ANSWERED, texts=("Hi both",))


def test_a_silent_end_is_an_end() -> None:
    received(a_message("Hello", message_id="m-1"))
    finish(claim_one(), ())
    assert to("m-1") == Answer(outcome=Outcome.SILENT)


def test_what_waits_for_staff_is_not_told() -> None:
    answered(a_message("Hello", message_id="m-1"), "Hi there")
    OutboxMessage.objects.update(state=OutboxState.HELD)
    JournalEntry.objects.update(outcome=Outcome.HELD)
    assert to("m-1") == Answer(outcome=Outcome.HELD)


def test_another_bot_another_message_and_another_version_are_others() -> None:
    answered(a_message("Hello", message_id="m-1"), "Hi there")
    assert to("m-1").texts == ("Hi there",)
    assert to("m-1", account="other") == to("m-2") == to("m-1", revision="2") == Answer()
