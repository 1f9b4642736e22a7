"""``start``: what ``make run`` calls."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from botsrt.management.commands import start
from botsrt.models import Bot
from praisonweb.dashboard import access
from tests.factories import a_bot

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The commands that ``start`` calls; none of them runs."""
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(start, "call_command", lambda name, **options: calls.append((name, options)))
    return calls


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_the_first_run_makes_a_login_and_a_bot(manage: Any, started: list[Any], port: int):
    ran = manage("start", "--port", str(port))
    assert ran.code == 0
    password = re.search(r"with the password (\S+) ", ran.out)
    assert password is not None
    user = get_user_model().objects.get(username="admin")
    assert user.check_password(password[1])
    assert all(access.may(user, act) for act in access.Act)
    assert get_user_model().objects.filter(is_superuser=True, is_staff=True).count() == 1
    bot = Bot.objects.select_related("agent").get()
    assert (bot.account, bot.platform, bot.policy, bot.agent.name) == ("web", "web", "allow", "echo")
    assert f"http://127.0.0.1:{port}/" in ran.out
    assert "changepassword admin" in ran.out
    assert [name for name, _ in started] == ["migrate", "runbots"]
    assert started[1][1] == {"web": f"127.0.0.1:{port}", "tasks": True}


def test_the_password_is_shown_once_and_made_anew_for_every_installation(manage: Any, started: list[Any], port: int):
    first = manage("start", "--port", str(port)).out
    second = manage("start", "--port", str(port)).out
    assert "with the password" in first
    assert "with the password" not in second
    assert "changepassword admin" in second
    assert get_user_model().objects.count() == 1
    assert Bot.objects.count() == 1
    get_user_model().objects.all().delete()
    third = manage("start", "--port", str(port)).out
    assert re.findall(r"password (\S+) \(", third) != re.findall(r"password (\S+) \(", first)


def test_bots_that_are_there_are_left_alone(manage: Any, started: list[Any], port: int):
    a_bot("mine")
    manage("start", "--port", str(port))
    assert [bot.account for bot in Bot.objects.all()] == ["mine"]


def test_somebody_else_called_admin_is_left_alone(manage: Any, started: list[Any], port: int):
    get_user_model().objects.create_user("admin", password="x")
    ran = manage("start", "--port", str(port))
    assert ran.code == 0
    assert "createsuperuser" in ran.out
    assert not get_user_model().objects.get().is_superuser


def test_a_taken_port_is_said_before_anything_is_made(manage: Any, started: list[Any], taken_port: int):
    ran = manage("start", "--port", str(taken_port))
    assert ran.code == 1
    assert f"Port {taken_port} is taken; use another: make run PORT={taken_port + 1}" in ran.err
    assert started == []
    assert not get_user_model().objects.exists()


@pytest.mark.parametrize(("port_text", "code"), [("0", 1), ("70000", 1), ("-1", 1), ("web", 2)])
def test_a_port_that_is_none_is_refused(manage: Any, started: list[Any], port_text: str, code: int):
    assert manage("start", "--port", port_text).code == code
    assert started == []
