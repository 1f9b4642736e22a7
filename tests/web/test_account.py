"""Signing in and out, and the password."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.web.conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)

NEW = "battery staple correct horse"


def sign_in(client: Client, name: str = "alice", password: str = PASSWORD, path: str = "/account/sign-in/"):
    return client.post(path, {"username": name, "password": password})


def test_a_stranger_is_asked_to_sign_in_and_comes_back(client: Client, staff: User) -> None:
    response = client.get("/try/?x=1")
    assert response["Location"] == "/account/sign-in/?next=/try/%3Fx%3D1"
    form = client.get(response["Location"]).content.decode()
    target = re.findall(r'name="next" value="([^"]*)"', form)[0]
    response = client.post("/account/sign-in/", {"username": "alice", "password": PASSWORD, "next": target})
    assert response["Location"] == "/try/?x=1"


def test_a_key_known_before_the_sign_in_is_worth_nothing_after(client: Client, staff: User) -> None:
    session = client.session
    session["something"] = 1
    session.save()
    before = session.session_key or ""
    client.cookies["sessionid"] = before
    sign_in(client)
    assert client.session.session_key != before
    stranger = Client()
    stranger.cookies["sessionid"] = before
    assert stranger.get("/").status_code == 302


def test_nobody_is_sent_to_another_site(client: Client, staff: User) -> None:
    response = sign_in(client, path="/account/sign-in/?next=https://evil.example/")
    assert response["Location"] == "/"


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", PASSWORD), ("", "")])
def test_a_wrong_password_says_no_more_than_that(client: Client, staff: User, name: str, password: str) -> None:
    response = sign_in(client, name, password)
    assert response.status_code == 200
    html = response.content.decode()
    assert 'role="alert"' in html
    assert "nobody" not in re.sub(r"<input[^>]*>", "", html)
    assert "_auth_user_id" not in client.session


def test_a_closed_account_cannot_sign_in(client: Client, staff: User) -> None:
    User.objects.update(is_active=False)
    assert sign_in(client).status_code == 200
    assert "_auth_user_id" not in client.session


def test_somebody_who_is_no_staff_is_told_so_and_can_leave(client: Client, plain: User) -> None:
    response = sign_in(client, "mallory")
    response = client.get(response["Location"])
    html = response.content.decode()
    assert response.status_code == 403
    assert "Your account is not staff." in html
    assert "Sign out mallory" in html
    assert 'href="/try/"' not in html


def test_signing_out_needs_a_click_not_a_link(staff_client: Client) -> None:
    assert staff_client.get("/account/sign-out/").status_code == 405
    assert staff_client.get("/").status_code == 200
    assert staff_client.post("/account/sign-out/")["Location"] == "/account/sign-in/"
    assert staff_client.get("/").status_code == 302


def change(client: Client, old: str = PASSWORD, new: str = NEW, again: str = NEW):
    return client.post(
        "/account/password/", {"old_password": old, "new_password1": new, "new_password2": again}, follow=True
    )


def test_the_password_is_changed_and_other_browsers_are_signed_out(staff_client: Client, staff: User) -> None:
    elsewhere = Client()
    elsewhere.force_login(staff)
    html = change(staff_client).content.decode()
    assert "Your password is changed." in html
    assert 'role="status"' in html
    assert staff_client.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
    assert sign_in(Client(), password=NEW).status_code == 302
    assert sign_in(Client(), password=PASSWORD).status_code == 200


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [("wrong", NEW, NEW), (PASSWORD, NEW, "something else"), (PASSWORD, "12345678", "12345678"), (PASSWORD, "", "")],
)
def test_a_bad_change_changes_nothing(staff_client: Client, old: str, new: str, again: str) -> None:
    html = change(staff_client, old, new, again).content.decode()
    assert 'class="field-error" role="alert"' in html
    assert "Your password is changed." not in html
    assert sign_in(Client()).status_code == 302


def test_a_plain_user_can_change_the_password_and_sees_no_staff_pages(client: Client, plain: User) -> None:
    client.force_login(plain)
    html = client.get("/account/password/").content.decode()
    assert 'href="/try/"' not in html
    assert "Your password is changed." in change(client).content.decode()


def test_a_signed_in_user_needs_no_form(staff_client: Client) -> None:
    assert staff_client.get("/account/sign-in/")["Location"] == "/"
