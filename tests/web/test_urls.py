"""A walk over every address: who gets in. A new one without a row here fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.urls import URLPattern, URLResolver, get_resolver

from botsrt.models import Bot
from praisonweb.dashboard.urls import websocket_urlpatterns
from tests.web.conftest import is_let_in, page, signed_in

pytestmark = pytest.mark.django_db(transaction=True)

SIGN_IN = "to sign in"

#: A group of failures that there is not.
GROUP = f"/dlq/groups/{'0' * 16}/"

#: Route → method and path, then what a stranger, a plain user and staff get: a status, or the way to sign in.
ADDRESSES: dict[str, tuple[str, str, int | str, int | str, int | str]] = {
    "": ("GET", "/", SIGN_IN, 403, 200),
    "charts/": ("GET", "/charts/", SIGN_IN, 403, 200),
    "journal/": ("GET", "/journal/", SIGN_IN, 403, 200),
    "journal/replay/": ("POST", "/journal/replay/", SIGN_IN, 403, 409),
    "journal/<id:entry_id>/": ("GET", "/journal/1/", SIGN_IN, 403, 404),
    "journal/<id:entry_id>/replay/": ("POST", "/journal/1/replay/", SIGN_IN, 403, 400),
    "dlq/": ("GET", "/dlq/", SIGN_IN, 403, 200),
    "dlq/retry/": ("POST", "/dlq/retry/", SIGN_IN, 403, 409),
    "dlq/discard/": ("POST", "/dlq/discard/", SIGN_IN, 403, 409),
    "dlq/groups/<fingerprint:fingerprint>/": ("GET", f"{GROUP}", SIGN_IN, 403, 404),
    "dlq/groups/<fingerprint:fingerprint>/retry/": ("POST", f"{GROUP}retry/", SIGN_IN, 403, 409),
    "dlq/groups/<fingerprint:fingerprint>/discard/": ("POST", f"{GROUP}discard/", SIGN_IN, 403, 409),
    "dlq/groups/<fingerprint:fingerprint>/note/": ("POST", f"{GROUP}note/", SIGN_IN, 403, 409),
    "dlq/groups/<fingerprint:fingerprint>/assign/": ("POST", f"{GROUP}assign/", SIGN_IN, 403, 409),
    "dlq/groups/<fingerprint:fingerprint>/snooze/": ("POST", f"{GROUP}snooze/", SIGN_IN, 403, 409),
    "dlq/<id:item_id>/": ("GET", "/dlq/1/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/retry/": ("POST", "/dlq/1/retry/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/edit/": ("POST", "/dlq/1/edit/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/discard/": ("POST", "/dlq/1/discard/", SIGN_IN, 403, 400),
    "dlq/<id:item_id>/undo/": ("POST", "/dlq/1/undo/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/note/": ("POST", "/dlq/1/note/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/assign/": ("POST", "/dlq/1/assign/", SIGN_IN, 403, 404),
    "dlq/<id:item_id>/snooze/": ("POST", "/dlq/1/snooze/", SIGN_IN, 403, 404),
    "deliveries/": ("GET", "/deliveries/", SIGN_IN, 403, 200),
    "deliveries/resolve/<slug:resolution>/": ("POST", "/deliveries/resolve/again/", SIGN_IN, 403, 409),
    "deliveries/<id:outbox_id>/": ("GET", "/deliveries/1/", SIGN_IN, 403, 404),
    "deliveries/<id:outbox_id>/<slug:resolution>/": ("POST", "/deliveries/1/again/", SIGN_IN, 403, 404),
    "bots/": ("GET", "/bots/", SIGN_IN, 403, 200),
    "bots/+add/": ("GET", "/bots/+add/?platform=web", SIGN_IN, 403, 200),
    "bots/<account:account>/": ("GET", "/bots/shop/", SIGN_IN, 403, 200),
    "bots/<account:account>/edit/": ("GET", "/bots/shop/edit/", SIGN_IN, 403, 200),
    "bots/<account:account>/credentials/": ("POST", "/bots/shop/credentials/", SIGN_IN, 403, 409),
    "bots/<account:account>/pause/": ("POST", "/bots/shop/pause/", SIGN_IN, 403, 302),
    "bots/<account:account>/resume/": ("POST", "/bots/shop/resume/", SIGN_IN, 403, 409),
    "bots/<account:account>/reconnect/": ("POST", "/bots/shop/reconnect/", SIGN_IN, 403, 302),
    "bots/<account:account>/test/": ("POST", "/bots/shop/test/", SIGN_IN, 403, 302),
    "bots/<account:account>/remove/": ("POST", "/bots/shop/remove/", SIGN_IN, 403, 400),
    "agents/": ("GET", "/agents/", SIGN_IN, 403, 200),
    "agents/+add/": ("GET", "/agents/+add/?kind=echo", SIGN_IN, 403, 200),
    "agents/<account:name>/": ("GET", "/agents/echo/", SIGN_IN, 403, 200),
    "agents/<account:name>/edit/": ("GET", "/agents/echo/edit/", SIGN_IN, 403, 200),
    "agents/<account:name>/remove/": ("POST", "/agents/echo/remove/", SIGN_IN, 403, 409),
    "people/": ("GET", "/people/", SIGN_IN, 403, 200),
    "people/<id:session_pk>/": ("GET", "/people/1/", SIGN_IN, 403, 404),
    "people/<id:session_pk>/reply/": ("POST", "/people/1/reply/", SIGN_IN, 403, 404),
    "people/<id:session_pk>/note/": ("POST", "/people/1/note/", SIGN_IN, 403, 404),
    "people/<id:session_pk>/export/": ("POST", "/people/1/export/", SIGN_IN, 403, 404),
    "people/<id:session_pk>/hand-to/<slug:handler>/": ("POST", "/people/1/hand-to/human/", SIGN_IN, 403, 404),
    "people/contacts/<id:contact_id>/link/": ("POST", "/people/contacts/1/link/", SIGN_IN, 403, 404),
    "people/contacts/<id:contact_id>/unlink/": ("POST", "/people/contacts/1/unlink/", SIGN_IN, 403, 404),
    "pairings/": ("GET", "/pairings/", SIGN_IN, 403, 200),
    "pairings/verify/": ("POST", "/pairings/verify/", SIGN_IN, 403, 409),
    "pairings/<id:request_id>/approve/": ("POST", "/pairings/1/approve/", SIGN_IN, 403, 404),
    "pairings/<id:request_id>/deny/": ("POST", "/pairings/1/deny/", SIGN_IN, 403, 404),
    "pairings/<id:request_id>/block/": ("POST", "/pairings/1/block/", SIGN_IN, 403, 404),
    "pairings/<id:request_id>/revoke/": ("POST", "/pairings/1/revoke/", SIGN_IN, 403, 404),
    "audit/": ("GET", "/audit/", SIGN_IN, 403, 200),
    "workers/": ("GET", "/workers/", SIGN_IN, 403, 200),
    "try/": ("GET", "/try/", SIGN_IN, 403, 302),
    "try/<account:account>/": ("GET", "/try/shop/", SIGN_IN, 403, 200),
    "try/<account:account>/send/": ("POST", "/try/shop/send/", SIGN_IN, 403, 400),
    "account/sign-in/": ("GET", "/account/sign-in/", 200, 302, 302),
    "account/sign-out/": ("POST", "/account/sign-out/", SIGN_IN, SIGN_IN, SIGN_IN),
    "account/password/": ("GET", "/account/password/", SIGN_IN, 200, 200),
    "healthz": ("GET", "/healthz", 200, 200, 200),
    "hooks/<platform:platform>/<account:account>/": ("POST", "/hooks/telegram/shop/", 404, 404, 404),
}

#: Websocket route → path, then whether a stranger, a plain user and staff get in.
SOCKETS: dict[str, tuple[str, bool, bool, bool]] = {
    "ws/live/": ("/ws/live/?topics=journal,dlq", False, False, True),
    "ws/try/<account:account>/": ("/ws/try/shop/", False, False, True),
    "": ("/ws/nothing/", False, False, False),
}


def test_every_address_has_a_row() -> None:
    assert {route for route, _ in _routes(get_resolver().url_patterns)} == set(ADDRESSES)


def test_every_websocket_has_a_row() -> None:
    assert {str(pattern.pattern) for pattern in websocket_urlpatterns} == set(SOCKETS)


@pytest.mark.parametrize("route", ADDRESSES)
async def test_who_gets_in(route: str, staff: User, plain: User, bot: Bot, bridge: None) -> None:
    method, path, *expected = ADDRESSES[route]
    got = []
    for user in (None, plain, staff):
        response = await (await signed_in(user)).generic(method, path)
        is_sent_away = response.status_code == 302 and response["Location"].startswith("/account/sign-in/")
        got.append(SIGN_IN if is_sent_away else response.status_code)
    assert got == expected


@pytest.mark.parametrize("route", SOCKETS)
async def test_who_may_open_a_websocket(route: str, staff: User, plain: User, bot: Bot, bridge: None) -> None:
    path, *expected = SOCKETS[route]
    assert [await is_let_in(page(await signed_in(user), path)) for user in (None, plain, staff)] == expected


@pytest.mark.parametrize("route", ADDRESSES)
async def test_no_page_loads_anything_from_elsewhere(route: str, staff: User, bot: Bot, bridge: None) -> None:
    method, path, *_ = ADDRESSES[route]
    response = await (await signed_in(staff)).generic(method, path)
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    body = response.content.decode()
    assert "<style" not in body
    assert "style=" not in body
    assert "<script>" not in body
    assert " onclick" not in body


async def test_an_address_that_does_not_exist_is_said_to_be_none(bridge: None) -> None:
    response = await AsyncClient().get("/no/such/page/")
    assert response.status_code == 404
    assert "There is no page at this address." in response.content.decode()


async def test_a_foreign_host_gets_a_page_of_its_own(bridge: None) -> None:
    response = await AsyncClient().get("/healthz", headers={"host": "evil.example"})
    assert response.status_code == 400
    assert "That request cannot be read" in response.content.decode()
    assert "evil.example" not in response.content.decode()


def _routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, route)
        else:
            yield route, pattern
