"""Requests for access and for links: a tab of them at a time, newest first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q

from botsrt.core.states import PairingPurpose, PairingState, Proof, UnknownUserPolicy
from botsrt.core.text import one_line
from botsrt.models import AdapterState, Bot, Contact, Pairing
from botsrt.services import pairing
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries
from praisonweb.dashboard.queries.standing import Standing, Tone

#: The tabs, and the states that each shows; the first is the one that staff work through.
TABS = {
    "waiting": (PairingState.WAITING,),
    "approved": (PairingState.APPROVED,),
    "blocked": (PairingState.BLOCKED,),
    "history": (PairingState.DENIED, PairingState.REVOKED, PairingState.EXPIRED),
}

#: Requests that one tab counts; more are shown as "999+".
_COUNTED = 1_000

#: A contact that wrote for the first time this recently is new here.
_NEW = timedelta(hours=1)

_STANDINGS = {
    PairingState.WAITING: Standing(word="waiting", tone=Tone.WARN),
    PairingState.APPROVED: Standing(word="approved", tone=Tone.GOOD),
    PairingState.DENIED: Standing(word="denied", tone=Tone.IDLE),
    PairingState.BLOCKED: Standing(word="blocked", tone=Tone.BAD),
    PairingState.REVOKED: Standing(word="revoked", tone=Tone.IDLE),
    PairingState.EXPIRED: Standing(word="expired", tone=Tone.IDLE, text="Nobody decided while its code was valid."),
}

_PROOFS = {
    Proof.CODE: "by code",
    Proof.LINK: "with a link",
    Proof.STAFF: "on the word of staff",
    Proof.IMPORT: "by import",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request."""

    id: int
    is_link: bool
    platform: str
    account: str
    person: str
    handle: str
    contact: str
    other: str  # the contact that gave the code of a link back
    gives_access: bool  # confirming the link lets the other contact in
    asked_count: int
    asked_at: datetime
    expires_at: datetime
    first_words: str
    hints: tuple[str, ...]
    standing: Standing
    proof: str
    decided_by: str
    decided_at: datetime | None
    reason: str
    approve_obstacle: str

    @property
    def is_waiting(self) -> bool:
        return self.standing.word == PairingState.WAITING

    @property
    def can_approve_again(self) -> bool:
        return not self.is_link and self.standing.word not in (PairingState.WAITING, PairingState.APPROVED)

    @property
    def is_access(self) -> bool:
        return self.standing.word == PairingState.APPROVED and not self.is_link


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    name: str
    count: str
    is_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A bot that strangers can ask for access, and where it is."""

    account: str
    platform: str
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairings:
    tab: str
    tabs: tuple[Tab, ...]
    page: Page[Row]
    turned_away: int  # messages in the last hour, for which there was no room
    addresses: tuple[Address, ...]  # only where nobody waits

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


def read(*, tab: str, before: int | None, scope: Scope, now: datetime) -> Pairings:
    """A page of one tab."""
    rows = scope.rows(Pairing.objects.filter(state__in=TABS[tab])).select_related("contact", "other")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    listed = list(rows.order_by("-pk")[: PAGE_SIZE + 1])
    names = _same_names(listed, scope)
    shown = [_row(request, names=names, scope=scope, now=now) for request in listed]
    page = page_of(shown, [row.id for row in shown], before=before)
    return Pairings(
        tab=tab,
        tabs=tuple(Tab(name=name, count=_count(states, scope), is_on=name == tab) for name, states in TABS.items()),
        page=page,
        turned_away=pairing.turned_away(accounts=scope.accounts, since=now - timedelta(hours=1)),
        addresses=() if shown else tuple(_addresses(scope)),
    )


def request_of(*, request_id: int, scope: Scope, now: datetime) -> Row | None:
    """One request; None: there is none (any more)."""
    request = scope.rows(Pairing.objects.select_related("contact", "other")).filter(pk=request_id).first()
    return _row(request, names=_same_names([request], scope), scope=scope, now=now) if request else None


def accounts(*, scope: Scope) -> list[str]:
    """The bots for which somebody waits, those with policy pair first."""
    waiting = Pairing.objects.filter(state=PairingState.WAITING).values("account")
    bots = scope.rows(Bot.objects.all()).filter(Q(policy=UnknownUserPolicy.PAIR) | Q(account__in=waiting))
    return list(bots.order_by("account").values_list("account", flat=True))


def _count(states: Sequence[PairingState], scope: Scope) -> str:
    if states != TABS["waiting"]:
        return ""
    rows = scope.rows(Pairing.objects.filter(state__in=states))
    count = len(rows.order_by().values_list("pk", flat=True)[:_COUNTED])
    return "999+" if count >= _COUNTED else str(count)


def _same_names(requests: Collection[Pairing], scope: Scope) -> dict[str, list[Contact]]:
    """Shown name → the contacts that have access and are called so, for the names of those who ask."""
    names = {request.contact.display_name for request in requests if request.contact.display_name}
    if not names:
        return {}
    known: dict[str, list[Contact]] = {}
    paired = Contact.objects.filter(
        display_name__in=names,
        pairings__state=PairingState.APPROVED,
        pairings__purpose=PairingPurpose.ACCESS,
        **({} if scope.accounts is None else {"pairings__account__in": sorted(scope.accounts)}),
    )
    for contact in paired.distinct().order_by("pk")[:200]:
        known.setdefault(contact.display_name, []).append(contact)
    return known


def _row(request: Pairing, *, names: dict[str, list[Contact]], scope: Scope, now: datetime) -> Row:
    contact = request.contact
    is_link = request.purpose == PairingPurpose.LINK
    is_other_ours = scope.allows(request.other_account)
    return Row(
        id=request.pk,
        is_link=is_link,
        platform=request.platform,
        account=request.account,
        person=entries.person(contact),
        handle=f"@{one_line(contact.user_name)}" if contact.user_name else "",
        contact=str(contact),
        other=(str(request.other) if is_other_ours else "an account at another bot") if request.other else "",
        gives_access=request.other_needs_access,
        asked_count=request.asked_count,
        asked_at=request.created_at,
        expires_at=request.expires_at,
        first_words=request.first_words,
        hints=tuple(_hints(request, names=names, now=now)),
        standing=_STANDINGS[PairingState(request.state)],
        proof=_PROOFS[Proof(request.proof)] if request.proof else "",
        decided_by=request.decided_by,
        decided_at=request.decided_at,
        reason=request.reason,
        approve_obstacle=_approve_obstacle(request, is_other_ours=is_other_ours) if is_link else "",
    )


def _approve_obstacle(request: Pairing, *, is_other_ours: bool) -> str:
    """Why a link cannot be confirmed."""
    if not request.other:
        return "Nobody has sent its code from another account yet."
    if request.other_needs_access and not is_other_ours:
        return "It gives access to a bot that is not among yours."
    return ""


def _hints(request: Pairing, *, names: dict[str, list[Contact]], now: datetime) -> list[str]:
    """What staff should notice. A name proves nothing, and this says so."""
    contact, hints = request.contact, []
    others = [other for other in names.get(contact.display_name, []) if other.pk != contact.pk]
    if others:
        hints.append(f"has the same name as {others[0]}, which proves nothing")
    if now - contact.first_seen_at < _NEW:
        hints.append("wrote for the first time within the hour")
    if contact.is_blocked:
        hints.append("is blocked")
    return hints


def _addresses(scope: Scope) -> list[Address]:
    states = AdapterState.objects.filter(bot__policy=UnknownUserPolicy.PAIR, bot__is_enabled=True)
    states = scope.rows(states, "bot__account")
    rows = states.order_by("bot__account").values_list("bot__account", "bot__platform", "identity")[:20]
    return [Address(account=account, platform=platform, identity=identity) for account, platform, identity in rows]
