"""A real browser at a real ``runbots --web``: what a member of staff does, with and without script."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebSocketRoute, expect, sync_playwright

from tests.acceptance.home import ROOT, START_SECONDS, Home
from tests.web.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow]

#: How long an expectation may take to come true, in milliseconds; machines that run tests are busy.
PATIENCE_MS = 15_000

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 800}

HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


_NO_WEBSOCKETS = """
window.WebSocket = class {
  constructor() { this.readyState = 3; setTimeout(() => this.onclose({ code: 1006 })); }
  close() {}
};
window.WebSocket.OPEN = 1;
"""


#: Writes and sends, even if the page noticed a moment ago that it is signed out.
_SUBMIT = """
(words) => {
  const form = document.getElementById("composer");
  form.elements.text.value = words;
  form.requestSubmit();
}
"""


class Site:
    """One installation with a login, and the process that serves it: ``runbots``, or the site alone."""

    def __init__(self, home: Home, *, command: tuple[str, ...] = ("runbots", "--web")) -> None:
        self.home = home
        self._command = command
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with (self.home.path / "runbots.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", *self._command, f"127.0.0.1:{self.port}"],
                cwd=ROOT,
                env=self.home.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(f"{self._command[0]}: ready"), f"{line}{self.log()}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process = self._process
        assert process is not None
        process.send_signal(number)
        code = process.wait(timeout=START_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        assert number == signal.SIGKILL or code == 0, f"It exited with {code}:\n{self.log()}"
        self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def log(self) -> str:
        return (self.home.path / "runbots.log").read_text(errors="replace")[-6_000:]

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.home.json("journal", "list")
        return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = Home(tmp_path_factory.mktemp("home"))
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        ("createsuperuser", "--noinput", "--username", "alice", "--email", ""),
        ("bots", "add", "shop", "--platform", "web", "--policy", "allow"),
        ("bots", "add", "closed", "--platform", "web", "--policy", "deny"),
    )
    site = Site(home)
    site.start()
    yield site
    if site.is_running:
        site.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.conftest import _chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def session(site: Site, browser: Browser) -> Any:
    """Alice, signed in once for all tests that need no form."""
    with _context(browser) as context:
        page = context.new_page()
        sign_in(page, site)
        return context.storage_state()


@contextmanager
def _context(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A browser of its own, in which nothing may go wrong unseen."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    context.on("console", lambda message: problems.extend(_problem(message)))
    context.on("weberror", lambda error: problems.append(str(error.error)))
    yield context
    context.close()
    assert problems == []


def _problem(message: ConsoleMessage) -> list[str]:
    """Errors and warnings (a broken content security policy is one), but not those of a server that is away."""
    is_expected = re.search(r"ERR_CONNECTION|WebSocket connection|Failed to load resource", message.text)
    return [] if message.type not in ("error", "warning") or is_expected else [message.text]


@pytest.fixture
def alice(site: Site, browser: Browser, session: Any) -> Iterator[BrowserContext]:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, storage_state=session, viewport=WIDE) as context:
        yield context


def sign_in(page: Page, site: Site, *, name: str = "alice", ends_at: str = "/") -> None:
    page.goto(f"{site.url}/account/sign-in/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{site.url}{ends_at}")


def chat(context: BrowserContext, site: Site, account: str = "shop") -> Page:
    page = context.new_page()
    page.goto(f"{site.url}/try/{account}/")
    expect(page.get_by_text("Connected.")).to_be_visible()
    return page


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox").fill(text)
    page.get_by_role("textbox").press("Enter")


def own(page: Page, text: str) -> Any:
    return page.locator(".bubble.own").filter(has_text=text)


def reply(page: Page, text: str) -> Any:
    return page.locator(".bubble.other").filter(has_text=text)


def test_a_message_typed_in_a_browser_is_answered(site: Site, browser: Browser) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, viewport=WIDE) as context:
        page = context.new_page()
        page.goto(site.url)
        expect(page).to_have_title("Sign in · PraisonWeb")
        sign_in(page, site)
        expect(page.get_by_role("heading", name="Needs attention")).to_be_visible()
        expect(page.get_by_text("Nothing needs you.")).to_be_visible()
        page.get_by_role("link", name="Try it: shop").click()
        say(page, "Where is my parcel?")
        expect(own(page, "Where is my parcel?")).to_contain_text("answered")
        expect(reply(page, "Where is my parcel?")).to_contain_text("sent")
        expect(page.get_by_role("textbox")).to_have_value("")
        expect(page.get_by_role("textbox")).to_be_focused()
        page.reload()
        expect(reply(page, "Where is my parcel?")).to_have_count(1)


def test_several_lines_and_several_messages_keep_their_order(site: Site, alice: BrowserContext) -> None:
    page = chat(alice, site)
    page.get_by_role("textbox").press_sequentially("line one")
    page.get_by_role("textbox").press("Shift+Enter")
    page.get_by_role("textbox").press_sequentially("line two")
    page.get_by_role("button", name="Send").click()
    expect(reply(page, "line one\nline two")).to_have_count(1)
    for number in range(8):
        say(page, f"burst {number}.")
    expect(own(page, "burst 7.")).to_contain_text("answered")
    texts = page.locator(".bubble.own .bubble-text", has_text="burst").all_inner_texts()
    assert texts == [f"burst {number}." for number in range(8)]


def test_foreign_text_does_nothing(site: Site, alice: BrowserContext) -> None:
    page = chat(alice, site)
    say(page, HOSTILE)
    expect(reply(page, HOSTILE)).to_have_count(1)
    page.reload()
    expect(reply(page, HOSTILE)).to_have_count(1)
    expect(page).to_have_title("shop · Try it · PraisonWeb")


def test_what_was_typed_while_the_server_was_killed_arrives_once(site: Site, alice: BrowserContext) -> None:
    page = chat(alice, site)
    site.stop(signal.SIGKILL)
    expect(page.get_by_text("Not connected; trying again…")).to_be_visible()
    say(page, "during the outage")
    expect(own(page, "during the outage")).to_contain_text("waits for the connection")
    site.start()
    expect(own(page, "during the outage")).to_contain_text("answered")
    expect(reply(page, "during the outage")).to_have_count(1)
    page.reload()
    expect(own(page, "during the outage")).to_have_count(1)
    expect(reply(page, "during the outage")).to_have_count(1)


def test_an_open_page_does_not_keep_the_server_from_stopping(site: Site, alice: BrowserContext) -> None:
    page = chat(alice, site)
    site.stop()  # asserts exit code 0
    expect(page.get_by_text("Not connected; trying again…")).to_be_visible()
    site.start()
    expect(page.get_by_text("Connected.", exact=True)).to_be_visible()


def _deaf_to(kind: str) -> Callable[[WebSocketRoute], None]:
    """A connection on which the page does not hear one kind of event."""

    def connect(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        server.on_message(lambda data: None if f'"type": "{kind}"' in str(data) else route.send(data))

    return connect


def test_a_message_is_sent_again_until_it_is_confirmed_and_counts_once(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.route_web_socket(re.compile("/ws/"), _deaf_to("received"))
    page.goto(f"{site.url}/try/shop/")
    expect(page.get_by_text("Connected.")).to_be_visible()
    say(page, "never confirmed")
    expect(reply(page, "never confirmed")).to_have_count(1)
    page.reload()
    expect(page.get_by_text("Connected.")).to_be_visible()
    expect(own(page, "never confirmed")).to_have_count(1)
    page.close()
    calm = chat(alice, site)
    expect(own(calm, "never confirmed")).to_have_count(1)
    expect(reply(calm, "never confirmed")).to_have_count(1)


def test_a_message_that_did_not_get_through_survives_a_reload(site: Site, alice: BrowserContext) -> None:
    is_mute = True

    def connect(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        route.on_message(lambda data: None if is_mute else server.send(data))

    page = alice.new_page()
    page.route_web_socket(re.compile("/ws/"), connect)
    page.goto(f"{site.url}/try/shop/")
    expect(page.get_by_text("Connected.")).to_be_visible()
    say(page, "into the void")
    expect(own(page, "into the void")).to_contain_text("sending…")
    assert not any("into the void" in str(entry) for entry in site.entries())
    expect(own(page, "into the void")).to_contain_text("sending…")
    is_mute = False
    page.reload()
    expect(own(page, "into the void")).to_contain_text("answered")
    expect(reply(page, "into the void")).to_have_count(1)


def test_a_lost_push_loses_nothing(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.route_web_socket(re.compile("/ws/"), _deaf_to("message"))
    page.goto(f"{site.url}/try/shop/")
    expect(page.get_by_text("Connected.")).to_be_visible()
    say(page, "unheard")
    expect(reply(page, "unheard")).to_contain_text("sent")


def test_where_websockets_do_not_pass_it_posts_and_polls(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.add_init_script(_NO_WEBSOCKETS)
    page.goto(f"{site.url}/try/shop/")
    say(page, "through a strict proxy")
    expect(reply(page, "through a strict proxy")).to_contain_text("sent")
    expect(own(page, "through a strict proxy")).to_have_count(1)


def test_two_pages_show_the_same(site: Site, alice: BrowserContext) -> None:
    one, other = chat(alice, site), chat(alice, site)
    say(one, "seen on both")
    expect(reply(one, "seen on both")).to_have_count(1)
    expect(reply(other, "seen on both")).to_have_count(1)
    expect(own(other, "seen on both")).to_contain_text("answered")


def test_a_bot_that_denies_says_so(site: Site, alice: BrowserContext) -> None:
    page = chat(alice, site, "closed")
    expect(page.get_by_text("It will not answer you.")).to_be_visible()
    say(page, "let me in")
    expect(own(page, "let me in")).to_contain_text("no answer")
    expect(own(page, "let me in")).to_contain_text("answers only contacts that it knows")


@pytest.mark.parametrize("has_websockets", [True, False])
def test_signing_out_elsewhere_ends_an_open_page(site: Site, browser: Browser, has_websockets: bool) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    with _context(browser, viewport=WIDE) as context:
        sign_in(context.new_page(), site)
        page = context.new_page()
        if not has_websockets:
            page.add_init_script(_NO_WEBSOCKETS)
        page.goto(f"{site.url}/try/shop/")
        expect(page.locator("#connection")).to_have_text(re.compile("Connected" if has_websockets else "Not connected"))
        home = context.new_page()
        home.goto(site.url)
        home.get_by_text("alice").first.click()
        home.get_by_role("button", name="Sign out").click()
        expect(home).to_have_title("Sign in · PraisonWeb")
        page.evaluate(_SUBMIT, "after signing out")
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        expect(page.get_by_role("textbox")).to_be_disabled()
        expect(own(page, "after signing out").filter(has_text="received")).to_have_count(0)
    assert not any("after signing out" in str(entry) for entry in site.entries())


def test_it_works_without_script(site: Site, browser: Browser, session: Any) -> None:
    with _context(browser, storage_state=session, java_script_enabled=False, viewport=NARROW) as context:
        page = context.new_page()
        page.goto(f"{site.url}/try/shop/")
        page.get_by_role("textbox").fill("without script")
        page.get_by_role("button", name="Send").click()
        expect(own(page, "without script")).to_have_count(1)
        expect(reply(page, "without script")).to_contain_text("sent")  # the page refreshes itself while it waits
        page.get_by_role("link", name="Refresh").click()
        expect(reply(page, "without script")).to_have_count(1)


@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_and_can_be_read(
    site: Site, browser: Browser, session: Any, viewport: Any, scheme: Any
) -> None:
    with _context(browser, storage_state=session, viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        for path in ("/", "/try/", "/try/shop/", "/account/password/", "/no/such/page/"):
            page.goto(f"{site.url}{path}")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
            assert page.evaluate(_LEAST_CONTRAST) >= 4.5, f"{path}: {page.evaluate(_FAINTEST)}"


def test_the_keyboard_reaches_everything(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(site.url)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()"))
        is_marked = page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        assert is_marked or page.evaluate("document.activeElement === document.body"), reached[-1]
    for name in ("PraisonWeb", "Home", "Try it", "alice", "Try it: shop"):
        assert name in reached


def test_home_keeps_itself_fresh(site: Site, alice: BrowserContext) -> None:
    page = alice.new_page()
    page.goto(site.url)
    first = page.locator(".page-head time").inner_text()
    expect(page.locator(".page-head time")).not_to_have_text(first)


#: The contrast (WCAG 2.2) of each text with the background behind it, the least first.
_CONTRASTS = """
(() => {
  const rgb = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = (parts) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = rgb(getComputedStyle(at).backgroundColor);
      if (alpha > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && !element.disabled &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((element) => {
    const [a, b] = [light(rgb(getComputedStyle(element).color).slice(0, 3)), light(behind(element))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.trim().slice(0, 40)];
  }).sort((one, other) => one[0] - other[0]);
})()
"""
_LEAST_CONTRAST = f"{_CONTRASTS}[0][0]"
_FAINTEST = f"{_CONTRASTS}.slice(0, 3)"


def test_an_answer_is_seen_while_it_is_written_and_is_one_bubble_in_the_end(site: Site, alice: BrowserContext) -> None:
    target = "target=tests.acceptance.agents:dictates"
    site.home.manage("agents", "add", "dictates", "--kind", "python", "--setting", target)
    site.home.manage("bots", "add", "teller", "--platform", "web", "--policy", "allow", "--agent", "dictates")
    page = chat(alice, site, "teller")
    say(page, "<b>hello</b>")
    expect(reply(page, "You said: <b>hello</b>,")).to_contain_text("…")
    expect(own(page, "<b>hello</b>")).to_contain_text("being answered")
    expect(reply(page, "and that is all.")).to_contain_text("sent")
    expect(page.locator(".bubble.other")).to_have_count(1)
    expect(page.locator(".bubble.other b")).to_have_count(0)
