"""A platform that names several ids of one human: they are one contact."""

from __future__ import annotations

import logging

import pytest

from botsrt.core.messages import Sender
from botsrt.core.states import Proof
from botsrt.models import AuditEvent, BotSession, Contact, JournalEntry
from botsrt.services import identity
from tests.factories import ALICE, NOW, a_bot, a_message, received

pytestmark = pytest.mark.django_db

PHONE, USER_ID = "16505551234", "US.13491208655302741918"


@pytest.fixture(autouse=True)
def _line() -> None:
    a_bot("line", platform="whatsapp")


def writes(user_id: str) -> JournalEntry:
    message = a_message("Hello", platform="whatsapp", account="line", channel_id=user_id, user_id=user_id)
    return received(message)


def known_as(user_id: str = PHONE, *aliases: str) -> None:
    identity.known_as(platform="whatsapp", user_id=user_id, aliases=aliases or (USER_ID,), now=NOW)


def root_of(user_id: str) -> str:
    contact = Contact.objects.select_related("alias_of").get(platform_user_id=user_id)
    return (contact.alias_of or contact).platform_user_id


def test_both_ids_are_one_lane_whichever_wrote_first() -> None:
    known_as()
    phone, other = writes(PHONE), writes(USER_ID)
    assert phone.lane == other.lane
    assert root_of(USER_ID) == PHONE
    assert AuditEvent.objects.filter(verb="identity.alias").count() == 1


def test_saying_it_again_changes_nothing() -> None:
    for _ in range(3):
        known_as()
    assert AuditEvent.objects.filter(verb="identity.alias").count() == 1


def test_who_was_known_before_stays_the_contact() -> None:
    first = writes(USER_ID)
    known_as()
    assert root_of(PHONE) == USER_ID
    assert writes(PHONE).lane == first.lane
    assert BotSession.objects.count() == 2, "Messages do not move."


def test_a_link_stays_with_its_contact() -> None:
    for user_id in (PHONE, USER_ID):
        writes(user_id)
    identity.link(
        platform="whatsapp",
        user_id=USER_ID,
        unified_user_id="alice",
        proof=Proof.STAFF,
        actor=ALICE,
        reason="seen",
        now=NOW,
    )
    known_as()
    assert root_of(PHONE) == USER_ID
    assert writes(PHONE).lane == "person:alice"


def test_two_who_are_linked_apart_stay_two_and_staff_can_see_why(caplog: pytest.LogCaptureFixture) -> None:
    for user_id, person in ((PHONE, "alice"), (USER_ID, "bob")):
        writes(user_id)
        identity.link(
            platform="whatsapp",
            user_id=user_id,
            unified_user_id=person,
            proof=Proof.STAFF,
            actor=ALICE,
            reason="seen",
            now=NOW,
        )
    with caplog.at_level(logging.WARNING):
        known_as()
    assert root_of(PHONE) == PHONE
    assert root_of(USER_ID) == USER_ID
    assert "stay two" in caplog.text


def test_who_is_blocked_stays_blocked_under_every_id() -> None:
    writes(PHONE)
    writes(USER_ID)
    Contact.objects.filter(platform_user_id=USER_ID).update(is_blocked=True)
    known_as()
    assert root_of(PHONE) == USER_ID


def test_a_block_is_not_undone_by_a_link_of_the_other_id(caplog: pytest.LogCaptureFixture) -> None:
    writes(PHONE)
    writes(USER_ID)
    Contact.objects.filter(platform_user_id=USER_ID).update(is_blocked=True)
    known_as(PHONE, "US.another")
    known_as()
    assert root_of(USER_ID) == USER_ID
    assert "is blocked" in caplog.text


def test_stored_messages_keep_the_other_ids() -> None:
    sender = Sender(user_id=PHONE, aliases=(USER_ID,))
    message = a_message("Hello", platform="whatsapp", account="line", channel_id=PHONE)
    stored = type(message).from_payload({**message.to_payload(), "sender": {"user_id": PHONE, "aliases": [USER_ID]}})
    assert stored.sender == sender
