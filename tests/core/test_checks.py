"""System checks: wrong combinations of settings are told by id before anything runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from botsrt import checks

SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3"}}
POSTGRES = {"default": {"ENGINE": "django.db.backends.postgresql"}}


def ids(check) -> list[str | None]:
    return [message.id for message in check(None)]


@pytest.mark.parametrize(("variables", "expected"), [({}, []), ({"LEASE_SECONDS": "soon"}, ["botsrt.E001"])])
def test_a_wrong_variable_is_told_with_its_name(settings, variables, expected):
    settings.BOTSRT = variables
    assert ids(checks.check_runtime_config) == expected
    assert all("BOTSRT_LEASE_SECONDS" in message.msg for message in checks.check_runtime_config(None))


@pytest.mark.parametrize(
    ("debug", "hosts", "expected"),
    [
        (True, ["localhost"], []),
        (True, ["bots.example.org"], ["botsrt.E002"]),
        (True, ["localhost", "*"], ["botsrt.E002"]),
        (False, ["bots.example.org"], []),
    ],
)
def test_debug_stays_on_this_machine(settings, debug, hosts, expected):
    settings.DEBUG, settings.ALLOWED_HOSTS = debug, hosts
    assert ids(checks.check_debug_is_local) == expected


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [(["bots.example.org"], []), ([".example.org"], []), (["*"], ["botsrt.E003"]), (["a.org", "."], ["botsrt.E003"])],
)
def test_a_wildcard_host_is_refused(settings, hosts, expected):
    settings.ALLOWED_HOSTS = hosts
    assert ids(checks.check_allowed_hosts) == expected


@pytest.mark.parametrize(("key", "expected"), [("x" * 32, []), ("x" * 31, ["botsrt.E004"])])
def test_a_short_secret_key_is_refused(settings, key, expected):
    settings.SECRET_KEY = key
    assert ids(checks.check_secret_key) == expected
    assert all(key not in message.msg for message in checks.check_secret_key(None))


@pytest.mark.parametrize(
    ("is_https", "hosts", "expected"),
    [
        (False, ["localhost", "127.0.0.1", "[::1]"], []),
        (False, ["bots.example.org"], ["botsrt.W001"]),
        (True, ["bots.example.org"], []),
    ],
)
def test_signing_in_over_plain_http_from_elsewhere_is_warned_of(settings, is_https, hosts, expected):
    settings.BEHIND_HTTPS, settings.ALLOWED_HOSTS = is_https, hosts
    assert ids(checks.check_cookies) == expected


@pytest.mark.parametrize(
    ("databases", "redis_url", "expected"),
    [
        (SQLITE, "", []),
        (SQLITE, "redis://cache", ["botsrt.W002"]),
        (POSTGRES, "", ["botsrt.W003"]),
        (POSTGRES, "redis://cache", []),
    ],
)
def test_half_a_scale_out_is_warned_of(monkeypatch, databases, redis_url, expected):
    monkeypatch.setattr(checks, "settings", SimpleNamespace(DATABASES=databases, REDIS_URL=redis_url))
    assert ids(checks.check_scale_out) == expected


@pytest.mark.parametrize("name", ["ADAPTER_PACKAGES", "AGENT_PACKAGES"])
@pytest.mark.parametrize("package", ["no_such_package", "botsrt.nowhere.deep", ".."])
def test_a_package_that_cannot_be_found_is_named(settings, name, package):
    settings.BOTSRT = {name: f"botsrt.core,{package}"}
    (message,) = checks.check_packages(None)
    assert message.id == "botsrt.E005"
    assert f"BOTSRT_{name}: the package {package}" in str(message.msg)
