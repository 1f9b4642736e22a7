"""A walk over every address: who gets in. A new one without a row here fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.urls import URLPattern, URLResolver, get_resolver

from botsrt.models import Bot, BotSession
from praisonweb.dashboard import presence
from praisonweb.dashboard.access import ROLES, Act, Role
from praisonweb.dashboard.urls import websocket_urlpatterns
from tests.factories import received
from tests.web.addresses import PAGES, SIGNS, SOCKETS, Need, Page
from tests.web.conftest import a_user, is_let_in, open_page, page, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


class Outcome(Enum):
    LET_IN = "let in"
    SIGN_IN = "sent to the sign-in"
    CONFIRM = "asked for the password"
    DENIED = "403"
    NOT_POSSIBLE = "405"
    BROKEN = "5xx"


#: Who walks: name → roles, and the acts that come with them. None: a stranger.
WALKERS: dict[str, tuple[tuple[Role, ...], frozenset[Act]] | None] = {
    "stranger": None,
    "no staff": ((), frozenset()),
    "staff without a role": ((), frozenset()),
    **{role.value: ((role,), acts) for role, acts in ROLES.items()},
    "superuser": ((), frozenset(Act)),
}


def test_every_address_has_a_row() -> None:
    assert {route for route, _ in _routes(get_resolver().url_patterns)} == set(PAGES)


def test_every_websocket_has_a_row() -> None:
    assert {str(pattern.pattern) for pattern in websocket_urlpatterns} == set(SOCKETS)


@pytest.mark.parametrize("name", WALKERS)
@pytest.mark.parametrize("has_confirmed", [False, True], ids=["", "confirmed"])
async def test_who_gets_where(name: str, has_confirmed: bool, bot: Bot, bridge: None) -> None:
    user = await sync_to_async(_walker)(name)
    client = await _browser(user, has_confirmed=has_confirmed)
    got, expected = {}, {}
    for route, row in PAGES.items():
        for method, need in (("GET", row.get), ("POST", row.post)):
            response = await client.generic(method, row.path)
            if need is Need.LEADS_TO_SIGN_IN:
                client = await _browser(user, has_confirmed=has_confirmed)
            got[f"{method} {route}"] = _outcome(response)
            expected[f"{method} {route}"] = _expected(name, row, need, has_confirmed=has_confirmed)
    assert {at: outcome for at, outcome in got.items() if outcome != expected[at]} == {}


async def test_no_form_of_another_site_is_taken(staff: User, bot: Bot, bridge: None) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    await client.aforce_login(staff)
    taken = {route for route, row in PAGES.items() if (await client.post(row.path)).status_code != 403}
    assert taken == {"hooks/<platform:platform>/<account:account>/"}


@pytest.mark.parametrize("name", WALKERS)
async def test_who_may_open_a_websocket(name: str, bot: Bot, bridge: None) -> None:
    user = await sync_to_async(_walker)(name)
    acts = (WALKERS[name] or ((), frozenset()))[1]
    for path, act in SOCKETS.values():
        assert await is_let_in(page(await signed_in(user), path)) is (act in acts), path


def test_every_sign_over_a_websocket_has_a_row() -> None:
    assert presence.SIGNS == SIGNS


@pytest.mark.parametrize("name", WALKERS)
async def test_whose_signs_are_passed_on(name: str, bot: Bot, bridge: None) -> None:
    walker, acts = await sync_to_async(_walker)(name), (WALKERS[name] or ((), frozenset()))[1]
    await sync_to_async(received)()
    talk = await BotSession.objects.aget()
    path = f"/ws/live/?topics=dlq&talk={talk.pk}"
    colleague = await signed_in(await sync_to_async(a_user)("colleague", Role.VIEWER))
    if Act.READ not in acts:
        assert not await is_let_in(page(await signed_in(walker), path))
        return
    async with open_page(colleague, path) as hearing, open_page(await signed_in(walker), path) as saying:
        heard = []
        for sign in SIGNS:
            await saying.send_to(text_data=json.dumps({"type": "sign", "doing": sign}))
        await saying.disconnect()
        while (event := await hearing.hears())["doing"] != presence.GONE:
            heard.append(event["doing"])
    assert heard == [sign for sign, act in SIGNS.items() if act in acts]


def _walker(name: str) -> User | None:
    walker = WALKERS[name]
    if walker is None:
        return None
    return a_user("walker", *walker[0], is_staff=name != "no staff", is_superuser=name == "superuser")


async def _browser(user: User | None, *, has_confirmed: bool) -> AsyncClient:
    client = await signed_in(user)
    if user is not None and has_confirmed:
        session = await client.asession()
        await session.aset("sudo_until", int(time.time()) + 600)
        await session.asave()
    return client


def _expected(name: str, row: Page, need: Act | Need, *, has_confirmed: bool) -> Outcome:
    walker = WALKERS[name]
    if need is Need.NOTHING:
        return Outcome.LET_IN
    if walker is None and row.get is not Need.NOTHING:
        return Outcome.SIGN_IN
    acts = walker[1] if walker else frozenset()
    if need is Need.NOBODY or (row.inside and row.inside not in acts):
        return Outcome.DENIED
    if need is Need.LEADS_TO_SIGN_IN:
        return Outcome.SIGN_IN
    if need is Need.NOT_POSSIBLE:
        return Outcome.NOT_POSSIBLE
    if isinstance(need, Act) and need not in acts:
        return Outcome.DENIED
    return Outcome.CONFIRM if row.sudo and not has_confirmed else Outcome.LET_IN


def _outcome(response: Any) -> Outcome:
    """What an answer means. What is not there, or sent without what it needs, was let in."""
    target = response.headers.get("Location", "")
    if target.startswith(("/account/sign-in/", "/admin/login/")) and "/code/" not in target:
        return Outcome.SIGN_IN
    if target.startswith("/account/confirm/"):
        return Outcome.CONFIRM
    if response.status_code >= 500:
        return Outcome.BROKEN
    return {403: Outcome.DENIED, 405: Outcome.NOT_POSSIBLE}.get(response.status_code, Outcome.LET_IN)


@pytest.mark.parametrize("route", PAGES)
async def test_no_page_loads_anything_from_elsewhere(route: str, staff: User, bot: Bot, bridge: None) -> None:
    row = PAGES[route]
    client = await _browser(staff, has_confirmed=True)
    response = await client.generic("POST" if row.get is Need.NOT_POSSIBLE else "GET", row.path)
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
