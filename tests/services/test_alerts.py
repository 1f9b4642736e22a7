"""Alerts: once for each bout, again after hours, once when it is over, and never into the night without need."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from django.core import mail

from botsrt import conf, tasks
from botsrt.core import quiet
from botsrt.core.alerting import MAIL, Policy
from botsrt.core.errors import Conflict, NotFound
from botsrt.core.states import AdapterStatus, AlertKind, OutboxState
from botsrt.models import AdapterState, Alert, AlertNotice, AuditEvent, Bot, HourCount, OutboxMessage, Worker
from botsrt.services import alerts, figures, housekeeping, workers
from botsrt.services.alerts import Finding
from tests.factories import ALICE, BOB, LEASE, NOW, a_bot, a_message, answered, claim_sends, later, parked, received
from tests.services.races import at_once

pytestmark = pytest.mark.django_db

POLICY = Policy(
    targets=(MAIL,),
    adapter_down_after=timedelta(minutes=3),
    backlog_age=timedelta(minutes=10),
    full_entries=90,
    dlq_growth=3,
    unknown_sends=1,
    watches_silence=True,
    clear_after=timedelta(minutes=5),
    remind_after=timedelta(hours=4),
)

DOWN = Finding(kind=AlertKind.ADAPTER_DOWN, account="shop", text="The bot shop is not connected.")
FAILING = Finding(kind=AlertKind.DLQ_GROWTH, text="Failed for good within an hour: 12.")


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def watch(*findings: Finding, now: datetime, policy: Policy = POLICY) -> list[str]:
    """One look; what is told then, as "target: text"."""
    alerts.watch(findings=findings, policy=policy, now=now)
    return tell(now)


def tell(now: datetime) -> list[str]:
    due = alerts.due(now=now)
    alerts.told(notice_ids=[notice.id for notice in due], now=now)
    return [f"{notice.target}: {notice.text}" for notice in due]


# -- bouts ----


def test_a_bout_is_told_once_and_its_end_once():
    assert watch(DOWN, now=NOW) == ["mail: The bot shop is not connected."]
    for minute in range(1, 30):
        assert watch(DOWN, now=later(minutes=minute)) == []
    assert watch(now=later(minutes=32)) == []
    assert watch(now=later(minutes=35)) == ["mail: Over, after 29 minutes: The bot shop is not connected."]
    assert watch(now=later(minutes=60)) == []
    assert watch(DOWN, now=later(minutes=61)) == ["mail: The bot shop is not connected."], "This is another bout."


def test_what_comes_and_goes_is_one_bout():
    said = [
        line for minute in range(0, 60, 2) for line in watch(*([DOWN] * (minute % 4 == 0)), now=later(minutes=minute))
    ]
    assert said == ["mail: The bot shop is not connected."]
    assert Alert.objects.count() == 1


def test_each_bot_has_a_bout_of_its_own():
    other = replace(DOWN, account="other", text="The bot other is not connected.")
    assert len(watch(DOWN, other, now=NOW)) == 2
    assert watch(DOWN, other, now=later(minutes=1)) == []


@pytest.mark.django_db(transaction=True)
def test_two_who_watch_at_once_tell_once():
    at_once(*[partial(alerts.watch, findings=[DOWN], policy=POLICY, now=NOW)] * 4)
    assert Alert.objects.count() == AlertNotice.objects.count() == 1
    at_once(*[partial(alerts.watch, findings=[], policy=POLICY, now=later(minutes=6))] * 4)
    assert AlertNotice.objects.count() == 2


# -- reminders ----


def test_nobody_acknowledges_it_and_is_reminded_every_four_hours():
    said = [
        (minutes // 60, line.partition("mail: ")[2][:24])
        for minutes in range(0, 60 * 13, 10)
        for line in watch(DOWN, now=later(minutes=minutes))
    ]
    assert said == [(0, "The bot shop is not conn")] + [(hour, "Still so since 2026-01-1") for hour in (4, 8, 12)]


def test_who_has_it_in_hand_is_not_reminded_but_hears_of_the_end():
    watch(DOWN, now=NOW)
    alerts.acknowledge(alert_id=Alert.objects.get().pk, actor=ALICE, reason="on it", now=later(minutes=5))
    assert [line for hour in range(1, 10) for line in watch(DOWN, now=later(hours=hour))] == []
    assert len(watch(now=later(hours=10))) == 1
    event = AuditEvent.objects.get(verb="alerts.acknowledge")
    assert (event.actor, event.reason, event.after["bot"]) == ("alice", "on it", "shop")


def test_one_acknowledges_and_the_second_hears_who_was_first():
    watch(DOWN, now=NOW)
    pk = Alert.objects.get().pk
    alerts.acknowledge(alert_id=pk, actor=ALICE, now=NOW)
    with pytest.raises(Conflict, match="alice has acknowledged it already"):
        alerts.acknowledge(alert_id=pk, actor=BOB, now=NOW)
    with pytest.raises(NotFound):
        alerts.acknowledge(alert_id=pk + 1, actor=BOB, now=NOW)
    assert AuditEvent.objects.filter(verb="alerts.acknowledge").count() == 1


def test_what_is_over_cannot_be_acknowledged():
    watch(DOWN, now=NOW)
    watch(now=later(minutes=6))
    with pytest.raises(Conflict, match="over"):
        alerts.acknowledge(alert_id=Alert.objects.get().pk, actor=BOB, now=later(minutes=7))


# -- quiet hours ----

#: 23:00 in Vienna is 22:00 UTC, 7:00 is 6:00.
QUIET = replace(POLICY, quiet=quiet.parse("23:00-07:00", "Europe/Vienna"))
NIGHT = NOW.replace(hour=23)
MORNING = NOW.replace(hour=6) + timedelta(days=1)


def test_what_can_wait_is_told_in_the_morning():
    assert watch(FAILING, now=NIGHT, policy=QUIET) == []
    assert watch(FAILING, now=MORNING - timedelta(minutes=1), policy=QUIET) == []
    assert watch(FAILING, now=MORNING, policy=QUIET) == [f"mail: {FAILING.text}"]


def test_what_is_urgent_is_told_at_night():
    assert watch(DOWN, now=NIGHT, policy=QUIET) == [f"mail: {DOWN.text}"]


def test_what_came_and_went_in_the_night_is_one_line_in_the_morning():
    watch(FAILING, now=NIGHT, policy=QUIET)
    assert watch(now=NIGHT + timedelta(minutes=30), policy=QUIET) == []
    assert tell(MORNING) == [f"mail: Over, after 1 minute: {FAILING.text}"]


# -- where it is told ----

CHATS = replace(POLICY, targets=(MAIL, "shop/-100/7", "other/55"))


def is_up(*accounts: str, now: datetime = NOW, state: AdapterStatus = AdapterStatus.RUNNING, error: str = "") -> None:
    """A worker that is heard of now runs these bots."""
    if not Worker.objects.exists():
        workers.register(worker_id="w1", host="h", pid=1, version="1", lease=LEASE, now=now)
    workers.beat(worker_id="w1", accounts=accounts, running_turns=0, now=now)
    workers.lease_adapters(worker_id="w1", accounts=accounts, lease=LEASE, now=now)
    for account in accounts:
        workers.report_adapter(worker_id="w1", account=account, state=state, error=error, now=now)


def test_chats_get_it_through_the_outbox_all_in_one_message():
    a_bot("other")
    is_up("shop", "other")
    alerts.watch(findings=[FAILING, replace(FAILING, kind=AlertKind.UNKNOWN_SENDS, text="Two.")], policy=CHATS, now=NOW)
    alerts.tell_chats(due_notices=alerts.due(now=NOW), now=NOW)
    rows = OutboxMessage.objects.order_by("account")
    assert [(row.account, row.channel_id, row.thread_id) for row in rows] == [
        ("other", "55", ""),
        ("shop", "-100", "7"),
    ]
    assert {row.text for row in rows} == {f"{FAILING.text}\n\nTwo."}
    assert [notice.target for notice in alerts.due(now=NOW)] == [MAIL, MAIL], "Mail is somebody else's."
    assert [claimed.message.text for claimed in claim_sends(accounts=["other"])] == [f"{FAILING.text}\n\nTwo."]


def test_that_the_bot_of_the_chat_is_down_goes_to_the_others_at_once():
    a_bot("other")
    is_up("other")
    alerts.watch(findings=[DOWN], policy=CHATS, now=NOW)
    alerts.tell_chats(due_notices=alerts.due(now=NOW), now=NOW)
    assert [row.account for row in OutboxMessage.objects.all()] == ["other"]
    assert [notice.target for notice in alerts.due(now=NOW)] == [MAIL]
    waiting = AlertNotice.objects.get(target="shop/-100/7")
    assert (waiting.error, waiting.closed_at) == ("The bot shop is not connected.", None)
    alerts.watch(findings=[], policy=CHATS, now=later(minutes=6))
    is_up("shop", "other", now=later(minutes=6))
    alerts.tell_chats(due_notices=alerts.due(now=later(minutes=6)), now=later(minutes=6))
    told = OutboxMessage.objects.filter(account="shop").values_list("text", flat=True)
    assert [text.partition(":")[0] for text in told] == ["Over, after 1 minute"], "Only what is still of use."


def test_a_chat_of_a_bot_that_is_gone_harms_nothing():
    alerts.watch(findings=[DOWN], policy=replace(POLICY, targets=("gone/1", MAIL)), now=NOW)
    alerts.tell_chats(due_notices=alerts.due(now=NOW), now=NOW)
    assert AlertNotice.objects.get(target="gone/1").error == "The bot gone does not exist."
    assert [notice.target for notice in alerts.due(now=NOW)] == [MAIL]


# -- what is wrong ----


def kinds(now: datetime = NOW, policy: Policy = POLICY) -> list[tuple[str, str]]:
    return [(finding.kind.value, finding.account) for finding in alerts.look(policy=policy, now=now)]


def test_nothing_is_wrong():
    is_up("shop", now=NOW)
    answered(now=NOW)
    assert kinds(NOW) == []


def test_a_bot_that_is_down_for_long_enough():
    is_up("shop", state=AdapterStatus.BACKOFF, error="502")
    is_up("shop", state=AdapterStatus.BACKOFF, error="502", now=later(minutes=3))
    assert kinds(later(minutes=2, seconds=59)) == []
    (finding,) = alerts.look(policy=POLICY, now=later(minutes=3))
    assert (finding.kind, finding.account) == (AlertKind.ADAPTER_DOWN, "shop")
    assert finding.text == "The bot shop (web) is not connected: backoff. 502"
    assert finding.is_urgent


def test_without_a_worker_that_is_the_alert_and_not_every_bot():
    a_bot("other")
    is_up("shop", "other")
    assert kinds(later(hours=1)) == [("no_worker", "")]


def test_a_bot_that_staff_paused_is_no_alert():
    Bot.objects.update(is_enabled=False)
    assert kinds(later(hours=1)) == []


def test_a_message_that_waits_too_long():
    is_up("shop", now=later(minutes=10))
    received(now=NOW)
    assert kinds(later(minutes=9, seconds=59)) == []
    (finding,) = alerts.look(policy=POLICY, now=later(minutes=10))
    assert (finding.kind, finding.text) == (AlertKind.BACKLOG, "Waiting for an answer: 1, the oldest for 10 minutes.")


def test_failures_within_an_hour():
    is_up("shop")
    for minute in (0, 30, 59):
        parked(a_message(user_id=f"u{minute}"), now=later(minutes=minute))
    is_up("shop", now=later(minutes=59))
    assert ("dlq_growth", "") in kinds(later(minutes=59))
    assert ("dlq_growth", "") not in kinds(later(minutes=61))


def test_messages_of_unknown_fate_and_a_full_journal():
    is_up("shop")
    answered()
    OutboxMessage.objects.update(state=OutboxState.UNKNOWN)
    received(channel_id="c2", user_id="u2")
    assert kinds(NOW, replace(POLICY, full_entries=1)) == [("journal_full", ""), ("unknown_sends", "")]


def quiet_for_25_minutes() -> datetime:
    """The bot shop had a message a minute for five weeks, and none in the last 25 minutes. Returns the moment."""
    is_up("shop", now=NOW)
    for hours in range(24 * 7 * 5):
        HourCount.objects.create(account="shop", hour=NOW - timedelta(hours=hours + 1), messages=60)
    workers.report_traffic(account="shop", last_inbound_at=NOW, last_outbound_at=None)
    is_up("shop", now=later(minutes=25))
    return later(minutes=25)


def test_a_bot_that_is_quieter_than_ever():
    moment = quiet_for_25_minutes()
    (finding,) = alerts.look(policy=POLICY, now=moment)
    assert (finding.kind, finding.account) == (AlertKind.SILENCE, "shop")
    assert "received nothing since 2026-01-15 12:00 UTC" in finding.text
    assert kinds(moment, replace(POLICY, watches_silence=False)) == []
    a_bot("new")
    is_up("shop", "new", now=moment)
    AdapterState.objects.update(state_since=NOW)
    assert kinds(moment) == [("silence", "shop")], "Nothing is known of a new bot."


def test_a_bot_that_began_to_run_just_now_is_not_quiet():
    quiet_for_25_minutes()
    later_on = later(minutes=26)
    is_up("shop", now=later_on, state=AdapterStatus.BACKOFF)
    is_up("shop", now=later_on)
    assert ("silence", "shop") not in kinds(later_on)


# -- the task ----


@pytest.fixture
def at_noon(settings: Any) -> Iterator[time_machine.Traveller]:
    settings.BOTSRT = {"ALERT_MAIL_TO": "ops@example.org, night@example.org", "ALERT_CHATS": "shop/-100"}
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    conf.load.cache_clear()
    with time_machine.travel(NOW, tick=False) as moment:
        yield moment


def test_the_watch_mails_what_is_wrong(at_noon: time_machine.Traveller):
    at_noon.move_to(later(hours=1))
    tasks.watch()
    tasks.watch()
    (message,) = mail.outbox
    assert message.to == ["ops@example.org", "night@example.org"]
    assert message.subject == "[PraisonWeb] No worker runs: nothing is read, answered or sent."
    assert figures.counted_at() == later(hours=1)
    assert AlertNotice.objects.get(target="shop/-100").error == "The bot shop is not connected."


@pytest.mark.parametrize("error", [smtplib.SMTPServerDisconnected("gone"), OSError("no route"), RuntimeError("odd")])
def test_mail_that_fails_is_tried_again_and_breaks_nothing(
    at_noon: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(*_: object) -> None:
        raise error

    at_noon.move_to(later(hours=1))
    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.EmailMessage.send", fail)
        tasks.watch()
    row = AlertNotice.objects.get(target=MAIL)
    assert (row.attempts, row.closed_at, str(error) in row.error) == (1, None, True)
    tasks.watch()
    assert mail.outbox == [], "Not at once."
    at_noon.move_to(later(hours=1, minutes=2))
    tasks.watch()
    assert len(mail.outbox) == 1


def test_a_part_of_the_watch_that_breaks_leaves_the_others(
    at_noon: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(**_: object) -> None:
        raise ArithmeticError("odd")

    at_noon.move_to(later(hours=1))
    monkeypatch.setattr(figures, "count_up", fail)
    tasks.watch()
    assert len(mail.outbox) == 1
    assert "a part of the watch failed: count_up" in caplog.text


def test_alerts_that_are_long_over_are_removed():
    watch(DOWN, now=NOW)
    watch(now=later(minutes=6))
    keep = partial(housekeeping.run, max_size=9, ttl=timedelta(days=30), dlq_max_size=9, dlq_ttl=timedelta(days=9))
    keep(now=later(days=29))
    assert Alert.objects.count() == 1
    keep(now=later(days=31))
    assert Alert.objects.count() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERT_CHATS", "shop"),
        ("ALERT_QUIET_HOURS", "22-7"),
        ("ALERT_TIME_ZONE", "Vienna"),
        ("ALERT_SILENCE", "yes"),
        ("ALERT_FULL_PERCENT", "101"),
    ],
)
def test_settings_that_cannot_be_meant_are_said(name: str, value: str):
    with pytest.raises(conf.ConfigError, match=name):
        conf.from_mapping({name: value})
