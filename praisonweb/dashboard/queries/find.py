"""Find what somebody means by a few letters: a page, a person, a bot, a request, one message by its number.

Every source is asked once, whatever is found, and gives a few of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Q
from django.urls import reverse

from botsrt.core.states import PairingState, SessionScope
from botsrt.core.text import one_line, storable
from botsrt.models import Bot, BotSession, Contact, IdentityLink, JournalEntry, Pairing
from botsrt.services import identity
from praisonweb.dashboard import access
from praisonweb.dashboard.access import Act, Scope
from praisonweb.dashboard.filters import Token
from praisonweb.dashboard.queries import entries, limits

#: Longest text that is looked for, in characters.
MAX_CHARS = 100

#: Rows that one source gives.
_MAX_ROWS = 6

#: Shortest part of a name that is looked for, in characters; a single letter means everybody.
_MIN_NAME_CHARS = 2

_NUMBER = re.compile(r"#?([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing, and where it is."""

    label: str
    url: str
    text: str = ""
    icon: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    text: str
    groups: tuple[Group, ...]

    @property
    def count(self) -> int:
        return sum(len(group.found) for group in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A page that is always there. ``words`` are others by which people look for it."""

    label: str
    url_name: str
    icon: str
    words: str = ""
    query: str = ""


_PAGES = (
    _Place(label="Home", url_name="home", icon="home", words="needs attention overview start charts"),
    _Place(label="Journal", url_name="journal", icon="inbox", words="messages received entries log"),
    _Place(label="Conversations", url_name="people", icon="people", words="people chats history sessions"),
    _Place(label="Pairings", url_name="pairings", icon="key", words="requests access strangers"),
    _Place(label="Dead letters", url_name="dlq", icon="alert", words="dlq failures errors failed"),
    _Place(label="Deliveries", url_name="deliveries", icon="outbox", words="outbox sends replies unknown"),
    _Place(label="Bulk acts", url_name="operations", icon="stack", words="operations many retry replay progress"),
    _Place(label="Alerts", url_name="alerts", icon="alert", words="raised acknowledged trouble silence history"),
    _Place(label="Bots", url_name="bots", icon="bot", words="accounts adapters platforms"),
    _Place(label="Agents", url_name="agents", icon="spark", words="models instructions profiles"),
    _Place(label="Workers", url_name="workers", icon="gears", words="processes hosts"),
    _Place(label="Audit", url_name="audit", icon="book", words="who did what"),
    _Place(label="Retention", url_name="retention", icon="book", words="keep remove old purge privacy housekeeping"),
    _Place(label="Try it", url_name="try", icon="chat", words="test chat web"),
    _Place(label="Raw tables", url_name="admin:index", icon="book", words="django admin database rows"),
    _Place(label="Users and roles", url_name="admin:auth_user_changelist", icon="person", words="access accounts"),
)

_ACTS = (
    _Place(label="Verify a pairing code", url_name="pairing_verify", icon="key", words="approve let in"),
    _Place(
        label="See who waits on us", url_name="people", icon="clock", words="waiting unanswered", query="tab=waiting"
    ),
    _Place(label="See what humans have in hand", url_name="people", icon="person", words="takeover", query="tab=human"),
    _Place(label="See sends that are unknown", url_name="deliveries", icon="outbox", query="q=state%3Aunknown"),
    _Place(
        label="Add a bot",
        url_name="bot_add",
        icon="bot",
        words="new connect platform telegram slack discord whatsapp webhook",
    ),
    _Place(label="Add an agent", url_name="agent_add", icon="spark", words="new model"),
    _Place(label="Change your password", url_name="password", icon="key", words="account"),
    _Place(label="Set up the second factor", url_name="second_factor", icon="key", words="totp recovery codes account"),
)


def read(*, text: str, may: Callable[[Act], bool], scope: Scope) -> Findings:
    """What ``text`` can mean, the most particular first; without text the pages and acts that ``may`` allows."""
    text = storable(" ".join(text.split())[:MAX_CHARS])
    groups = [
        Group(title="Messages", found=tuple(_message(text, scope))),
        Group(title="People", found=tuple(_people(text, scope))),
        Group(title="Group chats and sessions", found=tuple(_sessions(text, scope))),
        Group(title="Bots", found=tuple(_bots(text, scope))),
        Group(title="Pairings", found=tuple(_pairings(text, scope))),
        Group(title="Pages", found=tuple(_places(text, _PAGES, may, scope))),
        Group(title="Acts", found=tuple(_places(text, _ACTS, may, scope))),
        Group(title="Search", found=tuple(_searches(text))),
    ]
    return Findings(text=text, groups=tuple(group for group in groups if group.found))


def _places(text: str, places: Iterable[_Place], may: Callable[[Act], bool], scope: Scope) -> Iterator[Found]:
    """The pages that have each of the words at the beginning of one of theirs."""
    wanted = text.lower().split()
    for place in places:
        known = f"{place.label} {place.words}".lower().split()
        url = reverse(place.url_name)
        asked = access.asked_of(place.url_name, url)
        if scope.is_limited and asked.all_bots:
            continue
        if all(any(one.startswith(word) for one in known) for word in wanted) and may(asked.act):
            yield Found(label=place.label, url=f"{url}?{place.query}".rstrip("?"), icon=place.icon)


def _message(text: str, scope: Scope) -> Iterator[Found]:
    number = _NUMBER.fullmatch(text)
    if number is None:
        return
    rows = scope.rows(JournalEntry.objects.filter(pk=int(number[1])))
    for row in rows.select_related("contact").defer("raw"):
        words = f"{entries.person(row.contact)}: {entries.first_words(row.payload, max_chars=80)}".lstrip(": ")
        url = reverse("journal_entry", args=[row.pk])
        yield Found(label=f"Message {row.pk}", text=words, url=url, platform=row.platform)


def _named(text: str, path: str = "") -> Q:
    """Contacts that are called so, or whose id begins so. ``path`` leads to them from another table."""
    bare = text.removeprefix("@")
    return (
        Q(**{f"{path}platform_user_id__startswith": bare})
        | Q(**{f"{path}user_name__icontains": bare})
        | Q(**{f"{path}display_name__icontains": text})
    )


def _people(text: str, scope: Scope) -> Iterator[Found]:
    if len(text) < _MIN_NAME_CHARS:
        return
    links = IdentityLink.objects.filter(unlinked_at=None, person__unified_user_id__startswith=text.lower())
    if scope.is_limited:
        links = links.filter(contact__in=limits.contacts(scope))
    linked = list(links.values_list("contact", flat=True)[:_MAX_ROWS])
    named = limits.contacts(scope, Contact.objects.filter(_named(text) | Q(pk__in=linked)))
    contacts = list(named.order_by("-last_seen_at")[:_MAX_ROWS])
    direct = BotSession.objects.filter(contact__in=contacts, scope=SessionScope.PER_USER).order_by("last_activity_at")
    direct = limits.sessions(scope, direct)
    latest = dict(direct.values_list("contact_id", "pk"))
    persons = identity.persons_of([contact.root_id for contact in contacts])
    for contact in contacts:
        token = str(Token(key="from", value=contact.platform_user_id))
        found = f"{reverse('people')}?{urlencode({'q': token})}"
        facts = (
            persons.get(contact.root_id, ""),
            contact.user_name and f"@{contact.user_name}",
            contact.platform_user_id,
        )
        yield Found(
            label=entries.person(contact),
            text=one_line(" · ".join(filter(None, facts)), max_chars=100),
            url=reverse("conversation", args=[latest[contact.pk]]) if contact.pk in latest else found,
            platform=contact.platform,
        )


def _sessions(text: str, scope: Scope) -> Iterator[Found]:
    """Chats of several people by their name, and any session by its id."""
    if len(text) < _MIN_NAME_CHARS:
        return
    named = scope.rows(BotSession.objects.filter(scope=SessionScope.PER_CHAT, chat_name__icontains=text))
    exact = limits.sessions(scope, BotSession.objects.filter(session_id=text))
    for row in exact or named.order_by("-pk")[:_MAX_ROWS]:  # two questions: each has an index of its own
        label = one_line(row.chat_name or row.session_id, max_chars=60)
        url = reverse("conversation", args=[row.pk])
        yield Found(label=label, text=row.session_id, url=url, platform=row.platform)


def _bots(text: str, scope: Scope) -> Iterator[Found]:
    if not text:
        return
    rows = scope.rows(Bot.objects.filter(account__icontains=text)).order_by("account")
    for account, platform in rows.values_list("account", "platform")[:_MAX_ROWS]:
        yield Found(label=account, url=reverse("bot", args=[account]), platform=platform)


def _pairings(text: str, scope: Scope) -> Iterator[Found]:
    """People who wait for access."""
    if len(text) < _MIN_NAME_CHARS:
        return
    rows = scope.rows(Pairing.objects.filter(_named(text, "contact__"), state=PairingState.WAITING))
    for row in rows.select_related("contact").order_by("-pk")[:_MAX_ROWS]:
        asks = f"asks for access to {row.account}: {row.first_words}"
        url = f"{reverse('pairings')}#row-{row.pk}"
        yield Found(
            label=entries.person(row.contact), text=one_line(asks, max_chars=100), url=url, platform=row.platform
        )


def _searches(text: str) -> Iterator[Found]:
    if text:
        query = urlencode({"q": text})
        yield Found(label=f"Search what was said for “{text}”", url=f"{reverse('people')}?{query}", icon="people")
        yield Found(label=f"Filter the journal by “{text}”", url=f"{reverse('journal')}?{query}", icon="inbox")
