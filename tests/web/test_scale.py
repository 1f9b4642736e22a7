"""Pages cost the same with few rows and with many, and no page passes rows over: ``bench pages`` has the times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from botsrt.core.actors import SYSTEM
from botsrt.core.states import BulkVerb, OutboxState, Proof, UnknownUserPolicy
from botsrt.models import AuditEvent, DLQItem, HistoryMessage, JournalEntry, OutboxMessage, Worker
from botsrt.services import bulk, identity
from praisonweb.dashboard.paging import PAGE_SIZE
from tests.factories import a_bot, a_message, answered, asks, parked
from tests.web.addresses import PAGES, Need
from tests.web.conftest import confirmed

pytestmark = pytest.mark.django_db(transaction=True)

FEW, MANY = 3, PAGE_SIZE + 5

#: Queries of the dearest page, that of one conversation: what a page costs is also asserted page by page.
MOST = 32

#: Addresses beside those of the table: words, filters and tabs have queries of their own.
MORE = (
    "/journal/?q=order+from:u1+state:dead",
    "/journal/?q=is:stuck",
    "/journal/?q=is:failing",
    "/deliveries/?q=state:held",
    "/deliveries/?q=entry:1",
    "/dlq/?q=order+is:unassigned",
    "/people/?q=order",
    "/people/?q=platform:web",
    "/people/?q=from:u1",
    "/people/?tab=waiting",
    "/people/?tab=human",
    "/pairings/?tab=history",
    "/audit/?q=who:system+hello",
    "/admin/botsrt/journalentry/?state__exact=dead",
)


def grow(first: int, last: int) -> None:
    """For each number a contact who was answered, one whose message failed and one who asks; and all beside it."""
    now = timezone.now()
    for number in range(first, last):
        answered(a_message(f"order {number}", user_id=f"u{number}", channel_id=f"u{number}"), now=now)
        parked(a_message(f"order {number}", user_id=f"f{number}", channel_id=f"f{number}"), now=now)
        identity.link(
            platform="web",
            user_id=f"u{number}",
            unified_user_id=f"p{number // 2}",
            proof=Proof.STAFF,
            actor=SYSTEM,
            reason="same person",
            now=now,
        )
        Worker.objects.create(
            id=f"w{number}", host="h", pid=1, version="1", started_at=now, last_beat_at=now, lease_seconds=60
        )
        if number < 45:  # one bot lets no more wait
            asks(f"s{number}", account="door")
    OutboxMessage.objects.filter(pk__in=list(OutboxMessage.objects.values_list("pk", flat=True)[::3])).update(
        state=OutboxState.HELD
    )
    bulk.begin(
        verb=BulkVerb.DISCARD,
        object_ids=list(DLQItem.objects.values_list("pk", flat=True)),
        reason="closed",
        actor=SYSTEM,
        now=now,
    )


def paths() -> Iterator[str]:
    for row in PAGES.values():
        if row.get not in (Need.NOT_POSSIBLE, Need.LEADS_TO_SIGN_IN) and not row.path.startswith("/hooks/"):
            yield row.path.replace("/nobody/", "/shop/").replace("0" * 16, DLQItem.objects.earliest("pk").fingerprint)
    yield from MORE


def asked(client: Client, path: str) -> tuple[list[str], str]:
    """The statements of one request, and the page."""
    client.get(path)  # what is read once per process does not count
    with CaptureQueriesContext(connection) as captured:
        response = client.get(path)
    assert response.status_code < 500, path
    return [query["sql"] for query in captured], unescape(response.content.decode())


@pytest.fixture
def town(staff_client: Client) -> Client:
    a_bot("shop")
    a_bot("door", policy=UnknownUserPolicy.PAIR)
    grow(0, FEW)
    return confirmed(staff_client)


#: What is old is found by halving: a query more for each doubling of a table.
HALVING = ("/retention/", "/retention/apply/")


def test_no_page_costs_more_queries_with_many_rows_than_with_few(town: Client) -> None:
    few = {path: len(asked(town, path)[0]) for path in paths()}
    grow(FEW, MANY)
    assert min(model.objects.count() for model in (JournalEntry, HistoryMessage, AuditEvent, Worker)) > PAGE_SIZE
    many = {path: len(asked(town, path)[0]) for path in paths()}
    more = {path: (few[path], count) for path, count in many.items() if count > few[path]}
    assert {path: counts for path, counts in more.items() if path not in HALVING} == {}
    assert max(many.values()) <= MOST


def test_no_page_counts_off_rows_to_pass_them_over(town: Client) -> None:
    """Pages go on by the key of a row: OFFSET reads everything before it. Older pages are looked at, too."""
    grow(FEW, MANY)
    older = 0
    for path in paths():
        statements, html = asked(town, path)
        assert [sql for sql in statements if "OFFSET" in sql] == [], path
        for link in re.findall(r'<a[^>]*href="([^"]+)"[^>]*rel="next"', html):
            further = link if link.startswith("/") else path.partition("?")[0] + link
            statements, _ = asked(town, further)
            assert [sql for sql in statements if "OFFSET" in sql] == [], further
            older += 1
    assert older >= 10
