"""The addresses that monitors ask."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from botsrt.core.states import AdapterStatus, OutboxState
from botsrt.models import JournalEntry, OutboxMessage
from botsrt.runtime import pulse, readiness
from botsrt.runtime.pulse import Pulse
from botsrt.services import figures, workers
from tests.factories import a_bot, a_message, answered, parked, received
from tests.web.conftest import staff_client as staff_client

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "0123456789abcdef-of-the-monitor"


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_database", readiness._Database())


# -- does it live? ----


def test_it_lives(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok\n")
    assert response["Content-Type"].startswith("text/plain")
    assert "no-store" in response["Cache-Control"]


def test_it_lives_without_its_database(client: Client) -> None:
    """Else an outage of the database would make somebody restart every process."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get("/healthz").status_code == 200
    assert len(captured) == 0


# -- is it ready? ----


def _refuse(*_: Any) -> None:
    raise OperationalError("no route to db.internal")


def ready(client: Client) -> tuple[int, dict[str, str]]:
    """The status, and what is wrong."""
    response = client.get("/readyz")
    body = response.json()
    assert body["ready"] is (response.status_code == 200)
    return response.status_code, {name: check["reason"] for name, check in body["checks"].items() if not check["ok"]}


def test_it_is_ready(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert list(response.json()["checks"]) == ["database", "migrations", "event_loop"]
    assert "no-store" in response["Cache-Control"]


def test_without_its_database_it_is_not_and_names_no_host(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        cursor = _refuse

        def close(self) -> None:
            pass

    monkeypatch.setattr(readiness, "connection", Away())
    assert ready(client) == (503, {"database": "it cannot be reached"})


def test_a_database_that_hangs_is_not_waited_for_and_costs_one_thread(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()

    class Hangs:
        def cursor(self) -> None:
            let_go.wait(30)
            _refuse()

        def close(self) -> None:
            pass

    monkeypatch.setattr(readiness, "connection", Hangs())
    monkeypatch.setattr(readiness, "_PATIENCE_SECONDS", 0.1)
    begun_at = time.monotonic()
    for _ in range(3):
        status, wrong = ready(client)
        assert status == 503
        assert wrong["database"].startswith("it has not answered for ")
    assert time.monotonic() - begun_at < 5
    waiting = [thread for thread in threading.enumerate() if thread.name == "readiness"]
    let_go.set()
    assert len(waiting) == 1
    waiting[0].join(5)


def test_many_who_ask_at_once_cost_one_question(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    look = readiness._Database._look

    def counted(database: readiness._Database) -> list[readiness.Check]:
        asked.append(1)
        return look(database)

    monkeypatch.setattr(readiness._Database, "_look", counted)
    for _ in range(5):
        assert ready(client)[0] == 200
    assert len(asked) == 1


def test_with_migrations_to_apply_it_is_not(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: ["one"])
    assert ready(client) == (503, {"migrations": "some are not applied"})


def test_a_worker_without_a_beat_is_not(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pulse.running, "w1", Pulse(lease_seconds=30))
    assert ready(client) == (200, {})
    monkeypatch.setitem(pulse.running, "w1", Pulse(lease_seconds=30, beat_at=time.monotonic() - 31))
    assert ready(client) == (503, {"worker": "no beat for 31 s"})


async def test_the_pulse_tells_of_a_loop_that_stood_still() -> None:
    import asyncio

    beating = Pulse(lease_seconds=30)
    feeling = asyncio.create_task(beating.feel())
    await asyncio.sleep(0.01)
    time.sleep(0.5)
    await asyncio.sleep(0.15)
    assert 0.35 <= beating.take_gap() < 5
    assert beating.take_gap() < 0.35, "It is told once."
    feeling.cancel()


async def test_it_answers_in_an_event_loop(bridge: None) -> None:
    assert (await AsyncClient().get("/readyz")).status_code == 200


# -- in numbers ----


@pytest.fixture
def scrape(client: Client, settings: Any) -> Any:
    """Numbers by name and labels, as a monitor reads them."""
    settings.METRICS_TOKEN = TOKEN

    def get() -> dict[str, float]:
        response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        found = {}
        for family in text_string_to_metric_families(response.content.decode()):
            assert family.documentation
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    return get


@pytest.mark.parametrize(
    "said", ["", TOKEN, f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", "Bearer 0123456789äöü", f"Bearer {TOKEN[:-1]}"]
)
def test_numbers_are_for_those_who_know_the_token(client: Client, settings: Any, said: str) -> None:
    settings.METRICS_TOKEN = TOKEN
    response = client.get("/metrics", headers={"Authorization": said} if said else {})
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert b"praisonweb_" not in response.content


@pytest.mark.parametrize("said", ["", "Bearer ", "Bearer None"])
def test_without_a_token_in_the_settings_there_are_none(client: Client, said: str) -> None:
    assert client.get("/metrics", headers={"Authorization": said}).status_code == 404


def test_the_oldest_unanswered_message_comes_first(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    body = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).content.decode()
    assert next(line for line in body.splitlines() if line[0] != "#").startswith("praisonweb_oldest_unanswered_seconds")


def test_numbers_say_how_things_stand(scrape: Any) -> None:
    now = timezone.now()
    a_bot("shop")
    a_bot("door", is_enabled=False)
    long_ago = now - timedelta(minutes=9)
    received(a_message("waits", user_id="u1"), now=long_ago)
    JournalEntry.objects.update(available_at=now + timedelta(hours=1))  # for its next try: it is not answered now
    answered(a_message("done", user_id="u2", channel_id="c2"), now=now - timedelta(minutes=5))
    parked(a_message("bad", user_id="u3", channel_id="c3"), now=now - timedelta(minutes=4))
    OutboxMessage.objects.filter(text="Hi").update(state=OutboxState.UNKNOWN)
    workers.register(worker_id="w1", host="h", pid=1, version="1", lease=timedelta(seconds=30), now=now)
    workers.lease_adapters(worker_id="w1", accounts=None, lease=timedelta(seconds=30), now=now)
    workers.report_adapter(worker_id="w1", account="shop", state=AdapterStatus.RUNNING, now=now)
    workers.report_traffic(account="shop", last_inbound_at=now, last_outbound_at=None)
    workers.beat(worker_id="w1", accounts=["shop"], running_turns=0, loop_gap_seconds=0.04, now=now)
    figures.count_up(now=now)
    found = scrape()
    assert 540 <= found["praisonweb_oldest_unanswered_seconds"] < 600
    assert found["praisonweb_entries{state=pending}"] == 1
    assert found["praisonweb_dlq_open"] == 1
    assert found["praisonweb_outbox{state=unknown}"] == 1
    assert found["praisonweb_lanes_waiting"] == 1
    assert found["praisonweb_bot_up{account=shop,platform=web}"] == 1
    assert found["praisonweb_bot_state{account=shop,platform=web,state=running}"] == 1
    assert found["praisonweb_bot_state{account=door,platform=web,state=paused}"] == 1
    assert "praisonweb_bot_up{account=door,platform=web}" not in found
    assert found["praisonweb_bot_last_inbound_timestamp_seconds{account=shop,platform=web}"] == pytest.approx(
        now.timestamp()
    )
    assert found["praisonweb_workers"] == 1
    assert found["praisonweb_event_loop_gap_seconds"] == pytest.approx(0.04)
    assert found["praisonweb_messages_received_total{account=shop}"] == 3
    assert found["praisonweb_watch_timestamp_seconds"] == pytest.approx(now.timestamp())
    assert found["praisonweb_alerts{kind=adapter_down}"] == 0
    assert found["process_resident_memory_bytes"] > 0


def test_the_other_format_of_prometheus_is_given_to_who_asks(client: Client, settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text; version=1.0.0"}
    response = client.get("/metrics", headers=headers)
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert response.content.endswith(b"# EOF\n")


def test_a_scrape_costs_the_same_with_many_rows(scrape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a_bot("shop")
    received(a_message("one"))
    scrape()
    with CaptureQueriesContext(connection) as few:
        scrape()
    for number in range(30):
        received(a_message(f"message {number}", user_id=f"u{number}", channel_id=f"c{number}"))
    with CaptureQueriesContext(connection) as many:
        scrape()
    assert len(many) == len(few) <= 35
    monkeypatch.setattr(figures, "MOST", 10)
    assert scrape()["praisonweb_entries{state=pending}"] == 10, "No more are counted."
