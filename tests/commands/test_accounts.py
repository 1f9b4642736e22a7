"""``accounts``: roles, and help for those who cannot sign in."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from botsrt.core.actors import SYSTEM
from botsrt.models import AuditEvent
from praisonweb.dashboard import second_factor
from praisonweb.dashboard.access import Act, Role, may
from tests.web.test_second_factor import KEY, code

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def vera() -> User:
    return User.objects.create_user("vera", password="x")


def test_a_role_is_given_and_replaces_the_one_before(manage, vera: User) -> None:
    assert manage("accounts", "role", "vera", "viewer").code == 0
    assert manage("accounts", "role", "vera", "operator").out == "vera: operator.\n"
    (row,) = manage("accounts", "list", "--json").json
    assert (row["name"], row["roles"], row["staff"], row["second_factor"]) == ("vera", "operator", True, False)
    user = User.objects.get(username="vera")
    assert may(user, Act.RETRY)
    assert not may(user, Act.USERS)
    event = AuditEvent.objects.filter(verb="users.change").latest("id")
    assert (event.before["roles"], event.after["roles"]) == (["viewer"], ["operator"])
    assert event.actor.startswith("os:")


def test_a_superuser_is_listed_as_one(manage) -> None:
    User.objects.create_superuser("admin")
    assert manage("accounts", "list", "--json").json[0]["roles"] == "superuser"


def test_an_unknown_role_or_name_is_refused(manage, vera: User) -> None:
    assert "invalid choice" in manage("accounts", "role", "vera", "king").err
    for verb in (("role", "nobody", str(Role.ADMIN)), ("unlock", "nobody"), ("reset", "nobody", "--reason", "x")):
        ran = manage("accounts", *verb)
        assert (ran.code, "There is no login nobody." in ran.err) == (1, True)


def test_a_lost_phone_is_helped(manage, vera: User) -> None:
    second_factor.turn_on(user=vera, key=KEY, code=code(), actor=SYSTEM, now=timezone.now())
    assert manage("accounts", "reset", "vera").code == 2
    assert manage("accounts", "reset", "vera", "--reason", "phone lost").code == 0
    assert not second_factor.is_on(vera)
    assert AuditEvent.objects.get(verb="account.second_factor_off").reason == "phone lost"
    assert "no second factor" in manage("accounts", "reset", "vera", "--reason", "again").err


def test_a_lock_is_lifted(manage, vera: User) -> None:
    client = Client(HTTP_HOST="localhost")
    for _ in range(5):
        client.post("/account/sign-in/", {"username": "vera", "password": "wrong"})
    assert manage("accounts", "unlock", "vera").out == "vera: may try again.\n"
    assert not AccessAttempt.objects.exists()
    assert client.post("/account/sign-in/", {"username": "vera", "password": "x"}).status_code == 302
    assert manage("accounts", "unlock", "vera").out == "vera: nothing to forget.\n"
    assert AuditEvent.objects.filter(verb="account.unlock").count() == 1
