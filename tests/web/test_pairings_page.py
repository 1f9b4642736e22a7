"""Pairings in the browser: who waits, what staff decide, and what a late click is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from botsrt.core.states import PairingState, Proof, UnknownUserPolicy
from botsrt.models import AuditEvent, Contact, IdentityLink, Pairing
from botsrt.services import pairing
from tests.factories import BOB, a_bot, asks, claim_one, code_of, finish

pytestmark = pytest.mark.django_db(transaction=True)

WAITING, HISTORY = "/pairings/", "/pairings/?tab=history"


@pytest.fixture(autouse=True)
def _shop(transactional_db: None) -> None:
    a_bot(policy=UnknownUserPolicy.PAIR)


def shown(client: Client, path: str = WAITING) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_where_nobody_waits_the_page_says_how_to_try_it(staff_client):
    assert "Nobody waits." in shown(staff_client)
    assert "shop" in shown(staff_client)
    assert "There are none." in shown(staff_client, HISTORY)


def test_a_waiting_row_tells_who_asks_and_never_the_code(staff_client):
    request = asks(display_name="Ada <b>\u202ex", user_name="ada", text="Hello, it is me")
    text = shown(staff_client)
    assert "Ada &lt;b&gt;" in text
    assert "\u202e" not in text
    assert "@ada" in text
    assert "web:stranger" in text
    assert "Hello, it is me" in text
    assert "wrote for the first time within the hour" in text
    assert code_of(request) not in text


def test_a_name_that_somebody_else_has_is_pointed_out(staff_client):
    known = asks("friend", display_name="Ada")
    pairing.approve(request_id=known.pk, actor=BOB, reason="a friend", now=timezone.now())
    finish(claim_one(now=timezone.now()), now=timezone.now())
    asks("stranger", display_name="Ada")
    assert "has the same name as web:friend, which proves nothing" in shown(staff_client)


def test_the_right_code_lets_somebody_in(staff_client):
    request = asks()
    response = staff_client.post(
        "/pairings/verify/", {"account": "shop", "code": code_of(request), "person": "ada"}, follow=True
    )
    assert "web:stranger has access to shop now." in response.content.decode()
    request.refresh_from_db()
    assert (request.state, request.proof, request.decided_by) == (PairingState.APPROVED, Proof.CODE, "alice")
    assert IdentityLink.objects.get().person.unified_user_id == "ada"


def test_a_wrong_code_says_so_and_keeps_what_was_typed_out_of_the_page(staff_client):
    asks()
    response = staff_client.post("/pairings/verify/", {"account": "shop", "code": "AAAAAAAA", "person": ""})
    assert response.status_code in (400, 409)
    assert "no request for shop has this code" in response.content.decode()


def test_who_guesses_is_locked_out_and_can_still_act_by_id(staff_client):
    request = asks()
    for _ in range(5):
        staff_client.post("/pairings/verify/", {"account": "shop", "code": "AAAAAAAA", "person": ""})
    response = staff_client.post("/pairings/verify/", {"account": "shop", "code": code_of(request), "person": ""})
    assert "Too many wrong codes" in response.content.decode()
    staff_client.post(f"/pairings/{request.pk}/approve/", {"reason": "I know them", "person": "", "again": "False"})
    request.refresh_from_db()
    assert request.state == PairingState.APPROVED


def test_approving_needs_a_reason(staff_client):
    request = asks()
    assert staff_client.post(f"/pairings/{request.pk}/approve/", {"reason": "", "person": ""}).status_code == 400
    request.refresh_from_db()
    assert request.state == PairingState.WAITING


@pytest.mark.parametrize(("act", "state"), [("deny", PairingState.DENIED), ("block", PairingState.BLOCKED)])
def test_keeping_somebody_out_is_asked_first_then_done_and_audited(staff_client, act, state):
    request = asks()
    assert "web:stranger" in shown(staff_client, f"/pairings/{request.pk}/{act}/")
    staff_client.post(f"/pairings/{request.pk}/{act}/", {"reason": "spam"})
    request.refresh_from_db()
    assert request.state == state
    event = AuditEvent.objects.get(verb=f"pairing.{act}")
    assert (event.actor, event.reason, event.address) == ("alice", "spam", "127.0.0.1")


def test_access_is_taken_back_and_given_again(staff_client):
    request = asks()
    staff_client.post(f"/pairings/{request.pk}/approve/", {"reason": "known", "person": ""})
    assert "Revoke" in shown(staff_client, "/pairings/?tab=approved")
    staff_client.post(f"/pairings/{request.pk}/revoke/", {"reason": "left"})
    assert "Approve after all" in shown(staff_client, HISTORY)
    staff_client.post(f"/pairings/{request.pk}/approve/", {"reason": "came back", "person": "", "again": "True"})
    request.refresh_from_db()
    assert request.state == PairingState.APPROVED


def test_a_late_click_is_told_what_happened(staff_client):
    request = asks()
    pairing.deny(request_id=request.pk, actor=BOB, now=timezone.now())
    response = staff_client.post(f"/pairings/{request.pk}/approve/", {"reason": "known", "person": ""})
    assert response.status_code == 409
    assert "was denied already, by bob, at" in response.content.decode()
    assert not Contact.objects.get().is_blocked


def test_a_request_that_is_gone_is_a_page(staff_client):
    assert staff_client.get("/pairings/4711/deny/").status_code == 404


def test_a_link_is_confirmed_here(staff_client):
    request = asks()
    Pairing.objects.filter(pk=request.pk).update(purpose="link")
    assert "Nobody has sent its code from another account yet." in shown(staff_client)


def test_the_page_costs_few_queries_however_many_ask(staff_client, django_assert_max_num_queries):
    for number in range(12):
        asks(f"stranger-{number}", display_name=f"Name {number % 3}", now=timezone.now() - timedelta(minutes=1))
    with django_assert_max_num_queries(12):
        shown(staff_client)


def test_home_says_that_somebody_asks(staff_client):
    assert "asks for access" not in shown(staff_client, "/")
    asks()
    assert "1 person asks for access" in shown(staff_client, "/")
    assert 'href="/pairings/"' in shown(staff_client, "/")


def test_somebody_who_tries_a_bot_in_the_browser_sees_their_own_code(staff_client):
    a_bot("try", policy=UnknownUserPolicy.PAIR)
    request = asks("staff-" + str(User.objects.get().pk), account="try")
    page = shown(staff_client, "/try/try/")
    assert code_of(request) in page
    assert code_of(request) not in shown(staff_client)
