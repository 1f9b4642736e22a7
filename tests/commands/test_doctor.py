"""``doctor`` finds what is wrong and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.utils import timezone

from botsrt import conf
from botsrt.core.states import AdapterStatus
from botsrt.management.commands import doctor
from botsrt.services import figures, workers
from tests.factories import a_bot, an_agent, answered, parked, received

LEASE = timedelta(seconds=30)


def found(manage: Any) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in manage("doctor", "--json").json}


def a_worker(*, age: timedelta = timedelta(), version: str = "0.1.0") -> None:
    at = timezone.now() - age
    workers.register(worker_id="w1", host="here", pid=4711, version=version, lease=LEASE, now=at)
    workers.lease_adapters(worker_id="w1", accounts=None, lease=LEASE, now=at)


def report(state: AdapterStatus, error: str = "") -> None:
    workers.report_adapter(
        worker_id="w1", account="shop", state=state, error=error, identity="@shop", now=timezone.now()
    )


@pytest.mark.django_db(transaction=True)
class TestInside:
    def test_a_healthy_installation_passes(self, manage: Any):
        a_bot()
        a_worker()
        report(AdapterStatus.RUNNING)
        ran = manage("doctor")
        assert ran.code == 0
        assert "fail" not in ran.out
        assert "ok    bot shop: running as @shop" in ran.out

    def test_no_bot_is_said(self, manage: Any):
        assert "bots add" in found(manage)["bots"]["advice"]

    def test_an_agent_whose_target_is_gone_fails(self, manage: Any):
        an_agent("mine", kind="python", settings={"target": "no_such_module:answer"})
        finding = found(manage)["agent mine"]
        assert (finding["level"], "no module no_such_module" in finding["text"]) == ("fail", True)

    def test_refused_credentials_fail(self, manage: Any):
        a_bot()
        a_worker()
        report(AdapterStatus.CREDENTIAL_ERROR, "The platform refused the token.")
        assert found(manage)["bot shop"]["level"] == "fail"
        assert manage("doctor").code == 1

    def test_alerts_that_nobody_raises_or_hears_are_a_warning(self, manage: Any, settings: Any):
        assert "alerts" not in found(manage)
        figures.count_up(now=timezone.now() - timedelta(minutes=11))
        assert found(manage)["alerts"]["advice"] == "Run: manage.py qcluster"
        figures.count_up(now=timezone.now())
        settings.BOTSRT = {"ALERT_CHATS": "nobody/-100"}
        conf.load.cache_clear()
        assert found(manage)["alerts"]["text"] == "nobody/-100: there is no such bot"
        assert "nobody is told" in found(manage)["settings botsrt.W004"]["text"]

    def test_an_adapter_that_backs_off_is_a_warning(self, manage: Any):
        a_bot()
        a_worker()
        report(AdapterStatus.BACKOFF, "The platform is away.")
        assert found(manage)["bot shop"]["level"] == "warn"

    def test_a_variable_that_only_the_worker_has_is_a_warning(self, manage: Any):
        a_bot(credentials={"token": "env:ONLY_THERE"})
        a_worker()
        report(AdapterStatus.RUNNING)
        assert found(manage)["bot shop"]["level"] == "warn"

    def test_messages_that_wait_without_a_worker_fail(self, manage: Any):
        a_bot()
        received("hello", now=timezone.now() - timedelta(minutes=5))
        finding = found(manage)["waiting"]
        assert (finding["level"], "5 m ago" in finding["text"]) == ("fail", True)

    def test_a_silent_worker_is_named_with_its_process(self, manage: Any):
        a_worker(age=timedelta(minutes=5))
        findings = found(manage)
        assert findings["workers"]["level"] == "warn"
        assert "4711" in findings["worker w1"]["advice"]

    def test_a_worker_of_another_version_is_named(self, manage: Any):
        a_worker(version="0.0.9")
        assert "0.0.9" in found(manage)["worker w1"]["text"]

    def test_a_worker_from_the_future_shows_that_clocks_differ(self, manage: Any):
        a_worker(age=timedelta(minutes=-5))
        assert found(manage)["clock"]["level"] == "fail"

    def test_a_full_journal_fails(self, manage: Any, settings: Any):
        a_bot()
        settings.BOTSRT = {"MAX_SIZE": "2"}
        conf.load.cache_clear()
        for _ in range(2):
            received()
        assert found(manage)["journal"]["level"] == "warn"
        received()
        assert found(manage)["journal"]["level"] == "fail"

    def test_what_staff_must_decide_is_named(self, manage: Any):
        a_bot()
        parked("one")
        answered("two")
        finding = found(manage)["decisions"]
        assert finding["text"] == "1 failed messages wait for a decision."

    def test_a_full_disk_fails(self, manage: Any, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(doctor, "_LITTLE_BYTES", 2**62)
        assert found(manage)["disk"]["level"] == "warn"
        monkeypatch.setattr(doctor, "_LEAST_BYTES", 2**62)
        assert found(manage)["disk"]["level"] == "fail"

    def test_settings_that_cannot_be_used_are_a_finding(self, manage: Any, settings: Any):
        settings.BOTSRT = {"LEASE_SECONDS": "soon"}
        conf.load.cache_clear()
        ran = manage("doctor")
        assert ran.code == 1
        assert "BOTSRT_LEASE_SECONDS: 'soon' is not a number" in ran.out

    def test_a_layer_that_is_away_fails_and_says_that_nothing_is_lost(
        self, manage: Any, monkeypatch: pytest.MonkeyPatch
    ):
        async def refuse() -> None:
            raise ConnectionError("redis://:hunter22@host refused")

        monkeypatch.setattr(doctor, "_round_trip", refuse)
        ran = manage("doctor")
        assert ran.code == 1
        assert "not lost" in ran.out
        assert "hunter22" not in ran.out


# -- a process of its own, with a database that is not there ----


def run(home: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BOTSRT_", "DATABASE", "REDIS"))}
    return subprocess.run(
        [sys.executable, str(Path(project.BASE_DIR) / "manage.py"), *args],
        env={**clean, "PRAISON_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_empty_database_needs_migrations(tmp_path: Path):
    ran = run(tmp_path, "doctor")
    assert ran.returncode == 1
    assert "Run: manage.py migrate" in ran.stdout
    listed = run(tmp_path, "bots", "list")
    assert listed.returncode == 1
    assert "The database cannot be used: no such table" in listed.stderr
    assert "Traceback" not in listed.stderr


def test_a_database_that_is_away_is_said_in_one_line(tmp_path: Path):
    url = "postgres://staff:hunter22@127.0.0.1:1/nothing"
    ran = run(tmp_path, "doctor", DATABASE_URL=url)
    assert ran.returncode == 1
    assert "fail  database: cannot be used" in ran.stdout
    listed = run(tmp_path, "journal", "list", DATABASE_URL=url)
    assert listed.returncode == 1
    assert "hunter22" not in ran.stdout + ran.stderr + listed.stdout + listed.stderr
    assert "Traceback" not in ran.stderr + listed.stderr
