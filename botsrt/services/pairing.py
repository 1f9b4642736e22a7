"""Pairing requests, as staff decide about them: verify / approve / deny / block / revoke / expire.

States move by filtered updates: of two that decide at once one wins, and the other is told who and when. What people do
in a chat to ask, to link or to press a button is in ``services.reception``.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q

from botsrt.core import access
from botsrt.core.access import Asker, Decision
from botsrt.core.actors import SYSTEM, Actor
from botsrt.core.errors import Conflict, InvalidInput, NotFound, TooManyAttempts
from botsrt.core.pairing_codes import Terms, normalised
from botsrt.core.states import (
    EntryState,
    OutboxState,
    Outcome,
    PairingPurpose,
    PairingState,
    Proof,
    Standing,
    TurnState,
)
from botsrt.models import Bot, Contact, JournalEntry, OutboxMessage, Pairing, Turn, WrongCodes
from botsrt.services import audit, bots, codes, identity, lanes, news, notices, nudge
from botsrt.services.notices import Address

#: Reasons on the entry that a request began with, once it is decided without an answer; ``core.access`` has the others.
_OUTCOME_REASONS = {
    PairingState.DENIED: "pairing_denied",
    PairingState.BLOCKED: "blocked",
    PairingState.EXPIRED: "pairing_expired",
}

#: Reason on an entry: more requests wait for the bot than may.
TURNED_AWAY = "pairing_full"

#: What a request began with, while it waits.
_IS_WAITING = Q(state=EntryState.HELD, outcome_reason=access.Reason.PAIRING_WAITING)

#: What the requester is told.
_TOLD = {
    PairingState.APPROVED: "You have access now. Your message is being answered.",
    PairingState.DENIED: "Your request was not approved.",
    PairingState.REVOKED: "Your access has been withdrawn.",
}

_TOLD_LINKED = "Done: your conversations here and on {platform} are one from now on."
_TOLD_NOT_LINKED = "Your accounts were not connected."

#: Ended requests that are searched to tell why a code is refused.
_SEARCHED = 1_000


# -- what the gate asks ----


def standings(
    *, account: str, contact_ids: Collection[int], refused_for: timedelta, now: datetime
) -> dict[int, Standing]:
    """What was decided about each of these contacts (never aliases) and this bot; without those that never asked."""
    matters = Q(state__in=(PairingState.APPROVED, PairingState.WAITING)) | Q(
        state__in=(PairingState.DENIED, PairingState.REVOKED), decided_at__gt=now - refused_for
    )
    rows = Pairing.objects.filter(
        matters, account=account, contact__in=contact_ids, purpose=PairingPurpose.ACCESS
    ).order_by("id")
    found: dict[int, Standing] = {}
    for contact_id, state in rows.values_list("contact", "state"):
        if found.get(contact_id) != Standing.PAIRED:
            found[contact_id] = _STANDING[PairingState(state)]
    return found


_STANDING = {
    PairingState.APPROVED: Standing.PAIRED,
    PairingState.WAITING: Standing.WAITING,
    PairingState.DENIED: Standing.REFUSED,
    PairingState.REVOKED: Standing.REFUSED,
}


def explain(*, account: str, user_id: str, terms: Terms, now: datetime) -> Decision:
    """What would happen if this user wrote to this bot directly, now.

    Raises:
        NotFound: there is no such bot.
    """
    bot = bots.views(accounts=[account]).get(account)
    if bot is None:
        raise NotFound(f"There is no bot {account}; see: bots list")
    contact = Contact.objects.select_related("alias_of").filter(platform=bot.platform, platform_user_id=user_id).first()
    if contact is None:
        return access.decide(Asker(user_id=user_id), bot.rules)
    root = contact.alias_of or contact
    found = standings(account=account, contact_ids=[root.pk], refused_for=terms.refused_for, now=now)
    asker = Asker(
        user_id=user_id,
        known_as=[root.platform_user_id],
        is_blocked=contact.is_blocked or root.is_blocked,
        standing=found.get(root.pk, Standing.UNKNOWN),
    )
    return access.decide(asker, bot.rules)


def turned_away(*, accounts: Collection[str] | None, since: datetime) -> int:
    """Messages of strangers that came while too many requests waited; ``accounts`` None: to any bot."""
    # They were completed at once; there is an index on that, and none on when they came.
    ended = JournalEntry.objects.filter(state=EntryState.COMPLETED, completed_at__gte=since)
    entries = ended.filter(received_at__gte=since, outcome_reason=TURNED_AWAY)
    return (entries if accounts is None else entries.filter(account__in=accounts)).count()


# -- acts of staff ----


def verify(*, account: str, code: str, person: str = "", actor: Actor, terms: Terms, now: datetime) -> Pairing:
    """Approve the request whose code the requester gave back: proof that they control the contact.

    Not to be called inside a transaction: wrong codes must be counted.

    Args:
        person: also say who the contact is; empty: not.

    Raises:
        InvalidInput: the code is not good; says why.
        TooManyAttempts: this actor typed too many wrong ones.
        Conflict: somebody else decided first.
    """
    check_may_guess(guesser=actor.name, now=now)
    typed = normalised(code)
    if typed is None:
        raise InvalidInput("code", "a pairing code has 8 letters and digits, without I, O, 0 and 1.")
    sealed = codes.keyring().seal(typed)
    waiting = Pairing.objects.filter(state=PairingState.WAITING, account=account)
    request = codes.match(sealed, waiting)
    if request is None or request.expires_at <= now:
        known = request or codes.match(sealed, Pairing.objects.order_by("-id")[:_SEARCHED])
        if known is None:
            count_wrong_code(guesser=actor.name, terms=terms, now=now)
            raise InvalidInput("code", f"no request for {account} has this code.")
        raise InvalidInput("code", _why_not(known, account=account, now=now))
    if request.purpose == PairingPurpose.LINK:
        raise InvalidInput("code", "it connects two accounts: its owner sends /link with it on the other platform.")
    return _approve(
        request, proof=Proof.CODE, person=person, seen=(PairingState.WAITING,), actor=actor, reason="", now=now
    )


def approve(
    *, request_id: int, actor: Actor, reason: str, person: str = "", again: bool = False, now: datetime
) -> Pairing:
    """Approve a request without its code; the record says that nothing but ``reason`` stands behind it.

    A request for a link is confirmed by this, after its code was given back on the other platform. A request that
    expired unread can be approved too.

    Args:
        again: also where access was denied, revoked or blocked before.

    Raises:
        NotFound: there is no such request.
        InvalidInput: no reason is given.
        Conflict: somebody else decided first; says who and when.
    """
    if not reason.strip():
        raise InvalidInput("reason", "say how you know them; without the code nothing else stands behind the approval.")
    seen = [PairingState.WAITING, PairingState.EXPIRED]
    if again:
        seen += [PairingState.DENIED, PairingState.REVOKED, PairingState.BLOCKED]
    request = _request(request_id)
    proof = Proof.CODE if request.purpose == PairingPurpose.LINK else Proof.STAFF
    return _approve(request, proof=proof, person=person, seen=seen, actor=actor, reason=reason, now=now)


def deny(*, request_id: int, actor: Actor, reason: str = "", now: datetime) -> Pairing:
    """Refuse a request; its contact is told, and cannot ask again for a while.

    Raises:
        NotFound, Conflict: as ``approve``.
    """
    with transaction.atomic():
        request = _request(request_id)
        _move(request, to=PairingState.DENIED, seen=(PairingState.WAITING,), actor=actor, reason=reason, now=now)
        _end_first_entry(request, now=now)
        text = _TOLD[PairingState.DENIED] if request.purpose == PairingPurpose.ACCESS else _TOLD_NOT_LINKED
        notices.tell(_address(request), text, key=_key(request), now=now)
        return request


def block(*, request_id: int, actor: Actor, reason: str = "", now: datetime) -> Pairing:
    """Refuse a request, or take access back, and drop whatever the contact writes from now on to any bot, silently.

    Raises:
        NotFound, Conflict: as ``approve``.
    """
    with transaction.atomic():
        request = _request(request_id)
        seen = (PairingState.WAITING, PairingState.APPROVED, PairingState.DENIED, PairingState.REVOKED)
        _move(request, to=PairingState.BLOCKED, seen=seen, actor=actor, reason=reason, now=now)
        Contact.objects.filter(pk=request.contact_id).update(is_blocked=True)
        _end_first_entry(request, now=now)
        for other in Pairing.objects.filter(contact=request.contact, state=PairingState.WAITING):
            _move(other, to=PairingState.BLOCKED, seen=(PairingState.WAITING,), actor=actor, reason=reason, now=now)
            _end_first_entry(other, now=now)
        _withdraw(request.contact_id, account=None, actor=actor, now=now)
        return request


def revoke(*, request_id: int, actor: Actor, reason: str = "", now: datetime) -> Pairing:
    """Take access back: the next message is refused, a running turn is cancelled, queued replies are withdrawn.

    Raises:
        NotFound, Conflict: as ``approve``.
        InvalidInput: the request was for a link; those are ended by ``identity unlink``.
    """
    with transaction.atomic():
        request = _request(request_id)
        if request.purpose == PairingPurpose.LINK:
            raise InvalidInput("id", f"request {request_id} made a link; end that with: identity unlink")
        _move(request, to=PairingState.REVOKED, seen=(PairingState.APPROVED,), actor=actor, reason=reason, now=now)
        _withdraw(request.contact_id, account=request.account, actor=actor, now=now)
        notices.tell(_address(request), _TOLD[PairingState.REVOKED], key=_key(request), now=now)
        return request


def expire(*, now: datetime) -> int:
    """Close the requests that nobody decided while their code was valid. Returns how many."""
    with transaction.atomic():
        overdue = Pairing.objects.filter(state=PairingState.WAITING, expires_at__lte=now)
        requests = list(overdue.order_by("id")[:500])
        return sum(close_expired(request, now=now) for request in requests)


def close_expired(request: Pairing, *, now: datetime) -> bool:
    """Close this one; False where somebody decided in this moment."""
    waiting = Pairing.objects.filter(pk=request.pk, state=PairingState.WAITING)
    if not waiting.update(state=PairingState.EXPIRED, decided_by=SYSTEM.name, decided_at=now):
        return False
    request.state = PairingState.EXPIRED
    news.changed("pairings", [request.pk])
    _end_first_entry(request, now=now)
    return True


# -- the way of an approval ----


def _approve(
    request: Pairing,
    *,
    proof: Proof,
    person: str,
    seen: Collection[PairingState],
    actor: Actor,
    reason: str,
    now: datetime,
) -> Pairing:
    with transaction.atomic():
        if request.purpose == PairingPurpose.LINK:
            seen = (PairingState.WAITING,)
        was_blocked = request.state == PairingState.BLOCKED
        _move(request, to=PairingState.APPROVED, seen=seen, proof=proof, actor=actor, reason=reason, now=now)
        if was_blocked:
            Contact.objects.filter(pk=request.contact_id).update(is_blocked=False)
        if request.purpose == PairingPurpose.ACCESS:
            _let_in(request, person=person, proof=proof, actor=actor, reason=reason, now=now)
        else:
            _confirm_link(request, person=person, actor=actor, reason=reason, now=now)
        return request


def _let_in(request: Pairing, *, person: str, proof: Proof, actor: Actor, reason: str, now: datetime) -> None:
    """Tell them, and answer what they began with."""
    notices.tell(_address(request), _TOLD[PairingState.APPROVED], key=_key(request), now=now)
    # Held while the request waited, or ended when it expired or was denied.
    ended_without_answer = Q(state=EntryState.COMPLETED, outcome_reason__in=_OUTCOME_REASONS.values())
    JournalEntry.objects.filter(_IS_WAITING | ended_without_answer, pk=request.entry_id or 0).update(
        state=EntryState.PENDING, outcome="", outcome_reason="", completed_at=None, available_at=now
    )
    nudge.journal()
    if person:
        contact = request.contact
        identity.link(
            platform=contact.platform,
            user_id=contact.platform_user_id,
            unified_user_id=person,
            proof=proof,
            actor=actor,
            reason=reason,
            now=now,
        )


def _confirm_link(request: Pairing, *, person: str, actor: Actor, reason: str, now: datetime) -> None:
    """Both contacts become one person; the one that proved it by code may get access with it."""
    if request.other is None:
        raise Conflict("Nobody has sent its code from another account yet, so there is nothing to confirm.")
    unified = identity.join(
        request.contact, request.other, person=person, proof=Proof.CODE, actor=actor, reason=reason, now=now
    )
    audit.record(
        actor=actor,
        verb="pairing.link",
        object_kind="pairing",
        object_id=request.pk,
        reason=reason,
        after={"person": unified, "contacts": [str(request.contact), str(request.other)]},
        now=now,
    )
    if request.other_needs_access:
        _grant_with_link(request, actor=actor, reason=reason, now=now)
    for number, (address, platform) in enumerate(
        ((_address(request), request.other.platform), (other_address(request), request.contact.platform))
    ):
        notices.tell(address, _TOLD_LINKED.format(platform=platform), key=f"{_key(request)}:{number}", now=now)


def _grant_with_link(request: Pairing, *, actor: Actor, reason: str, now: datetime) -> None:
    """Access for the other contact, whose own request is approved if it waits."""
    assert request.other is not None
    assert request.other_session_id is not None
    own = Pairing.objects.filter(account=request.other_account, contact=request.other, purpose=PairingPurpose.ACCESS)
    if own.filter(state=PairingState.APPROVED).exists():
        return
    waiting = own.filter(state=PairingState.WAITING).first()
    if waiting is None:
        waiting = Pairing.objects.create(
            platform=request.other.platform,
            account=request.other_account,
            contact=request.other,
            purpose=PairingPurpose.ACCESS,
            nonce="",
            code_hash="",
            created_at=now,
            expires_at=now,
            code_sent_at=now,
            session_id=request.other_session_id,
            channel_id=request.other_channel_id,
        )
    _move(
        waiting,
        to=PairingState.APPROVED,
        seen=(PairingState.WAITING,),
        proof=Proof.LINK,
        actor=actor,
        reason=reason,
        now=now,
    )
    if waiting.entry_id:
        _let_in(waiting, person="", proof=Proof.LINK, actor=actor, reason=reason, now=now)


def _move(
    request: Pairing,
    *,
    to: PairingState,
    seen: Collection[PairingState],
    proof: Proof | str = "",
    actor: Actor,
    reason: str,
    now: datetime,
) -> None:
    """Move the request to the state ``to`` if it is in one of ``seen``; the row count says who won."""
    lock(request.account)
    before = request.state
    rows = Pairing.objects.filter(pk=request.pk, state__in=list(seen))
    try:
        with transaction.atomic():
            moved = rows.update(state=to, proof=proof, decided_by=actor.name, decided_at=now, reason=reason)
    except IntegrityError as error:  # one approved request per bot and contact
        raise Conflict(f"{request.contact} has access to {request.account} already, by another request.") from error
    if not moved:
        request.refresh_from_db()
        raise Conflict(_who_was_first(request))
    request.refresh_from_db()
    news.changed("pairings", [request.pk])
    audit.record(
        actor=actor,
        verb=f"pairing.{_VERBS[to]}",
        object_kind="pairing",
        object_id=request.pk,
        reason=reason,
        before={"state": before},
        after={"state": to, "proof": proof, "account": request.account, "contact": str(request.contact)},
        now=now,
    )


_VERBS = {
    PairingState.APPROVED: "approve",
    PairingState.DENIED: "deny",
    PairingState.BLOCKED: "block",
    PairingState.REVOKED: "revoke",
}


def lock(account: str) -> None:
    """Let nobody else ask or decide about this bot's requests until the commit."""
    list(Bot.objects.select_for_update().filter(account=account).values("pk"))


def _who_was_first(request: Pairing) -> str:
    if request.state == PairingState.WAITING:
        return f"Request {request.pk} still waits: decide about it first."
    by = "by itself" if request.state == PairingState.EXPIRED else f"by {request.decided_by}"
    return f"Request {request.pk} was {request.state} already, {by}, at {request.decided_at:%Y-%m-%d %H:%M:%S} UTC."


def _why_not(request: Pairing, *, account: str, now: datetime) -> str:
    """The true reason why a code that exists is not taken."""
    if request.account != account:
        return f"it belongs to a request for another bot, {request.account}."
    if request.state == PairingState.EXPIRED or (request.state == PairingState.WAITING and request.expires_at <= now):
        return f"it was valid until {request.expires_at:%H:%M:%S} UTC; ask the person to write again for a new one."
    return f"it was used already: {_who_was_first(request)}"


def _end_first_entry(request: Pairing, *, now: datetime) -> None:
    """What the request began with gets no answer."""
    JournalEntry.objects.filter(_IS_WAITING, pk=request.entry_id or 0).update(
        state=EntryState.COMPLETED,
        outcome=Outcome.SILENT,
        outcome_reason=_OUTCOME_REASONS[PairingState(request.state)],
        completed_at=now,
    )


def _withdraw(contact_id: int, *, account: str | None, actor: Actor, now: datetime) -> None:
    """Stop what runs and what waits to be sent for a contact that lost access; ``account`` None: with every bot."""
    contacts = identity.ids_of(contact_id)
    claimed = JournalEntry.objects.filter(contact__in=contacts, state=EntryState.CLAIMED)
    queued = OutboxMessage.objects.filter(state=OutboxState.PENDING, session__contact__in=contacts)
    if account is not None:
        claimed, queued = claimed.filter(account=account), queued.filter(account=account)
    lanes.hand_back(Turn.objects.filter(id__in=claimed.values("turn"), state=TurnState.RUNNING), now=now)
    queued.update(state=OutboxState.DEAD, error=f"Withdrawn: {actor.name} took the access back.")


def _request(request_id: int) -> Pairing:
    related = ("contact", "other", "session", "other_session")
    request = Pairing.objects.select_related(*related).filter(pk=request_id).first()
    if request is None:
        raise NotFound(f"There is no pairing request {request_id}; see: pairing list")
    return request


def _address(request: Pairing) -> Address:
    return Address(
        platform=request.platform,
        account=request.account,
        channel_id=request.channel_id,
        thread_id=request.thread_id,
        session_pk=request.session_id,
    )


def other_address(request: Pairing) -> Address:
    """Where the contact is told that gave the code back."""
    assert request.other is not None
    return Address(
        platform=request.other.platform,
        account=request.other_account,
        channel_id=request.other_channel_id,
        session_pk=request.other_session_id,
    )


def _key(request: Pairing) -> str:
    """One telling for each decision."""
    assert request.decided_at is not None
    return f"pairing:{request.pk}:{request.state}:{request.decided_at.timestamp():.6f}"


# -- guessing ----


def check_may_guess(*, guesser: str, now: datetime) -> None:
    """Raises ``TooManyAttempts`` where ``guesser`` is locked out; nobody else is touched by that."""
    locked = WrongCodes.objects.filter(guesser=guesser, locked_until__gt=now).first()
    if locked is not None and locked.locked_until is not None:
        wait = int((locked.locked_until - now).total_seconds()) + 1
        raise TooManyAttempts(f"Too many wrong codes. Try again in {wait} s.")


def count_wrong_code(*, guesser: str, terms: Terms, now: datetime) -> None:
    """Remember a wrong code; the last one that is allowed within the window locks the guesser."""
    with transaction.atomic():
        WrongCodes.objects.get_or_create(guesser=guesser, defaults={"last_at": now})
        row = WrongCodes.objects.select_for_update().get(guesser=guesser)
        oldest = (now - terms.wrong_codes_within).timestamp()
        row.times, row.last_at = [at for at in row.times if at > oldest] + [now.timestamp()], now
        if len(row.times) >= terms.max_wrong_codes:
            row.times, row.locked_until = [], now + terms.locked_for
        row.save()
