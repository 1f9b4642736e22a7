"""The password again, before what gives power."""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory
from django.utils import timezone

from botsrt.models import AuditEvent
from praisonweb.dashboard import sudo
from praisonweb.dashboard.access import Role
from tests.web.conftest import PASSWORD, a_user

pytestmark = pytest.mark.django_db(transaction=True)

CONFIRM = "/account/confirm/"
GUARDED = "/account/second-factor/set-up/"


@pytest.fixture
def bob(client: Client, transactional_db: None) -> User:
    user = a_user("bob", Role.OPERATOR)
    client.force_login(user)
    return user


def confirm(client: Client, password: str = PASSWORD, **more: str) -> Any:
    return client.post(CONFIRM, {"password": password, **more})


def test_it_asks_goes_back_and_holds_for_ten_minutes(client: Client, bob: User) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        where = client.get(f"{GUARDED}?a=1&b=2")["Location"]
        assert where == f"{CONFIRM}?next=%2Faccount%2Fsecond-factor%2Fset-up%2F%3Fa%3D1%26b%3D2"
        assert "Confirm that it is you" in client.get(where).content.decode()
        before = client.session.session_key
        assert client.post(where, {"password": PASSWORD})["Location"] == f"{GUARDED}?a=1&b=2"
        assert client.session.session_key != before
        assert client.get(GUARDED).status_code == 200
        clock.shift(599)
        assert client.get(GUARDED).status_code == 200
        clock.shift(1)
        assert client.get(GUARDED).status_code == 302
    event = AuditEvent.objects.get(verb="account.sudo")
    assert (event.actor, event.object_id, event.address) == ("bob", "bob", "127.0.0.1")


def test_a_wrong_password_gives_nothing_and_the_fifth_locks(client: Client, bob: User) -> None:
    assert [confirm(client, "wrong").status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    assert confirm(client).status_code == 429
    assert client.get(GUARDED).status_code == 302
    assert not AuditEvent.objects.filter(verb="account.sudo").exists()
    assert AuditEvent.objects.filter(verb="account.sign_in_failed", object_id="bob").count() == 5


def test_a_form_that_comes_unconfirmed_changes_nothing_and_leads_back_to_its_page(client: Client, bob: User) -> None:
    response = client.post(GUARDED, {"code": "123456"}, headers={"Referer": "http://testserver/bots/?a=1"})
    assert response["Location"] == f"{CONFIRM}?next=%2Fbots%2F%3Fa%3D1"
    html = client.get(response["Location"]).content.decode()
    assert "Nothing was changed yet" in html
    assert "123456" not in html


@pytest.mark.parametrize("page", ["https://evil.example/x", "//evil.example/x", "javascript:alert(1)", "", "http://["])
def test_a_foreign_page_leads_home(client: Client, bob: User, page: str) -> None:
    response = client.post(GUARDED, headers={"Referer": page})
    assert response["Location"] == f"{CONFIRM}?next=%2F"


def test_htmx_is_sent_as_a_whole(client: Client, bob: User) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/bots/"}
    response = client.get(GUARDED, headers=headers)
    assert response["HX-Redirect"] == f"{CONFIRM}?next=%2Fbots%2F"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "\\\\evil.example/",
        "javascript:alert(1)",
        "http:///evil.example",
        " //evil.example",
        "http://testserver//evil.example/",
    ],
)
def test_nobody_is_sent_to_another_site(client: Client, bob: User, target: str) -> None:
    assert confirm(client, next=target)["Location"] == "/"


def test_signing_out_ends_it(client: Client, bob: User) -> None:
    confirm(client)
    client.post("/account/sign-out/")
    client.force_login(bob)
    assert client.get(GUARDED)["Location"].startswith(CONFIRM)


async def test_coroutine_views_are_guarded_too(transactional_db: None) -> None:
    @sudo.sudo_required
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("done")

    class Session(dict[str, int]):
        async def aget(self, key: str, default: int) -> int:
            return self.get(key, default)

    request: Any = AsyncRequestFactory().get("/x/")
    request.session = Session()
    assert (await view(request))["Location"] == f"{CONFIRM}?next=%2Fx%2F"
    request.session = Session(sudo_until=2**40)
    assert (await view(request)).content == b"done"


def test_https_pages_lead_back_to_https_alone() -> None:
    request = RequestFactory().get("/", secure=True)
    assert sudo.safe_target(request, "http://testserver/x") == ""
    assert sudo.safe_target(request, "https://testserver/x?y=1") == "/x?y=1"
    assert sudo.safe_target(request, "/x") == "/x"
