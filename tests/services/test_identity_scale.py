"""With 100,000 contacts and 20,000 persons it takes the same queries as with ten; ``bench identity`` has the times."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from botsrt.core.states import HistoryKind, Proof, Role, SessionScope, UnknownUserPolicy
from botsrt.models import BotSession, Contact, HistoryMessage, IdentityLink, Person
from botsrt.services import identity, turns
from tests.factories import NOW, a_bot, a_message, claim_one, later, receive

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def grow(contacts: int, *, first: int) -> None:
    """More contacts with a session and a message each; every five of them are one person."""
    ids = range(first, first + contacts)
    times = {"first_seen_at": NOW, "last_seen_at": NOW}
    Contact.objects.bulk_create(
        (Contact(id=n, platform="web", platform_user_id=f"u{n}", **times) for n in ids), batch_size=5_000
    )
    Person.objects.bulk_create(
        (Person(id=n // 5 + 1, unified_user_id=f"p{n // 5}", created_at=NOW) for n in ids if n % 5 == 0),
        batch_size=5_000,
    )
    IdentityLink.objects.bulk_create(
        (
            IdentityLink(contact_id=n, person_id=n // 5 + 1, proof=Proof.STAFF, linked_by="x", linked_at=NOW)
            for n in ids
        ),
        batch_size=5_000,
    )
    BotSession.objects.bulk_create(
        (
            BotSession(
                id=n,
                session_id=f"bot_web_u{n}",
                lane=f"person:p{n // 5}",
                platform="web",
                account="shop",
                scope=SessionScope.PER_USER,
                contact_id=n,
                created_at=NOW,
                last_activity_at=NOW,
            )
            for n in ids
        ),
        batch_size=5_000,
    )
    HistoryMessage.objects.bulk_create(
        (
            HistoryMessage(session_id=n, role=Role.USER, kind=HistoryKind.CHAT, text=f"from u{n}", created_at=NOW)
            for n in ids
            if n < 1_000 or n > 77_000
        ),
        batch_size=5_000,
    )


def queries(contact: int) -> tuple[int, int, int]:
    """How many it takes to resolve a contact, to receive a message and to read what its turn needs."""
    counts = []
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert identity.persons_of([contact]) == {contact: f"p{contact // 5}"}
    counts.append(len(asked))
    with CaptureQueriesContext(connection) as asked:
        receive(a_message("hello", user_id=f"u{contact}", channel_id=f"u{contact}"))
    counts.append(len(asked))
    turn = claim_one()
    with CaptureQueriesContext(connection) as asked:
        found = turns.materials(turn=turn, max_history=100, refused_for=timedelta(days=1), now=later())
    counts.append(len(asked))
    first = contact - contact % 5
    assert [item.text for item in found.history] == [f"from u{n}" for n in range(first, first + 5)]
    turns.release(turn_id=turn.id, available_at=later(days=9), now=later())
    return counts[0], counts[1], counts[2]


def test_the_number_of_queries_does_not_grow_with_contacts_and_persons() -> None:
    a_bot(policy=UnknownUserPolicy.PAIR, settings={"allowed_users": "u7,u77777"})
    grow(10, first=5)
    few = queries(7)
    grow(100_000, first=15)
    assert queries(77_777) == few
    assert few == (1, 6, 5)
