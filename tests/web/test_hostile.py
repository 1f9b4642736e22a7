"""Whatever people write stays text: on every page, in every export, and in a real browser.

The site has the data of the demo, in which every column that holds words from outside is overwritten with hostile ones;
so a new column, and a new page, are tried by themselves.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import Model
from django.test import Client, override_settings
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab
from pytest_django import DjangoDbBlocker

from botsrt.core.actors import SYSTEM
from botsrt.models import (
    Alert,
    BotSession,
    BulkOperation,
    Contact,
    DLQItem,
    JournalEntry,
    OutboxMessage,
    Pairing,
)
from botsrt.services import transcripts
from praisonweb.settings import BASE_DIR
from tests.factories import NOW, receive
from tests.web.addresses import PAGES, Need
from tests.web.conftest import a_user, confirmed
from tests.web.hostile import EVERYTHING, STRINGS, free_columns, poison
from tests.web.showcase import PAGES as SHOWN
from tests.web.showcase import open_showcase
from tests.web.test_browser import browser as browser  # the fixture

#: Rows that are opened of each table: those of the highest ids, and some of the lowest.
_ROWS = 3

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")

#: What else a page can be asked for; the first is as it is.
_QUERIES: dict[str, tuple[str, ...]] = {
    "journal/<id:entry_id>/": ("", "tab=raw", "tab=reply", "tab=attempts", "tab=trace"),
    "people/": ("", "tab=waiting", "tab=human", "q=script", "q=from:script"),
    "people/contacts/<id:contact_id>/link/": ("", "person=lucia.romero", "person=somebody.new"),
    "pairings/": ("", "tab=approved", "tab=blocked", "tab=history"),
    "dlq/": ("", "tab=discarded", "q=script"),
    "deliveries/": ("", "q=state:unknown", "q=state:dead"),
    "bots/+add/": tuple(f"platform={name}" for name in ("telegram", "slack", "whatsapp", "webhook", "web")),
    "agents/+add/": ("kind=echo", "kind=python"),
}

_NAMED: dict[str, tuple[str, ...]] = {
    "account": ("shop", "travel", "shop-web"),
    "platform": ("telegram",),
    "name": ("shop-assistant", "it-helper"),
    "resolution": ("again", "drop"),
    "handler": ("human", "bot"),
    "content_type_id": ("1",),
}

_BY_ID: dict[str, type[Model]] = {
    "alert_id": Alert,
    "entry_id": JournalEntry,
    "item_id": DLQItem,
    "outbox_id": OutboxMessage,
    "session_pk": BotSession,
    "contact_id": Contact,
    "request_id": Pairing,
    "operation_id": BulkOperation,
    "id": User,
}


@pytest.fixture(scope="module")
def _alice(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[User]:
    """A site full of hostile text, made once for all tests that read it, and somebody who may do everything there."""
    with django_db_blocker.unblock():
        try:
            alice = a_user("alice", is_superuser=True, first_name="Alice", last_name="Ng")
            with override_settings(AXES_ENABLED=True):
                call_command("demo", "--alive-minutes", "60", verbosity=0)
                _write_from_outside()
            poison()
            yield alice
        finally:
            call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def site(_alice: User, settings: Any) -> Client:
    """Alice at the site, her password just confirmed."""
    settings.AXES_ENABLED = True
    client = Client()
    client.force_login(_alice)
    return confirmed(client)


def _write_from_outside() -> None:
    """Hostile ids cannot be planted afterwards: sessions and lanes are made of them."""
    for number, words in enumerate(STRINGS):
        receive(
            EVERYTHING,
            account="shop-web",
            channel_id=words[:200],
            message_id=f"{number}{words}"[:200],
            user_id=words[:200],
            user_name=words,
            display_name=words,
            now=NOW,
        )
    for words in STRINGS[:3]:
        Client(headers={"user-agent": words}).post("/account/sign-in/", {"username": words, "password": words})


def test_the_columns_that_everybody_thinks_of_are_among_those_that_are_filled() -> None:
    assert {
        ("Contact", "display_name"),
        ("Contact", "user_name"),
        ("Contact", "platform_user_id"),
        ("BotSession", "chat_name"),
        ("HistoryMessage", "text"),
        ("HistoryMessage", "source"),
        ("HistoryMessage", "attachments"),
        ("JournalEntry", "payload"),
        ("JournalEntry", "raw"),
        ("DLQItem", "traceback"),
        ("DLQItem", "note"),
        ("OutboxMessage", "error"),
        ("Pairing", "first_words"),
        ("Bot", "settings"),
        ("AdapterState", "error"),
        ("AdapterState", "identity"),
        ("AuditEvent", "after"),
        ("AuditEvent", "address"),
        ("IdentityLink", "reason"),
        ("AgentProfile", "instructions"),
    } <= set(free_columns())


@pytest.mark.timeout(540)
@pytest.mark.slow
def test_no_page_lets_text_become_more_than_text(site: Client) -> None:
    hx_names = _hx_names_of_our_templates()
    problems, seen = [], 0
    for address in _addresses():
        response = site.get(address)
        assert response.status_code < 500, address
        if response.headers.get("Content-Type", "").startswith("text/html"):
            seen += 1
            problems += [f"{address}: {problem}" for problem in _problems(response.content.decode(), hx_names)]
    assert seen > 200
    assert "\n".join(problems[:40]) == ""


@pytest.mark.timeout(540)
@pytest.mark.slow
def test_nothing_that_is_asked_for_comes_back_as_more_than_text(site: Client) -> None:
    hx_names = _hx_names_of_our_templates()
    names = ("q", "tab", "back", "next", "person", "platform", "account", "state", "before", "at", "all", "kind", "ids")
    problems = []
    for route, row in PAGES.items():
        if row.get is Need.NOT_POSSIBLE or route.startswith("hooks/"):
            continue
        for words in (*STRINGS[:6], STRINGS[10]):
            address = f"{next(_of_route(route, row.path))}?{urlencode(dict.fromkeys(names, words))}"
            response = site.get(address)
            assert response.status_code < 500, address
            if response.headers.get("Content-Type", "").startswith("text/html"):
                problems += [f"{route}: {problem}" for problem in _problems(response.content.decode(), hx_names)]
    assert "\n".join(problems[:40]) == ""


def _addresses() -> Iterator[str]:
    """Every address that can be read, with rows that are there."""
    for route, row in PAGES.items():
        if row.get is Need.NOT_POSSIBLE or route.startswith("hooks/"):
            continue
        for address in _of_route(route, row.path):
            for query in _QUERIES.get(route, (urlsplit(row.path).query,)):
                yield f"{address}?{query}" if query else address


def _of_route(route: str, path: str) -> Iterator[str]:
    """The addresses of one route; ``path`` where nothing in it can be filled in."""
    names = _PARAMETER.findall(route)
    if not names or route.startswith("admin/^") or "(?P" in route:
        yield urlsplit(path).path
        return
    for values in itertools.zip_longest(*(_values(name, route) for name in names)):
        given = [value or _values(name, route)[0] for name, value in zip(names, values, strict=True)]
        address = f"/{route}"
        for value in given:
            address = _PARAMETER.sub(value, address, count=1)
        yield address


def _values(name: str, route: str) -> list[str]:
    if name in _NAMED:
        return list(_NAMED[name])
    if name == "fingerprint":
        return list(DLQItem.objects.values_list("fingerprint", flat=True).distinct()[:_ROWS])
    if name == "object_id":
        return _ids(_table_of(route))
    assert name in _BY_ID, f"Say in _BY_ID or _NAMED what <{name}> of {route} is."
    return _ids(_BY_ID[name])


def _table_of(route: str) -> type[Model]:
    from django.apps import apps

    found = re.match(r"admin/(\w+)/(\w+)/", route)
    return apps.get_model(found[1], found[2]) if found else JournalEntry


def _ids(model: type[Model]) -> list[str]:
    pks = list(model._base_manager.order_by("pk").values_list("pk", flat=True))
    return [str(pk) for pk in dict.fromkeys((*pks[-_ROWS:], *pks[:_ROWS]))] or ["1"]


# -- what HTML may not have ----


def _hx_names_of_our_templates() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (BASE_DIR / "templates").rglob("*.html"))
    return {name for text in texts for name in re.findall(r"\shx-[\w:.-]+", text) for name in [name.strip()]}


def _problems(html: str, hx_names: set[str]) -> list[str]:
    parser = _Suspicious(hx_names)
    parser.feed(html)
    parser.close()
    return parser.problems


class _Suspicious(HTMLParser):
    """Reads a page and keeps what no template of ours wrote."""

    def __init__(self, hx_names: set[str]) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._hx_names = hx_names
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        where = f"<{tag} {values}>"[:300]
        self._in_script = tag == "script"
        is_ours = (
            values.get("src", "").startswith(("/static/", "/admin/jsi18n/")) or values.get("type") == "application/json"
        )
        if tag == "script" and not is_ours:
            self.problems.append(f"a script that is not ours: {where}")
        if tag in ("iframe", "object", "embed", "base", "style"):
            self.problems.append(f"an element that we do not use: {where}")
        for name, value in values.items():
            is_planted = name in ("style", "srcdoc", "autofocus") and "window.hacked" in str(values)
            if name.startswith("on") or is_planted:
                self.problems.append(f"{name}: {where}")
            is_hx = name.removeprefix("data-").startswith("hx-")
            if is_hx and (name not in self._hx_names or not value or "/accounts/" in value):
                self.problems.append(f"{name}: {where}")
            if name in ("href", "src", "action", "formaction", "data", "xlink:href", "content", "poster"):
                self._check_address(name, value, where)

    def _check_address(self, name: str, value: str, where: str) -> None:
        bare = re.sub(r"[\x00-\x20]", "", value).lower()
        if bare.startswith(("javascript:", "vbscript:")) or (name != "src" and bare.startswith("data:")):
            self.problems.append(f"{name}: {where}")
        if name in ("href", "src", "action", "formaction") and re.match(r"(https?:)?//", bare):
            self.problems.append(f"{name} leads away: {where}")
        if name == "src" and bare == "x":
            self.problems.append(f"{name}: {where}")

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip() and "window.hacked" in data:
            self.problems.append(f"text in a script: {data[:100]}")
        marks = re.findall("[\u202a-\u202e\u2066-\u2069]", data)
        if marks and self.lasttag not in ("textarea", "option"):
            self.problems.append(f"an invisible mark in <{self.lasttag}>: {data[:60]!r}")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


@pytest.mark.parametrize(
    "html",
    [
        "<p onclick=x>",
        "<script>window.hacked=1</script>",
        "<b hx-get=/accounts/ hx-trigger=load>",
        "<a href=' java\nscript:x'>",
        "<img src=x>",
        "<p>\u202eevil</p>",
        "<iframe></iframe>",
        "<a href='https://example.com/'>",
    ],
)
def test_what_would_be_wrong_is_noticed(html: str) -> None:
    assert _problems(html, {"hx-get", "hx-trigger"})


# -- exports ----


@pytest.fixture
def exported(site: Client) -> Callable[[str], Iterator[str]]:
    """Everything that can be exported in a format, whole and redacted."""
    return lambda file_format: (
        "".join(
            transcripts.export(
                session_id=session.session_id, file_format=file_format, is_redacted=is_redacted, actor=SYSTEM, now=NOW
            )
        )
        for session in BotSession.objects.all()
        for is_redacted in (False, True)
    )


def test_no_cell_of_an_export_is_a_formula(exported: Callable[[str], Iterator[str]]) -> None:
    cells = [cell for text in exported("csv") for row in csv.reader(io.StringIO(text)) for cell in row]
    assert len(cells) > 500
    assert [
        cell[:40] for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    ] == []


def test_every_line_of_an_export_is_json(exported: Callable[[str], Iterator[str]]) -> None:
    lines = [line for text in exported("jsonl") for line in text.split("\n") if line]
    assert len(lines) > 100
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_an_export_as_markdown_has_no_markup_of_people(exported: Callable[[str], Iterator[str]]) -> None:
    heading = re.compile(r"\*\*((?:[^\\*<&\[]|\\.)*)\*\* · [a-z]+ · [0-9T:.+-]+( · [a-z]+)?")
    for text in exported("markdown"):
        for line in text.split("\n"):
            if line and not line.startswith("    ") and line != "# Transcript":
                found = heading.fullmatch(line)
                assert found, line
                assert not re.search(r"(?<!\\)[<>\[\]()!#.:@]", found[1]), line


# -- a real browser ----


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.timeout(540)
def test_nothing_runs_or_is_fetched_in_a_browser(browser: Browser) -> None:
    planted = open_showcase(then="from tests.web.hostile import poison; poison()")
    with planted as showcase, showcase.browsing(browser, "light") as browsing:
        fetched: list[str] = []
        for shown in SHOWN:
            if shown.is_empty or shown.who != "alice" or shown.clicks:
                continue
            tab = browsing.go(shown, width=1024, listening=fetched)
            _touch(tab)
            assert tab.evaluate("window.hacked === undefined"), shown.name
        assert [url for url in fetched if not url.startswith((showcase.full.url, "data:"))] == []
        assert [url for url in fetched if re.search(r"/accounts/|/x(\.png)?$", url)] == []


def _touch(tab: Tab) -> None:
    """Focus whatever takes the focus, as somebody does who goes through a page by keyboard."""
    tab.evaluate("[...document.querySelectorAll('input, textarea, a, summary, button')].forEach((one) => one.focus())")
