"""Pictures of every page, light and dark, wide and at 360 px: ``python -m tests.web.screenshots [FOLDER]``.

Some of them are kept in ``docs/screenshots`` for the README; the default folder is a new one under ``var``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Literal

import django
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance.home import ROOT, Home

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
os.environ["PRAISON_HOME"] = tempfile.mkdtemp(prefix="praisonweb-screenshots-")  # this process stores nothing
django.setup()

from tests.web.conftest import PASSWORD  # noqa: E402
from tests.web.test_browser import FLAGS, NARROW, WIDE, Site  # noqa: E402

#: What is said on the "Try it" page before it is photographed, and what the second bot, whose agent fails, is told.
TALK = ("Hello! Is the shop open on Sunday?", "And how do I send something back?")
TROUBLE = ("Where is my order 48213?", "Is anybody there?")

PAGES = {
    "home": "/",
    "journal": "/journal/",
    "people": "/people/",
    "conversation": "/people/1/",
    "pairings": "/pairings/",
    "message": "/journal/1/?tab=trace",
    "replay": "/journal/1/replay/",
    "dead-letters": "/dlq/",
    "case": "/dlq/1/",
    "deliveries": "/deliveries/",
    "bots": "/bots/",
    "bot": "/bots/shop/",
    "add-a-bot": "/bots/+add/?platform=telegram",
    "agents": "/agents/",
    "workers": "/workers/",
    "audit": "/audit/",
    "try": "/try/shop/",
    "bots-to-try": "/try/",
    "password": "/account/password/",
}

_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "var" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="praisonweb-screenshots-") as path:
        home = Home(Path(path))
        home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
        home.manage("migrate", "-v0")
        home.manage("createsuperuser", "--noinput", "--username", "alice", "--email", "")
        home.manage("agents", "add", "friendly", "--kind", "echo", "--setting", "prefix=You asked: ")
        home.manage("bots", "add", "shop", "--platform", "web", "--policy", "allow", "--agent", "friendly")
        home.manage("agents", "add", "broken", "--kind", "python", "--target", "tests.toys.agents:raises")
        home.manage("bots", "add", "orders", "--platform", "web", "--policy", "allow", "--agent", "broken")
        site = Site(home)
        site.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            for scheme in _SCHEMES:
                for width, viewport in (("", WIDE), ("-360", NARROW)):
                    _photograph(browser, site, folder, scheme, suffix=f"-{scheme}{width}", viewport=viewport)
            browser.close()
        site.stop()


def _photograph(
    browser: Browser,
    site: Site,
    folder: Path,
    scheme: Literal["light", "dark"],
    *,
    suffix: str,
    viewport: dict[str, int],
) -> None:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": viewport["width"], "height": viewport["height"]}
    )
    page = context.new_page()
    page.goto(f"{site.url}/account/sign-in/")
    page.screenshot(path=folder / f"login{suffix}.png")
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    _talk(page, site)
    _fail(page, site)
    for name, path in PAGES.items():
        page.goto(site.url + path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}{suffix}.png")
    context.close()


def _talk(page: Page, site: Site) -> None:
    """Write to the bot once, and wait for its answers."""
    page.goto(f"{site.url}/try/shop/")
    if page.get_by_text(f"You asked: {TALK[-1]}").count():
        return
    for text in TALK:
        page.get_by_role("textbox").fill(text)
        page.keyboard.press("Enter")
        page.get_by_text(f"You asked: {text}").wait_for()


def _fail(page: Page, site: Site) -> None:
    """Write to the bot that cannot answer, once, so that there is something to look after."""
    page.goto(f"{site.url}/try/orders/")
    for text in TROUBLE:
        if page.get_by_text(text).count():
            return
        page.get_by_role("textbox").fill(text)
        page.keyboard.press("Enter")
        page.locator(".bubble.own").filter(has_text=text).get_by_text("failed", exact=True).wait_for()


if __name__ == "__main__":
    main()
