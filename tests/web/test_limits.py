"""Staff who are limited to some bots: the others are, for them, not there; on no page, in no list, file or count.

Two bots with rows of every kind. The name of the other one is in every text of its own, so that one word tells.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from botsrt import tasks
from botsrt.conf import RuntimeConfig
from botsrt.core.actors import Actor
from botsrt.core.states import AlertKind, BulkVerb, DLQState, Proof, UnknownUserPolicy
from botsrt.models import (
    Alert,
    AuditEvent,
    Bot,
    BotSession,
    BulkOperation,
    Contact,
    DLQItem,
    JournalEntry,
    OutboxMessage,
    Pairing,
)
from botsrt.services import alerts, bulk, handling, identity, mirror, news, outbox, pairing
from botsrt.services.alerts import Finding
from praisonweb.dashboard import access
from praisonweb.dashboard.access import APP, Act, Role
from tests.commands.conftest import manage as manage  # the fixture
from tests.factories import (
    ALICE,
    NOW,
    WORKER,
    a_bot,
    a_group_message,
    a_message,
    answered,
    asks,
    claim,
    claim_one,
    claim_sends,
    fail,
    finish,
    later,
    parked,
    received,
)
from tests.web.acting import rows as rows_of
from tests.web.addresses import PAGES, Need
from tests.web.conftest import a_user, confirmed, is_let_in, open_page, page, signed_in
from tests.web.test_admin import fields_of

pytestmark = pytest.mark.django_db(transaction=True)

OURS = "shop"

#: The other bot, and the word in all that was ever said with it.
OTHER = "zanzibar"

#: What a page may say of it: that it is not there, in the words of the address.
_NOT_THERE = re.compile(rf"There is no (web )?bot {OTHER}( \(any more\))?\.|/(bots|try)/{OTHER}/[a-z/]*|%2F{OTHER}")


# -- a world of two bots ----


def plant(account: str, word: str) -> None:
    """Rows of every kind for one bot; ``word`` is in every text."""
    a_bot(account, policy=UnknownUserPolicy.PAIR, settings={"api_base_url": f"https://{word}.example.org"})
    Bot.objects.filter(account=account).update(policy=UnknownUserPolicy.ALLOW)
    told: dict[str, Any] = {"account": account, "display_name": f"Ann {word}", "user_name": f"ann-{word}"}
    for number in range(3):
        user = {"user_id": f"u{number}-{word}", "channel_id": f"chat-{number}-{word}"}
        answered(a_message(f"hello from {word}", **user, **told), f"hello, {word}")
    session = BotSession.objects.get(session_id=f"bot_web_u0-{word}")
    handling.note(session_id=session.session_id, text=f"note about {word}", actor=ALICE, now=NOW)
    mirror.append(user_id=session.session_id, text=f"mirrored {word}", source_label="cron", now=NOW)
    (claimed, *_) = claim_sends(accounts=[account])
    outbox.mark_unknown(outbox_id=claimed.message.outbox_id, worker_id=WORKER, error=f"cut {word}", now=NOW)
    received(a_message(f"hello late {word}", user_id=f"late-{word}", channel_id=f"late-{word}", **told))
    finish(claim_one(now=later(hours=7)), f"late {word}", now=later(hours=7))
    for number in range(2):
        user = {"user_id": f"dead{number}-{word}", "channel_id": f"dead{number}-{word}"}
        parked(a_message(f"hello dead {word}", **user, **told), text=f"broken {word}", traceback=f"at {word}")
    group = a_group_message(
        f"hello all {word}", user_id=f"member-{word}", channel_id=f"group-{word}", chat_name=f"Hall {word}", **told
    )
    answered(group, f"hello all, {word}")
    received(a_message(f"hello running {word}", user_id=f"open-{word}", channel_id=f"open-{word}", **told))
    claim(accounts=[account])
    Bot.objects.filter(account=account).update(policy=UnknownUserPolicy.PAIR)
    asks(f"asking-{word}", f"hello may I, {word}", now=timezone.now(), **told)
    by = Actor(name="boss", address="192.0.2.9")
    items = list(DLQItem.objects.filter(account=account).values_list("pk", flat=True))[:1]
    tasks.begin_bulk(verb=BulkVerb.DISCARD, object_ids=items, actor=by, reason=f"no use, {word}")
    trouble = Finding(kind=AlertKind.ADAPTER_DOWN, account=account, text=f"down, {word}")
    alerts.watch(findings=[trouble], policy=RuntimeConfig().alert_policy, now=NOW)
    for user_id in (f"u0-{word}", f"u2-{word}"):
        _link(user_id, f"person-of-{word}")


def _link(user_id: str, person: str) -> None:
    identity.link(
        platform="web",
        user_id=user_id,
        unified_user_id=person,
        proof=Proof.STAFF,
        actor=ALICE,
        reason=f"asked {person}",
        now=NOW,
    )


def plant_both() -> None:
    """People who talk with both bots: in one conversation, begun with either, and as one person with two contacts."""
    Bot.objects.update(policy=UnknownUserPolicy.ALLOW)
    for first, second in ((OURS, OTHER), (OTHER, OURS)):
        for account in (first, second):
            user = {"user_id": f"both-{first[0]}", "channel_id": f"both-{first[0]}"}
            answered(a_message(f"hello {account}", account=account, **user), f"hello from {account}")
            row = received(a_message(f"hello broken {account}", account=account, **user))
            fail(claim_one(accounts=[account]), error_class="Broken", text=f"broken {account}")
            assert row.account == account
    answered(a_message("hello from shop", user_id="two-1", channel_id="two-1"), "hello, shop")
    told = {"account": OTHER, "display_name": f"Two {OTHER}"}
    answered(a_message(f"hello {OTHER}", user_id=f"two-{OTHER}", channel_id=f"two-{OTHER}", **told), f"hi {OTHER}")
    _link("two-1", "two")
    _link(f"two-{OTHER}", "two")


@pytest.fixture
def world(transactional_db: None) -> None:
    plant(OURS, OURS)
    plant(OTHER, OTHER)
    plant_both()
    Bot.objects.update(policy=UnknownUserPolicy.PAIR)
    request = asks("both-s", account=OTHER, now=timezone.now())
    pairing.approve(request_id=request.pk, person="", actor=ALICE, reason="known", now=timezone.now())
    for word in (OURS, OTHER):
        user = {"account": word, "user_id": f"u1-{word}", "channel_id": f"chat-1-{word}"}
        received(a_message(f"hello waiting {word}", **user))


def all_but_users(name: str, *accounts: str) -> Client:
    """Somebody with every right but to manage users, limited to these bots, the password just confirmed."""
    user = a_user(name)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label=APP).exclude(codename=Act.USERS))
    for account in accounts:
        user.bot_limits.create(account=account)
    client = Client(raise_request_exception=True)
    client.force_login(user)
    return confirmed(client)


@pytest.fixture
def vera(world: None) -> Client:
    return all_but_users("vera", OURS)


# -- the walk ----

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")

_TABLES: dict[str, Any] = {
    "alert_id": (Alert, "account"),
    "entry_id": (JournalEntry, "account"),
    "item_id": (DLQItem, "account"),
    "outbox_id": (OutboxMessage, "account"),
    "request_id": (Pairing, "account"),
}

#: What else a page can be asked for.
_QUERIES: dict[str, tuple[str, ...]] = {
    "": ("", "?part"),
    "find/": ("?q=", "?q=hello", "?q=ann", "?q=asking", "?q=person", "?q=hall", "?q=two", "?q=both", "?q=a"),
    "journal/": ("", "?q=hello", "?q=from:ann", "?q=has:reply", "?q=is:stuck", "?q=is:failing", "?q=state:held"),
    "journal/<id:entry_id>/": ("", "?tab=raw", "?tab=reply", "?tab=attempts", "?tab=trace"),
    "journal/replay/": ("", "?all="),
    "people/": ("", "?tab=waiting", "?tab=human", "?q=hello", "?q=kind:note", "?q=has:mirror", "?q=from:two"),
    "people/<id:session_pk>/": ("", "?on=2026-01-01", "?after=1", "?seen=0-0", "?before=100000", "?at=1"),
    "people/contacts/<id:contact_id>/link/": ("", "?person=two", "?person=somebody.new", "?person=person-of-shop"),
    "pairings/": ("", "?tab=approved", "?tab=blocked", "?tab=history"),
    "dlq/": ("", "?q=broken", "?q=state:discarded", "?q=is:unassigned"),
    "dlq/groups/<fingerprint:fingerprint>/": ("", "?state=discarded"),
    "dlq/retry/": ("", "?all="),
    "dlq/discard/": ("", "?all="),
    "deliveries/": ("", "?q=state:unknown", "?q=state:held", "?q=hello"),
    "bots/+add/": ("?platform=web",),
}

#: Fields of every form of the site, so that what is let through acts.
_FIELDS = {
    "reason": "because",
    "text": "words",
    "note": "words",
    "seen": "0",
    "assignee": "vera",
    "span": "4 h",
    "mode": "send",
    "person": "nobody.else",
    "file_format": "jsonl",
    "pace": "all",
    "agent": "echo",
    "policy": "allow",
    "account": OTHER,
    "code": "AAAAAAAA",
}


def _both(name: str) -> tuple[list[str], list[str]]:
    """What stands for one part of an address: ours, and what is not ours."""
    match name:
        case "account":
            return [OURS], [OTHER]
        case "fingerprint":
            return (
                sorted(set(DLQItem.objects.filter(account=OURS).values_list("fingerprint", flat=True))),
                sorted(set(DLQItem.objects.filter(account=OTHER).values_list("fingerprint", flat=True))),
            )
        case "session_pk":
            ours = BotSession.objects.filter(Q(account=OURS) | Q(entries__account=OURS))
            return _split(BotSession, ours)
        case "contact_id":
            ours_too = Q(sessions__account=OURS) | Q(entries__account=OURS) | Q(pairings__account=OURS)
            return _split(Contact, Contact.objects.filter(ours_too))
        case "operation_id":
            return _split(BulkOperation, BulkOperation.objects.filter(asked_by="vera"))
        case "resolution":
            return ["again"], []
        case "handler":
            return ["human"], []
        case "name":
            return ["echo"], []
        case _:
            model, column = _TABLES[name]
            return _split(model, model.objects.filter(**{column: OURS}))


def _split(model: Any, ours: Any) -> tuple[list[str], list[str]]:
    found = {str(pk) for pk in ours.values_list("pk", flat=True)}
    return sorted(found), sorted({str(pk) for pk in model.objects.values_list("pk", flat=True)} - found)


def _addresses(route: str, path: str) -> tuple[list[str], list[str]]:
    """The addresses of one route: ours, and those of what is not ours."""
    names = [] if route.startswith("admin/") else _PARAMETER.findall(route)
    if not names:
        return [path.partition("?")[0]], []
    (first, *others) = names
    found: tuple[list[str], list[str]] = ([], [])
    for side, values in zip(found, _both(first), strict=True):
        for value in values:
            address = _PARAMETER.sub(value, f"/{route}", count=1)
            for name in others:
                address = _PARAMETER.sub(_both(name)[0][0], address, count=1)
            side.append(address)
    return found


def _routes() -> Iterator[tuple[str, list[str], list[str]]]:
    for route, row in PAGES.items():
        if not route.startswith(("hooks/", "account/", "healthz", "readyz", "metrics")):
            yield route, *_addresses(route, row.path)


def everything() -> dict[str, Any]:
    """All rows of the runtime."""
    return {
        model.__name__: list(model._base_manager.order_by("pk").values())
        for model in apps.get_app_config("botsrt").get_models()
    }


def told(response: Any) -> str:
    """What an answer says, without the words of its own address."""
    content = b"".join(response.streaming_content) if response.streaming else response.content
    return _NOT_THERE.sub("", content.decode()) + str(response.headers.get("Location", ""))


#: What is done to somebody is done with every bot that knows them: of others it is not there, of ours it is closed.
_REACHING = ("people/contacts/<id:contact_id>/data/", "people/contacts/<id:contact_id>/erase/")

_IS_CLOSED = ("agents/", "audit/", "workers/", "admin/", "bots/+add/", "retention/")


@pytest.mark.timeout(300)
def test_what_is_not_theirs_is_on_no_page(vera: Client) -> None:
    seen, leaks = 0, []
    for route, ours, _ in _routes():
        if PAGES[route].get is Need.NOT_POSSIBLE:
            continue
        for address in (f"{one}{query}" for one in ours for query in _QUERIES.get(route, ("",))):
            response = vera.get(address)
            text = told(response)
            if not route.startswith((*_IS_CLOSED, *_REACHING)):
                assert response.status_code in (200, 302), f"{address}: {response.status_code}"
                seen += response.status_code == 200
            if OTHER in text.lower():
                place = text.lower().index(OTHER)
                leaks.append(f"{address}: …{text[max(place - 80, 0) : place + 40]}…")
    assert seen > 200
    assert "\n".join(leaks) == ""


@pytest.mark.timeout(300)
def test_what_is_not_theirs_does_not_exist(vera: Client) -> None:
    before, problems, count = everything(), [], 0
    for route, _, others in _routes():
        for address in others:
            for method, need in (("GET", PAGES[route].get), ("POST", PAGES[route].post)):
                if need is Need.NOT_POSSIBLE:
                    continue
                fields = _FIELDS | {"key": str(uuid.uuid4())}
                response = vera.get(address) if method == "GET" else vera.post(address, fields)
                count += 1
                if response.status_code != 404 and not (route.endswith("/send/") and response.status_code == 404):
                    problems.append(f"{method} {address}: {response.status_code}")
                if OTHER in told(response).lower():
                    problems.append(f"{method} {address}: names it")
    assert count > 300
    assert "\n".join(problems) == ""
    assert everything() == before


def test_what_is_about_all_bots_is_closed_and_says_why(vera: Client) -> None:
    closed = {route: row for route, row in PAGES.items() if route.startswith(_IS_CLOSED)}
    for route, row in closed.items():
        for method, need in (("GET", row.get), ("POST", row.post)):
            if isinstance(need, Act) and "(?P" not in route:
                assert vera.generic(method, row.path).status_code == 403, f"{method} {row.path}"
    text = vera.get("/workers/").content.decode()
    assert "This is about all bots, and your account is limited to shop. Ask an administrator." in text
    home = vera.get("/").content.decode()
    assert home.count('aria-disabled="true" title="This is about all bots') == 3
    assert 'href="/workers/"' not in home
    palette = vera.get("/find/?q=").content.decode()
    for path in ("/agents/", "/audit/", "/workers/", "/admin/", "/bots/+add/"):
        assert f'href="{path}' not in palette


def test_what_reaches_further_than_their_bots_is_closed(vera: Client) -> None:
    contact = Contact.objects.get(platform_user_id=f"u0-{OURS}")
    before = everything()
    for rest in ("data", "erase"):
        for answer in (
            vera.get(f"/people/contacts/{contact.pk}/{rest}/"),
            vera.post(f"/people/contacts/{contact.pk}/{rest}/"),
        ):
            assert answer.status_code == 403
            assert "limited to shop" in answer.content.decode()
    assert everything() == before


# -- lists, counts, files ----


def test_a_filter_for_the_other_bot_finds_nothing(vera: Client) -> None:
    for path in ("/journal/", "/people/", "/dlq/", "/deliveries/"):
        assert rows_of(vera.get(path).content.decode())
        assert rows_of(vera.get(f"{path}?q=bot:{OTHER}").content.decode()) == []
        assert rows_of(vera.get(f"{path}?q={OTHER}").content.decode()) == []
    number = JournalEntry.objects.filter(account=OTHER).latest("pk").pk
    assert f"/journal/{number}/" not in vera.get(f"/find/?q=%23{number}").content.decode()
    for session in BotSession.objects.filter(account=OTHER).exclude(entries__account=OURS):
        assert f"/people/{session.pk}/" not in vera.get(f"/find/?q={session.session_id}").content.decode()
    assert f'href="/bots/{OTHER}' not in vera.get(f"/find/?q={OTHER}").content.decode()


def test_what_is_counted_is_theirs(vera: Client) -> None:
    everybody, other = all_but_users("paul"), all_but_users("olga", OTHER)
    for path in ("/", "/charts/", "/journal/", "/pairings/", "/deliveries/"):
        mine, others, all_ = (_numbers(client.get(path).content.decode()) for client in (vera, other, everybody))
        assert set(mine) | set(others) == set(all_), path
        assert {name: mine.get(name, 0) + others.get(name, 0) for name in all_} == all_, path
        assert 0 < sum(mine.values()) < sum(all_.values()), path


def _numbers(html: str) -> dict[str, int]:
    """What a page counts: in its headings and behind its links, and in its tables."""
    main = html[html.index("<main") :]
    counts = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(?:[A-Za-z ]*<span class="count">)?([\d,]+)[ <]', main)
    cells = [(str(place), cell) for place, cell in enumerate(re.findall(r"<td>([\d,]+)</td>", main))]
    return {name: int(count.replace(",", "")) for name, count in (*counts, *cells)}


def test_a_file_has_what_was_said_with_theirs(vera: Client) -> None:
    for session in BotSession.objects.filter(Q(account=OURS) | Q(entries__account=OURS)).distinct():
        for is_redacted in ("", "on"):
            for file_format in ("jsonl", "csv", "markdown"):
                fields = {"file_format": file_format, "redacted": is_redacted, "reason": "asked"}
                response = vera.post(f"/people/{session.pk}/export/", {k: v for k, v in fields.items() if v})
                text = told(response).lower()
                assert OTHER not in text, session
    mixed = BotSession.objects.get(session_id="bot_web_both-z")
    response = vera.post(f"/people/{mixed.pk}/export/", {"file_format": "markdown", "reason": "asked"})
    assert "hello from shop" in told(response)
    assert AuditEvent.objects.filter(verb="sessions.export").latest("pk").after["bots"] == [OURS]


def test_a_bulk_act_drops_what_is_not_theirs_before_it_is_counted(vera: Client) -> None:
    mine = DLQItem.objects.filter(account=OURS, state=DLQState.OPEN).first()
    other = DLQItem.objects.filter(account=OTHER, state=DLQState.OPEN).first()
    assert mine is not None
    assert other is not None
    asked = vera.get(f"/dlq/discard/?id={mine.pk}&id={other.pk}").content.decode()
    assert "Discard 1 message?" in asked
    assert vera.post("/dlq/discard/", {"ids": f"{mine.pk},{other.pk}", "reason": "x"}).status_code == 302
    mine.refresh_from_db()
    other.refresh_from_db()
    assert (mine.state, other.state) == (DLQState.DISCARDED, DLQState.OPEN)
    assert (
        vera.post(f"/dlq/groups/{mine.fingerprint}/discard/", {"ids": f"{other.pk}", "reason": "x"}).status_code == 409
    )
    assert not DLQItem.objects.filter(closed_by="vera").exclude(pk=mine.pk).exists()
    entry = JournalEntry.objects.filter(account=OTHER).first()
    assert entry
    assert vera.post("/journal/replay/", {"ids": str(entry.pk), "mode": "send"}).status_code == 409
    send = OutboxMessage.objects.filter(account=OTHER, state="unknown").first()
    assert send
    assert vera.post("/deliveries/resolve/drop/", {"ids": str(send.pk), "reason": "x"}).status_code == 409


def test_an_operation_is_for_who_asked_for_it(vera: Client) -> None:
    before = rows_of(vera.get("/operations/").content.decode())
    item = DLQItem.objects.filter(account=OURS, state=DLQState.OPEN).first()
    assert item
    vera.post("/dlq/discard/", {"ids": str(item.pk), "reason": "x"})
    mine = BulkOperation.objects.get(asked_by="vera")
    assert before == []
    assert f"/operations/{mine.pk}/" in vera.get("/operations/").content.decode()
    assert vera.get(f"/operations/{mine.pk}/").status_code == 200


def test_what_was_begun_before_the_limit_does_not_go_on(vera: Client) -> None:
    item = DLQItem.objects.filter(account=OTHER, state=DLQState.OPEN).first()
    assert item is not None
    by = Actor(name="vera", address="")
    pk = bulk.begin(verb=BulkVerb.DISCARD, object_ids=[item.pk], actor=by, reason="x", now=NOW)
    bulk.stop(operation_id=pk, actor=by, now=NOW)
    assert OTHER not in vera.get(f"/operations/{pk}/").content.decode()
    assert vera.post(f"/operations/{pk}/resume/").status_code == 409
    assert DLQItem.objects.get(pk=item.pk).state == DLQState.OPEN


# -- conversations with several bots ----


def test_a_conversation_with_both_shows_each_reader_their_part(vera: Client) -> None:
    everybody = all_but_users("paul")
    for name in ("both-s", "both-z"):
        pk = BotSession.objects.get(session_id=f"bot_web_{name}").pk
        text = vera.get(f"/people/{pk}/").content.decode()
        assert "hello from shop" in text
        assert OTHER not in told(vera.get(f"/people/{pk}/"))
        assert OTHER in everybody.get(f"/people/{pk}/").content.decode()
    two = BotSession.objects.get(session_id="bot_web_two-1")  # the other bot was written to later
    assert f'href="/people/{two.pk}/' in vera.get("/people/").content.decode()
    assert OTHER in everybody.get(f"/people/{two.pk}/").content.decode()


def test_a_reply_goes_to_no_bot_that_is_not_theirs(vera: Client) -> None:
    pk = BotSession.objects.get(session_id="bot_web_both-s").pk  # the other bot was written to last
    sent = {"text": "hi", "key": str(uuid.uuid4()), "seen": "0"}
    assert vera.post(f"/people/{pk}/reply/", sent).status_code == 400
    assert not OutboxMessage.objects.filter(source="staff").exists()
    pk = BotSession.objects.get(session_id="bot_web_both-z").pk
    assert vera.post(f"/people/{pk}/reply/", {**sent, "key": str(uuid.uuid4())}).status_code == 302
    assert OutboxMessage.objects.get(source="staff").account == OURS


def test_nobody_joins_a_person_whom_only_others_know(vera: Client) -> None:
    contact = Contact.objects.get(platform_user_id=f"u1-{OURS}")
    fields = {"person": f"person-of-{OTHER}", "reason": "a guess"}
    assert vera.post(f"/people/contacts/{contact.pk}/link/", fields).status_code == 400
    request = Pairing.objects.get(account=OURS)
    assert vera.post(f"/pairings/{request.pk}/approve/", fields).status_code == 400
    assert not contact.links.exists()
    assert vera.post(f"/people/contacts/{contact.pk}/link/", {**fields, "person": "two"}).status_code == 302


def test_a_link_that_gives_access_elsewhere_is_not_confirmed(vera: Client) -> None:
    request, other = Pairing.objects.get(account=OURS), Contact.objects.get(platform_user_id=f"u1-{OTHER}")
    fields = {"purpose": "link", "other": other, "other_account": OTHER, "other_needs_access": True}
    Pairing.objects.filter(pk=request.pk).update(**fields)
    assert OTHER not in vera.get("/pairings/").content.decode()
    assert vera.post(f"/pairings/{request.pk}/approve/", {"reason": "x"}).status_code == 409
    assert OTHER not in vera.get(f"/pairings/{request.pk}/approve/").content.decode()


def test_a_code_of_the_other_bot_is_not_taken(vera: Client) -> None:
    assert f'value="{OTHER}"' not in vera.get("/pairings/verify/").content.decode()
    fields = {"account": OTHER, "code": "AAAAAAAA"}
    assert vera.post("/pairings/verify/", fields).status_code == 400
    assert Pairing.objects.filter(account=OTHER, state="waiting").exists()


# -- what it costs ----


@pytest.mark.timeout(300)
def test_it_costs_one_query(world: None) -> None:
    everybody, limited = all_but_users("paul"), all_but_users("olga", OURS, OTHER)
    dearer = {}
    for route, ours, others in _routes():
        if PAGES[route].get is Need.NOT_POSSIBLE or route.startswith((*_IS_CLOSED, *_REACHING, "operations/<")):
            continue
        for address in (f"{one}{query}" for one in (*ours[:2], *others[:2]) for query in _QUERIES.get(route, ("",))):
            plain, scoped = (_queries(who, address) for who in (everybody, limited))
            if scoped > plain + 1:
                dearer[address] = (plain, scoped)
    # Ids that were chosen are looked at once more, and so is a person that somebody is to be joined with.
    assert {at: costs for at, costs in dearer.items() if "?person=" not in at} == {}
    assert all(scoped <= plain + 4 for plain, scoped in dearer.values())


def _queries(client: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code in (200, 302)
    return len(queries)


def test_superusers_cost_none_and_who_manages_users_is_never_limited(transactional_db: None) -> None:
    boss, admin = a_user("boss", is_superuser=True), a_user("ada", Role.ADMIN)
    for user in (boss, admin):
        user.bot_limits.create(account=OURS)
    with CaptureQueriesContext(connection) as queries:
        assert access.scope(User.objects.get(pk=boss.pk)).accounts is None
    assert len(queries) == 1, "the user alone"
    assert access.scope(admin).accounts is None
    assert access.scope(a_user("eve", is_staff=False)).accounts == frozenset()


# -- websockets ----


async def test_a_socket_of_the_other_bot_is_refused(world: None, bridge: None) -> None:
    vera = await sync_to_async(a_user)("vera", Role.OPERATOR)
    await vera.bot_limits.acreate(account=OURS)
    client = await signed_in(vera)
    assert not await is_let_in(page(client, f"/ws/try/{OTHER}/"))
    async with open_page(client, f"/ws/try/{OURS}/") as socket:
        await vera.bot_limits.aupdate(account=OTHER)
        await socket.say("message-1", "hello")
        assert await socket.is_closed_with() == 4403


async def test_nobody_is_present_where_they_see_nothing(world: None, bridge: None) -> None:
    vera, paul = [await sync_to_async(a_user)(name, Role.OPERATOR) for name in ("vera", "paul")]
    await vera.bot_limits.acreate(account=OURS)
    for word, is_heard in ((OTHER, False), (OURS, True)):
        talk = await BotSession.objects.aget(session_id=f"bot_web_u1-{word}")
        path = f"/ws/live/?topics=dlq&talk={talk.pk}"
        async with open_page(await signed_in(paul), path) as other, open_page(await signed_in(vera), path) as mine:
            await mine.send_to(text_data=json.dumps({"type": "sign", "doing": "reading"}))
            if is_heard:
                assert (await other.hears())["who"] == "vera"
            else:
                assert await other.receive_nothing(timeout=0.5)
                await other.send_to(text_data=json.dumps({"type": "sign", "doing": "reading"}))
                assert await mine.receive_nothing(timeout=0.5)


async def test_the_name_of_the_other_bot_is_no_news(world: None, bridge: None) -> None:
    vera = await sync_to_async(a_user)("vera", Role.OPERATOR)
    await vera.bot_limits.acreate(account=OURS)
    async with open_page(await signed_in(vera), "/ws/live/?topics=bots") as socket:
        await news.deliver("bots", [OURS, OTHER])
        assert (await socket.hears())["ids"] == [OURS]


# -- where limits are set ----


def test_the_command_limits_and_lifts(manage: Any, transactional_db: None) -> None:
    for account in ("a", "b", "c"):
        a_bot(account)
    user = a_user("vera", Role.OPERATOR)
    assert manage("accounts", "limit", "vera", "--bots", "a, b").out == "vera: a, b.\n"
    assert manage("accounts", "limit", "vera", "--bots", "b,c").code == 0
    event = AuditEvent.objects.filter(verb="users.change").latest("id")
    assert (event.before, event.after, event.object_id) == ({"bots": ["a", "b"]}, {"bots": ["b", "c"]}, "vera")
    assert manage("accounts", "list", "--json").json[0]["bots"] == "b, c"
    ran = manage("accounts", "limit", "vera", "--bots", "a,nobody")
    assert (ran.code, "There is no bot nobody; see: bots list" in ran.err) == (1, True)
    assert manage("accounts", "limit", "vera", "--bots", ",").code == 1
    assert access.scope(User.objects.get(pk=user.pk)).accounts == frozenset({"b", "c"})
    assert manage("accounts", "limit", "vera", "--bots", "all").out == "vera: all bots.\n"
    assert access.scope(User.objects.get(pk=user.pk)).accounts is None
    assert manage("accounts", "list", "--json").json[0]["bots"] == "all"


def test_the_command_does_not_pretend_to_limit_administrators(manage: Any, transactional_db: None) -> None:
    a_bot("a")
    a_user("ada", Role.ADMIN)
    ran = manage("accounts", "limit", "ada", "--bots", "a")
    assert (ran.code, "sees all bots" in ran.err) == (1, True)


def test_an_administrator_limits_a_colleague(transactional_db: None) -> None:
    a_bot("a")
    a_bot("b")
    client, vera = Client(), a_user("vera", Role.OPERATOR)
    client.force_login(a_user("ada", Role.ADMIN))
    path = f"/admin/auth/user/{vera.pk}/change/"
    html = confirmed(client).get(path).content.decode()
    assert 'name="bot_limits-0-account"' in html
    rows = {"bot_limits-TOTAL_FORMS": "1", "bot_limits-0-account": "b"}
    assert client.post(path, fields_of(vera, **rows)).status_code == 302
    assert access.scope(User.objects.get(pk=vera.pk)).accounts == frozenset({"b"})
    event = AuditEvent.objects.filter(verb="users.change").latest("id")
    assert (event.before["bots"], event.after["bots"]) == ("all", ["b"])
    wrong = client.post(path, fields_of(vera, **{**rows, "bot_limits-0-account": "nobody"}))
    assert "nobody is not one of the available choices" in wrong.content.decode()


def test_limits_are_no_rights_to_give_away() -> None:
    assert not Permission.objects.filter(codename__contains="limit").exists()
    assert Group.objects.filter(name__in=list(Role)).count() == len(Role)
