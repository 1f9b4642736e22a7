"""All data of somebody as a file, erasing somebody, and retention."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django_q.models import OrmQ

from botsrt.core.states import Proof
from botsrt.models import AuditEvent, BulkOperation, Contact, HistoryMessage, JournalEntry
from botsrt.services import identity
from praisonweb.dashboard.access import Role
from tests.factories import ALICE, NOW, a_message, answered
from tests.web.conftest import a_user, confirmed

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def ann(bot) -> Contact:
    answered(a_message("hello there", user_id="ann", display_name=HOSTILE))
    return Contact.objects.get()


def path(contact: Contact, rest: str) -> str:
    return f"/people/contacts/{contact.pk}/{rest}/"


def test_the_password_is_asked_for_first(staff_client: Client, ann: Contact) -> None:
    for rest in ("data", "erase"):
        assert staff_client.get(path(ann, rest)).headers["Location"].startswith("/account/confirm/")
    assert HistoryMessage.objects.exists()


def test_the_question_counts_and_asks_for_the_name(staff_client: Client, ann: Contact) -> None:
    confirmed(staff_client)
    shown = staff_client.get(path(ann, "erase")).content.decode()
    assert "2 messages in them" in shown
    assert "cannot be undone" in shown
    assert HOSTILE not in shown
    refused = staff_client.post(path(ann, "erase"), {"who": "web:ann", "confirm": "web:an", "reason": "asked"})
    assert refused.status_code == 400
    assert HistoryMessage.objects.count() == 2


def test_erased_for_good(staff_client: Client, ann: Contact) -> None:
    confirmed(staff_client)
    done = staff_client.post(path(ann, "erase"), {"who": "web:ann", "confirm": "web:ann", "reason": "asked"})
    assert done.status_code == 302
    assert not HistoryMessage.objects.exists()
    assert not Contact.objects.exists()
    assert AuditEvent.objects.get(verb="identity.erase").reason == "asked"
    assert staff_client.get(path(ann, "erase")).status_code == 404
    operation = BulkOperation.objects.get()
    assert "Erasing of 1 contact" in staff_client.get(f"/operations/{operation.pk}/").content.decode()
    entry = JournalEntry.objects.get()
    shown = staff_client.get(f"/journal/{entry.pk}/").content.decode()
    assert "erased" in shown
    assert staff_client.get("/journal/").status_code == 200


def test_a_linked_contact_can_go_alone_or_with_the_person(staff_client: Client, ann: Contact) -> None:
    answered(a_message("me too", user_id="ann2", channel_id="ann2"))
    for user_id in ("ann", "ann2"):
        identity.link(
            platform="web",
            user_id=user_id,
            unified_user_id="ann.person",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="asked",
            now=NOW,
        )
    confirmed(staff_client)
    shown = staff_client.get(path(ann, "erase")).content.decode()
    assert "ann.person, with all contacts" in shown
    assert "web:ann, this contact alone" in shown
    staff_client.post(path(ann, "erase"), {"who": "ann.person", "confirm": "ann.person", "reason": ""})
    assert not Contact.objects.exists()


def test_all_data_is_a_file(staff_client: Client, ann: Contact) -> None:
    confirmed(staff_client)
    assert staff_client.get(path(ann, "data")).status_code == 200
    response = staff_client.post(path(ann, "data"), {"who": "web:ann", "reason": "asked"})
    assert response["Content-Disposition"] == f'attachment; filename="contact-{ann.pk}.json"'
    content = response.getvalue()
    assert b"<" not in content
    assert json.loads(content)["contacts"][0]["display_name"] == HOSTILE
    assert AuditEvent.objects.filter(verb="identity.data", reason="asked").exists()


def test_of_nobody_else_than_the_one_on_the_page(staff_client: Client, ann: Contact) -> None:
    answered(a_message("secret", user_id="bob", channel_id="bob"))
    confirmed(staff_client)
    refused = staff_client.post(path(ann, "erase"), {"who": "web:bob", "confirm": "web:bob"})
    assert refused.status_code == 400
    assert Contact.objects.count() == 2


def test_limited_staff_see_no_such_buttons(ann: Contact) -> None:
    session = ann.sessions.get()
    user = a_user("lim", Role.VIEWER)
    user.bot_limits.create(account="shop")
    client = Client()
    client.force_login(user)
    assert "/erase/" not in client.get(f"/people/{session.pk}/").content.decode()


def test_retention_says_what_is_due_and_removes_it(
    staff_client: Client, ann: Contact, django_assert_max_num_queries
) -> None:
    with django_assert_max_num_queries(120):
        shown = staff_client.get("/retention/").content.decode()
    assert "BOTSRT_KEEP_HISTORY_DAYS" in shown
    assert "for ever" in shown
    confirmed(staff_client)
    assert "Remove 1 row" in staff_client.get("/retention/apply/").content.decode()
    assert staff_client.post("/retention/apply/").status_code == 302
    assert AuditEvent.objects.get(verb="retention.apply").after["journal"] == 1
    assert OrmQ.objects.count() == 1
