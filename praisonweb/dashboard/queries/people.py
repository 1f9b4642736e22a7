"""Conversations: who talks with us, and everything that was said with one person, over all platforms.

A person's conversation is the sessions of one lane. It is addressed by any of its sessions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Exists, Max, Min, OuterRef, Q, QuerySet

from botsrt.core import keys
from botsrt.core.errors import NotFound
from botsrt.core.states import (
    EntryState,
    Handler,
    HistoryKind,
    OutboxState,
    PairingPurpose,
    PairingState,
    Proof,
    Role,
    SessionScope,
    TurnState,
)
from botsrt.core.text import one_line
from botsrt.models import (
    BotSession,
    Contact,
    HistoryMessage,
    IdentityLink,
    JournalEntry,
    OutboxMessage,
    Pairing,
    Turn,
)
from botsrt.services import handling, identity, search
from botsrt.services.handling import ReplyRoute
from praisonweb.dashboard.filters import Filters, Key
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries
from praisonweb.dashboard.queries.standing import Standing, Tone

#: Entries that somebody should answer: no turn has ended them.
_OPEN = (EntryState.PENDING, EntryState.CLAIMED, EntryState.HELD, EntryState.DEAD)

#: Conversations that wait, that are looked at; more are shown page by page as they are answered.
_MAX_WAITING = 1_000

#: Contacts that one name can mean.
_MAX_CONTACTS = 200

#: Open messages below the timeline, and links and requests in it.
_MAX_OPEN = 100
_MAX_EVENTS = 100

_CHARS = 160

KEYS = (
    Key(name="platform", help="telegram, slack, web, …"),
    Key(name="bot", help="the bot's name"),
    Key(name="from", help="the person's id, handle or name"),
    Key(name="has", help="what a message is", choices=("note", "mirror", "staff", "attachment")),
    Key(name="before", help="said before: 2h, 7d, 2026-11-20", is_time=True),
)

TABS = {"all": "All", "waiting": "Waiting on us", "human": "Human"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One conversation in the list."""

    id: int
    name: str
    platforms: tuple[str, ...]
    last_words: str
    last_is_ours: bool
    waiting_since: datetime | None
    handler: Standing
    active_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One message that has the words."""

    id: int
    session_pk: int
    name: str
    platform: str
    words: str
    is_ours: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    filters: Filters
    tab: str
    page: Page[Row]
    older: str  # the session id below which the next page begins; empty: there is none
    hits: Page[Hit] | None  # where words were looked for
    is_empty: bool

    @property
    def has_rows(self) -> bool:
        return bool(self.page.rows)


HANDLERS = {
    Handler.BOT: Standing(word="bot", tone=Tone.IDLE, text="The bot answers."),
    Handler.HUMAN: Standing(word="human", tone=Tone.BUSY, text="A human has it; what comes waits for them."),
    Handler.PAUSED: Standing(word="paused", tone=Tone.WARN, text="Nobody answers; what comes waits."),
}


# -- the list ----


def read(*, filters: Filters, tab: str, before: int | None) -> People:
    """A page of the conversations, the latest activity first; with words, of the messages that have them."""
    if filters.words and not filters.problems:
        hits = _hits(filters, before=before)
        return People(filters=filters, tab=tab, page=Page(rows=()), older="", hits=hits, is_empty=False)
    rows = _listed(filters, tab)
    if before is not None:
        last = BotSession.objects.filter(pk=before).values_list("last_activity_at", flat=True).first()
        if last is not None:
            rows = rows.filter(Q(last_activity_at__lt=last) | Q(last_activity_at=last, pk__lt=before))
    found = list(rows.select_related("contact").order_by("-last_activity_at", "-pk")[: PAGE_SIZE + 1])
    shown = _rows(found)
    page = page_of(shown, [row.id for row in shown], before=before)
    is_empty = not shown and not filters and tab == "all" and before is None
    older = str(page.older_before) if page.older_before is not None else ""
    return People(filters=filters, tab=tab, page=page, older=older, hits=None, is_empty=is_empty)


def _listed(filters: Filters, tab: str) -> QuerySet[BotSession]:
    """One session for each conversation: that with the latest activity."""
    if filters.problems:
        return BotSession.objects.none()
    later = BotSession.objects.filter(lane=OuterRef("lane")).filter(
        Q(last_activity_at__gt=OuterRef("last_activity_at"))
        | Q(last_activity_at=OuterRef("last_activity_at"), pk__gt=OuterRef("pk"))
    )
    rows = BotSession.objects.filter(~Exists(later))
    if tab == "human":
        rows = rows.exclude(handler=Handler.BOT)
    if tab == "waiting":
        rows = rows.filter(lane__in=_waiting_lanes())
    for key, column in (("platform", "platform"), ("bot", "account")):
        if values := filters.values(key):
            rows = rows.filter(lane__in=BotSession.objects.filter(**{f"{column}__in": values}).values("lane"))
    for name in filters.values("from"):
        rows = rows.filter(lane__in=BotSession.objects.filter(contact__in=_contacts(name)).values("lane"))
    return rows


def _waiting_lanes() -> list[str]:
    waits = Q()
    for state in _OPEN:
        waits |= Q(state=state)
    sessions = JournalEntry.objects.filter(waits, session__isnull=False).order_by("-id")
    return list(dict.fromkeys(sessions.values_list("session__lane", flat=True)[:_MAX_WAITING]))


def _contacts(name: str) -> list[int]:
    bare = name.removeprefix("@")
    same = Q(platform_user_id=name) | Q(user_name__iexact=bare) | Q(display_name__icontains=name)
    linked = Q(links__unlinked_at=None, links__person__unified_user_id=name)
    return list(Contact.objects.filter(same | linked).values_list("pk", flat=True)[:_MAX_CONTACTS])


def _rows(sessions: Collection[BotSession]) -> list[Row]:
    lanes = [session.lane for session in sessions]
    together: defaultdict[str, list[BotSession]] = defaultdict(list)
    for session in BotSession.objects.filter(lane__in=lanes).select_related("contact").order_by("-last_activity_at"):
        together[session.lane].append(session)
    waiting: dict[str, datetime] = dict(
        JournalEntry.objects.filter(session__lane__in=lanes, state__in=_OPEN)
        .order_by()
        .values_list("session__lane")
        .annotate(oldest=Min("received_at"))
        .values_list("session__lane", "oldest")
    )
    last = _last_messages([session.pk for session in sessions])
    return [
        Row(
            id=session.pk,
            name=name_of(together[session.lane]),
            platforms=tuple(dict.fromkeys(one.platform for one in together[session.lane])),
            last_words=one_line(last[session.pk].text, max_chars=_CHARS) if session.pk in last else "",
            last_is_ours=session.pk in last and last[session.pk].role == Role.ASSISTANT,
            waiting_since=waiting.get(session.lane),
            handler=HANDLERS[Handler(session.handler)],
            active_at=session.last_activity_at,
        )
        for session in sessions
    ]


def _last_messages(session_pks: Collection[int]) -> dict[int, HistoryMessage]:
    newest = (
        HistoryMessage.objects.filter(session=OuterRef("pk"), kind__in=HistoryKind.for_agents())
        .order_by("-id")
        .values("id")[:1]
    )
    ids = BotSession.objects.filter(pk__in=session_pks).annotate(last=newest).values_list("last", flat=True)
    rows = HistoryMessage.objects.filter(pk__in=[pk for pk in ids if pk is not None])
    return {row.session_id: row for row in rows}


def name_of(sessions: Collection[BotSession]) -> str:
    """The person where somebody said who it is, else the contact as the platform shows them, else the group."""
    first = next(iter(sessions))
    if keys.is_person_lane(first.lane):
        return one_line(keys.unified_user_id(first.lane), max_chars=60)
    if first.scope == SessionScope.PER_CHAT:
        return one_line(first.chat_name or first.channel_id, max_chars=60)
    return entries.person(first.contact)


def _hits(filters: Filters, *, before: int | None) -> Page[Hit]:
    rows = search.messages(" ".join(filters.words)).select_related("session__contact")
    if values := filters.values("platform"):
        rows = rows.filter(session__platform__in=values)
    if values := filters.values("bot"):
        rows = rows.filter(session__account__in=values)
    for name in filters.values("from"):
        rows = rows.filter(session__contact__in=_contacts(name))
    for what in filters.values("has"):
        rows = rows.exclude(attachments=[]) if what == "attachment" else rows.filter(kind=what)
    if "before" in filters.times:
        rows = rows.filter(created_at__lt=filters.times["before"])
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-id")[: PAGE_SIZE + 1])
    hits = [
        Hit(
            id=row.pk,
            session_pk=row.session_id,
            name=name_of([row.session]),
            platform=row.session.platform,
            words=_around(row.text, filters.words),
            is_ours=row.role != Role.USER,
            at=row.created_at,
        )
        for row in found
    ]
    return page_of(hits, [hit.id for hit in hits], before=before)


def _around(text: str, words: Collection[str]) -> str:
    """The part of a message in which the first of the words stands."""
    line = one_line(text, max_chars=10_000)
    places = [place for word in search.words_of(" ".join(words)) if (place := line.lower().find(word)) >= 0]
    start = max(min(places, default=0) - 50, 0)
    cut = line[start : start + _CHARS]
    return f"{'…' if start else ''}{cut}{'…' if start + _CHARS < len(line) else ''}"


# -- one conversation ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing in the timeline: a message, a note, or a divider."""

    key: str
    id: int
    at: datetime
    kind: str  # user, bot, staff, mirror, note, command, divider
    author: str
    platform: str
    text: str
    attachments: tuple[str, ...] = ()
    standing: Standing | None = None
    error: str = ""
    entry_id: int | None = None
    undo_contact: int | None = None  # the contact whose link a divider tells of, if it still holds
    is_wanted: bool = False  # the message that was searched for

    @property
    def is_bubble(self) -> bool:
        return self.kind != "divider"

    @property
    def is_ours(self) -> bool:
        return self.kind in ("bot", "staff", "mirror", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactFacts:
    """One contact of the person."""

    id: int
    platform: str
    name: str
    user_id: str
    alias_of: str
    is_blocked: bool
    is_reachable: bool
    paired_with: tuple[str, ...]
    last_seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    contact: str
    person: str
    proof: str
    linked_by: str
    linked_at: datetime
    unlinked_by: str
    unlinked_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Everything on the page of one person or group."""

    session: BotSession
    name: str
    person: str  # unified user id; empty: not linked
    sessions: tuple[BotSession, ...]
    handler: Standing
    said: tuple[Said, ...]
    earlier_before: int | None
    is_newest: bool
    reply_session_id: str
    route: ReplyRoute | None
    is_running: bool
    open_count: int
    contacts: tuple[ContactFacts, ...]
    links: tuple[LinkFacts, ...]
    platform: str  # only what was said there is shown; empty: everything

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(session.platform for session in self.sessions))

    @property
    def is_group(self) -> bool:
        return self.session.scope == SessionScope.PER_CHAT


def conversation(
    *, session_pk: int, before: int | None = None, wanted: int | None = None, platform: str = ""
) -> Conversation | None:
    """One page of a conversation; None: there is no such session.

    Args:
        before: only what has a smaller history id.
        wanted: a history id that shall be on the page.
    """
    session = BotSession.objects.select_related("contact").filter(pk=session_pk).first()
    if session is None:
        return None
    together = list(BotSession.objects.filter(lane=session.lane).select_related("contact").order_by("pk"))
    pks = [one.pk for one in together if not platform or one.platform == platform]
    if wanted is not None and before is None:
        before = _below(pks, wanted)
    rows = _newest(pks, before)
    has_more, rows = len(rows) > PAGE_SIZE, rows[:PAGE_SIZE]
    rows.reverse()
    is_newest = before is None
    said = [*_spoken(rows, wanted)]
    contacts = _contact_rows(together)
    links = _links(contacts)
    since = rows[0].created_at if has_more and rows else None
    until = rows[-1].created_at if not is_newest and rows else None
    said += [event for event in _link_events(links) if _is_within(event.at, since, until)]
    said.sort(key=lambda one: one.at)
    said = _in_order(said)
    waiting = list(_open_entries(pks)) if is_newest else []
    reply_session_id, route = _route(together)
    return Conversation(
        session=session,
        name=name_of([session]),
        person=keys.unified_user_id(session.lane) if keys.is_person_lane(session.lane) else "",
        sessions=tuple(together),
        handler=HANDLERS[Handler(session.handler)],
        said=(*said, *waiting),
        earlier_before=rows[0].pk if has_more else None,
        is_newest=is_newest,
        reply_session_id=reply_session_id,
        route=route,
        is_running=Turn.objects.filter(lane=session.lane, state=TurnState.RUNNING).exists(),
        open_count=len(waiting),
        contacts=tuple(_contact_facts(contacts)),
        links=tuple(_link_facts(links)),
        platform=platform,
    )


def _newest(session_pks: Collection[int], before: int | None) -> list[HistoryMessage]:
    """The newest rows of these sessions below ``before``; each session by its index, so that depth costs nothing."""
    found: list[HistoryMessage] = []
    for pk in session_pks:
        rows = HistoryMessage.objects.filter(session=pk).select_related("session")
        if before is not None:
            rows = rows.filter(pk__lt=before)
        found += rows.order_by("-pk")[: PAGE_SIZE + 1]
    return sorted(found, key=lambda row: -row.pk)[: PAGE_SIZE + 1]


def _below(session_pks: Collection[int], wanted: int) -> int | None:
    """The id below which a page has ``wanted`` in its middle; None: the newest page has it."""
    later: list[int] = []
    for pk in session_pks:
        rows = HistoryMessage.objects.filter(session=pk, pk__gt=wanted).order_by("pk")
        later += rows.values_list("pk", flat=True)[: PAGE_SIZE // 2 + 1]
    later.sort()
    return later[PAGE_SIZE // 2] if len(later) > PAGE_SIZE // 2 else None


def _in_order(said: list[Said]) -> list[Said]:
    """Messages by their ids, as they were added; dividers stay where their time put them."""
    bubbles = iter(sorted((one for one in said if one.id), key=lambda one: one.id))
    return [next(bubbles) if one.id else one for one in said]


def _is_within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at <= until)


def _spoken(rows: Collection[HistoryMessage], wanted: int | None) -> Iterator[Said]:
    ticks = _ticks(rows)
    for row in rows:
        kind = _kind(row)
        standing, error = ticks.get(row.pk, (None, "")) if kind in ("bot", "staff", "mirror") else (None, "")
        yield Said(
            key=f"said-{row.pk}",
            id=row.pk,
            at=row.created_at,
            kind=kind,
            author=one_line(row.sender_name if kind in ("user", "command") else row.source, max_chars=80),
            platform=row.session.platform,
            text=row.text,
            attachments=tuple(_attachments(row.attachments)),
            standing=standing,
            error=error,
            entry_id=row.entry_id,
            is_wanted=row.pk == wanted,
        )


def _kind(row: HistoryMessage) -> str:
    match row.kind:
        case HistoryKind.CHAT:
            return "user" if row.role == Role.USER else "bot"
        case HistoryKind.COMMAND:
            return "command" if row.role == Role.USER else "bot"
        case kind:
            return str(kind)


def _attachments(items: object) -> Iterator[str]:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            yield one_line(f"{item.get('kind', 'file')} {item.get('name') or ''}", max_chars=80)


#: What one bubble shows of its parts: the worst.
_WORST = (
    OutboxState.DEAD,
    OutboxState.UNKNOWN,
    OutboxState.HELD,
    OutboxState.SENDING,
    OutboxState.PENDING,
    OutboxState.SENT,
)


def _ticks(rows: Collection[HistoryMessage]) -> dict[int, tuple[Standing, str]]:
    """History id → what became of the message on its way out."""
    by_turn = {row.turn_id: row.pk for row in rows if row.role == Role.ASSISTANT and row.turn_id}
    by_key = {f"{row.mirror_key}:0": row.pk for row in rows if row.kind == HistoryKind.STAFF and row.mirror_key}
    parts: defaultdict[int, list[OutboxMessage]] = defaultdict(list)
    sent = OutboxMessage.objects.filter(Q(turn__in=by_turn) | Q(idempotency_key__in=by_key))
    for part in sent.only("turn", "idempotency_key", "state", "error"):
        pk = by_key.get(part.idempotency_key) or (by_turn.get(part.turn_id) if part.turn_id else None)
        if pk is not None:
            parts[pk].append(part)
    return {
        pk: (entries.send_standing(worst), worst.error)
        for pk, found in parts.items()
        for worst in [min(found, key=lambda part: _WORST.index(OutboxState(part.state)))]
    }


def _open_entries(session_pks: Collection[int]) -> Iterator[Said]:
    """What was received and is no part of the history yet, in the order in which it came."""
    known = HistoryMessage.objects.filter(entry=OuterRef("pk"), role=Role.USER)
    rows = JournalEntry.objects.filter(~Exists(known), session__in=session_pks, state__in=_OPEN)
    for row in rows.select_related("contact").defer("raw").order_by("id")[:_MAX_OPEN]:
        yield Said(
            key=f"open-{row.pk}",
            id=0,
            at=row.received_at,
            kind="user",
            author=entries.person(row.contact),
            platform=row.platform,
            text=row.edited_text if row.edited_text is not None else str(row.payload.get("text") or ""),
            attachments=tuple(_attachments(row.payload.get("attachments"))),
            standing=entries.standing(row),
            entry_id=row.pk,
        )


def _contact_rows(sessions: Collection[BotSession]) -> list[Contact]:
    """The contacts of the sessions and, for a person, those that are linked and have not written."""
    pks = {session.contact_id for session in sessions if session.contact_id}
    first = next(iter(sessions))
    mine = Q(pk__in=pks)
    if keys.is_person_lane(first.lane):
        person = keys.unified_user_id(first.lane)
        mine |= Q(links__unlinked_at=None, links__person__unified_user_id=person)
    return list(Contact.objects.filter(mine).select_related("alias_of").distinct().order_by("pk")[:_MAX_CONTACTS])


def _contact_facts(contacts: Collection[Contact]) -> Iterator[ContactFacts]:
    paired: defaultdict[int, list[str]] = defaultdict(list)
    approved = Pairing.objects.filter(
        contact__in=contacts, state=PairingState.APPROVED, purpose=PairingPurpose.ACCESS
    ).order_by("account")
    for contact_id, account in approved.values_list("contact", "account"):
        paired[contact_id].append(account)
    for contact in contacts:
        yield ContactFacts(
            id=contact.pk,
            platform=contact.platform,
            name=entries.person(contact),
            user_id=contact.platform_user_id,
            alias_of=str(contact.alias_of) if contact.alias_of else "",
            is_blocked=contact.is_blocked,
            is_reachable=contact.is_reachable,
            paired_with=tuple(paired[contact.pk]),
            last_seen_at=contact.last_seen_at,
        )


def _links(contacts: Collection[Contact]) -> list[IdentityLink]:
    rows = IdentityLink.objects.filter(contact__in=contacts).select_related("contact", "person").order_by("-id")
    return list(rows[:_MAX_EVENTS])


def _link_facts(links: Collection[IdentityLink]) -> Iterator[LinkFacts]:
    for link in links:
        yield LinkFacts(
            contact=str(link.contact),
            person=str(link.person),
            proof=PROOFS[Proof(link.proof)],
            linked_by=link.linked_by,
            linked_at=link.linked_at,
            unlinked_by=link.unlinked_by,
            unlinked_at=link.unlinked_at,
            reason=link.reason,
        )


PROOFS = {
    Proof.CODE: "proved by code",
    Proof.LINK: "proved by a link",
    Proof.STAFF: "asserted by staff",
    Proof.IMPORT: "imported",
}


def _link_events(links: Collection[IdentityLink]) -> Iterator[Said]:
    for link in links:
        proof = PROOFS[Proof(link.proof)]
        yield Said(
            key=f"link-{link.pk}",
            id=0,
            at=link.linked_at,
            kind="divider",
            author=link.linked_by,
            platform=link.contact.platform,
            text=f"{link.contact} was linked to {link.person} by {link.linked_by}, {proof}.",
            undo_contact=link.contact_id if link.unlinked_at is None else None,
        )
        if link.unlinked_at is not None:
            yield Said(
                key=f"unlink-{link.pk}",
                id=0,
                at=link.unlinked_at,
                kind="divider",
                author=link.unlinked_by,
                platform=link.contact.platform,
                text=f"The link of {link.contact} to {link.person} was ended by {link.unlinked_by}.",
            )


def _route(sessions: Collection[BotSession]) -> tuple[str, ReplyRoute | None]:
    """The session in which the person wrote last, and where a reply there would go."""
    newest: list[tuple[int, str, ReplyRoute]] = []
    for session in sessions:
        try:
            route = handling.reply_route(session_id=session.session_id)
        except NotFound:
            continue
        newest.append((route.last_entry_id, session.session_id, route))
    if not newest:
        return "", None
    _, session_id, route = max(newest, key=lambda item: item[0])
    return session_id, route


# -- the link wizard ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a link would join, with the last words of each side."""

    contact: Contact
    person: str
    facts: identity.Preview
    last_of_contact: tuple[Said, ...]
    last_of_person: tuple[Said, ...]
    current: str  # the person that the contact is linked to already


def link_preview(*, contact_id: int, person: str) -> Preview | None:
    """What linking the contact to ``person`` would mean; None: there is no such contact.

    Raises:
        InvalidInput: the person's id is not usable.
    """
    contact = Contact.objects.filter(pk=contact_id).first()
    if contact is None:
        return None
    facts = identity.preview(platform=contact.platform, user_id=contact.platform_user_id, unified_user_id=person)
    mine = BotSession.objects.filter(contact__in=identity.ids_of(contact.root_id), scope=SessionScope.PER_USER)
    theirs = BotSession.objects.filter(lane=keys.person_lane(person), scope=SessionScope.PER_USER)
    return Preview(
        contact=contact,
        person=person,
        facts=facts,
        last_of_contact=tuple(_last_words(mine)),
        last_of_person=tuple(_last_words(theirs)),
        current=identity.persons_of([contact.root_id]).get(contact.root_id, ""),
    )


def _last_words(sessions: QuerySet[BotSession]) -> Iterator[Said]:
    pks = list(sessions.values_list("pk", flat=True))
    rows = [row for row in _newest(pks, None) if row.kind in HistoryKind.for_agents()][:5]
    yield from _spoken(list(reversed(rows)), None)


def persons(*, limit: int = 50) -> list[Mapping[str, object]]:
    """Persons that have contacts, for choosing: those with the newest links first."""
    active = IdentityLink.objects.filter(unlinked_at=None).order_by()
    rows = active.values("person__unified_user_id").annotate(contacts=Count("pk"), newest=Max("pk")).order_by("-newest")
    return [{"person": row["person__unified_user_id"], "contacts": row["contacts"]} for row in rows[:limit]]
