"""Every page of the site with the data of ``manage.py demo``, for pictures and for checks in a real browser.

A new page is one line in ``PAGES``.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Page

from tests.acceptance.home import Home
from tests.web.conftest import PASSWORD
from tests.web.test_browser import Site, sign_in

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

#: Width → height.
WIDTHS = {1440: 900, 1024: 768, 360: 740}

#: Who looks: a superuser, staff who may little, somebody half way through the sign-in, or a stranger.
Who = Literal["alice", "walter", "pia", "nobody"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page as it is looked at. ``{name}`` in the path is the id of something that the demo has."""

    name: str
    path: str
    who: Who = "alice"
    clicks: str = ""  # what is pressed before it is looked at
    is_empty: bool = False  # of a site without any data
    is_main: bool = False  # looked at most


def _shown(name: str, path: str, **fields: Any) -> Shown:
    return Shown(name=name, path=path, **fields)


PAGES: tuple[Shown, ...] = (
    _shown("home", "/", is_main=True),
    _shown("home-empty", "/", is_empty=True),
    _shown("charts", "/charts/"),
    _shown("journal", "/journal/", is_main=True),
    _shown("journal-empty", "/journal/", is_empty=True),
    _shown("journal-nothing-matches", "/journal/?q=state:dead+from:nobody"),
    _shown("journal-filter-problem", "/journal/?q=state:lost"),
    _shown("journal-drawer", "/journal/", clicks="#list .row-link >> nth=2", is_main=True),
    _shown("message", "/journal/{answered}/"),
    _shown("message-raw", "/journal/{answered}/?tab=raw"),
    _shown("message-reply", "/journal/{answered}/?tab=reply"),
    _shown("message-attempts", "/journal/{dead}/?tab=attempts"),
    _shown("message-trace", "/journal/{dead}/?tab=trace"),
    _shown("replay", "/journal/{answered}/replay/"),
    _shown("gone", "/journal/99999999/"),
    _shown("conversations", "/people/", is_main=True),
    _shown("conversations-waiting", "/people/?tab=waiting"),
    _shown("conversations-human", "/people/?tab=human"),
    _shown("conversations-search", "/people/?q=order"),
    _shown("conversations-empty", "/people/", is_empty=True),
    _shown("conversation", "/people/{linked}/", is_main=True),
    _shown("conversation-group", "/people/{group}/"),
    _shown("conversation-note", "/people/{human}/", clicks=".desk-note summary"),
    _shown("conversation-hand-over", "/people/{linked}/hand-to/human/"),
    _shown("conversation-export", "/people/{linked}/export/"),
    _shown("link-wizard", "/people/contacts/{stranger}/link/?person=lucia.romero", is_main=True),
    _shown("unlink", "/people/contacts/{linked_contact}/unlink/"),
    _shown("contact-data", "/people/contacts/{stranger}/data/"),
    _shown("contact-erase", "/people/contacts/{stranger}/erase/"),
    _shown("retention", "/retention/"),
    _shown("pairings", "/pairings/", is_main=True),
    _shown("pairings-empty", "/pairings/", is_empty=True),
    _shown("pairings-approved", "/pairings/?tab=approved"),
    _shown("pairings-history", "/pairings/?tab=history"),
    _shown("pairing-verify", "/pairings/verify/?account=travel"),
    _shown("pairing-approve", "/pairings/{waiting}/approve/"),
    _shown("pairing-question", "/pairings/", clicks="a:text-is('Deny') >> nth=0"),
    _shown("dead-letters", "/dlq/", is_main=True),
    _shown("dead-letters-empty", "/dlq/", is_empty=True),
    _shown("dead-letters-group", "/dlq/groups/{fingerprint}/"),
    _shown("dead-letter", "/dlq/{item}/"),
    _shown("dead-letter-edit", "/dlq/{item}/edit/"),
    _shown("dead-letter-discard", "/dlq/{item}/discard/"),
    _shown("dead-letters-retry", "/dlq/groups/{fingerprint}/retry/"),
    _shown("deliveries", "/deliveries/"),
    _shown("deliveries-empty", "/deliveries/", is_empty=True),
    _shown("delivery", "/deliveries/{unknown}/"),
    _shown("delivery-decide", "/deliveries/{unknown}/again/"),
    _shown("alerts", "/alerts/"),
    _shown("alerts-empty", "/alerts/", is_empty=True),
    _shown("bulk-acts", "/operations/"),
    _shown("bulk-acts-empty", "/operations/", is_empty=True),
    _shown("bulk-act", "/operations/{operation}/"),
    _shown("find", "/find/?q=lucia"),
    _shown("bots", "/bots/", is_main=True),
    _shown("bots-empty", "/bots/", is_empty=True),
    _shown("bot", "/bots/travel/"),
    _shown("bot-add-choose", "/bots/+add/"),
    _shown("bot-add", "/bots/+add/?platform=telegram"),
    _shown("bot-edit", "/bots/shop/edit/"),
    _shown("bot-credentials", "/bots/shop/credentials/"),
    _shown("bot-pause", "/bots/shop/pause/"),
    _shown("bot-remove", "/bots/shop/remove/"),
    _shown("agents", "/agents/"),
    _shown("agent", "/agents/shop-assistant/"),
    _shown("agent-add-choose", "/agents/+add/"),
    _shown("agent-add", "/agents/+add/?kind=python"),
    _shown("agent-edit", "/agents/it-helper/edit/"),
    _shown("workers", "/workers/"),
    _shown("workers-empty", "/workers/", is_empty=True),
    _shown("audit", "/audit/"),
    _shown("try-choose", "/try/"),
    _shown("try", "/try/shop-web/"),
    _shown("try-empty", "/try/", is_empty=True),
    _shown("keys", "/", clicks="[data-opens=keys]:visible, .menu summary"),
    _shown("account-menu", "/", clicks=".menu summary"),
    _shown("password", "/account/password/"),
    _shown("second-factor", "/account/second-factor/"),
    _shown("second-factor-set-up", "/account/second-factor/set-up/"),
    _shown("confirm", "/bots/shop/credentials/", who="walter"),
    _shown("forbidden", "/audit/", who="walter"),
    _shown("not-found", "/no/such/page/"),
    _shown("sign-in", "/account/sign-in/", who="nobody"),
    _shown("second-step", "/account/sign-in/code/", who="pia"),
    _shown("admin", "/admin/"),
    _shown("admin-list", "/admin/botsrt/contact/"),
    _shown("admin-row", "/admin/botsrt/journalentry/{answered}/change/"),
)

#: Ids by name, as one query each.
_IDS = {
    "operation": "SELECT id FROM botsrt_bulkoperation",
    "answered": "SELECT entry_id FROM botsrt_historymessage WHERE text LIKE '%Helsinki please%'",
    "dead": "SELECT entry_id FROM botsrt_dlqitem WHERE state = 'open' AND reason = 'failed' ORDER BY attempts DESC",
    "item": "SELECT id FROM botsrt_dlqitem WHERE state = 'open' AND reason = 'failed' ORDER BY attempts DESC",
    "fingerprint": "SELECT fingerprint FROM botsrt_dlqitem WHERE state = 'open' GROUP BY 1 ORDER BY COUNT(*) DESC",
    "linked": "SELECT id FROM botsrt_botsession WHERE lane = 'person:lucia.romero' ORDER BY id DESC",
    "group": "SELECT id FROM botsrt_botsession WHERE scope = 'per_chat'",
    "human": "SELECT id FROM botsrt_botsession WHERE handler = 'human'",
    "stranger": "SELECT id FROM botsrt_contact WHERE user_name = 'oleksandr' OR user_name = 'okoval'",
    "linked_contact": "SELECT contact_id FROM botsrt_identitylink WHERE unlinked_at IS NULL",
    "waiting": "SELECT id FROM botsrt_pairing WHERE state = 'waiting'",
    "unknown": "SELECT id FROM botsrt_outboxmessage WHERE state = 'unknown'",
}


class Showcase:
    """A site with the data of the demo, and one without any, each with its people and nothing but the site running."""

    def __init__(self, full: Site, empty: Site, ids: dict[str, Any]) -> None:
        self.full = full
        self.empty = empty
        self._ids = ids

    def address(self, shown: Shown) -> str:
        site = self.empty if shown.is_empty else self.full
        return site.url + shown.path.format(**self._ids)

    @contextmanager
    def browsing(self, browser: Browser, scheme: Scheme, *, is_still: bool = False) -> Iterator[Browsing]:
        """Everybody who looks, signed in. ``is_still``: pages hear no news, so that they stay as they were loaded."""
        with Browsing(self, browser, scheme, is_still=is_still) as browsing:
            yield browsing


class Browsing:
    """A page for each who looks, on each site."""

    def __init__(self, showcase: Showcase, browser: Browser, scheme: Scheme, *, is_still: bool) -> None:
        self._showcase = showcase
        self._browser = browser
        self._scheme = scheme
        self._is_still = is_still
        self._pages: dict[tuple[Who, bool], Page] = {}
        self._contexts: list[BrowserContext] = []

    def __enter__(self) -> Browsing:
        return self

    def __exit__(self, *args: object) -> None:
        for context in self._contexts:
            context.close()

    def go(self, shown: Shown, *, width: int, listening: list[str] | None = None) -> Page:
        """The page, as ``shown`` says. What it fetches is added to ``listening``."""
        page = self._page(shown.who, is_empty=shown.is_empty, listening=listening)
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        page.goto(self._showcase.address(shown))
        if "/account/confirm/" in page.url and shown.name != "confirm":
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Confirm").click()
            page.wait_for_url(lambda url: "/account/confirm/" not in url)
        if shown.clicks:
            page.locator(shown.clicks).first.click()
            page.wait_for_timeout(400)  # what opens slides in
        page.wait_for_load_state("load" if self._is_still and not shown.clicks else "networkidle")
        return page

    def _page(self, who: Who, *, is_empty: bool, listening: list[str] | None) -> Page:
        key = (who, is_empty)
        if key not in self._pages:
            context = self._browser.new_context(color_scheme=self._scheme, reduced_motion="reduce")
            self._contexts.append(context)
            if self._is_still:
                context.route_web_socket("**/ws/**", lambda socket: socket.close())
            page = self._pages[key] = context.new_page()
            if listening is not None:
                context.on("request", lambda request: listening.append(request.url))
            if who != "nobody":
                site = self._showcase.empty if is_empty else self._showcase.full
                sign_in(page, site, name=who, ends_at="/account/sign-in/code/" if who == "pia" else "/")
        return self._pages[key]


@contextmanager
def open_showcase(*, then: str = "") -> Iterator[Showcase]:
    """Both sites in a folder of their own, for as long as the block runs. ``then``: Python to run after the demo."""
    with tempfile.TemporaryDirectory(prefix="praisonweb-showcase-") as folder:
        full, empty = (_site(Path(folder) / name) for name in ("full", "empty"))
        full.home.manage("demo", "--alive-minutes", "600")
        ids = _read_ids(full)
        if then:
            full.home.manage("shell", "-v0", "-c", then)
        for site in (full, empty):
            site.start()
        try:
            yield Showcase(full, empty, ids)
        finally:
            for site in (full, empty):
                site.stop()


def _read_ids(site: Site) -> dict[str, Any]:
    with closing(sqlite3.connect(site.home.path / "praisonweb.sqlite3")) as database:
        return {name: database.execute(query).fetchone()[0] for name, query in _IDS.items()}


def _site(path: Path) -> Site:
    path.mkdir()
    home = Home(path)
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        ("createsuperuser", "--noinput", "--username", "alice", "--email", ""),
        ("shell", "-v0", "-c", _COLLEAGUES),
    )
    return Site(home, command=("serve",))


#: Walter may look after bots, and not read the audit; Pia has a second factor.
_COLLEAGUES = f"""
from django.contrib.auth.models import Permission, User
from django_otp.plugins.otp_totp.models import TOTPDevice
pia = User.objects.create_user("pia", password={PASSWORD!r}, is_staff=True)
TOTPDevice.objects.create(user=pia, name="app", confirmed=True)
walter = User.objects.create_user("walter", password={PASSWORD!r}, is_staff=True)
walter.user_permissions.set(Permission.objects.filter(codename__in=["read", "credentials"]))
"""
