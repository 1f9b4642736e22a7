"""Bulk acts in the browser: counted, begun, watched, stopped, gone on with."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from botsrt import tasks
from botsrt.core.states import BulkState, BulkVerb, DLQState
from botsrt.models import BulkOperation, DLQItem
from botsrt.services import bulk
from praisonweb.dashboard.access import Role
from tests.factories import ALICE, a_bot, a_message, claim_one, fail, parked
from tests.web.acting import badges, do, problem, read, rows, said, title
from tests.web.conftest import a_user

pytestmark = pytest.mark.django_db

COUNT = tasks.ROWS_AT_ONCE + 15


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def dead(count: int = COUNT) -> list[DLQItem]:
    return [parked(a_message(f"order {number}", user_id=f"u{number}")) for number in range(count)]


def group_of(items: list[DLQItem]) -> str:
    return f"/dlq/groups/{items[0].fingerprint}/"


def ids_of(items: list[DLQItem]) -> str:
    return ",".join(str(item.pk) for item in items)


def test_a_large_act_is_counted_begun_and_watched_to_its_end(staff_client: Client) -> None:
    items = dead()
    path = f"{group_of(items)}discard/"
    assert title(read(staff_client, path)) == f"Discard {COUNT} messages?"
    page = do(staff_client, path, ids=ids_of(items), reason="the shop is closed")
    (operation,) = BulkOperation.objects.all()
    assert page == f"/operations/{operation.pk}/"
    assert said(staff_client) == [f"Discard of {COUNT} messages: {tasks.ROWS_AT_ONCE + 1} done so far."]
    html = read(staff_client, page)
    assert f'value="{tasks.ROWS_AT_ONCE + 1}"' in html
    assert 'hx-trigger="every 2s"' in html
    tasks.run_bulk()
    html = read(staff_client, page)
    assert "finished" in badges(html)
    assert 'hx-trigger="every 2s"' not in html
    assert len(rows(html)) == COUNT
    assert "the shop is closed" in html
    assert rows(read(staff_client, "/operations/")) == [str(operation.pk)]


def test_a_canary_shows_its_steps_and_why_it_stopped_and_home_says_so(staff_client: Client) -> None:
    items = dead(8)
    page = do(staff_client, f"{group_of(items)}retry/", ids=ids_of(items), pace="steps", reason="mended?")
    html = read(staff_client, page)
    assert re.findall(r"<strong>(\d+)</strong> <span>([^<]+)</span>", html) == [
        ("1", "waiting for the results"),
        ("5", "waiting"),
        ("2", "waiting"),
    ]
    fail(claim_one(now=timezone.now()))
    tasks.run_bulk()
    html = read(staff_client, page)
    assert "1 of the 1 in this step failed the same way again." in html
    assert "stopped here" in html
    assert "1 bulk act stopped before the end" in read(staff_client, "/")
    assert {"stopped", "failed again"} <= set(badges(html))
    assert do(staff_client, f"{page}resume/") == page
    assert DLQItem.objects.filter(state=DLQState.RETRYING).count() == 5
    assert 'class="is-done"><strong>1</strong>' in read(staff_client, page)


def test_it_is_stopped_by_those_who_may_do_what_it_does(staff_client: Client, client: Client) -> None:
    items = dead()
    page = do(staff_client, f"{group_of(items)}discard/", ids=ids_of(items), reason="closed")
    client.force_login(a_user("vera", Role.VIEWER))
    html = read(client, page)
    assert 'href="/operations/' not in html.split('class="actions"')[1].split("</div>")[0]
    assert "To discard failed messages you need the role operator or admin" in html
    assert client.post(f"{page}stop/").status_code == 403
    assert title(read(staff_client, f"{page}stop/")) == f"Stop the discard of {COUNT} messages?"
    do(staff_client, f"{page}stop/")
    assert BulkOperation.objects.get().state == BulkState.STOPPED
    assert "stopped already" in problem(do(staff_client, f"{page}stop/", status=409))
    tasks.run_bulk()
    left = COUNT - tasks.ROWS_AT_ONCE - 1
    assert DLQItem.objects.filter(state=DLQState.OPEN).count() == left
    assert f"{left} left" in read(staff_client, page)
    assert len(rows(read(staff_client, f"{page}?state=waiting"))) == left


def test_rows_that_were_skipped_say_why_and_pages_follow_each_other(staff_client: Client) -> None:
    items = dead(55)
    operation = bulk.begin(
        verb=BulkVerb.DISCARD,
        object_ids=[*(item.pk for item in items), 4_711],
        actor=ALICE,
        reason="old",
        now=timezone.now(),
    )
    tasks.run_bulk()
    html = read(staff_client, f"/operations/{operation}/?state=skipped")
    assert rows(html) == ["4711"]
    assert "There is no dead letter item 4711." in html
    assert "It was removed meanwhile." in html
    first = read(staff_client, f"/operations/{operation}/")
    (further,) = re.findall(r'href="([^"]+)" rel="next"', first)
    second = read(staff_client, f"/operations/{operation}/{further.replace('&amp;', '&')}")
    assert [*rows(first), *rows(second)] == [*(str(item.pk) for item in items), "4711"]


def test_one_that_nobody_goes_on_with_is_said_on_its_page_and_at_home(staff_client: Client) -> None:
    (item,) = dead(1)
    operation = bulk.begin(
        verb=BulkVerb.RETRY, object_ids=[item.pk], actor=ALICE, now=timezone.now() - timedelta(minutes=5)
    )
    assert "manage.py qcluster" in read(staff_client, f"/operations/{operation}/")
    assert "Nobody goes on with 1 bulk act" in read(staff_client, "/")


def test_nothing_and_nonsense_are_told(staff_client: Client) -> None:
    assert "Nobody has done anything to many messages at once." in read(staff_client, "/operations/")
    assert "no bulk operation 7" in read(staff_client, "/operations/7/", status=404)
    assert "no bulk operation 7" in read(staff_client, "/operations/7/stop/", status=404)
    dead(1)
    assert staff_client.get("/operations/?before=x").status_code == 404


def test_pages_cost_the_same_for_few_rows_and_many(staff_client: Client, django_assert_max_num_queries: Any) -> None:
    for count in (3, 45):
        items = dead(count)
        operation = bulk.begin(
            verb=BulkVerb.RETRY, object_ids=[item.pk for item in items], actor=ALICE, now=timezone.now()
        )
        tasks.run_bulk()
        with django_assert_max_num_queries(9):
            read(staff_client, f"/operations/{operation}/")
        DLQItem.objects.all().delete()
    with django_assert_max_num_queries(6):
        read(staff_client, "/operations/")
