"""Conversations: who talks with us, and everything that was said with one person, over all platforms.

A person's conversation is the sessions of one lane. It is addressed by any of its sessions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time

from django.db.models import Count, Exists, Max, Min, OuterRef, Q, QuerySet

from botsrt.core import keys
from botsrt.core.errors import InvalidInput, NotFound
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
from praisonweb.dashboard import paging
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import Filters, Key, Token
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries import entries, limits
from praisonweb.dashboard.queries.standing import Standing, Tone

#: Entries that somebody should answer: no turn has ended them.
_OPEN = (EntryState.PENDING, EntryState.CLAIMED, EntryState.HELD, EntryState.DEAD)

#: Conversations that wait, that are looked at; more are shown page by page as they are answered.
_MAX_WAITING = 1_000

#: Contacts that one name can mean.
_MAX_CONTACTS = 200

#: Sessions that are named in a query; where there are more, most conversations have one.
_FEW = 1_000

#: Newest links among which persons are offered.
_NEWEST_LINKS = 1_000

#: Open messages below the timeline, and links and requests in it.
_MAX_OPEN = 100
_MAX_EVENTS = 100

#: New messages that are counted for a reader who looks at earlier ones.
MAX_NEWER = 99

_CHARS = 160

KEYS = (
    Key(name="platform", help="telegram, slack, discord, whatsapp, webhook, web, …"),
    Key(name="bot", help="the bot's name"),
    Key(name="from", help="the person's id, handle or name"),
    Key(name="kind", help="who said it, and how", choices=("user", "bot", "staff", "mirror", "note", "command")),
    Key(name="has", help="what a message is or has", choices=("attachment", "link", "note", "mirror", "staff")),
    Key(name="before", help="said before: 2h, 7d, 2026-11-20", is_time=True),
)

#: Tokens about single messages: with one of them, or with words, messages are listed instead of conversations.
_OF_MESSAGES = ("kind", "has")

TABS = {"all": "All", "waiting": "Waiting on us", "human": "Human"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One conversation in the list."""

    id: int
    name: str
    platforms: tuple[str, ...]
    last_words: str
    last_is_ours: bool
    last_standing: Standing | None  # of words that are no part of the conversation yet: they wait, or are held
    waiting_since: datetime | None
    handler: Standing
    is_archived: bool
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


def read(*, filters: Filters, tab: str, before: int | None, scope: Scope) -> People:
    """A page of the conversations, the latest activity first; with words, of the messages that have them."""
    is_about_messages = filters.words or any(filters.values(key) for key in _OF_MESSAGES)
    if is_about_messages and not filters.problems:
        hits = _hits(filters, before=before, scope=scope)
        return People(filters=filters, tab=tab, page=Page(rows=()), older="", hits=hits, is_empty=False)
    rows = _listed(filters, tab, scope)
    if before is not None:
        last = BotSession.objects.filter(pk=before).values_list("last_activity_at", flat=True).first()
        if last is not None:
            rows = rows.filter(Q(last_activity_at__lt=last) | Q(last_activity_at=last, pk__lt=before))
    found = list(rows.select_related("contact").order_by("-last_activity_at", "-pk")[: PAGE_SIZE + 1])
    shown = _rows(found, scope)
    page = page_of(shown, [row.id for row in shown], before=before)
    is_empty = not shown and not filters and tab == "all" and before is None
    older = str(page.older_before) if page.older_before is not None else ""
    return People(filters=filters, tab=tab, page=page, older=older, hits=None, is_empty=is_empty)


def _listed(filters: Filters, tab: str, scope: Scope) -> QuerySet[BotSession]:
    """One session for each conversation: that with the latest activity."""
    if filters.problems:
        return BotSession.objects.none()
    later = limits.sessions(scope, BotSession.objects.filter(lane=OuterRef("lane"))).filter(
        Q(last_activity_at__gt=OuterRef("last_activity_at"))
        | Q(last_activity_at=OuterRef("last_activity_at"), pk__gt=OuterRef("pk"))
    )
    rows = limits.sessions(scope).filter(~Exists(later))
    if tab == "human":
        rows = rows.exclude(handler=Handler.BOT)
    if tab == "waiting":
        rows = rows.filter(lane__in=_waiting_lanes(scope))
    for key, column in (("platform", "platform"), ("bot", "account")):
        if values := filters.values(key):
            rows = _with_session(rows, _sessions_by(column, scope).filter(**{f"{column}__in": values}))
    for name in filters.values("from"):
        rows = _with_session(rows, limits.sessions(scope).filter(contact__in=_contacts(name)))
    if "before" in filters.times:
        rows = rows.filter(last_activity_at__lt=filters.times["before"])
    return rows


def _with_session(rows: QuerySet[BotSession], wanted: QuerySet[BotSession]) -> QuerySet[BotSession]:
    """Of ``rows`` those whose conversation has a session of ``wanted``: few are named, for many each row is asked."""
    lanes = list(wanted.values_list("lane", flat=True)[: _FEW + 1])
    if len(lanes) <= _FEW:
        return rows.filter(lane__in=lanes)
    return rows.filter(Exists(wanted.filter(lane=OuterRef("lane"))))


def _sessions_by(column: str, scope: Scope) -> QuerySet[BotSession]:
    """Sessions to be found by a column. With which bot a session began is told to those alone who see that bot."""
    return scope.rows(BotSession.objects.all()) if column == "account" else limits.sessions(scope)


def _waiting_lanes(scope: Scope) -> list[str]:
    waits = Q()
    for state in _OPEN:
        waits |= Q(state=state)
    sessions = scope.rows(JournalEntry.objects.filter(waits, session__isnull=False)).order_by("-id")
    return list(dict.fromkeys(sessions.values_list("session__lane", flat=True)[:_MAX_WAITING]))


def _contacts(name: str) -> list[int]:
    bare = name.removeprefix("@")
    same = Q(platform_user_id=name) | Q(user_name__iexact=bare) | Q(display_name__icontains=name)
    found = list(Contact.objects.filter(same).values_list("pk", flat=True)[:_MAX_CONTACTS])
    return list(dict.fromkeys([*_linked_to(name), *found]))[:_MAX_CONTACTS]


def _linked_to(person: str) -> list[int]:
    """The contacts of a person. A query of its own: joined to others, the planner would read every contact."""
    active = IdentityLink.objects.filter(unlinked_at=None, person__unified_user_id=person)
    return list(active.order_by("contact").values_list("contact", flat=True)[:_MAX_CONTACTS])


def _rows(sessions: Collection[BotSession], scope: Scope) -> list[Row]:
    lanes = [session.lane for session in sessions]
    together: defaultdict[str, list[BotSession]] = defaultdict(list)
    known = limits.sessions(scope, BotSession.objects.filter(lane__in=lanes))
    for session in known.select_related("contact").order_by("-last_activity_at"):
        together[session.lane].append(session)
    waiting = _waiting([session.pk for found in together.values() for session in found], lanes, scope)
    last = _last_messages([session.pk for session in sessions], scope)
    unsaid = _unsaid(sessions, last, newest={lane: newest for lane, (_, newest) in waiting.items()}, scope=scope)
    return [
        Row(
            id=session.pk,
            name=name_of(together[session.lane]),
            platforms=tuple(dict.fromkeys(one.platform for one in together[session.lane])),
            last_words=_words_of(unsaid.get(session.pk) or last.get(session.pk)),
            last_is_ours=session.pk not in unsaid and session.pk in last and last[session.pk].role == Role.ASSISTANT,
            last_standing=entries.standing(unsaid[session.pk]) if session.pk in unsaid else None,
            waiting_since=waiting[session.lane][0] if session.lane in waiting else None,
            handler=HANDLERS[Handler(session.handler)],
            is_archived=session.is_archived,
            active_at=session.last_activity_at,
        )
        for session in sessions
    ]


def _waiting(session_pks: Collection[int], lanes: Collection[str], scope: Scope) -> dict[str, tuple[datetime, int]]:
    """Lane → since when somebody waits there, and the newest message that does."""
    rows = scope.rows(_open_of(session_pks, lanes)).order_by().values("session__lane")
    found = rows.annotate(oldest=Min("received_at"), newest=Max("pk"))
    return {row["session__lane"]: (row["oldest"], row["newest"]) for row in found}


def _open_of(session_pks: Collection[int], lanes: Collection[str]) -> QuerySet[JournalEntry]:
    """What waits in these sessions, which are all of ``lanes``. Each state by the index of its own: a session may have
    had thousands of entries."""
    running = Turn.objects.filter(lane__in=lanes, state=TurnState.RUNNING).values_list("pk", flat=True)
    waits = Q(state=EntryState.CLAIMED, turn__in=list(running[:_MAX_OPEN]))
    for state in (EntryState.PENDING, EntryState.HELD, EntryState.DEAD):
        waits |= Q(state=state, session__in=session_pks)
    return JournalEntry.objects.filter(waits)


def _unsaid(
    sessions: Collection[BotSession], last: Mapping[int, HistoryMessage], *, newest: Mapping[str, int], scope: Scope
) -> dict[int, JournalEntry]:
    """Session → a message that came after all that was said there, or the first one, which nobody has answered."""
    silent = [session.pk for session in sessions if session.pk not in last]
    firsts = scope.rows(JournalEntry.objects.filter(session__in=silent)).order_by().values("session")
    firsts = firsts.annotate(newest=Max("pk"))
    wanted = dict[int, int](firsts.values_list("session_id", "newest"))
    wanted |= {session.pk: newest[session.lane] for session in sessions if session.lane in newest}
    found = JournalEntry.objects.defer("raw").in_bulk(list(wanted.values()))
    return {
        pk: found[entry_id]
        for pk, entry_id in wanted.items()
        if entry_id in found and (pk not in last or found[entry_id].received_at > last[pk].created_at)
    }


def _words_of(one: JournalEntry | HistoryMessage | None) -> str:
    if isinstance(one, JournalEntry):
        return entries.first_words(one.payload) or f"({one.kind})"
    return one_line(one.text, max_chars=_CHARS) if one else ""


def _last_messages(session_pks: Collection[int], scope: Scope) -> dict[int, HistoryMessage]:
    newest = (
        limits.said(HistoryMessage.objects.filter(session=OuterRef("pk"), kind__in=HistoryKind.for_agents()), scope)
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


def _hits(filters: Filters, *, before: int | None, scope: Scope) -> Page[Hit]:
    """Messages with the words, as the tokens want them. Without words the newest are looked through, in steps."""
    if filters.words:
        rows, window_end = search.newest(" ".join(filters.words), before=before)
    else:
        rows = HistoryMessage.objects.all()
        rows, window_end = paging.window(rows if before is None else rows.filter(pk__lt=before))
    rows = _narrowed(limits.said(rows, scope), filters, scope)
    found = list(rows.select_related("session__contact").order_by("-id")[: PAGE_SIZE + 1])
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
    return page_of(hits, [hit.id for hit in hits], before=before, window_end=window_end)


def _narrowed(rows: QuerySet[HistoryMessage], filters: Filters, scope: Scope) -> QuerySet[HistoryMessage]:
    if values := filters.values("platform"):
        rows = rows.filter(session__platform__in=values)
    if values := filters.values("bot"):
        rows = rows.filter(session__account__in=[value for value in values if scope.allows(value)])
    for name in filters.values("from"):
        rows = rows.filter(session__contact__in=_contacts(name))
    if values := filters.values("kind"):
        rows = rows.filter(_of_kinds(values))
    for what in filters.values("has"):
        match what:
            case "attachment":
                rows = rows.exclude(attachments=[])
            case "link":
                rows = rows.filter(text__iregex=r"https?://")
            case _:
                rows = rows.filter(kind=what)
    if "before" in filters.times:
        rows = rows.filter(created_at__lt=filters.times["before"])
    return rows


def _of_kinds(kinds: Collection[str]) -> Q:
    """Either of these kinds, by the words of the timeline."""
    either = Q(pk=None)
    for kind in kinds:
        match kind:
            case "user":
                either |= Q(kind=HistoryKind.CHAT, role=Role.USER)
            case "bot":
                either |= Q(kind=HistoryKind.CHAT, role=Role.ASSISTANT)
            case _:
                either |= Q(kind=kind)
    return either


def _around(text: str, words: Collection[str]) -> str:
    """The part of a message in which the first of the words stands."""
    line = one_line(text, max_chars=10_000)
    places = [place for word in search.words_of(" ".join(words)) if (place := line.lower().find(word)) >= 0]
    start = max(min(places, default=0) - 50, 0)
    cut = line[start : start + _CHARS]
    return f"{'…' if start else ''}{cut}{'…' if start + _CHARS < len(line) else ''}"


# -- one conversation ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What an edited message said before, or says since."""

    at: datetime
    text: str
    entry_id: int
    is_later: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which page of a conversation: its end, or the one before or after a message, around it, or from a day on."""

    before: int | None = None
    after: int | None = None
    wanted: int | None = None
    day: date | None = None  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The newest that a reader has seen of a conversation: ids of the history and of the journal."""

    history: int
    entry: int

    def __str__(self) -> str:
        return f"{self.history}-{self.entry}"


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
    versions: tuple[Version, ...] = ()
    undo_contact: int | None = None  # the contact whose link a divider tells of, if it still holds
    is_wanted: bool = False  # the message that was searched for

    @property
    def is_bubble(self) -> bool:
        return self.kind != "divider"

    @property
    def identity(self) -> str:
        """What stays the same when a waiting message becomes a part of the history."""
        return f"entry-{self.entry_id}" if self.entry_id and self.kind == "user" else self.key

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
    earlier_before: int | None  # None: there is nothing earlier
    later_after: int | None  # None: this is the end
    is_from_start: bool  # reading begins at the first message of the page
    mark: Mark
    newer: int  # messages since the reader's mark
    has_newer_inbound: bool  # the person wrote since then
    reply_session_id: str
    route: ReplyRoute | None
    is_running: bool
    open_count: int
    contacts: tuple[ContactFacts, ...]
    links: tuple[LinkFacts, ...]
    platform: str  # only what was said there is shown; empty: everything

    @property
    def is_newest(self) -> bool:
        return self.later_after is None

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(session.platform for session in self.sessions))

    @property
    def is_group(self) -> bool:
        return self.session.scope == SessionScope.PER_CHAT

    @property
    def search_text(self) -> str:
        """The tokens that look for words in this conversation alone; empty for a group, which has no token."""
        contact = self.session.contact
        if self.person:
            return str(Token(key="from", value=self.person))
        if contact is None:
            return ""
        return f"{Token(key='from', value=contact.platform_user_id)} {Token(key='platform', value=contact.platform)}"


def conversation(
    *,
    session_pk: int,
    place: Place = Place(),
    platform: str = "",
    seen: Mark | None = None,
    scope: Scope,
) -> Conversation | None:
    """One page of a conversation; None: there is no such session.

    Args:
        seen: what the reader has seen; None: what there is now.
    """
    session = limits.sessions(scope).select_related("contact").filter(pk=session_pk).first()
    if session is None:
        return None
    known = limits.sessions(scope, BotSession.objects.filter(lane=session.lane))
    together = list(known.select_related("contact").order_by("pk"))
    pks = [one.pk for one in together if not platform or one.platform == platform]
    window = _window(pks, place, scope)
    rows = window.rows
    waiting = [] if window.has_later else _open_entries(pks, session.lane, scope)
    versions = _versions([row.entry_id for row in rows if row.role == Role.USER] + [row.pk for row in waiting])
    said = [*_spoken(rows, place.wanted, versions)]
    contacts = _contact_rows(together, scope)
    links = _links(contacts)
    since = rows[0].created_at if window.has_earlier and rows else None
    until = rows[-1].created_at if window.has_later and rows else None
    said += [event for event in _link_events(links) if _is_within(event.at, since, until)]
    said.sort(key=lambda one: one.at)
    said = _in_order(said)
    reply_session_id, route = _route(together, scope)
    mark = Mark(history=_last_id([one.pk for one in together]), entry=route.last_entry_id if route else 0)
    seen = seen or mark
    return Conversation(
        session=session,
        name=name_of([session]),
        person=keys.unified_user_id(session.lane) if keys.is_person_lane(session.lane) else "",
        sessions=tuple(together),
        handler=HANDLERS[Handler(session.handler)],
        said=(*said, *_waiting_said(waiting, versions)),
        earlier_before=rows[0].pk if window.has_earlier and rows else None,
        later_after=rows[-1].pk if window.has_later and rows else None,
        is_from_start=window.is_from_start,
        mark=mark,
        newer=_newer(pks, session.lane, seen, scope) if seen != mark else 0,
        has_newer_inbound=mark.entry > seen.entry,
        reply_session_id=reply_session_id,
        route=route,
        is_running=Turn.objects.filter(lane=session.lane, runs_aside=False, state=TurnState.RUNNING).exists(),
        open_count=len(waiting),
        contacts=tuple(_contact_facts(contacts, scope)),
        links=tuple(_link_facts(links)),
        platform=platform,
    )


def meeting_point(*, session_pk: int, scope: Scope) -> int | None:
    """The session by which all pages of one conversation find each other, whichever session they were opened with."""
    lane = limits.sessions(scope, BotSession.objects.filter(pk=session_pk)).values("lane")
    return BotSession.objects.filter(lane__in=lane).order_by("pk").values_list("pk", flat=True).first()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    rows: list[HistoryMessage]  # oldest first
    has_earlier: bool
    has_later: bool
    is_from_start: bool = False


def _window(session_pks: Collection[int], place: Place, scope: Scope) -> _Window:
    after = place.after
    if place.day is not None and (first := _first_since(session_pks, place.day, scope)) is not None:
        after = first - 1
    if after is not None:
        rows = _next(session_pks, after, scope=scope)
        return _Window(
            rows=rows[:PAGE_SIZE],
            has_earlier=bool(_newest(session_pks, after + 1, limit=1, scope=scope)),
            has_later=len(rows) > PAGE_SIZE,
            is_from_start=True,
        )
    before = _below(session_pks, place.wanted, scope) if place.wanted is not None else place.before
    rows = _newest(session_pks, before, scope=scope)
    return _Window(
        rows=rows[:PAGE_SIZE][::-1],
        has_earlier=len(rows) > PAGE_SIZE,
        has_later=before is not None and bool(_next(session_pks, before - 1, limit=1, scope=scope)),
    )


def _newest(
    session_pks: Collection[int], before: int | None, *, limit: int = PAGE_SIZE + 1, scope: Scope
) -> list[HistoryMessage]:
    """The newest rows of these sessions below ``before``; each session by its index, so that depth costs nothing."""
    found: list[HistoryMessage] = []
    for pk in session_pks:
        rows = limits.said(HistoryMessage.objects.filter(session=pk).select_related("session"), scope)
        if before is not None:
            rows = rows.filter(pk__lt=before)
        found += rows.order_by("-pk")[:limit]
    return sorted(found, key=lambda row: -row.pk)[:limit]


def _next(
    session_pks: Collection[int], after: int, *, limit: int = PAGE_SIZE + 1, scope: Scope
) -> list[HistoryMessage]:
    """The first rows of these sessions above ``after``."""
    found: list[HistoryMessage] = []
    for pk in session_pks:
        rows = limits.said(HistoryMessage.objects.filter(session=pk, pk__gt=after).select_related("session"), scope)
        found += rows.order_by("pk")[:limit]
    return sorted(found, key=lambda row: row.pk)[:limit]


def _first_since(session_pks: Collection[int], day: date, scope: Scope) -> int | None:
    """The first message of ``day``, or of the days after it; None: nothing was said since."""
    start = datetime.combine(day, time.min, tzinfo=UTC)
    firsts: list[tuple[datetime, int]] = []
    for pk in session_pks:
        rows = HistoryMessage.objects.filter(session=pk, created_at__gte=start).order_by("created_at", "pk")
        firsts += limits.said(rows, scope).values_list("created_at", "pk")[:1]
    return min(firsts)[1] if firsts else None


def _last_id(session_pks: Collection[int]) -> int:
    lasts = [HistoryMessage.objects.filter(session=pk).order_by("-pk").values_list("pk")[:1] for pk in session_pks]
    return max((row[0] for rows in lasts for row in rows), default=0)


def _newer(session_pks: Collection[int], lane: str, seen: Mark, scope: Scope) -> int:
    """Messages since ``seen``, at most ``MAX_NEWER``. What waited then and was answered since is not new."""
    spoken = limits.said(HistoryMessage.objects.filter(session__in=session_pks, pk__gt=seen.history), scope)
    spoken = spoken.exclude(kind=HistoryKind.DIVIDER).exclude(role=Role.USER, entry__lte=seen.entry)
    waiting = _not_in_history(session_pks, lane, scope).filter(pk__gt=seen.entry)
    counts = [len(rows.values_list("pk", flat=True)[:MAX_NEWER]) for rows in (spoken, waiting)]
    return min(sum(counts), MAX_NEWER)


def _below(session_pks: Collection[int], wanted: int, scope: Scope) -> int | None:
    """The id below which a page has ``wanted`` in its middle; None: the newest page has it."""
    later: list[int] = []
    for pk in session_pks:
        rows = limits.said(HistoryMessage.objects.filter(session=pk, pk__gt=wanted).order_by("pk"), scope)
        later += rows.values_list("pk", flat=True)[: PAGE_SIZE // 2 + 1]
    later.sort()
    return later[PAGE_SIZE // 2] if len(later) > PAGE_SIZE // 2 else None


def _in_order(said: list[Said]) -> list[Said]:
    """Messages by their ids, as they were added; dividers stay where their time put them."""
    bubbles = iter(sorted((one for one in said if one.id), key=lambda one: one.id))
    return [next(bubbles) if one.id else one for one in said]


def _is_within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at <= until)


def _spoken(
    rows: Collection[HistoryMessage], wanted: int | None, versions: Mapping[int, tuple[Version, ...]]
) -> Iterator[Said]:
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
            versions=versions.get(row.entry_id or 0, ()) if row.role == Role.USER else (),
            is_wanted=row.pk == wanted,
        )


def _versions(entry_ids: Collection[int | None]) -> dict[int, tuple[Version, ...]]:
    """Entry → the other versions of its message. An edit is an entry of its own, with the id of what it changes."""
    ids = [pk for pk in entry_ids if pk is not None]
    columns = ("platform", "account", "channel_id", "message_id")
    known = {row[0]: row[1:] for row in JournalEntry.objects.filter(pk__in=ids).values_list("pk", *columns)}
    if not known:
        return {}
    narrow = {f"{name}__in": {key[place] for key in known.values()} for place, name in enumerate(columns)}
    together: defaultdict[tuple[str, ...], list[JournalEntry]] = defaultdict(list)
    for row in JournalEntry.objects.filter(**narrow).defer("raw").order_by("pk"):
        together[row.platform, row.account, row.channel_id, row.message_id].append(row)
    return {
        pk: tuple(
            Version(at=row.received_at, text=_text(row), entry_id=row.pk, is_later=row.pk > pk)
            for row in together[key]
            if row.pk != pk
        )
        for pk, key in known.items()
    }


def _text(entry: JournalEntry) -> str:
    return entry.edited_text if entry.edited_text is not None else str(entry.payload.get("text") or "")


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
    for part in sent.only("turn", "idempotency_key", "state", "error", "delivered_at", "read_at"):
        pk = by_key.get(part.idempotency_key) or (by_turn.get(part.turn_id) if part.turn_id else None)
        if pk is not None:
            parts[pk].append(part)
    return {
        pk: (entries.send_standing(worst), worst.error)
        for pk, found in parts.items()
        for worst in [min(found, key=_how_far)]
    }


def _how_far(part: OutboxMessage) -> tuple[int, bool, bool]:
    """Smaller is worse; of those that were sent, the one that got least far."""
    return _WORST.index(OutboxState(part.state)), part.delivered_at is not None, part.read_at is not None


def _not_in_history(session_pks: Collection[int], lane: str, scope: Scope) -> QuerySet[JournalEntry]:
    """What was received, has not ended, and is no part of the history yet."""
    known = HistoryMessage.objects.filter(entry=OuterRef("pk"), role=Role.USER)
    return scope.rows(_open_of(session_pks, [lane])).filter(~Exists(known), session__in=session_pks)


def _open_entries(session_pks: Collection[int], lane: str, scope: Scope) -> list[JournalEntry]:
    rows = _not_in_history(session_pks, lane, scope).select_related("contact").defer("raw")
    return list(rows.order_by("id")[:_MAX_OPEN])


def _waiting_said(rows: Collection[JournalEntry], versions: Mapping[int, tuple[Version, ...]]) -> Iterator[Said]:
    """Open messages, in the order in which they came."""
    for row in rows:
        yield Said(
            key=f"open-{row.pk}",
            id=0,
            at=row.received_at,
            kind="user",
            author=entries.person(row.contact),
            platform=row.platform,
            text=_text(row),
            attachments=tuple(_attachments(row.payload.get("attachments"))),
            standing=entries.standing(row),
            entry_id=row.pk,
            versions=versions.get(row.pk, ()),
        )


def _contact_rows(sessions: Collection[BotSession], scope: Scope) -> list[Contact]:
    """The contacts of the sessions and, for a person, those that are linked and have not written."""
    pks = {session.contact_id for session in sessions if session.contact_id}
    first = next(iter(sessions))
    if keys.is_person_lane(first.lane):
        pks |= set(_linked_to(keys.unified_user_id(first.lane)))
    found = limits.contacts(scope, Contact.objects.filter(pk__in=pks)).select_related("alias_of")
    return list(found.distinct().order_by("pk")[:_MAX_CONTACTS])


def _contact_facts(contacts: Collection[Contact], scope: Scope) -> Iterator[ContactFacts]:
    paired: defaultdict[int, list[str]] = defaultdict(list)
    approved = Pairing.objects.filter(
        contact__in=contacts, state=PairingState.APPROVED, purpose=PairingPurpose.ACCESS
    ).order_by("account")
    for contact_id, account in scope.rows(approved).values_list("contact", "account"):
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


def _route(sessions: Collection[BotSession], scope: Scope) -> tuple[str, ReplyRoute | None]:
    """The session in which the person wrote last, and where a reply there would go."""
    newest: list[tuple[int, str, ReplyRoute]] = []
    for session in sessions:
        try:
            route = handling.reply_route(session_id=session.session_id)
        except NotFound:
            continue
        if not scope.allows(route.account):  # a reply goes where the person wrote last: to a bot that is not theirs
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


def session_of(*, session_pk: int, scope: Scope) -> BotSession | None:
    """One session; None: there is none (any more)."""
    return limits.sessions(scope).filter(pk=session_pk).first()


def contact_of(*, contact_id: int, scope: Scope) -> Contact | None:
    """One contact; None: there is none (any more)."""
    return limits.contacts(scope).filter(pk=contact_id).first()


def latest_session(contact: Contact, *, scope: Scope) -> BotSession | None:
    """The session in which a contact was active last; None: there is none."""
    own = limits.sessions(scope, BotSession.objects.filter(contact=contact))
    return own.order_by("-last_activity_at").first()


def check_person(person: str, *, scope: Scope) -> None:
    """Whether contacts may be linked to ``person``.

    Raises:
        InvalidInput: it is somebody whom only other bots know.
    """
    if limits.is_taken(person, scope=scope):
        raise InvalidInput("person", "is somebody whom none of your bots knows; use another name, or ask for help.")


def link_preview(*, contact_id: int, person: str, scope: Scope) -> Preview | None:
    """What linking the contact to ``person`` would mean; None: there is no such contact.

    Raises:
        InvalidInput: the person's id is not usable.
    """
    contact = contact_of(contact_id=contact_id, scope=scope)
    if contact is None:
        return None
    check_person(person, scope=scope)
    facts = identity.preview(platform=contact.platform, user_id=contact.platform_user_id, unified_user_id=person)
    mine = BotSession.objects.filter(contact__in=identity.ids_of(contact.root_id), scope=SessionScope.PER_USER)
    theirs = BotSession.objects.filter(lane=keys.person_lane(person), scope=SessionScope.PER_USER)
    mine, theirs = limits.sessions(scope, mine), limits.sessions(scope, theirs)
    return Preview(
        contact=contact,
        person=person,
        facts=_known_part(facts, theirs) if scope.is_limited else facts,
        last_of_contact=tuple(_last_words(mine, scope)),
        last_of_person=tuple(_last_words(theirs, scope)),
        current=identity.persons_of([contact.root_id]).get(contact.root_id, ""),
    )


def _known_part(facts: identity.Preview, sessions: QuerySet[BotSession]) -> identity.Preview:
    """``facts`` with those contacts of the person alone that have one of the sessions; the numbers are of all."""
    known = {str(session.contact) for session in sessions.select_related("contact")}
    shown = tuple(name for name in facts.person.contacts if name in known)
    return replace(facts, person=replace(facts.person, contacts=shown))


def _last_words(sessions: QuerySet[BotSession], scope: Scope) -> Iterator[Said]:
    pks = list(sessions.values_list("pk", flat=True))
    rows = [row for row in _newest(pks, None, scope=scope) if row.kind in HistoryKind.for_agents()][:5]
    yield from _spoken(list(reversed(rows)), None, {})


def persons(*, limit: int = 50, scope: Scope) -> list[Mapping[str, object]]:
    """Persons that have contacts, for choosing: those with the newest links first."""
    active = IdentityLink.objects.filter(unlinked_at=None)
    if scope.is_limited:
        active = active.filter(contact__in=limits.contacts(scope))
    newest = active.order_by("-pk").values_list("person", "person__unified_user_id")[:_NEWEST_LINKS]
    names = dict(list(dict.fromkeys(newest))[:limit])
    counts = dict(active.filter(person__in=names).order_by().values_list("person").annotate(contacts=Count("pk")))
    return [{"person": name, "contacts": counts.get(pk, 0)} for pk, name in names.items()]
