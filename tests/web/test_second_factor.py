"""The second factor, from setting it up to losing the phone."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
import time_machine
from asgiref.sync import sync_to_async
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from botsrt.core.actors import SYSTEM
from botsrt.core.errors import AlreadyExists
from botsrt.models import AuditEvent, Bot
from praisonweb.dashboard import second_factor
from praisonweb.dashboard.access import Role
from tests.services.races import at_once
from tests.web.conftest import PASSWORD, a_user, is_let_in, page, signed_in

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "00" * 20
SIGN_IN, CODE, PAGE = "/account/sign-in/", "/account/sign-in/code/", "/account/second-factor/"
SET_UP = f"{PAGE}set-up/"
WRONG = "000000"


@pytest.fixture(autouse=True)
def clock() -> Any:
    """Stands still; each code of the app is taken once, so that tests move it on."""
    with time_machine.travel(timezone.now(), tick=False) as travel:
        yield travel


@pytest.fixture
def bob(transactional_db: None) -> User:
    return a_user("bob", Role.OPERATOR)


def code(key: str = KEY, *, steps: int = 0) -> str:
    totp = TOTP(bytes.fromhex(key))
    totp.time = timezone.now().timestamp() + 30 * steps
    value = f"{totp.token():06}"
    return value if value != WRONG else code(key, steps=steps + 1)


def turn_on(user: User) -> list[str]:
    """Turn it on; its recovery codes. The code of this moment is used up."""
    _, codes = second_factor.turn_on(user=user, key=KEY, code=code(), actor=SYSTEM, now=timezone.now())
    return codes


def give_password(client: Client, path: str = SIGN_IN) -> Any:
    return client.post(path, {"username": "bob", "password": PASSWORD})


def confirm(client: Client, **more: str) -> Any:
    return client.post("/account/confirm/", {"password": PASSWORD, **more})


def is_signed_in(client: Client) -> bool:
    return bool(client.get("/").status_code == 200)


# -- setting up ----


def test_it_is_set_up_with_a_code_and_gives_recovery_codes_once(client: Client, bob: User) -> None:
    client.force_login(bob)
    assert "off" in client.get(PAGE).content.decode()
    assert client.get(SET_UP)["Location"] == "/account/confirm/?next=%2Faccount%2Fsecond-factor%2Fset-up%2F"
    assert confirm(client, next=SET_UP)["Location"] == SET_UP
    response = client.get(SET_UP)
    html = response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert 'src="data:image/svg+xml' in html
    key = client.session["second_factor_key"]
    assert second_factor.key_for_people(key) in html
    assert client.get(SET_UP).content.decode().count(second_factor.key_for_people(key)) == 1  # a reload keeps it

    assert "does not fit" in client.post(SET_UP, {"code": WRONG}).content.decode()
    assert not second_factor.is_on(bob)
    html = client.post(SET_UP, {"code": code(key)}).content.decode()
    codes = re.findall(r"<code>([a-z2-7-]{19})</code>", html)
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    assert second_factor.is_on(bob)
    assert "second_factor_key" not in client.session
    assert is_signed_in(client)
    html = client.get(PAGE).content.decode()
    assert "10 recovery codes left" in html
    assert not any(code in html for code in codes)
    assert AuditEvent.objects.get(verb="account.second_factor_on").actor == "bob"
    assert not any(code.replace("-", "") in str(list(StaticToken.objects.values())) for code in codes)
    assert client.get(SET_UP)["Location"] == PAGE


def test_turning_it_on_ends_the_other_sessions(bob: User) -> None:
    elsewhere = Client()
    elsewhere.force_login(bob)
    assert is_signed_in(elsewhere)
    turn_on(bob)
    assert elsewhere.get("/")["Location"] == "/account/sign-in/?next=/"
    assert "_auth_user_id" not in elsewhere.session


def test_a_second_browser_does_not_replace_it(bob: User) -> None:
    turn_on(bob)
    with pytest.raises(AlreadyExists):
        turn_on(bob)
    assert TOTPDevice.objects.count() == 1


# -- signing in ----


def test_signing_in_takes_password_and_code(client: Client, bob: User, clock: Any) -> None:
    turn_on(bob)
    assert give_password(client, f"{SIGN_IN}?next=/try/%3Fx%3D1")["Location"] == CODE
    assert "_auth_user_id" not in client.session
    assert client.get("/").status_code == 302
    html = client.get(CODE).content.decode()
    assert "The password of <strong>bob</strong> was right." in html
    assert 'autocomplete="one-time-code"' in html
    before = client.session.session_key
    clock.shift(30)
    assert client.post(CODE, {"code": f" {code()[:3]} {code()[3:]} "})["Location"] == "/try/?x=1"
    assert client.session.session_key != before
    assert is_signed_in(client)


def test_nobody_is_sent_to_another_site_after_the_code(client: Client, bob: User, clock: Any) -> None:
    turn_on(bob)
    clock.shift(30)
    give_password(client, f"{SIGN_IN}?next=https://evil.example/")
    assert client.post(CODE, {"code": code()})["Location"] == "/"


def test_a_key_known_before_the_password_is_worth_nothing_after(client: Client, bob: User) -> None:
    turn_on(bob)
    client.get(SIGN_IN)
    session = client.session
    session.save()
    before = session.session_key or ""
    client.cookies["sessionid"] = before
    give_password(client)
    assert client.session.session_key != before


def test_a_code_is_taken_once(bob: User, clock: Any) -> None:
    turn_on(bob)
    clock.shift(30)
    answers = []
    for _ in range(2):
        client = Client()
        give_password(client)
        answers.append(client.post(CODE, {"code": code()}).status_code)
    assert answers == [302, 200]


def test_a_recovery_code_signs_in_once_and_counts_down(client: Client, bob: User) -> None:
    codes = turn_on(bob)
    give_password(client)
    response = client.post(CODE, {"code": codes[0].upper()}, follow=True)
    assert "9 recovery codes are left." in response.content.decode()
    assert is_signed_in(client)
    again = Client()
    give_password(again)
    assert again.post(CODE, {"code": codes[0]}).status_code == 200
    assert not is_signed_in(again)


@pytest.mark.parametrize("text", ["", "12345", "abcdef", "1234567", "٣٣٣٣٣٣", "a" * 16, "a" * 41, "+12345", "\x00" * 6])
def test_nonsense_is_no_code(client: Client, bob: User, text: str) -> None:
    turn_on(bob)
    give_password(client)
    assert client.post(CODE, {"code": text}).status_code == 200
    assert not is_signed_in(client)


def test_wrong_codes_are_slowed_down_and_then_locked_out(client: Client, bob: User, clock: Any) -> None:
    turn_on(bob)
    clock.shift(30)
    give_password(client)
    assert "is wrong" in client.post(CODE, {"code": WRONG}).content.decode()
    assert "Try again in 1 s." in client.post(CODE, {"code": code()}).content.decode()
    statuses = []
    for _ in range(5):
        clock.shift(40)
        statuses.append(client.post(CODE, {"code": WRONG}).status_code)
    assert statuses == [200, 200, 200, 429, 429]
    assert WRONG not in str(list(AccessAttempt.objects.values()))
    clock.shift(30)
    assert client.get(CODE).status_code == 429
    assert give_password(Client()).status_code == 429
    assert AuditEvent.objects.filter(verb="account.locked").count() == 1


@pytest.mark.parametrize("spoil", ["late", "password", "closed", "direct"])
def test_the_code_alone_is_nothing(client: Client, bob: User, clock: Any, spoil: str) -> None:
    turn_on(bob)
    if spoil != "direct":
        give_password(client)
    clock.shift(300 if spoil == "late" else 30)
    if spoil == "password":
        bob.set_password("another one, set meanwhile")
        bob.save()
    if spoil == "closed":
        User.objects.update(is_active=False)
    assert client.post(CODE, {"code": code()})["Location"] == SIGN_IN
    assert "_auth_user_id" not in client.session


async def test_a_websocket_needs_the_code_too(bob: User, bot: Bot, bridge: None) -> None:
    client = await signed_in(bob)
    assert await is_let_in(page(client, "/ws/try/shop/"))
    await sync_to_async(turn_on)(bob)
    assert not await is_let_in(page(client, "/ws/try/shop/"))
    session = await client.asession()
    await session.aset("otp_device_id", (await TOTPDevice.objects.aget()).persistent_id)
    await session.asave()
    assert await is_let_in(page(client, "/ws/try/shop/"))


def test_somebody_elses_device_counts_for_nothing(client: Client, bob: User, clock: Any) -> None:
    turn_on(bob)
    carol = a_user("carol", Role.VIEWER)
    clock.shift(30)
    turn_on(carol)
    client.force_login(bob)
    session = client.session
    session["otp_device_id"] = second_factor.app_of(carol).persistent_id  # type: ignore[union-attr]
    session.save()
    assert not is_signed_in(client)


# -- afterwards ----


def signed_in_with_code(user: User, clock: Any) -> Client:
    client = Client()
    clock.shift(30)
    give_password(client)
    client.post(CODE, {"code": code()})
    assert is_signed_in(client)
    return client


def test_turning_it_off_takes_password_and_code(bob: User, clock: Any) -> None:
    turn_on(bob)
    client = signed_in_with_code(bob, clock)
    off = f"{PAGE}off/"
    clock.shift(30)
    assert "The password is wrong." in client.post(off, {"password": "x", "code": code()}).content.decode()
    assert client.post(off, {"password": PASSWORD}).status_code == 200
    assert "is wrong" in client.post(off, {"password": PASSWORD, "code": WRONG}).content.decode()
    assert second_factor.is_on(bob)
    clock.shift(30)
    assert client.post(off, {"password": PASSWORD, "code": code()})["Location"] == PAGE
    assert not second_factor.is_on(bob)
    assert not StaticToken.objects.exists()
    assert is_signed_in(client)
    assert AuditEvent.objects.get(verb="account.second_factor_off").actor == "bob"
    assert client.get(off)["Location"] == PAGE


def test_new_recovery_codes_replace_the_old_ones(bob: User, clock: Any) -> None:
    old = turn_on(bob)
    client = signed_in_with_code(bob, clock)
    path = f"{PAGE}recovery-codes/"
    assert client.get(path).status_code == 405
    assert client.post(path)["Location"].startswith("/account/confirm/")
    clock.shift(30)
    confirm(client, code=code())
    html = client.post(path).content.decode()
    new = re.findall(r"<code>([a-z2-7-]{19})</code>", html)
    assert len(new) == second_factor.RECOVERY_CODES
    for recovery_code, is_good in ((old[0], False), (new[0], True)):
        clock.shift(60)
        fresh = Client()
        give_password(fresh)
        assert (fresh.post(CODE, {"code": recovery_code}).status_code == 302) is is_good


def test_recovery_codes_need_a_second_factor(client: Client, bob: User) -> None:
    client.force_login(bob)
    confirm(client)
    assert client.post(f"{PAGE}recovery-codes/")["Location"] == PAGE
    assert not StaticToken.objects.exists()


# -- where it is required ----


def test_where_it_is_required_staff_set_it_up_first(client: Client, settings: Any, bob: User) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    client.force_login(bob)
    response = client.get("/", follow=True)
    assert response.redirect_chain == [(PAGE, 302)]
    assert "Staff need a second factor here." in unescape(response.content.decode())
    assert client.get("/", headers={"HX-Request": "true"})["HX-Redirect"] == PAGE
    assert client.get("/account/password/")["Location"] == PAGE
    confirm(client)
    client.get(SET_UP)
    client.post(SET_UP, {"code": code(client.session["second_factor_key"])})
    assert is_signed_in(client)


def test_where_it_is_required_others_are_left_alone(client: Client, settings: Any, plain: User, bob: User) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    client.force_login(plain)
    assert client.get("/account/password/").status_code == 200
    client.force_login(bob)
    assert client.post("/account/sign-out/")["Location"] == SIGN_IN


async def test_where_it_is_required_websockets_wait_too(settings: Any, bob: User, bot: Bot, bridge: None) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    assert not await is_let_in(page(await signed_in(bob), "/ws/try/shop/"))


def test_the_picture_and_the_secret_say_the_same(bob: User) -> None:
    assert second_factor.key_for_people(KEY) == " ".join(8 * ["AAAA"])
    address = second_factor.app_address(bob, KEY)
    assert address.startswith(f"otpauth://totp/PraisonWeb%3Abob?secret={32 * 'A'}&")
    picture = second_factor.picture(address)
    assert picture.startswith("data:image/svg+xml")
    assert "<script" not in picture


def test_a_phone_whose_clock_is_half_a_minute_off_will_do(bob: User) -> None:
    now = timezone.now()
    with pytest.raises(second_factor.WrongCode):
        second_factor.turn_on(user=bob, key=KEY, code=code(steps=3), actor=SYSTEM, now=now)
    second_factor.turn_on(user=bob, key=KEY, code=code(steps=1), actor=SYSTEM, now=now)
    assert second_factor.is_on(bob)


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_of_two_who_give_the_same_code_at_once_one_gets_in(bob: User, clock: Any, kind: str) -> None:
    codes = turn_on(bob)
    clock.shift(30)
    given = code() if kind == "app" else codes[0]
    results = at_once(*(lambda: second_factor.check(bob, given) for _ in range(2)))
    assert sorted(type(result).__name__ for result in results) == ["Accepted", "WrongCode"]
