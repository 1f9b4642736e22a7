"""The stock admin: rows to read, no secrets, the site's own acts, users and groups for administrators."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from botsrt.core.actors import SYSTEM
from botsrt.core.states import DLQState, EntryState, PairingState, UnknownUserPolicy
from botsrt.models import AuditEvent, Bot, DLQItem, JournalEntry, Pairing
from praisonweb.dashboard import second_factor
from praisonweb.dashboard.access import Role
from praisonweb.dashboard.admin import acts, site
from praisonweb.dashboard.admin.raw import _masked
from tests.factories import NOW, a_bot, a_message, answered, asks, parked
from tests.web.conftest import PASSWORD, a_user, confirmed
from tests.web.test_second_factor import KEY, clock, code

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ["clock"]

TOKEN = "123456:telegram-token-of-the-shop"
HOSTILE = "<script>alert(1)</script>\u202e"
HARMLESS = "&lt;script&gt;alert(1)&lt;/script&gt;\u27e6U+202E\u27e7"
JOURNAL, DLQ, PAIRINGS, USERS, GROUPS = (
    f"/admin/{path}/" for path in ("botsrt/journalentry", "botsrt/dlqitem", "botsrt/pairing", "auth/user", "auth/group")
)


@pytest.fixture
def shop(transactional_db: None) -> Bot:
    return a_bot("shop", credentials={"token": TOKEN})


def as_(role: Role, name: str = "", *, has_confirmed: bool = False) -> Client:
    client = Client()
    client.force_login(a_user(name or role.value, role))
    return confirmed(client) if has_confirmed else client


def said(client: Client, path: str) -> str:
    return unescape(" ".join(re.findall(r'<li class="(?:success|warning|error)">(.*?)</li>', _html(client, path))))


def _html(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return str(response.content.decode())


# -- rows ----


def test_every_table_of_the_runtime_is_there_and_no_other() -> None:
    ours = set(apps.get_app_config("botsrt").get_models())
    assert {model for model in site._registry if model._meta.app_label == "botsrt"} == ours
    assert {model for model in site._registry if model not in ours} == {User, Group}


def test_rows_are_shown_and_cannot_be_changed(shop: Bot) -> None:
    entry = parked(
        a_message(HOSTILE, display_name=HOSTILE, raw={"text": HOSTILE}), text=HOSTILE, traceback=HOSTILE
    ).entry
    client = as_(Role.VIEWER)
    for model in apps.get_app_config("botsrt").get_models():
        name = model._meta.model_name
        row = model._default_manager.first()
        if row is None or name == "auditevent":
            continue
        html = _html(client, f"/admin/botsrt/{name}/{row.pk}/change/")
        for text in (html, _html(client, f"/admin/botsrt/{name}/")):
            assert "<script>alert" not in text
            assert "\u202e" not in text
        assert not re.findall(r'<(?:input|textarea|select)[^>]*name="(?!csrf|next)', html), name
    html = _html(client, f"{JOURNAL}{entry.pk}/change/")
    assert HARMLESS in html
    assert client.post(f"{JOURNAL}{entry.pk}/change/", {"state": "completed"}).status_code == 403


def test_credentials_are_never_shown(shop: Bot) -> None:
    stored = shop.credentials["token"]
    Bot.objects.filter(pk=shop.pk).update(credentials={"token": stored, "app_token": "env:APP_TOKEN"})
    shop.adapter.applied_config = {"settings": {"mode": "polling"}, "credentials": {"token": stored}}
    shop.adapter.save()
    client = as_(Role.ADMIN)
    for path in (f"bot/{shop.pk}/change/", f"adapterstate/{shop.pk}/change/", "bot/", "adapterstate/"):
        html = _html(client, f"/admin/botsrt/{path}")
        assert stored not in html
        assert stored.removeprefix("fernet:") not in html
        assert TOKEN not in html
    html = _html(client, f"/admin/botsrt/bot/{shop.pk}/change/")
    assert "env:APP_TOKEN" in html
    assert "•••" in html


def test_what_sounds_secret_is_masked_wherever_it_is() -> None:
    value = {"token": "x", "usage": {"prompt_tokens": 12}, "a": [{"api_key": "y", "text": "z"}], "secret": {"b": "c"}}
    masked = {
        "token": "•••",
        "usage": {"prompt_tokens": 12},
        "a": [{"api_key": "•••", "text": "z"}],
        "secret": {"b": "•••"},
    }
    assert _masked(value, is_secret=False) == masked


def test_second_factors_and_sessions_are_not_there(shop: Bot) -> None:
    client = as_(Role.ADMIN)
    for table in ("otp_totp/totpdevice", "otp_static/statictoken", "sessions/session", "axes/accessattempt"):
        assert client.get(f"/admin/{table}/").status_code == 404


def test_the_audit_is_for_auditors(shop: Bot) -> None:
    path = f"/admin/botsrt/auditevent/{AuditEvent.objects.get(verb='bots.add').pk}/change/"
    assert as_(Role.OPERATOR).get(path).status_code == 403
    assert "bots.add" in _html(as_(Role.AUDITOR), path)
    assert "Audit events" not in _html(as_(Role.VIEWER), "/admin/")


def test_there_is_one_way_to_sign_in(client: Client) -> None:
    response = client.get("/admin/botsrt/bot/", follow=True)
    assert response.redirect_chain[-1][0] == "/account/sign-in/?next=/admin/botsrt/bot/"
    posted = client.post("/admin/login/", {"username": "admin", "password": PASSWORD})
    assert posted["Location"].startswith("/account/sign-in/")


# -- acts ----


def act(client: Client, path: str, action: str, *ids: int, **more: str) -> Any:
    return client.post(path, {"action": action, "_selected_action": [str(row_id) for row_id in ids], **more})


def test_a_message_is_replayed_after_the_question(shop: Bot) -> None:
    entry = answered("Hello")
    client = as_(Role.OPERATOR)
    html = act(client, JOURNAL, "replay", entry.pk).content.decode()
    assert "Replay 1 message?" in html
    assert "people may get an answer now" in html
    entry.refresh_from_db()
    assert entry.state == EntryState.COMPLETED
    act(client, JOURNAL, "replay", entry.pk, confirmed="yes", reason="asked to")
    entry.refresh_from_db()
    assert entry.state == EntryState.PENDING
    event = AuditEvent.objects.get(verb="journal.replay")
    assert (event.actor, event.reason, event.address) == ("operator", "asked to", "127.0.0.1")
    assert said(client, JOURNAL) == "1 message replayed."
    act(client, JOURNAL, "replay", entry.pk, confirmed="yes")
    assert f"Skipped {entry.pk}: Journal entry {entry.pk} is pending already" in said(client, JOURNAL)


def test_a_dead_letter_is_retried(shop: Bot) -> None:
    item = parked("Hello")
    act(as_(Role.OPERATOR), DLQ, "retry", item.pk, confirmed="yes")
    item.refresh_from_db()
    assert item.state == DLQState.RETRYING
    assert AuditEvent.objects.get(verb="dlq.retry").actor == "operator"


def test_discarding_needs_a_reason(shop: Bot) -> None:
    first, second = parked("Hello"), parked(a_message("Hello again", channel_id="chat-2", user_id="user-2"))
    client = as_(Role.OPERATOR)
    html = act(client, DLQ, "discard", first.pk, second.pk).content.decode()
    assert "Discard 2 dead letters?" in html
    assert "Say why" in act(client, DLQ, "discard", first.pk, second.pk, confirmed="yes").content.decode()
    assert not DLQItem.objects.filter(state=DLQState.DISCARDED).exists()
    act(client, DLQ, "discard", first.pk, second.pk, confirmed="yes", reason="spam")
    assert DLQItem.objects.filter(state=DLQState.DISCARDED, close_reason="spam", closed_by="operator").count() == 2


def test_requests_are_approved_with_a_reason(transactional_db: None) -> None:
    a_bot("shop", policy=UnknownUserPolicy.PAIR)
    first, second = asks("ann"), asks("ben")
    client = as_(Role.OPERATOR)
    html = act(client, PAIRINGS, "approve", first.pk, second.pk).content.decode()
    assert "Approve 2 requests?" in html
    assert "Without a code nothing but your reason stands behind it." in html
    assert "Say why" in act(client, PAIRINGS, "approve", first.pk, confirmed="yes").content.decode()
    assert Pairing.objects.filter(state=PairingState.WAITING).count() == 2
    act(client, PAIRINGS, "approve", first.pk, confirmed="yes", reason="a regular")
    first.refresh_from_db()
    assert (first.state, first.decided_by, first.reason) == (PairingState.APPROVED, "operator", "a regular")
    assert AuditEvent.objects.get(verb="pairing.approve").reason == "a regular"
    assert JournalEntry.objects.get(pk=first.entry_id or 0).state == EntryState.PENDING
    act(client, PAIRINGS, "approve", first.pk, second.pk, confirmed="yes", reason="again")
    said_then = said(client, PAIRINGS)
    assert "1 request approved." in said_then
    assert f"Skipped {first.pk}: " in said_then


def test_who_may_not_pair_does_not_approve_in_the_admin(transactional_db: None) -> None:
    a_bot("shop", policy=UnknownUserPolicy.PAIR)
    request = asks("ann")
    for role in (Role.VIEWER, Role.AUDITOR):
        client = as_(role)
        assert 'value="approve"' not in _html(client, PAIRINGS)
        act(client, PAIRINGS, "approve", request.pk, confirmed="yes", reason="x")
    request.refresh_from_db()
    assert request.state == PairingState.WAITING


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AUDITOR])
def test_who_may_only_read_is_not_offered_acts_and_cannot_do_them(shop: Bot, role: Role) -> None:
    item = parked("Hello")
    client = as_(role)
    assert 'value="retry"' not in _html(client, DLQ)
    for action in ("retry", "discard"):
        act(client, DLQ, action, item.pk, confirmed="yes", reason="x")
    act(client, JOURNAL, "replay", item.entry_id, confirmed="yes")
    item.refresh_from_db()
    assert item.state == DLQState.OPEN
    assert JournalEntry.objects.get(pk=item.entry_id).state == EntryState.DEAD


def test_too_many_rows_are_refused(shop: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "MAX_ROWS", 1)
    first, second = parked("Hello"), parked(a_message("Hello again", channel_id="chat-2", user_id="user-2"))
    client = as_(Role.OPERATOR)
    act(client, DLQ, "retry", first.pk, second.pk, confirmed="yes")
    assert "more than 1 rows" in said(client, DLQ)
    assert DLQItem.objects.filter(state=DLQState.OPEN).count() == 2


# -- users ----


def fields_of(user: User, **changes: Any) -> dict[str, Any]:
    fields = {
        "username": user.username,
        "is_active": "on",
        "is_staff": "on",
        "groups": [str(group.pk) for group in user.groups.all()],
        "bot_limits-TOTAL_FORMS": "0",
        "bot_limits-INITIAL_FORMS": "0",
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def test_an_administrator_adds_a_colleague_with_a_role() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    viewer = Group.objects.get(name=Role.VIEWER)
    response = client.post(
        f"{USERS}add/",
        {
            "username": "vera",
            "usable_password": "true",
            "password1": "a long new one 1",
            "password2": "a long new one 1",
            "is_staff": "on",
            "groups": [viewer.pk],
        },
    )
    assert response.status_code == 302, response.content.decode()
    vera = User.objects.get(username="vera")
    assert vera.is_staff
    event = AuditEvent.objects.get(verb="users.add")
    assert (event.actor, event.object_id, event.before) == ("admin", "vera", {})
    assert event.after["roles"] == ["viewer"]
    assert "a long new one" not in str(list(AuditEvent.objects.values()))


def test_a_change_of_rights_is_audited_with_before_and_after() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    vera = a_user("vera", Role.VIEWER)
    operator = Group.objects.get(name=Role.OPERATOR)
    assert client.post(f"{USERS}{vera.pk}/change/", fields_of(vera, groups=[str(operator.pk)])).status_code == 302
    event = AuditEvent.objects.get(verb="users.change")
    assert (event.before["roles"], event.after["roles"]) == (["viewer"], ["operator"])


def test_a_closed_account_is_out_at_once() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    vera = as_(Role.VIEWER, "vera")
    assert vera.get("/").status_code == 200
    user = User.objects.get(username="vera")
    client.post(f"{USERS}{user.pk}/change/", fields_of(user, is_active=None))
    assert vera.get("/").status_code == 302


def test_nobody_is_removed() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    vera = a_user("vera", Role.VIEWER)
    assert client.post(f"{USERS}{vera.pk}/delete/", {"post": "yes"}).status_code in (403, 404, 405, 302)
    act(client, USERS, "delete_selected", vera.pk, post="yes")
    assert User.objects.filter(username="vera").exists()


def test_an_administrator_cannot_become_a_superuser_or_touch_one() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    boss = User.objects.create_superuser("boss", password=PASSWORD)
    vera = a_user("vera", Role.VIEWER)
    client.post(f"{USERS}{vera.pk}/change/", fields_of(vera, is_superuser="on"))
    assert not User.objects.get(username="vera").is_superuser
    assert client.post(f"{USERS}{boss.pk}/change/", fields_of(boss, is_active=None)).status_code == 403
    passwords = {"password1": "taken over 123", "password2": "taken over 123", "usable_password": "true"}
    assert client.post(f"{USERS}{boss.pk}/password/", passwords).status_code == 403
    boss.refresh_from_db()
    assert boss.is_active
    assert boss.check_password(PASSWORD)


def test_nobody_changes_their_own_rights() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    admin = User.objects.get(username="admin")
    client.post(f"{USERS}{admin.pk}/change/", {"username": "admin", "is_superuser": "on"})
    admin.refresh_from_db()
    assert (admin.is_active, admin.is_staff, admin.is_superuser) == (True, True, False)
    assert admin.groups.count() == 1


def test_a_new_password_signs_out_and_is_audited() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    vera = as_(Role.VIEWER, "vera")
    user = User.objects.get(username="vera")
    passwords = {"password1": "a long new one 1", "password2": "a long new one 1", "usable_password": "true"}
    assert client.post(f"{USERS}{user.pk}/password/", {**passwords, "password2": "else"}).status_code == 200
    assert not AuditEvent.objects.filter(verb="users.password").exists()
    assert client.post(f"{USERS}{user.pk}/password/", passwords).status_code == 302
    assert vera.get("/").status_code == 302
    assert AuditEvent.objects.get(verb="users.password").object_id == "vera"


def test_a_lost_phone_is_helped_with_a_reason(clock: Any) -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    vera, boss = a_user("vera", Role.VIEWER), User.objects.create_superuser("boss")
    for user in (vera, boss):
        second_factor.turn_on(user=user, key=KEY, code=code(), actor=SYSTEM, now=NOW.now(NOW.tzinfo))
    act(client, USERS, "second_factor_off", vera.pk, boss.pk, confirmed="yes", reason="phone lost, asked in person")
    assert not second_factor.is_on(vera)
    assert second_factor.is_on(boss)
    assert "boss is a superuser" in said(client, USERS)
    event = AuditEvent.objects.get(verb="account.second_factor_off")
    assert (event.actor, event.object_id, event.reason) == ("admin", "vera", "phone lost, asked in person")


def test_users_wait_for_a_confirmation() -> None:
    client = as_(Role.ADMIN)
    vera = a_user("vera", Role.VIEWER)
    response = client.post(f"{USERS}{vera.pk}/change/", fields_of(vera, is_active=None))
    assert response["Location"].startswith("/account/confirm/")
    vera.refresh_from_db()
    assert vera.is_active


# -- groups ----


def test_a_group_of_the_site_can_have_acts_alone() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    read = Permission.objects.get(codename="read")
    foreign = Permission.objects.get(codename="delete_user")
    assert client.post(f"{GROUPS}add/", {"name": "night", "permissions": [foreign.pk]}).status_code == 200
    assert client.post(f"{GROUPS}add/", {"name": "night", "permissions": [read.pk]}).status_code == 302
    event = AuditEvent.objects.get(verb="groups.add")
    assert event.after == {"name": "night", "permissions": ["read"]}
    group = Group.objects.get(name="night")
    act(client, GROUPS, "delete_selected", group.pk, post="yes")
    assert not Group.objects.filter(name="night").exists()
    assert AuditEvent.objects.get(verb="groups.remove").before["name"] == "night"


def test_the_four_roles_stay_as_they_are() -> None:
    client = as_(Role.ADMIN, has_confirmed=True)
    viewer = Group.objects.get(name=Role.VIEWER)
    assert client.get(f"{GROUPS}{viewer.pk}/change/").status_code == 200
    assert client.post(f"{GROUPS}{viewer.pk}/change/", {"name": "viewer", "permissions": []}).status_code == 403
    assert client.post(f"{GROUPS}{viewer.pk}/delete/", {"post": "yes"}).status_code == 403
    act(client, GROUPS, "delete_selected", viewer.pk, post="yes")
    assert Group.objects.get(name=Role.VIEWER).permissions.count() == 1
