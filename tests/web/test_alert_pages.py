"""Alerts on Home and on their own page."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from botsrt.core.states import AlertKind
from botsrt.models import Alert, AlertNotice, AuditEvent, Bot
from botsrt.services import alerts
from botsrt.services.alerts import Finding
from praisonweb.dashboard.access import Role
from praisonweb.dashboard.models import BotLimit
from tests.factories import a_bot
from tests.services.test_alerts import POLICY
from tests.web.conftest import a_user

pytestmark = pytest.mark.django_db(transaction=True)

DOWN = Finding(kind=AlertKind.ADAPTER_DOWN, account="shop", text="The bot shop is not connected. <b>502</b>")
BACKLOG = Finding(kind=AlertKind.BACKLOG, text="Waiting for an answer: 7, the oldest for 12 minutes.")


def raised(*findings: Finding, now: datetime | None = None) -> list[int]:
    alerts.watch(findings=findings, policy=POLICY, now=now or timezone.now())
    return list(Alert.objects.order_by("pk").values_list("pk", flat=True))


def read(client: Client, path: str, *, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status
    return str(response.content.decode())


def shown(html: str) -> list[str]:
    """The titles, in their order."""
    found = re.findall(r'id="alert-\d+">.*?<span class="row-person">(.*?)</span>', html, re.DOTALL)
    return [" ".join(title.split()) for title in found]


def test_home_shows_what_is_there_and_nothing_that_is_over(staff_client: Client, bot: Bot) -> None:
    assert shown(read(staff_client, "/")) == []
    assert "Alerts</a></h2>" not in read(staff_client, "/")
    raised(DOWN, BACKLOG)
    html = read(staff_client, "/")
    assert shown(html) == ["Backlog", "Bot not connected – shop"]
    assert "&lt;b&gt;502&lt;/b&gt;" in html
    raised(DOWN, now=timezone.now() + timedelta(minutes=6))
    assert shown(read(staff_client, "/")) == ["Bot not connected – shop"]
    assert shown(read(staff_client, "/alerts/")) == ["Backlog", "Bot not connected – shop"], "It is history."


def test_an_operator_acknowledges_and_it_is_audited(bot: Bot) -> None:
    (pk,) = raised(DOWN)
    client = Client()
    client.force_login(a_user("olga", Role.OPERATOR))
    question = read(client, f"/alerts/{pk}/acknowledge/")
    assert "Acknowledge the alert?" in question
    assert "&lt;b&gt;502" in question
    assert client.post(f"/alerts/{pk}/acknowledge/", {"reason": "calling them", "back": "/"}).status_code == 302
    html = read(client, "/")
    assert "acknowledged</span>" in html
    assert "by olga" in html
    assert f"/alerts/{pk}/acknowledge/" not in html
    event = AuditEvent.objects.get(verb="alerts.acknowledge")
    assert (event.actor, event.reason, event.object_id) == ("olga", "calling them", str(pk))
    too_late = client.post(f"/alerts/{pk}/acknowledge/", {"reason": ""})
    assert too_late.status_code == 409
    assert "olga has acknowledged it already" in too_late.content.decode()


def test_a_viewer_sees_it_and_hears_why_they_may_not(bot: Bot) -> None:
    (pk,) = raised(DOWN)
    client = Client()
    client.force_login(a_user("vera", Role.VIEWER))
    html = read(client, "/")
    assert shown(html) == ["Bot not connected – shop"]
    assert "you need the role operator" in html
    assert client.post(f"/alerts/{pk}/acknowledge/").status_code == 403
    assert Alert.objects.get().acknowledged_at is None


def test_who_is_limited_sees_the_alerts_of_their_bots(bot: Bot) -> None:
    a_bot("other")
    other = Finding(kind=AlertKind.SILENCE, account="other", text="Too quiet.")
    ids = raised(DOWN, other, BACKLOG)
    lena: User = a_user("lena", Role.OPERATOR)
    BotLimit.objects.create(user=lena, account="other")
    client = Client()
    client.force_login(lena)
    for path in ("/", "/alerts/"):
        assert shown(read(client, path)) == ["Bot too quiet – other"], path
    assert read(client, f"/alerts/{ids[0]}/acknowledge/", status=404)
    assert client.post(f"/alerts/{ids[2]}/acknowledge/").status_code == 404


def test_what_could_not_be_told_is_said(staff_client: Client, bot: Bot) -> None:
    raised(DOWN)
    AlertNotice.objects.update(error="SMTPServerDisconnected: <gone>")
    html = read(staff_client, "/alerts/")
    assert "Not told yet – Mail: SMTPServerDisconnected: &lt;gone&gt;" in html


def test_who_is_limited_hears_nothing_of_other_bots_and_their_chats(bot: Bot) -> None:
    raised(DOWN)
    AlertNotice.objects.update(target="secret-bot/chat-99", error="The bot secret-bot is not connected.")
    client = Client()
    lena = a_user("lena", Role.OPERATOR)
    client.force_login(lena)
    assert "secret-bot/chat-99" in read(client, "/alerts/")
    BotLimit.objects.create(user=lena, account="shop")
    for path in ("/", "/alerts/"):
        html = read(client, path)
        assert shown(html) == ["Bot not connected – shop"], path
        assert "secret-bot" not in html, path


def test_the_page_of_alerts_is_bounded_and_goes_on(
    staff_client: Client, bot: Bot, django_assert_max_num_queries: Any
) -> None:
    now = timezone.now()
    for number in range(60):
        Alert.objects.create(
            kind=AlertKind.BACKLOG, text=f"{number}.", is_urgent=True, raised_at=now, last_seen_at=now, cleared_at=now
        )
    with django_assert_max_num_queries(8):
        html = read(staff_client, "/alerts/")
    assert len(shown(html)) == 50
    (older,) = re.findall(r'href="(\?[^"]*before=[^"]*)"', html)
    assert len(shown(read(staff_client, f"/alerts/{older.replace('&amp;', '&')}"))) == 10


def test_before_the_first_alert_it_says_so(staff_client: Client) -> None:
    assert "There was no alert yet." in read(staff_client, "/alerts/")
    assert "no alert 7" in read(staff_client, "/alerts/7/acknowledge/", status=404)
