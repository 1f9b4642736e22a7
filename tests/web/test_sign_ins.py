"""Wrong passwords: how many, from where, what the audit hears, and that it never hears a password."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, RequestFactory
from django.utils import timezone

from botsrt.models import AuditEvent
from praisonweb.dashboard import client as clients
from praisonweb.dashboard.access import Role
from tests.web.conftest import PASSWORD, a_user

pytestmark = pytest.mark.django_db(transaction=True)

SIGN_IN = "/account/sign-in/"


@pytest.fixture
def bob(transactional_db: None) -> User:
    return a_user("bob", Role.OPERATOR)


def try_(client: Client, password: str = "wrong", name: str = "bob", **more: Any) -> Any:
    return client.post(SIGN_IN, {"username": name, "password": password}, **more)


def fail(client: Client, times: int, **more: Any) -> Any:
    response = None
    for _ in range(times):
        response = try_(client, **more)
    return response


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("verb", flat=True))


def test_the_fifth_wrong_password_locks_even_the_right_one_out(client: Client, bob: User) -> None:
    assert fail(client, 4).status_code == 200
    response = fail(client, 1)
    assert response.status_code == 429
    assert response["Retry-After"] == "900"
    html = response.content.decode()
    assert "Too many tries" in html
    assert "15 minutes" in html
    assert try_(client, PASSWORD).status_code == 429
    assert "_auth_user_id" not in client.session


def test_the_lock_ends_and_attempts_meanwhile_do_not_prolong_it(client: Client, bob: User) -> None:
    start = timezone.now()
    with time_machine.travel(start, tick=False) as clock:
        fail(client, 5)
        clock.move_to(start + timedelta(minutes=14))
        assert fail(client, 3).status_code == 429
        clock.move_to(start + timedelta(minutes=15, seconds=1))
        assert try_(client, PASSWORD).status_code == 302


def test_a_right_password_forgets_the_wrong_ones(client: Client, bob: User) -> None:
    for _ in range(3):
        fail(client, 4)
        assert try_(client, PASSWORD).status_code == 302
        client.logout()
    assert not AccessAttempt.objects.exists()


def test_others_at_the_same_address_and_the_same_name_elsewhere_are_not_locked(client: Client, bob: User) -> None:
    a_user("carol", Role.VIEWER)
    fail(client, 5)
    assert try_(client, PASSWORD, name="carol").status_code == 302
    assert try_(Client(REMOTE_ADDR="198.51.100.7"), PASSWORD).status_code == 302


def test_the_audit_hears_of_it_without_passwords_and_unknown_names(client: Client, bob: User) -> None:
    try_(client, "hunter2")
    try_(client, "x", name="my password, typed into the wrong field")
    try_(client, PASSWORD)
    client.post("/account/sign-out/")
    failed, stranger, signed_in, signed_out = AuditEvent.objects.order_by("id")
    assert (failed.verb, failed.actor, failed.object_id) == ("account.sign_in_failed", "anonymous", "bob")
    assert (stranger.verb, stranger.object_id) == ("account.sign_in_failed", "unknown")
    assert (signed_in.verb, signed_in.actor, signed_in.address) == ("account.sign_in", "bob", "127.0.0.1")
    assert (signed_out.verb, signed_out.actor) == ("account.sign_out", "bob")
    for text in ("hunter2", "wrong field", PASSWORD):
        assert text not in str(list(AuditEvent.objects.values()))
    assert "hunter2" not in str(list(AccessAttempt.objects.values()))


def test_a_lock_is_audited_once(client: Client, bob: User) -> None:
    fail(client, 9)
    assert verbs() == [*4 * ["account.sign_in_failed"], "account.locked", "account.sign_in_failed"]


def test_a_locked_name_is_said_to_be_locked_whether_it_exists_or_not(client: Client, bob: User) -> None:
    known, unknown = fail(client, 5), fail(client, 5, name="nobody")
    assert known.content == unknown.content
    assert known.status_code == unknown.status_code


def test_wrong_old_passwords_count_as_well(client: Client, bob: User) -> None:
    client.force_login(bob)
    fields = {"old_password": "wrong", "new_password1": "a new one 123", "new_password2": "a new one 123"}
    statuses = [client.post("/account/password/", fields).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 429]
    assert "wrong" not in str(list(AccessAttempt.objects.values()))
    assert "a new one 123" not in str(list(AccessAttempt.objects.values()))
    fields["old_password"] = PASSWORD
    assert client.post("/account/password/", fields).status_code == 429
    assert client.get("/").status_code == 200  # what is open stays open


def test_a_changed_password_is_audited(client: Client, bob: User) -> None:
    client.force_login(bob)
    fields = {"old_password": PASSWORD, "new_password1": "a new one 123", "new_password2": "a new one 123"}
    client.post("/account/password/", fields)
    assert verbs() == ["account.sign_in", "account.password"]


# -- where from ----


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "203.0.113.9", "10.0.0.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "203.0.113.9", "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "<script>", "10.0.0.1"),
        (1, "203.0.113.9:4711", "203.0.113.9"),
        (1, "[2001:db8::1]:4711", "2001:db8::1"),
        (1, "2001:db8::1", "2001:db8::1"),
        (1, "fe80::1%eth0", "fe80::1"),
    ],
)
def test_only_what_known_proxies_say_is_believed(settings: Any, proxies: int, forwarded: str, expected: str) -> None:
    settings.PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert clients.address(RequestFactory(REMOTE_ADDR="10.0.0.1").get("/", headers=headers)) == expected


def test_one_network_of_ipv6_is_one_client(bob: User) -> None:
    for number in range(5):
        response = try_(Client(REMOTE_ADDR=f"2001:db8::{number:x}"))
    assert response.status_code == 429
    assert try_(Client(REMOTE_ADDR="2001:db8::ffff"), PASSWORD).status_code == 429
    assert try_(Client(REMOTE_ADDR="2001:db8:0:1::1"), PASSWORD).status_code == 302
    assert AuditEvent.objects.get(verb="account.sign_in").address == "2001:db8:0:1::1"


def test_without_an_address_there_is_none() -> None:
    request = RequestFactory().get("/")
    request.META.pop("REMOTE_ADDR")
    assert clients.address(request) == ""
    assert clients.ip_address(request) is None


def test_a_forged_header_does_not_shake_the_lock_off(client: Client, bob: User) -> None:
    for attempt in range(5):
        response = try_(client, headers={"X-Forwarded-For": f"203.0.113.{attempt}"})
    assert response.status_code == 429


def test_behind_a_proxy_clients_are_told_apart(settings: Any, client: Client, bob: User) -> None:
    settings.PROXIES = 1
    fail(client, 5, headers={"X-Forwarded-For": "203.0.113.9"})
    assert try_(client, PASSWORD, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 429
    assert try_(client, PASSWORD, headers={"X-Forwarded-For": "203.0.113.10"}).status_code == 302
    assert AuditEvent.objects.filter(verb="account.sign_in").get().address == "203.0.113.10"


def test_clients_without_an_address_share_one_count(bob: User) -> None:
    client = Client(REMOTE_ADDR="")
    assert fail(client, 5).status_code == 429
    assert try_(client, PASSWORD).status_code == 429


async def test_the_page_of_a_lock_comes_from_the_asynchronous_server_too(bob: User) -> None:
    client = AsyncClient()
    for _ in range(5):
        response = await client.post(SIGN_IN, {"username": "bob", "password": "wrong"})
    assert response.status_code == 429
    assert "Too many tries" in response.content.decode()
    assert response["Content-Security-Policy"]
    assert "camera=()" in response["Permissions-Policy"]
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response["Referrer-Policy"] == "same-origin"
