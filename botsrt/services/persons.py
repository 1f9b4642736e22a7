"""Two persons who turn out to be one, and the undo of that.

A merge ends the links of both and makes new ones, so that nothing is overwritten: each new link knows the one that it
replaces, and undoing the merge goes back to those.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.db.models import Max

from botsrt.core import keys
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.core.states import HistoryKind, SessionScope
from botsrt.models import HistoryMessage, IdentityLink, Person, PersonMerge
from botsrt.services import audit, identity, lanes
from botsrt.services.identity import ACTIVE


def merge(*, loser: str, winner: str, actor: Actor, reason: str, now: datetime) -> int:
    """Everybody who is ``loser`` is ``winner`` from now on. Returns the id by which it can be undone.

    Raises:
        NotFound: there is no such person.
        InvalidInput: no reason, or both are the same.
        Conflict: one of them was merged away already, or links are kept outside the tables.
    """
    if not reason.strip():
        raise InvalidInput("reason", "say how you know that both are one human.")
    if loser == winner:
        raise InvalidInput("person", "both are the same.")
    _must_keep_links()
    with transaction.atomic():
        ending, staying = (_unmerged(unified) for unified in (loser, winner))
        done = PersonMerge.objects.create(
            winner=staying, loser=ending, merged_by=actor.name, merged_at=now, reason=reason
        )
        links = list(IdentityLink.objects.filter(ACTIVE, person__in=(ending, staying)).order_by("id"))
        _end(links, actor=actor, reason=f"merge {done.pk}", now=now)
        IdentityLink.objects.bulk_create(
            IdentityLink(
                contact_id=link.contact_id,
                person=staying,
                proof=link.proof,
                linked_by=actor.name,
                linked_at=now,
                reason=reason,
                context_start=link.context_start,
                merge=done,
                replaces=link,
            )
            for link in links
        )
        _record("identity.merge", done, actor=actor, reason=reason, now=now)
        _gather([link.contact_id for link in links], staying, now=now)
        return done.pk


def undo_merge(*, merge_id: int, actor: Actor, reason: str = "", now: datetime) -> None:
    """Both persons are as if they had never been merged. Contacts that were linked elsewhere since stay there.

    Raises:
        NotFound: there is no such merge.
        Conflict: it was undone already, or the winner was merged away since; says by whom.
    """
    with transaction.atomic():
        done = PersonMerge.objects.select_related("winner", "loser").filter(pk=merge_id).first()
        if done is None:
            raise NotFound(f"There is no merge {merge_id}.")
        if not PersonMerge.objects.filter(pk=merge_id, undone_at=None).update(undone_by=actor.name, undone_at=now):
            raise Conflict(
                f"Merge {merge_id} was undone already, by {done.undone_by}, at {done.undone_at:%H:%M:%S} UTC."
            )
        _unmerged(done.winner.unified_user_id)
        links = list(IdentityLink.objects.select_related("replaces").filter(ACTIVE, merge=done).order_by("id"))
        _end(links, actor=actor, reason=f"merge {merge_id} undone", now=now)
        for person in (done.winner, done.loser):
            side = [link for link in links if link.replaces and link.replaces.person_id == person.pk]
            contacts = [link.contact_id for link in side]
            since = _begun_since(contacts, done.merged_at)
            IdentityLink.objects.bulk_create(
                IdentityLink(
                    contact_id=link.contact_id,
                    person=person,
                    proof=link.proof,
                    linked_by=actor.name,
                    linked_at=now,
                    reason=f"merge {merge_id} undone",
                    context_start=max(link.replaces.context_start, since) if link.replaces else 0,
                    merge=link.replaces.merge if link.replaces else None,
                    replaces=link.replaces.replaces if link.replaces else None,
                )
                for link in side
            )
            _gather(contacts, person, now=now)
        _record("identity.undo_merge", done, actor=actor, reason=reason, now=now)


def _begun_since(contact_ids: Collection[int], at: datetime) -> int:
    """Where the last /new of these contacts since ``at`` begins the conversation of all of them; 0: there was none."""
    dividers = HistoryMessage.objects.filter(
        session__contact__in=contact_ids,
        session__scope=SessionScope.PER_USER,
        kind=HistoryKind.DIVIDER,
        created_at__gte=at,
    )
    return dividers.aggregate(last=Max("id"))["last"] or 0


def _gather(contact_ids: Collection[int], person: Person, *, now: datetime) -> None:
    """The sessions of these contacts, and of their aliases, go to the person's lane together."""
    everybody = [pk for contact_id in contact_ids for pk in identity.ids_of(contact_id)]
    lanes.move(contact_ids=everybody, lane=keys.person_lane(person.unified_user_id), now=now)


def _end(links: Collection[IdentityLink], *, actor: Actor, reason: str, now: datetime) -> None:
    ended = IdentityLink.objects.filter(ACTIVE, pk__in=[link.pk for link in links])
    ended.update(unlinked_by=actor.name, unlinked_at=now, unlink_reason=reason)


def _unmerged(unified_user_id: str) -> Person:
    person = Person.objects.select_for_update().filter(unified_user_id=unified_user_id).first()
    if person is None:
        raise NotFound(f"There is no person {unified_user_id}; see: identity list")
    merged = PersonMerge.objects.select_related("winner").filter(loser=person, undone_at=None).first()
    if merged is not None:
        raise Conflict(f"{person} was merged into {merged.winner} already, by {merged.merged_by}: merge {merged.pk}.")
    return person


def _must_keep_links() -> None:
    resolver = identity.external()
    if resolver is not None:
        raise Conflict(f"Links are kept by {type(resolver).__name__}; merge the persons there.")


def _record(verb: str, done: PersonMerge, *, actor: Actor, reason: str, now: datetime) -> None:
    audit.record(
        actor=actor,
        verb=verb,
        object_kind="person",
        object_id=done.loser,
        reason=reason,
        after={"winner": str(done.winner), "merge": done.pk},
        now=now,
    )
