"""What is left of people and conversations for those who are limited to some bots.

A direct conversation belongs to a person on a platform, so several bots can have spoken in it: each reader gets what
was said with theirs.
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from botsrt.models import BotSession, Contact, HistoryMessage, IdentityLink, JournalEntry, Pairing
from botsrt.services import sessions as service
from praisonweb.dashboard.access import Scope


def sessions(scope: Scope, rows: QuerySet[BotSession] | None = None) -> QuerySet[BotSession]:
    """The sessions in which one of these bots was written to."""
    found = BotSession.objects.all() if rows is None else rows
    if scope.accounts is None:
        return found
    written = scope.rows(JournalEntry.objects.filter(session=OuterRef("pk")))
    return found.filter(Q(account__in=sorted(scope.accounts)) | Exists(written))


def said(rows: QuerySet[HistoryMessage], scope: Scope) -> QuerySet[HistoryMessage]:
    """Those of the messages that were said with these bots."""
    return rows if scope.accounts is None else rows.filter(service.said_with(scope.accounts))


def contacts(scope: Scope, rows: QuerySet[Contact] | None = None) -> QuerySet[Contact]:
    """The contacts that these bots know."""
    found = Contact.objects.all() if rows is None else rows
    if scope.accounts is None:
        return found
    wrote = scope.rows(JournalEntry.objects.filter(contact=OuterRef("pk")))
    talks = scope.rows(BotSession.objects.filter(contact=OuterRef("pk")))
    asked = scope.rows(Pairing.objects.filter(contact=OuterRef("pk")))
    return found.filter(Exists(talks) | Exists(wrote) | Exists(asked))


def is_taken(person: str, *, scope: Scope) -> bool:
    """Whether ``person`` is somebody of whom these bots know no contact: nobody who sees no more may join them."""
    if scope.accounts is None or not person:
        return False
    links = IdentityLink.objects.filter(unlinked_at=None, person__unified_user_id=person.strip().lower())
    return links.exists() and not links.filter(contact__in=contacts(scope)).exists()
