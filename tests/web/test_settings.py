"""Settings of the site that follow from others."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from tests.acceptance.home import ROOT


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    def read(**variables: str) -> dict[str, Any]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "praisonweb" / "settings.py"))

    return read


@pytest.mark.parametrize(
    ("variables", "is_secure"),
    [
        ({}, False),
        ({"ALLOWED_HOSTS": "localhost,127.0.0.1"}, False),
        ({"ALLOWED_HOSTS": "bots.example.org,localhost"}, True),
        ({"ALLOWED_HOSTS": "192.168.1.5"}, True),
        ({"BEHIND_HTTPS": "true"}, True),
        ({"DEBUG": "true"}, False),
    ],
)
def test_cookies_go_over_plain_http_on_this_machine_alone(read: Any, variables: dict[str, str], is_secure: bool):
    values = read(**variables)
    assert (values["SESSION_COOKIE_SECURE"], values["CSRF_COOKIE_SECURE"]) == (is_secure, is_secure)
    assert values["SESSION_COOKIE_SAMESITE"] == "Lax"
    assert values.get("SESSION_COOKIE_HTTPONLY", True)


def test_https_is_remembered_and_believed_behind_a_proxy_alone(read: Any):
    assert read()["SECURE_PROXY_SSL_HEADER"] is None
    values = read(BEHIND_HTTPS="true")
    assert values["SECURE_HSTS_SECONDS"] > 0
    assert values["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


def test_what_is_off_by_default(read: Any):
    values = read()
    assert (values["PROXIES"], values["REQUIRE_SECOND_FACTOR"]) == (0, False)
    values = read(PRAISONWEB_PROXIES="2", PRAISONWEB_REQUIRE_SECOND_FACTOR="true", PRAISONWEB_SESSION_HOURS="8")
    assert (values["PROXIES"], values["REQUIRE_SECOND_FACTOR"], values["SESSION_COOKIE_AGE"]) == (2, True, 28_800)
