"""Contacts, and the persons behind them. Messages never move: a link changes which sessions are read together.

Who is who comes from the tables here, or from the resolver that the settings name; links made by staff go there too.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from operator import itemgetter

from django.db import IntegrityError, transaction
from django.db.models import Max, Q
from django.utils import timezone

from botsrt import conf
from botsrt.core import keys
from botsrt.core.actors import SYSTEM, Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.identity import (
    IdentityResolverProtocol,
    ListsLinks,
    checked_unified_id,
    is_linked,
    unlinked_id,
)
from botsrt.core.messages import Sender
from botsrt.core.states import HistoryKind, Proof, SessionScope
from botsrt.models import BotSession, Contact, HistoryMessage, IdentityLink, Person, PersonMerge
from botsrt.services import audit, lanes, resolvers, sql

logger = logging.getLogger(__name__)

#: ``last_seen_at`` moves at most this often, so that a busy contact does not cost a write per message.
SEEN_RESOLUTION = timedelta(minutes=1)

#: Links that hold now.
ACTIVE = Q(unlinked_at=None)


_given: IdentityResolverProtocol | None = None


@cache
def external() -> IdentityResolverProtocol | None:
    """The resolver that the settings name; None: the tables.

    Raises:
        ConfigurationError: it cannot be used.
    """
    return _given if _given is not None else resolvers.load(conf.load().identity_resolver)


def resolve_with(resolver: IdentityResolverProtocol | None) -> None:
    """Let ``resolver`` say who is who in this process, whatever the settings name; None: as the settings say."""
    global _given
    _given = resolver
    external.cache_clear()


# -- contacts ----


def contact_seen(*, platform: str, sender: Sender, now: datetime) -> Contact:
    """The contact of ``sender``, made on first sight. Writing to us proves that they can be reached again."""
    (contact,) = contacts_seen([(platform, sender, now)])
    return contact


_KNOWN = """SELECT contact.* FROM {senders} AS sender CROSS JOIN botsrt_contact AS contact
    WHERE contact.platform = sender.column1 AND contact.platform_user_id = sender.column2"""


def contacts_seen(seen: Sequence[tuple[str, Sender, datetime]]) -> list[Contact]:
    """``contact_seen`` for many: platform, sender and time of each."""
    first = {(platform, sender.user_id): (sender, now) for platform, sender, now in reversed(seen)}
    known = _known(first)
    if new := {key: one for key, one in first.items() if key not in known}:
        _add(new)
        known |= _known(new)
    return [_seen(known[platform, sender.user_id], sender, now) for platform, sender, now in seen]


def _known(keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Contact]:
    """The contacts among those of platform and user id that exist."""
    senders, parameters = sql.values(sorted(keys))
    found = Contact.objects.raw(_KNOWN.format(senders=senders), parameters)
    return {(contact.platform, contact.platform_user_id): contact for contact in found}


def _add(new: Mapping[tuple[str, str], tuple[Sender, datetime]]) -> None:
    """Make contacts, by what they wrote first. Another process may be faster: theirs is the same."""
    rows = [
        {
            "platform": platform,
            "platform_user_id": user_id,
            "user_name": sender.user_name,
            "display_name": sender.display_name,
            "first_seen_at": now,
            "last_seen_at": now,
        }
        for (platform, user_id), (sender, now) in sorted(new.items(), key=itemgetter(0))
    ]
    sql.insert(Contact, rows, ignore_conflicts=True)


def _seen(contact: Contact, sender: Sender, now: datetime) -> Contact:
    """The contact, who wrote now."""
    # A platform that leaves names out of an event has not taken them away.
    shown = (sender.user_name or contact.user_name, sender.display_name or contact.display_name)
    has_changed = shown != (contact.user_name, contact.display_name)
    if has_changed or not contact.is_reachable or now - contact.last_seen_at > SEEN_RESOLUTION:
        contact.user_name, contact.display_name = shown
        contact.is_reachable, contact.last_seen_at = True, now
        contact.save(update_fields=["user_name", "display_name", "is_reachable", "last_seen_at"])
    return contact


def _contact(platform: str, user_id: str, *, now: datetime, **names: str) -> tuple[Contact, bool]:
    return Contact.objects.get_or_create(
        platform=platform,
        platform_user_id=user_id,
        defaults={**names, "first_seen_at": now, "last_seen_at": now},
    )


def find(*, platform: str, user_id: str) -> Contact:
    """The contact, with the one it is an alias of.

    Raises:
        NotFound: nobody wrote to us from there, and nobody named them.
    """
    contact = Contact.objects.select_related("alias_of").filter(platform=platform, platform_user_id=user_id).first()
    if contact is None:
        raise NotFound(f"There is no contact {platform}:{user_id}.")
    return contact


def ids_of(root_id: int) -> list[int]:
    """A contact and its aliases."""
    return list(Contact.objects.filter(Q(pk=root_id) | Q(alias_of=root_id)).values_list("pk", flat=True))


# -- who is who ----


def persons_of(contact_ids: Collection[int]) -> dict[int, str]:
    """The unified user id of each contact that is linked. For a contact that is an alias ask with the other one."""
    resolver = external()
    if resolver is None:
        ids = list(contact_ids)
        return dict(sql.fetch(_PERSONS.format(contacts=sql.marks(ids)), ids)) if ids else {}
    rows = Contact.objects.filter(pk__in=contact_ids).values_list("pk", "platform", "platform_user_id")
    found = ((pk, resolver.resolve(platform, user_id), platform, user_id) for pk, platform, user_id in rows)
    return {pk: unified for pk, unified, platform, user_id in found if is_linked(unified, platform, user_id)}


_PERSONS = """SELECT link.contact_id, person.unified_user_id FROM botsrt_identitylink AS link
    JOIN botsrt_person AS person ON person.id = link.person_id
    WHERE link.unlinked_at IS NULL AND link.contact_id IN ({contacts})"""


def lane_of(contact: Contact) -> str:
    """The lane of the contact's direct messages, as the links stand. Locks the contact, so that they stand still."""
    return lanes_of([contact])[contact.pk]


def lanes_of(contacts: Collection[Contact]) -> dict[int, str]:
    """``lane_of`` for many, by contact."""
    locked = Contact.objects.select_for_update(no_key=True).order_by("pk")
    roots = locked.in_bulk({contact.root_id for contact in contacts})
    persons = persons_of(roots)
    own = {
        pk: keys.person_lane(persons[pk])
        if pk in persons
        else keys.direct_session_id(root.platform, root.platform_user_id)
        for pk, root in roots.items()
    }
    return {contact.pk: own[contact.root_id] for contact in contacts}


def refresh(*, lane: str, now: datetime) -> None:
    """With a resolver of its own mind: let each session of ``lane`` go where the resolver says now."""
    if external() is None:
        return
    with transaction.atomic():
        sessions = BotSession.objects.filter(lane=lane, scope=SessionScope.PER_USER).select_related("contact")
        for contact in [session.contact for session in sessions]:
            assert contact is not None
            lanes.move(contact_ids=[contact.pk], lane=lane_of(contact), now=now)


# -- links ----


def link(
    *, platform: str, user_id: str, unified_user_id: str, proof: Proof, actor: Actor, reason: str = "", now: datetime
) -> None:
    """From now on this contact is that person. The person is made on first mention, and so is the contact.

    Raises:
        InvalidInput: the id is not usable, or no reason stands behind a mere assertion.
        Conflict: the contact is linked already; says to whom, since when and by whom.
    """
    if proof == Proof.STAFF and not reason.strip():
        raise InvalidInput("reason", "say how you know that this is the same human; nothing else proves it.")
    checked_unified_id(unified_user_id)
    with transaction.atomic():
        contact, _ = _contact(platform, user_id, now=now)
        root = Contact.objects.select_for_update(no_key=True).get(pk=contact.root_id)
        if (resolver := external()) is not None:
            resolver.link(root.platform, root.platform_user_id, unified_user_id)
        else:
            _add_link(root, _person(unified_user_id, now=now), proof=proof, actor=actor, reason=reason, now=now)
        audit.record(
            actor=actor,
            verb="identity.link",
            object_kind="contact",
            object_id=root,
            reason=reason,
            after={"person": unified_user_id, "proof": proof},
            now=now,
        )
        lanes.move(contact_ids=ids_of(root.pk), lane=keys.person_lane(unified_user_id), now=now)


def _add_link(contact: Contact, person: Person, *, proof: Proof, actor: Actor, reason: str, now: datetime) -> None:
    current = IdentityLink.objects.select_related("person").filter(ACTIVE, contact=contact).first()
    if current is not None:
        raise Conflict(
            f"{contact} is linked to {current.person} since {current.linked_at:%Y-%m-%d %H:%M} UTC, "
            f"by {current.linked_by}; end that link first: "
            f"identity unlink {contact.platform} {contact.platform_user_id}"
        )
    # What /new hid from the agent stays hidden when somebody comes back.
    earlier = IdentityLink.objects.filter(contact=contact, person=person).aggregate(start=Max("context_start"))
    try:
        with transaction.atomic():
            IdentityLink.objects.create(
                contact=contact,
                person=person,
                proof=proof,
                linked_by=actor.name,
                linked_at=now,
                reason=reason,
                context_start=earlier["start"] or 0,
            )
    except IntegrityError as error:
        raise Conflict(f"{contact} was linked by somebody else in this moment.") from error


def join(one: Contact, other: Contact, *, person: str, proof: Proof, actor: Actor, reason: str, now: datetime) -> str:
    """The two contacts are one person: whoever one of them is already, else ``person``, else a new one. Returns who.

    Raises:
        Conflict: they are two different persons already, or ``person`` is a third.
    """
    with transaction.atomic():
        known = persons_of([one.pk, other.pk])
        named = {*known.values(), *([person] if person else [])}
        if len(named) > 1:
            raise Conflict(
                f"{one} and {other} would have to be {' and '.join(sorted(named))}; "
                "merge those persons first, or end a link: identity merge, identity unlink"
            )
        unified = named.pop() if named else _new_unified_id()
        for contact in (one, other):
            if contact.pk not in known:
                link(
                    platform=contact.platform,
                    user_id=contact.platform_user_id,
                    unified_user_id=unified,
                    proof=proof,
                    actor=actor,
                    reason=reason,
                    now=now,
                )
        return unified


def _new_unified_id() -> str:
    """An id that says nothing about the human: names are never identity."""
    return f"p-{secrets.token_hex(5)}"


def unlink(*, platform: str, user_id: str, actor: Actor, reason: str = "", now: datetime) -> str:
    """End the contact's link: both sides read as if it had never been. Returns who the contact was.

    Raises:
        NotFound: there is no such contact, or it is not linked.
        Conflict: the resolver cannot end links.
    """
    with transaction.atomic():
        contact = find(platform=platform, user_id=user_id)
        root = Contact.objects.select_for_update(no_key=True).get(pk=contact.root_id)
        unified = persons_of([root.pk]).get(root.pk)
        if unified is None:
            raise NotFound(f"{root} is not linked to anybody.")
        _end_link(root, actor=actor, reason=reason, now=now)
        audit.record(
            actor=actor,
            verb="identity.unlink",
            object_kind="contact",
            object_id=root,
            reason=reason,
            before={"person": unified},
            now=now,
        )
        lanes.move(contact_ids=ids_of(root.pk), lane=lane_of(root), now=now)
        return unified


def _end_link(contact: Contact, *, actor: Actor, reason: str, now: datetime) -> None:
    resolver = external()
    if resolver is None:
        IdentityLink.objects.filter(ACTIVE, contact=contact).update(
            unlinked_by=actor.name, unlinked_at=now, unlink_reason=reason
        )
    elif isinstance(resolver, ListsLinks):
        resolver.unlink(contact.platform, contact.platform_user_id)
    else:
        raise Conflict(f"Links are kept by {type(resolver).__name__}, which cannot end them; do it there.")


def _person(unified_user_id: str, *, now: datetime) -> Person:
    """The person, made on first mention.

    Raises:
        InvalidInput: they were merged into another one.
    """
    person, _ = Person.objects.get_or_create(unified_user_id=unified_user_id, defaults={"created_at": now})
    merge = PersonMerge.objects.select_related("winner").filter(loser=person, undone_at=None).first()
    if merge is not None:
        raise InvalidInput("person", f"{person} was merged into {merge.winner}; name {merge.winner}.")
    return person


#: Messages of one side of a link that are counted: an agent sees far fewer at a time.
MAX_COUNTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one side of a link has said."""

    contacts: tuple[str, ...]
    messages: int  # that an agent may see; more than MAX_COUNTED are not counted
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a link would join: each side's messages become visible to the agent when it answers the other."""

    contact: Side
    person: Side


def preview(*, platform: str, user_id: str, unified_user_id: str) -> Preview:
    """Whose messages a link would join. Nothing is changed.

    Raises:
        NotFound: there is no such contact.
    """
    root_id = find(platform=platform, user_id=user_id).root_id
    lane = keys.person_lane(checked_unified_id(unified_user_id))
    joined = BotSession.objects.filter(lane=lane, scope=SessionScope.PER_USER).values_list("contact", flat=True)
    return Preview(contact=_side(ids_of(root_id)), person=_side([pk for pk in joined if pk is not None]))


def _side(contact_ids: Collection[int]) -> Side:
    sessions = BotSession.objects.filter(contact__in=contact_ids)
    said = HistoryMessage.objects.filter(kind__in=HistoryKind.for_agents())
    together = said.filter(session__in=list(sessions.values_list("pk", flat=True)))
    ends: list[datetime] = []
    for session in sessions:  # each by its index: together they would have to be sorted
        times = said.filter(session=session).values_list("created_at", flat=True)
        ends += [*times.order_by("id")[:1], *times.order_by("-id")[:1]]
    contacts = Contact.objects.filter(pk__in=contact_ids).order_by("pk")
    return Side(
        contacts=tuple(str(contact) for contact in contacts),
        messages=together.values("pk")[:MAX_COUNTED].count(),
        first_at=min(ends, default=None),
        last_at=max(ends, default=None),
    )


# -- aliases ----


def declare_alias(*, platform: str, user_id: str, same_as: str, actor: Actor, reason: str, now: datetime) -> None:
    """The platform gave a human another id: the contact ``user_id`` is the contact ``same_as`` under a new name.

    Its messages stay in its own session; lane, history and access are those of ``same_as``.

    Raises:
        NotFound: there is no contact ``same_as``.
        InvalidInput: no reason, or both are the same.
        Conflict: one of them is an alias already, or ``user_id`` has links or aliases of its own.
    """
    if not reason.strip():
        raise InvalidInput("reason", "say how you know that the id changed.")
    if user_id == same_as:
        raise InvalidInput("user_id", "both ids are the same.")
    with transaction.atomic():
        root = Contact.objects.select_for_update(no_key=True).get(pk=find(platform=platform, user_id=same_as).pk)
        contact, _ = _contact(platform, user_id, now=now)
        for one in (root, contact):
            if one.alias_of_id:
                raise Conflict(f"{one} is an alias already; end that first.")
        if contact.aliases.exists() or persons_of([contact.pk]):
            raise Conflict(f"{contact} has links or aliases of its own; end them first.")
        Contact.objects.filter(pk=contact.pk).update(alias_of=root)
        audit.record(
            actor=actor,
            verb="identity.alias",
            object_kind="contact",
            object_id=contact,
            reason=reason,
            after={"alias_of": str(root)},
            now=now,
        )
        lanes.move(contact_ids=[contact.pk], lane=lane_of(root), now=now)


def known_as(*, platform: str, user_id: str, aliases: Sequence[str], now: datetime) -> None:
    """The platform says that one human has all these ids: from now on they are one contact.

    The one with links or aliases is what the other stands for, else the blocked one, else the older one. Where that
    would undo what staff decided, nothing is changed, and it is logged.
    """
    with transaction.atomic():
        for alias in aliases:
            one, _ = _contact(platform, user_id, now=now)
            other, _ = _contact(platform, alias, now=now)
            if one.root_id == other.root_id:
                continue
            first, second = sorted((one, other), key=lambda each: (not _is_bound(each), not each.is_blocked, each.pk))
            try:
                if second.is_blocked and not first.is_blocked:
                    raise Conflict(f"{second} is blocked.")
                declare_alias(
                    platform=platform,
                    user_id=second.platform_user_id,
                    same_as=(first.alias_of or first).platform_user_id,
                    actor=SYSTEM,
                    reason="The platform names both ids for one human.",
                    now=now,
                )
            except Conflict as error:
                logger.warning("%s and %s are said to be one human, but stay two: %s", one, other, error)


def _is_bound(contact: Contact) -> bool:
    """Whether others stand for it, it stands for another one, or it is linked to a person."""
    return bool(contact.alias_of_id) or contact.aliases.exists() or bool(persons_of([contact.pk]))


def end_alias(*, platform: str, user_id: str, actor: Actor, reason: str = "", now: datetime) -> None:
    """The two ids are two contacts again.

    Raises:
        NotFound: there is no such contact, or it is no alias.
    """
    with transaction.atomic():
        contact = find(platform=platform, user_id=user_id)
        if contact.alias_of is None:
            raise NotFound(f"{contact} is no alias.")
        Contact.objects.filter(pk=contact.pk).update(alias_of=None)
        audit.record(
            actor=actor,
            verb="identity.end_alias",
            object_kind="contact",
            object_id=contact,
            reason=reason,
            before={"alias_of": str(contact.alias_of)},
            now=now,
        )
        own = Contact.objects.get(pk=contact.pk)
        lanes.move(contact_ids=[own.pk], lane=lane_of(own), now=now)


# -- many links at once ----


def all_links() -> dict[tuple[str, str], str]:
    """(platform, user id) → unified user id, of every link that holds.

    Raises:
        Conflict: the resolver cannot list its links.
    """
    resolver = external()
    if resolver is not None:
        if not hasattr(resolver, "all_links"):
            raise Conflict(f"Links are kept by {type(resolver).__name__}, which cannot list them.")
        return dict(resolver.all_links())
    active = IdentityLink.objects.filter(ACTIVE).order_by("person__unified_user_id", "contact__platform")
    rows = active.values_list("contact__platform", "contact__platform_user_id", "person__unified_user_id")
    return {(platform, user_id): unified for platform, user_id, unified in rows}


def import_links(
    *, links: Mapping[tuple[str, str], str], actor: Actor, reason: str, now: datetime
) -> tuple[int, list[str]]:
    """Make the links that are not there yet. Returns how many, and a line for each that could not be made."""
    made, problems = 0, []
    for (platform, user_id), unified_user_id in links.items():
        known = Contact.objects.filter(platform=platform, platform_user_id=user_id).first()
        if known is not None and persons_of([known.root_id]).get(known.root_id) == unified_user_id:
            continue
        try:
            link(
                platform=platform,
                user_id=user_id,
                unified_user_id=unified_user_id,
                proof=Proof.IMPORT,
                actor=actor,
                reason=reason,
                now=now,
            )
        except (Conflict, InvalidInput) as error:
            problems.append(f"{platform}:{user_id}: {error}")
        else:
            made += 1
    return made, problems


class DatabaseIdentityResolver:
    """The tables, with the face of every other resolver. Its links have no better proof than the program's word."""

    def resolve(self, platform: str, platform_user_id: str) -> str:
        """The unified user id; of an unlinked contact what ``core.identity.is_linked`` says is none."""
        contact = Contact.objects.filter(platform=platform, platform_user_id=platform_user_id).first()
        linked = IdentityLink.objects.filter(ACTIVE, contact=contact.root_id if contact else 0)
        unified = linked.values_list("person__unified_user_id", flat=True).first()
        return unified or unlinked_id(platform, platform_user_id)

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        """Link, instead of any link that is there."""
        with transaction.atomic():
            self.unlink(platform, platform_user_id)
            link(
                platform=platform,
                user_id=platform_user_id,
                unified_user_id=unified_user_id,
                proof=Proof.IMPORT,
                actor=SYSTEM,
                reason="a program said so",
                now=timezone.now(),
            )

    def unlink(self, platform: str, platform_user_id: str) -> bool:
        """End the link. False: there was none."""
        try:
            unlink(platform=platform, user_id=platform_user_id, actor=SYSTEM, now=timezone.now())
        except NotFound:
            return False
        return True

    def links_for(self, unified_user_id: str) -> list[tuple[str, str]]:
        """(platform, user id) of each contact of this person."""
        active = IdentityLink.objects.filter(ACTIVE, person__unified_user_id=unified_user_id)
        return sorted(active.values_list("contact__platform", "contact__platform_user_id"))
