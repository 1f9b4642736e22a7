"""With 100,000 contacts and 20,000 persons it takes the same queries as with ten; ``bench identity`` has the times."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from botsrt.core.states import HistoryKind, Proof, Role, SessionScope, UnknownUserPolicy
from botsrt.models import BotSession, Contact, HistoryMessage, IdentityLink, Person
from botsrt.services import identity, materials, turns
from tests.factories import NOW, a_bot, a_message, claim_one, later, receive

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def grow(contacts: int, *, first: int) -> None:
    """More contacts with a session and a message each; every five of them are one person."""
    last = first + contacts - 1
    copy(Contact, first, last, id="n", platform_user_id="'u' || n")
    copy(Person, -(-first // 5) + 1, last // 5 + 1, id="n", unified_user_id="'p' || (n - 1)")
    copy(IdentityLink, first, last, contact_id="n", person_id="n / 5 + 1")
    copy(BotSession, first, last, id="n", contact_id="n", session_id="'bot_web_u' || n", lane="'person:p' || (n / 5)")
    for since, until in ((first, min(last, 1_000)), (max(first, 77_000), last)):
        copy(HistoryMessage, since, until, session_id="n", text="'from u' || n")


def copy(model: type[Model], first: int, last: int, **values: str) -> None:
    """Rows for the numbers n of ``first`` to ``last``: like the oldest one, but for ``values``, expressions with n.

    The database makes them itself: 100,000 objects of Python for each table take half a minute.
    """
    fields = [field for field in model._meta.concrete_fields if field.attname in values or not field.primary_key]
    columns = ", ".join(str(field.column) for field in fields)
    selected = ", ".join(values.get(field.attname, f"oldest.{field.column}") for field in fields)
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM numbers WHERE n < %s) "
            f"INSERT INTO {table} ({columns}) SELECT {selected} FROM {table} AS oldest, numbers "
            f"WHERE oldest.id = (SELECT min(id) FROM {table}) AND n <= %s",
            [first, last, last],
        )


def the_first() -> None:
    """Contact 5, the pattern of all others."""
    Contact.objects.create(id=5, platform="web", platform_user_id="u5", first_seen_at=NOW, last_seen_at=NOW)
    Person.objects.create(id=2, unified_user_id="p1", created_at=NOW)
    IdentityLink.objects.create(contact_id=5, person_id=2, proof=Proof.STAFF, linked_by="x", linked_at=NOW)
    BotSession.objects.create(
        id=5,
        session_id="bot_web_u5",
        lane="person:p1",
        platform="web",
        account="shop",
        scope=SessionScope.PER_USER,
        contact_id=5,
        created_at=NOW,
        last_activity_at=NOW,
    )
    HistoryMessage.objects.create(session_id=5, role=Role.USER, kind=HistoryKind.CHAT, text="from u5", created_at=NOW)


def queries(contact: int) -> tuple[int, int, int]:
    """How many it takes to resolve a contact, to receive a message and to read what its turn needs."""
    counts = []
    with CaptureQueriesContext(connection) as asked:
        assert identity.persons_of([contact]) == {contact: f"p{contact // 5}"}
    counts.append(len(asked))
    with CaptureQueriesContext(connection) as asked:
        receive(a_message("hello", user_id=f"u{contact}", channel_id=f"u{contact}"))
    counts.append(len(asked))
    turn = claim_one()
    with CaptureQueriesContext(connection) as asked:
        found = materials.gather(turn=turn, max_history=100, refused_for=timedelta(days=1), now=later())
    counts.append(len(asked))
    first = contact - contact % 5
    assert [item.text for item in found.history] == [f"from u{n}" for n in range(first, first + 5)]
    turns.release(turn_id=turn.id, available_at=later(days=9), now=later())
    return counts[0], counts[1], counts[2]


def test_the_number_of_queries_does_not_grow_with_contacts_and_persons() -> None:
    a_bot(policy=UnknownUserPolicy.PAIR, settings={"allowed_users": "u7,u77777"})
    the_first()
    grow(9, first=6)
    few = queries(7)
    grow(100_000, first=15)
    assert queries(77_777) == few
    assert few == (1, 7, 6)
