"""``bots list``, ``probe`` and the acts on bots that are checked before they are stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from botsrt import conf
from botsrt.core.ports import Probe
from botsrt.core.states import AdapterStatus
from botsrt.models import AuditEvent, Bot, Worker
from botsrt.runtime import platforms
from botsrt.services import workers
from tests.factories import a_bot, received

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=30)
TOKEN = "7000000001:AAF-a-telegram-token-that-is-long-enough"


def worker_with_bot(*, beat_age: timedelta = timedelta(), state: AdapterStatus = AdapterStatus.RUNNING) -> None:
    """A worker that runs the bot and was last heard of ``beat_age`` ago."""
    at = timezone.now() - beat_age
    workers.register(worker_id="w1", host="here", pid=1, version="0.1.0", lease=LEASE, now=at)
    workers.lease_adapters(worker_id="w1", accounts=None, lease=LEASE, now=at)
    workers.report_adapter(worker_id="w1", account="shop", state=state, identity="@shop", error="", now=at)


def listed(manage: Any) -> dict[str, Any]:
    (row,) = manage("bots", "list", "--json").json
    return dict(row)


def test_a_bot_that_runs_is_running(manage: Any):
    a_bot()
    worker_with_bot()
    row = listed(manage)
    assert (row["state"], row["identity"]) == ("running", "@shop")


def test_a_silent_worker_leaves_the_state_unknown(manage: Any):
    a_bot()
    worker_with_bot(beat_age=timedelta(minutes=5))
    assert listed(manage)["state"] == "unknown"


def test_a_worker_without_a_heartbeat_leaves_the_state_unknown_though_the_lease_lasts(manage: Any):
    a_bot()
    worker_with_bot()
    Worker.objects.update(last_beat_at=timezone.now() - timedelta(minutes=5))
    assert listed(manage)["state"] == "unknown"


def test_a_bot_whose_worker_is_known_to_be_gone_is_stopped(manage: Any):
    a_bot()
    worker_with_bot()
    workers.bury(worker_ids=["w1"], now=timezone.now())
    assert listed(manage)["state"] == "stopped"


def test_a_disabled_bot_is_disabled(manage: Any):
    a_bot(is_enabled=False)
    assert listed(manage)["state"] == "disabled"


def test_lag_is_how_long_the_oldest_message_waits(manage: Any):
    a_bot()
    assert listed(manage)["lag_seconds"] == 0
    received("hello", now=timezone.now() - timedelta(minutes=5))
    assert listed(manage)["lag_seconds"] in range(300, 310)
    assert "5 m" in manage("bots", "list").out


def test_an_error_is_shown_in_full_below_the_table(manage: Any):
    a_bot()
    worker_with_bot()
    error = "The platform refused the token; " + "make a new one " * 10
    workers.report_adapter(
        worker_id="w1", account="shop", state=AdapterStatus.CREDENTIAL_ERROR, error=error, now=timezone.now()
    )
    assert f"shop: {error}" in manage("bots", "list").out


# -- changes are tried before they are stored ----


def test_a_change_that_cannot_work_is_not_stored(manage: Any):
    manage("bots", "add", "shop", "--platform", "telegram", "--credential", f"token={TOKEN}")
    ran = manage("bots", "set", "shop", "--credential", "token=not-a-token")
    assert ran.code == 1
    assert "does not look like" in ran.err
    assert Bot.objects.get().version == 1
    assert not AuditEvent.objects.filter(verb="bots.change").exists()


def test_a_change_of_nothing_is_refused(manage: Any):
    a_bot()
    ran = manage("bots", "set", "shop")
    assert ran.code == 1
    assert "Nothing to change" in ran.err
    assert manage("agents", "set", "echo").code == 1


def test_reasons_are_kept(manage: Any):
    a_bot()
    manage("bots", "disable", "shop", "--reason", "holidays")
    assert AuditEvent.objects.get(verb="bots.change").reason == "holidays"


def test_disabling_twice_changes_nothing(manage: Any):
    a_bot(is_enabled=False)
    ran = manage("bots", "disable", "shop")
    assert (ran.code, ran.out.strip()) == (0, "shop is disabled already.")
    assert Bot.objects.get().version == 1


def test_a_bot_of_a_platform_that_is_gone_can_be_disabled_and_removed(manage: Any):
    a_bot(platform="gone")
    assert manage("bots", "disable", "shop").code == 0
    assert manage("bots", "remove", "shop").code == 0
    assert not Bot.objects.exists()


# -- probe ----


@pytest.fixture
def toys(settings: Any) -> None:
    settings.BOTSRT = {"ADAPTER_PACKAGES": "botsrt.adapters,tests.toys"}
    conf.load.cache_clear()


@pytest.mark.usefixtures("toys")
def test_a_probe_says_who_the_bot_is(manage: Any):
    manage("bots", "add", "shop", "--platform", "toy", "--credential", "token=good")
    assert manage("bots", "probe", "shop").out.strip() == "shop is toy:shop."
    assert manage("bots", "probe", "shop", "--json").json == {"account": "shop", "identity": "toy:shop"}


@pytest.mark.usefixtures("toys")
def test_refused_credentials_are_said_in_one_line(manage: Any):
    manage("bots", "add", "shop", "--platform", "toy", "--credential", "token=bad")
    ran = manage("bots", "probe", "shop")
    assert (ran.code, ran.err.strip()) == (1, "CommandError: The word is wrong.")


@pytest.mark.usefixtures("toys")
def test_whatever_a_platform_raises_is_said_in_one_line_without_secrets(manage: Any, monkeypatch: pytest.MonkeyPatch):
    async def explode(config: object) -> Probe:
        raise LookupError(f"GET https://api.example/bot{TOKEN}/getMe")

    manage("bots", "add", "shop", "--platform", "toy", "--credential", "token=good")
    monkeypatch.setattr(platforms, "probe", explode)
    ran = manage("bots", "probe", "shop")
    assert ran.code == 1
    assert "LookupError" in ran.err
    assert TOKEN not in ran.err
    assert "Traceback" not in ran.err
