"""Home: calm when nothing is wrong, worst first when something is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from botsrt.core.states import AdapterStatus, OutboxState
from botsrt.models import AdapterState, Bot, JournalEntry, OutboxMessage, Tally
from botsrt.services import figures, workers
from tests.factories import SHAPE, a_bot, a_failure, a_message, answered, claim_one, fail, parked, received

pytestmark = pytest.mark.django_db(transaction=True)


def at_work(*accounts: str, state: AdapterStatus = AdapterStatus.RUNNING, error: str = "") -> None:
    """A live worker that runs these bots."""
    now = timezone.now()
    lease = timedelta(seconds=30)
    workers.register(worker_id="w1", host="h", pid=1, version="1", lease=lease, now=now)
    workers.lease_adapters(worker_id="w1", accounts=accounts, lease=lease, now=now)
    for account in accounts:
        workers.report_adapter(
            worker_id="w1", account=account, state=state, error=error, identity="@shop_bot", applied_version=1, now=now
        )


def read(client: Client) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return str(response.content.decode())


def concerns(html: str) -> list[str]:
    """The titles, worst first."""
    return re.findall(r'<li class="concern[^"]*">.*?<h2>(?:<a [^>]*>)?(.*?)(?:</a>)?</h2>', html, re.DOTALL)


def badges(html: str) -> list[str]:
    return re.findall(r'<span class="badge tone-\w+"[^>]*>([^<]+)</span>', html)


def test_it_is_calm_when_nothing_is_wrong(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    html = read(staff_client)
    assert concerns(html) == []
    assert "Nothing needs you.</strong> No message yet." in html
    workers.report_traffic(
        account="shop", last_inbound_at=timezone.now() - timedelta(seconds=12), last_outbound_at=None
    )
    assert re.search(r"Last message <time[^>]*>1[2-9] s ago</time>", read(staff_client))


def test_without_a_bot_it_says_how_to_begin(staff_client: Client, transactional_db: None) -> None:
    html = read(staff_client)
    assert "There is no bot yet." in html
    assert concerns(html) == []


def test_no_worker_is_one_concern_however_many_bots(staff_client: Client, bot: Bot) -> None:
    a_bot("second")
    html = read(staff_client)
    assert concerns(html) == ["No worker runs"]
    assert badges(html) == ["not running", "not running"]
    assert "manage.py runbots" in html


def test_a_silent_worker_counts_as_none(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    past = timezone.now() - timedelta(minutes=5)
    workers.beat(worker_id="w1", accounts=["shop"], running_turns=0, now=past)
    AdapterState.objects.update(lease_expires_at=past)
    html = read(staff_client)
    assert concerns(html) == ["No worker runs"]
    assert badges(html) == ["unknown"], "What it last said must not be taken for the truth."


@pytest.mark.parametrize(
    ("state", "word", "is_concern"),
    [
        (AdapterStatus.STARTING, "starting", False),
        (AdapterStatus.BACKOFF, "trying again", True),
        (AdapterStatus.CREDENTIAL_ERROR, "credentials refused", True),
        (AdapterStatus.FAILED, "settings wrong", True),
        (AdapterStatus.PAUSED, "paused", False),
    ],
)
def test_a_bot_that_does_not_run_says_why(
    staff_client: Client, bot: Bot, state: AdapterStatus, word: str, is_concern: bool
) -> None:
    at_work("shop", state=state, error="<401>")
    html = read(staff_client)
    assert badges(html) == [word]
    assert concerns(html) == ([f"shop: {word}"] if is_concern else [])
    assert "&lt;401&gt;" in html


def test_a_bot_that_never_gets_ready_is_noticed(staff_client: Client, bot: Bot) -> None:
    at_work("shop", state=AdapterStatus.STARTING)
    AdapterState.objects.update(state_since=timezone.now() - timedelta(minutes=2))
    assert concerns(read(staff_client)) == ["shop does not get ready"]


def test_a_disabled_bot_is_no_concern(staff_client: Client, transactional_db: None) -> None:
    a_bot("shop", is_enabled=False)
    html = read(staff_client)
    assert concerns(html) == []
    assert badges(html) == ["paused"]


def test_settings_that_are_not_applied_are_a_concern(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    Bot.objects.update(version=2)
    AdapterState.objects.update(error="Version 2 is not applied: token: refused")
    html = read(staff_client)
    assert concerns(html) == ["shop runs with earlier settings"]
    assert "Version 2 is not applied" in html


def test_an_old_unanswered_message_is_a_concern(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    now = timezone.now()
    received("new", now=now - timedelta(seconds=30))
    assert concerns(read(staff_client)) == [], "Messages on their way are no concern."
    received("old", now=now - timedelta(minutes=3))
    assert concerns(read(staff_client)) == ["2 messages wait for an answer"]


def test_a_message_in_a_long_run_counts_as_unanswered(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    started_at = timezone.now() - timedelta(hours=1)
    received(now=started_at)
    claim_one(now=started_at)
    html = read(staff_client)
    assert concerns(html) == ["1 message waits for an answer"]
    assert 'class="concern tone-bad"' in html


def test_failures_and_unsure_sends_are_counted(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    now = timezone.now()
    parked(a_message(user_id="u1"), now=now)
    parked(a_message(user_id="u2"), now=now)
    answered(a_message(user_id="u3"), now=now)
    OutboxMessage.objects.filter(text="Hi").update(state=OutboxState.UNKNOWN)
    answered(a_message(user_id="u4"), "held one", now=now)
    OutboxMessage.objects.filter(text="held one").update(state=OutboxState.HELD)
    assert concerns(read(staff_client)) == [
        "2 messages failed for good",
        "1 reply of unknown fate",
        "1 reply held for you",
    ]


def test_the_worst_comes_first(staff_client: Client, bot: Bot) -> None:
    a_bot("second", shape=SHAPE)
    at_work("shop", "second", state=AdapterStatus.BACKOFF)
    received(now=timezone.now() - timedelta(hours=1))
    html = read(staff_client)
    tones = re.findall(r'class="concern tone-(\w+)"', html)
    assert tones == ["bad", "warn", "warn"]


def test_it_costs_the_same_however_much_there_is(
    staff_client: Client, bot: Bot, django_assert_max_num_queries: Any
) -> None:
    for number in range(5):
        a_bot(f"bot-{number}")
    at_work("shop", *(f"bot-{number}" for number in range(5)))
    for number in range(20):
        received(a_message(user_id=f"u{number}"))
        fail(claim_one(), a_failure())
        answered(a_message(user_id=f"v{number}"))
    assert JournalEntry.objects.count() == 40
    with django_assert_max_num_queries(14):
        read(staff_client)


def test_a_bot_shows_who_it_is_and_its_traffic(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    now = timezone.now()
    workers.report_traffic(account="shop", last_inbound_at=now - timedelta(minutes=5), last_outbound_at=None)
    html = read(staff_client)
    assert "Web chat · @shop_bot · agent echo" in html
    assert re.search(r"Last in</dt><dd><time[^>]*>5 min ago<", html)
    assert re.search(r'Last out</dt><dd><span class="age">never<', html)
    assert 'href="/try/shop/"' in html


def test_the_page_keeps_itself_fresh(staff_client: Client, bot: Bot) -> None:
    part = staff_client.get("/", headers={"HX-Request": "true"}).content.decode()
    assert part.strip().startswith('<div class="part" id="home" data-refresh="/" data-quick>')
    assert "<html" not in part


def test_a_page_left_open_after_signing_out_goes_to_sign_in(client: Client, transactional_db: None) -> None:
    response = client.get("/", headers={"HX-Request": "true"}, follow=True)
    assert response["HX-Redirect"] == "/account/sign-in/"
    assert response.content == b""


def test_every_number_links_to_its_list(staff_client: Client, bot: Bot) -> None:
    at_work("shop", state=AdapterStatus.BACKOFF)
    past = timezone.now() - timedelta(minutes=20)
    parked(a_message(user_id="u1"), now=past)
    answered(a_message(user_id="u2"), now=past)
    OutboxMessage.objects.filter(text="Hi").update(state=OutboxState.UNKNOWN)
    received(a_message(user_id="u3"), now=past)
    html = read(staff_client)
    links = re.findall(r'<h2><a href="([^"]*)">', html)
    assert sorted(links) == [
        "/bots/shop/",
        "/deliveries/?q=state%3Aunknown",
        "/dlq/",
        "/journal/?q=state%3Apending+state%3Aclaimed",
    ]
    for link in links:
        listed = staff_client.get(link)
        assert listed.status_code == 200
        assert "Nothing matches." not in listed.content.decode()


def test_that_nobody_looks_after_alerts_is_a_concern(staff_client: Client, bot: Bot) -> None:
    at_work("shop")
    figures.count_up(now=timezone.now() - timedelta(minutes=9))
    assert concerns(read(staff_client)) == []
    Tally.objects.filter(name="cursor", label="run").delete()
    figures.count_up(now=timezone.now() - timedelta(minutes=11))
    assert concerns(read(staff_client)) == ["Nobody looks after alerts"]
