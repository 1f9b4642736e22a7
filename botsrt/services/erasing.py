"""Erase what is held about contacts. Preview / begin / step.

Of each message of theirs a tombstone is left: the key by which a redelivery is known, nothing else. In group chats only
their own messages go; what others and the bot said there stays.

The first step is one commit: it ends what runs for the contact, gives up what waits, and takes the identity off the
contact. Whoever writes after it is somebody new. The steps behind it remove what that contact left, in chunks, so that
nobody waits long for the write lock; they can be repeated, and a crash between two loses nothing. ``services.bulk``
does them, as an operation whose rows are contacts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.db import connection, models, transaction
from django.db.models import F, Q, QuerySet

from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, NotFound
from botsrt.core.identity import ListsLinks
from botsrt.core.states import DLQState, EntryState, EventKind, Outcome, SessionScope, TurnState
from botsrt.models import (
    AuditEvent,
    Bot,
    BotSession,
    Contact,
    DLQItem,
    HistoryMessage,
    IdentityLink,
    JournalEntry,
    KeptFile,
    OutboxMessage,
    Pairing,
    Person,
    PersonMerge,
    Preview,
    Turn,
    WrongCodes,
)
from botsrt.services import attachments, audit, identity, lanes, mentions, news, search, summaries
from botsrt.services.mentions import MASK

#: Rows removed in one step.
CHUNK = 200

#: ``outcome_reason`` of a tombstone.
ERASED = "erased"

#: How the user id of a contact begins whose erasing has begun. No platform gives such an id.
_GONE = "erased:"


# -- who ----


def contacts_of(who: str) -> list[int]:
    """The contacts that are meant: ``platform:user_id`` with its aliases, or all that are linked to a person now.

    Raises:
        NotFound: there is no such contact, and no such person.
    """
    platform, colon, user_id = who.partition(":")
    if colon and (contact := Contact.objects.filter(platform=platform, platform_user_id=user_id).first()):
        return identity.ids_of(contact.root_id)
    linked = {pair for pair, unified in identity.all_links().items() if unified == who}
    roots = [pk for pk in (_contact_id(*pair) for pair in sorted(linked)) if pk is not None]
    if not roots:
        raise NotFound(f"There is nobody {who}: write platform:user_id, or a person of: identity list")
    return sorted({pk for root in roots for pk in identity.ids_of(root)})


def _contact_id(platform: str, user_id: str) -> int | None:
    found = Contact.objects.filter(platform=platform, platform_user_id=user_id)
    return found.values_list("pk", flat=True).first()


# -- how much ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What is held about some contacts: how many rows of each kind."""

    contacts: tuple[str, ...]
    persons: tuple[str, ...]  # who they are, or were
    conversations: int  # direct ones
    messages: int  # in these, of both sides
    group_messages: int  # of theirs, in group chats
    entries: int
    dead_letters: int
    outgoing: int
    turns: int
    running: int  # turns that would be cancelled
    pairings: int
    links: int  # also ended ones
    previews: int
    files: int  # copies of what they sent
    audit: int  # acts of staff that name them
    bots: tuple[str, ...]  # whose settings name them: to be changed there

    def counts(self) -> dict[str, int]:
        """Kind → how many rows."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, int)}


def preview(*, contact_ids: Collection[int]) -> Holdings:
    """What erasing these contacts would remove. Nothing is changed."""
    theirs = Theirs(contact_ids)
    links = IdentityLink.objects.filter(contact__in=contact_ids)
    contacts = Contact.objects.filter(pk__in=contact_ids).order_by("pk")
    return Holdings(
        contacts=tuple(str(contact) for contact in contacts),
        persons=tuple(links.order_by("person").values_list("person__unified_user_id", flat=True).distinct()),
        conversations=theirs.sessions.count(),
        messages=theirs.history.count(),
        group_messages=theirs.said_in_groups.count() + theirs.said_in_groups_before.count(),
        entries=theirs.entries.count(),
        dead_letters=DLQItem.objects.filter(entry__in=theirs.entries).count(),
        outgoing=theirs.outgoing.count(),
        turns=theirs.turns.count(),
        running=theirs.turns.filter(state=TurnState.RUNNING).count(),
        pairings=theirs.pairings.count(),
        links=links.count(),
        previews=Preview.objects.filter(entry__in=theirs.entries).count(),
        files=theirs.files.count(),
        audit=mentions.count(mentions.names_of(contact_ids)),
        bots=tuple(_bots_that_name([contact.platform_user_id for contact in contacts])),
    )


class Theirs:
    """The rows that belong to contacts, as querysets."""

    def __init__(self, contact_ids: Collection[int]) -> None:
        ids = list(contact_ids)
        self.entries = JournalEntry.objects.filter(
            Q(contact__in=ids) | Q(session__contact__in=ids, session__scope=SessionScope.PER_USER)
        )
        self.sessions = BotSession.objects.filter(contact__in=ids, scope=SessionScope.PER_USER)
        self.turns = Turn.objects.filter(session__in=self.sessions.values("pk"))
        self.history = HistoryMessage.objects.filter(session__in=self.sessions.values("pk"))
        self.said_in_groups = HistoryMessage.objects.filter(
            entry__contact__in=ids, session__scope=SessionScope.PER_CHAT, role="user"
        )
        #: Whose entries housekeeping removed; a query of its own, because it reads all messages of groups.
        self.said_in_groups_before = HistoryMessage.objects.filter(
            metadata__contact__in=ids, entry=None, session__scope=SessionScope.PER_CHAT, role="user"
        )
        self.files = KeptFile.objects.filter(contact__in=ids)
        self.pairings = Pairing.objects.filter(
            Q(contact__in=ids) | Q(other__in=ids) | Q(session__contact__in=ids) | Q(other_session__contact__in=ids)
        )
        self.outgoing = OutboxMessage.objects.filter(
            Q(session__in=self.sessions.values("pk")) | Q(pairing__in=self.pairings.values("pk"))
        )


def _bots_that_name(user_ids: Sequence[str]) -> list[str]:
    """Bots with one of these user ids among the people of their settings."""
    named = []
    for account, settings in Bot.objects.order_by("account").values_list("account", "settings"):
        listed = {word.strip() for value in settings.values() for word in str(value).split(",")}
        if not listed.isdisjoint(user_ids):
            named.append(account)
    return named


# -- doing it ----


def check(*, contact_ids: Collection[int]) -> None:
    """Raises:
    Conflict: links are kept elsewhere, by something that cannot end them.
    """
    resolver = identity.external()
    if resolver is None or isinstance(resolver, ListsLinks):
        return
    if identity.persons_of(contact_ids):
        raise Conflict(f"Links are kept by {type(resolver).__name__}, which cannot end them; do it there first.")


def step(*, contact_id: int, actor: Actor, reason: str, now: datetime) -> bool:
    """Do the next part of erasing one contact, in one transaction. Returns whether nothing of it is left.

    Raises:
        NotFound: there is no such contact (any more).
        Conflict: other ids of the same contact have to go first.
    """
    with transaction.atomic():
        contact = Contact.objects.select_for_update().filter(pk=contact_id).first()
        if contact is None:
            raise NotFound(f"There is no contact {contact_id} (any more).")
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        if not contact.platform_user_id.startswith(_GONE):
            _take_identity(contact, actor=actor, reason=reason, now=now)
            return False
        theirs = Theirs([contact_id])
        _end_what_is_open(theirs, now=now)
        parts: Sequence[Callable[[], int]] = (
            lambda: _remove_said(theirs.said_in_groups),
            lambda: _remove(theirs.history),
            lambda: _remove_outgoing(theirs.outgoing),
            lambda: _bury(theirs.entries, now=now),
            lambda: _remove(theirs.pairings),
            lambda: _remove(theirs.turns),
            lambda: _remove_said(theirs.said_in_groups_before),
        )
        if any(part() for part in parts):
            return False
        if not search.forget_deleted():
            return False
        try:
            with transaction.atomic():
                attachments.forget(contact_ids=[contact_id])  # what an agent fetched in the meantime
                theirs.sessions.delete()
                Contact.objects.filter(alias_of=contact).update(alias_of=None)
                contact.delete()
        except models.ProtectedError:  # a message that was on its way in came between
            return False
        news.changed("people")
        return True


def _take_identity(contact: Contact, *, actor: Actor, reason: str, now: datetime) -> None:
    """End what is open, and let nothing lead to the human any more: from the commit on, who writes is somebody new."""
    theirs = Theirs([contact.pk])
    sessions = list(theirs.sessions.select_for_update(no_key=True).order_by("pk"))
    names = mentions.names_of([contact.pk])
    who = f"contact {contact.pk}"
    audit.record(
        actor=actor,
        verb="identity.erase",
        object_kind="contact",
        object_id=who,
        reason=names.masked(reason),
        after=preview(contact_ids=[contact.pk]).counts(),
        now=now,
    )
    # Turns that read these messages; those of linked contacts run again without them.
    together = {session.lane for session in sessions}
    BotSession.objects.filter(lane__in=together).update(epoch=F("epoch") + 1)
    lanes.hand_back(Turn.objects.filter(lane__in=together), now=now)
    _end_what_is_open(theirs, now=now)
    while _remove_outgoing(theirs.outgoing.filter(sent_at=None)):
        pass
    summaries.forget(session_pks=[session.pk for session in sessions], contact_ids=[contact.pk])
    attachments.forget(contact_ids=[contact.pk])
    _forget_names_elsewhere(contact, names)
    _forget_links(contact)
    gone = f"{_GONE}{secrets.token_hex(12)}"
    for session in sessions:
        name = f"{_GONE}{secrets.token_hex(12)}"
        BotSession.objects.filter(pk=session.pk).update(session_id=name, lane=name)
    Contact.objects.filter(pk=contact.pk).update(platform_user_id=gone, user_name="", display_name="")
    WrongCodes.objects.filter(guesser=f"contact:{contact.pk}").delete()
    news.changed("people", [session.pk for session in sessions])
    news.changed("journal")


def _end_what_is_open(theirs: Theirs, *, now: datetime) -> None:
    """Nothing of theirs waits or runs: running turns are cancelled, what is not over becomes tombstones."""
    ended = (EntryState.COMPLETED, EntryState.DISCARDED)
    still_open = theirs.entries.exclude(state__in=ended)
    running = Turn.objects.filter(
        Q(session__in=theirs.sessions.values("pk")) | Q(entries__in=theirs.entries), state=TurnState.RUNNING
    )
    lanes.hand_back(Turn.objects.filter(pk__in=list(running.values_list("pk", flat=True).distinct())), now=now)
    while _bury(still_open, now=now):
        pass


def _remove(rows: QuerySet[Any]) -> int:
    """Delete a chunk. Returns how many rows."""
    ids = list(rows.order_by("pk").values_list("pk", flat=True).distinct()[:CHUNK])
    rows.model._default_manager.filter(pk__in=ids).delete()
    return len(ids)


def _remove_said(rows: QuerySet[HistoryMessage]) -> int:
    """Delete a chunk of what they said, and the summaries that may repeat it. Returns how many rows."""
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK])
    found = HistoryMessage.objects.filter(pk__in=ids)
    summaries.forget_in(session_pks=set(found.values_list("session_id", flat=True)))
    found.delete()
    return len(ids)


def _remove_outgoing(rows: QuerySet[OutboxMessage]) -> int:
    """Delete a chunk of messages on their way out, and why staff did something to them. Returns how many."""
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:CHUNK])
    _forget_acts("outbox", ids)
    OutboxMessage.objects.filter(pk__in=ids).delete()
    return len(ids)


def _bury(entries: QuerySet[JournalEntry], *, now: datetime) -> int:
    """Put tombstones in the place of a chunk of entries. Returns how many.

    New rows, not emptied ones: whatever column is added to the table later is empty in them, too.
    """
    rows = entries.exclude(kind=EventKind.ERASED).select_for_update(of=("self",)).order_by("pk")[:CHUNK]
    buried = list(rows.only("platform", "account", "channel_id", "message_id", "revision", "turn", "session"))
    if not buried:
        return 0
    ids = [row.pk for row in buried]
    turn_ids = {row.turn_id for row in buried if row.turn_id is not None}
    _forget_states(turn_ids, {row.session_id for row in buried if row.session_id is not None})
    # What a turn wrote down of theirs in a group, before the entry that leads to it goes.
    while _remove_said(HistoryMessage.objects.filter(entry__in=ids, role="user")):
        pass
    while _remove_outgoing(OutboxMessage.objects.filter(Q(entry__in=ids), Q(turn=None))):  # notices about them
        pass
    _forget_acts("journal", ids)
    items = dict(DLQItem.objects.filter(entry__in=ids).values_list("pk", "fingerprint"))
    _forget_acts("dlq", items)
    JournalEntry.objects.filter(pk__in=ids).delete()
    # In any state: named, because the index begins with it.
    others = DLQItem.objects.filter(state__in=list(DLQState), fingerprint__in=items.values())
    _forget_acts("dlq_group", set(items.values()) - set(others.values_list("fingerprint", flat=True)))
    JournalEntry.objects.bulk_create(
        JournalEntry(
            platform=row.platform,
            account=row.account,
            channel_id=row.channel_id,
            message_id=row.message_id,
            revision=row.revision,
            chat_type="direct",
            kind=EventKind.ERASED,
            payload={},
            state=EntryState.COMPLETED,
            outcome=Outcome.SILENT,
            outcome_reason=ERASED,
            available_at=now,
            received_at=now,
            completed_at=now,
        )
        for row in buried
    )
    # Of a group: a turn over messages of several people is kept for the others, without what it said went wrong.
    left = Turn.objects.filter(pk__in=turn_ids).exclude(state=TurnState.RUNNING)
    left.filter(entries__isnull=True).delete()
    left.update(error_class="", error_text="", request_reason="", usage={})
    return len(ids)


def _forget_states(turn_ids: Collection[Any], session_ids: Collection[int]) -> None:
    """What agents kept of these turns."""
    names = {str(turn_id) for turn_id in turn_ids}
    for session in BotSession.objects.filter(pk__in=session_ids).exclude(runtime_state={}):
        kept = {
            runtime: {turn: state for turn, state in turns.items() if turn not in names}
            for runtime, turns in session.runtime_state.items()
        }
        BotSession.objects.filter(pk=session.pk).update(
            runtime_state={name: turns for name, turns in kept.items() if turns}
        )


def _forget_links(contact: Contact) -> None:
    """The contact's links, and persons that have none but these."""
    if isinstance(resolver := identity.external(), ListsLinks):
        resolver.unlink(contact.platform, contact.platform_user_id)
    links = IdentityLink.objects.filter(contact=contact)
    persons = set(links.values_list("person", flat=True))
    links.update(replaces=None, merge=None)
    links.delete()
    lonely = Person.objects.filter(pk__in=persons, links=None)
    merges = PersonMerge.objects.filter(Q(winner__in=lonely) | Q(loser__in=lonely))
    lonely_ids = list(lonely.values_list("pk", flat=True))
    IdentityLink.objects.filter(merge__in=merges).update(merge=None)
    merges.delete()
    Person.objects.filter(pk__in=lonely_ids).delete()


# -- where others speak of them ----

#: Columns that say who did something.
_ACTORS: tuple[tuple[type[models.Model], tuple[str, ...]], ...] = (
    (AuditEvent, ("actor",)),
    (IdentityLink, ("linked_by", "unlinked_by")),
    (Pairing, ("decided_by",)),
    (DLQItem, ("closed_by",)),
)


def _forget_names_elsewhere(contact: Contact, names: mentions.Names) -> None:
    theirs = Theirs([contact.pk])
    _forget_acts("contact", [str(contact)])
    _forget_acts("session", theirs.sessions.values_list("session_id", flat=True))
    others = IdentityLink.objects.exclude(contact=contact).values("person")
    persons = Person.objects.filter(links__contact=contact).exclude(pk__in=others)
    _forget_acts("person", persons.values_list("unified_user_id", flat=True))
    pairings = list(theirs.pairings.values_list("pk", flat=True))
    _forget_acts("pairing", pairings)
    for pk in pairings:
        while _remove_outgoing(OutboxMessage.objects.filter(idempotency_key__startswith=f"pairing-owner:{pk}:")):
            pass
    mentions.mask(names)
    actors = [f"{kind}:{contact}"[:150] for kind in ("contact", "owner")]
    for model, columns in _ACTORS:
        for name in columns:
            model._default_manager.filter(**{f"{name}__in": actors}).update(**{name: MASK})


def _forget_acts(kind: str, object_ids: Collection[object] | QuerySet[Any]) -> None:
    """Of acts on these objects it stays known who did what and when; not why, nor what it changed."""
    names = [str(object_id) for object_id in object_ids]
    acts = AuditEvent.objects.filter(object_kind=kind, object_id__in=names)
    acts.exclude(reason="").update(reason=MASK)
    acts.update(before={}, after={})
