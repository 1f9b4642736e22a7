"""``manage.py pairing``: what staff type, what they are told, and what becomes of the stranger."""

from __future__ import annotations

import getpass

import pytest

from botsrt.core.states import EntryState, PairingState, UnknownUserPolicy
from botsrt.models import AuditEvent, Contact
from tests.factories import ACCOUNT, a_bot, asks, code_of, entry

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def bot():
    return a_bot(policy=UnknownUserPolicy.PAIR)


def test_the_list_shows_who_waits_and_never_a_code(manage):
    request = asks(display_name="Ada\u202eevil", text="Hello\nthere")
    ran = manage("pairing", "list")
    assert ran.code == 0
    assert f"{ACCOUNT}" in ran.out
    assert "web:stranger" in ran.out
    assert "Hello there" in ran.out
    assert "\u202e" not in ran.out
    (row,) = manage("pairing", "list", "--json").json
    assert row["state"] == "waiting"
    assert code_of(request) not in ran.out + str(row)


def test_an_empty_list_says_so(manage):
    assert "No waiting requests." in manage("pairing", "list").out
    assert "No denied requests." in manage("pairing", "list", "--state", "denied").out


def test_a_verified_code_lets_the_stranger_in_and_the_first_message_waits_for_its_answer(manage):
    request = asks()
    ran = manage("pairing", "verify", ACCOUNT, code_of(request).lower())
    assert (ran.code, ran.err) == (0, "")
    assert "web:stranger has access now" in ran.out
    assert request.entry is not None
    assert entry(request.entry.pk).state == EntryState.PENDING
    event = AuditEvent.objects.get(verb="pairing.approve")
    assert event.actor == f"os:{getpass.getuser()}"
    assert event.after["proof"] == "code"


def test_a_person_can_be_named_on_the_way(manage):
    request = asks()
    assert manage("pairing", "verify", ACCOUNT, code_of(request), "--person", "ada").code == 0
    assert "ada" in manage("identity", "list").out


def test_an_unusable_person_changes_nothing(manage):
    request = asks()
    ran = manage("pairing", "verify", ACCOUNT, code_of(request), "--person", "Ada Lovelace")
    assert ran.code == 1
    assert "person:" in ran.err
    request.refresh_from_db()
    assert request.state == PairingState.WAITING


def test_wrong_codes_are_refused_and_lock_who_types_them_but_not_who_acts_by_id(manage):
    request = asks()
    for _ in range(5):
        ran = manage("pairing", "verify", ACCOUNT, "AAAAAAAA")
        assert ran.code == 1
        assert "no request for shop has this code" in ran.err
    locked = manage("pairing", "verify", ACCOUNT, code_of(request))
    assert locked.code == 1
    assert "Too many wrong codes" in locked.err
    assert manage("pairing", "approve", str(request.pk), "--reason", "I know them").code == 0


def test_approving_needs_a_reason(manage):
    request = asks()
    assert manage("pairing", "approve", str(request.pk)).code == 2
    ran = manage("pairing", "approve", str(request.pk), "--reason", " ")
    assert ran.code == 1
    assert "reason" in ran.err


def test_the_second_to_decide_is_told_who_was_first(manage):
    request = asks()
    assert manage("pairing", "deny", str(request.pk)).code == 0
    ran = manage("pairing", "approve", str(request.pk), "--reason", "I know them")
    assert ran.code == 1
    assert f"was denied already, by os:{getpass.getuser()}, at " in ran.err
    assert manage("pairing", "approve", str(request.pk), "--reason", "a mistake", "--again").code == 0


def test_block_and_revoke(manage):
    request = asks()
    assert manage("pairing", "revoke", str(request.pk)).code == 1
    manage("pairing", "approve", str(request.pk), "--reason", "I know them")
    assert manage("pairing", "revoke", str(request.pk), "--json").json["state"] == "revoked"
    assert manage("pairing", "block", str(request.pk)).code == 0
    assert Contact.objects.get(platform_user_id="stranger").is_blocked


def test_an_unknown_id_is_one_clear_line(manage):
    ran = manage("pairing", "deny", "4711")
    assert ran.code == 1
    assert "There is no pairing request 4711" in ran.err


def test_explain_says_what_would_happen(manage):
    def reason(user_id: str) -> str:
        return str(manage("pairing", "explain", ACCOUNT, user_id, "--json").json["reason"])

    assert reason("stranger") == "pairing_required"
    request = asks()
    assert reason("stranger") == "pairing_waiting"
    manage("pairing", "verify", ACCOUNT, code_of(request))
    assert reason("stranger") == "paired"
    manage("pairing", "revoke", str(request.pk))
    assert reason("stranger") == "pairing_refused"
    manage("pairing", "block", str(request.pk))
    assert reason("stranger") == "blocked"
    assert manage("pairing", "explain", "nobody", "x").code == 1
