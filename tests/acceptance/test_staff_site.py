"""Staff at work: two browsers, a real ``runbots --web --tasks``, the platforms' own protocols."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.acceptance.home import Home, Process
from tests.acceptance.test_pairing_flow import add_slack, add_telegram, assert_nowhere, code_in, texts, until
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TelegramServer
from tests.web.conftest import PASSWORD
from tests.web.test_browser import FLAGS, PATIENCE_MS

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


#: The page of a bulk operation.
OPERATION = re.compile(r"/operations/\d+/$")


class Desk:
    """One installation, its site and two members of staff, each in a browser of their own."""

    def __init__(self, home: Home, browser: Browser) -> None:
        self.home = home
        self.port = _free_port()
        self._browser = browser

    @asynccontextmanager
    async def running(self, *more: str) -> AsyncIterator[Process]:
        async with self.home.runbots("--web", f"127.0.0.1:{self.port}", *more) as process:
            yield process

    async def sign_in(self, name: str) -> BrowserContext:
        context = await self._browser.new_context(
            viewport={"width": 1280, "height": 800}, base_url=f"http://127.0.0.1:{self.port}"
        )
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        await page.goto("/account/sign-in/")
        await page.get_by_label("Username").fill(name)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/")
        await page.close()
        return context


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    from tests.conftest import _chromium

    home = Home(tmp_path)
    home.env["DJANGO_SUPERUSER_PASSWORD"] = PASSWORD
    home.prepare(
        *(("createsuperuser", "--noinput", "--username", name, "--email", "") for name in ("alice", "bob")),
        ("agents", "add", "telling", "--kind", "python", "--setting", "target=tests.acceptance.agents:telling"),
    )
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_chromium(), args=FLAGS)
        yield Desk(home, browser)
        await browser.close()


async def becomes(home: Home, *args: str, condition: Callable[[Any], bool], seconds: float) -> None:
    """Wait for what ``manage.py args --json`` prints, without holding the platform's server up."""
    async with asyncio.timeout(seconds):
        while not condition(await asyncio.to_thread(home.json, *args)):
            await asyncio.sleep(0.5)


async def opened(context: BrowserContext, path: str) -> Page:
    page = await context.new_page()
    await page.goto(path)
    return page


async def act(page: Page, name: str, verb: str, *, reason: str = "", inside: str = "main") -> None:
    """Press what asks, and answer its dialog."""
    await page.locator(inside).get_by_role("link", name=name).first.click()
    await answer(page, verb, reason=reason)


async def answer(page: Page, verb: str, *, reason: str = "") -> None:
    dialog = page.get_by_role("dialog")
    if reason:
        await dialog.get_by_label("Reason").fill(reason)
    await dialog.get_by_role("button", name=verb).click()
    await expect(dialog).to_be_hidden()


async def test_a_stranger_appears_by_itself_is_verified_by_code_and_answered(desk: Desk) -> None:
    async with TelegramServer() as server:
        add_telegram(desk.home, server)
        async with desk.running():
            alice, bob = await desk.sign_in("alice"), await desk.sign_in("bob")
            page, other = await opened(alice, "/pairings/"), await opened(bob, "/")
            await expect(page.locator(".live-state")).to_have_text("Live")
            await expect(other.get_by_text("Nothing needs you.")).to_be_visible()
            server.bot.say("Do you deliver to Graz?", user=7)
            row = page.locator(".pairing")
            await expect(row).to_contain_text("Do you deliver to Graz?")
            await expect(other.get_by_text("1 person asks for access")).to_be_visible()

            code = code_in(texts(server, 7)[0])
            await row.get_by_role("link", name="Verify code").click()
            dialog = page.get_by_role("dialog")
            await dialog.get_by_label("Code").fill("AAAAAAAA" if code != "AAAAAAAA" else "BBBBBBBB")
            await dialog.get_by_role("button", name="Let them in").click()
            await expect(dialog.get_by_role("alert")).to_be_visible()
            assert len(texts(server, 7)) == 1
            await dialog.get_by_label("Code").fill(code)
            await dialog.get_by_role("button", name="Let them in").click()
            await expect(dialog).to_be_hidden()
            await until(lambda: len(texts(server, 7)) == 3)
            assert texts(server, 7)[1].startswith("You have access now.")
            assert texts(server, 7)[2].startswith("Do you deliver to Graz? <>")
            await expect(row).to_have_count(0)
            await expect(other.get_by_text("Nothing needs you.")).to_be_visible()

            late = await opened(bob, "/pairings/?tab=approved")
            await expect(late.get_by_text("alice")).to_be_visible()
        assert_nowhere(desk.home, code)


async def test_a_group_of_failures_is_mended_and_retried_step_by_step_though_everything_dies(
    desk: Desk, tmp_path: Path
) -> None:
    people = range(100, 140)
    mended = tmp_path / "mended"
    home = desk.home
    home.manage("agents", "add", "broken", "--kind", "python", "--setting", "target=tests.acceptance.agents:mended")
    async with TelegramServer() as server:
        add_telegram(home, server, "--policy", "allow", "--agent", "broken")
        home.env["MENDED"] = str(mended)
        async with desk.running("--tasks") as process:
            alice, bob = await desk.sign_in("alice"), await desk.sign_in("bob")
            page = await opened(alice, "/dlq/")
            for user in people:
                server.bot.say(f"order {user}", user=user)
            group = page.locator(".row.group")
            await expect(group.locator(".group-count")).to_contain_text("40", timeout=60_000)
            await expect(group).to_have_count(1)
            await until(lambda: all(len(texts(server, user)) == 1 for user in people), seconds=60)

            await group.locator(".row-link").click()
            await act(page, "Retry all", "Retry 40", reason="mended, I think")
            await page.wait_for_url(OPERATION)
            await expect(page.get_by_text("1 of the 1 in this step failed the same way again.")).to_be_visible()
            await expect(page.locator(".steps .is-now")).to_contain_text("stopped here", timeout=30_000)
            assert all(len(texts(server, user)) == 1 for user in people if user > 100), "The others were left alone."

            mended.write_text("10")  # enough for two steps; the third is held, so that the kill comes in its middle
            other = await opened(bob, page.url)
            await other.get_by_role("link", name="Dead letters").click()
            await other.locator(".row.group .row-link").click()
            await act(other, "Retry all", "Retry 40")
            await other.wait_for_url(OPERATION)
            await expect(other.locator(".steps .is-done")).to_have_count(2, timeout=60_000)
            operation = other.url.rstrip("/").rsplit("/", 1)[1]
            process.kill()  # the worker, the site, and with them the task cluster
            await process.wait(seconds=40)
        assert home.json("bulk", "show", operation)["state"] == "running"
        mended.write_text(str(len(people)))
        async with desk.running("--tasks") as process:
            show = ("bulk", "show", operation)
            await becomes(home, *show, condition=lambda shown: shown["state"] == "finished", seconds=150)
            await expect(other.locator(".operation-count")).to_contain_text("finished", timeout=60_000)
            await until(lambda: all(f"order {user}, at last" in texts(server, user) for user in people), seconds=60)
            await expect(page.get_by_role("heading", name="Retry of 40 messages")).to_be_visible()
        answers = [sent.text for sent in server.sent if sent.text.endswith(", at last")]
        assert sorted(answers) == sorted(f"order {user}, at last" for user in people), "Each exactly once."
        assert home.manage("ledger", check=False).returncode == 0


async def test_the_task_cluster_dies_in_the_middle_and_another_goes_on(desk: Desk, tmp_path: Path) -> None:
    home = desk.home
    home.manage("agents", "add", "broken", "--kind", "python", "--setting", "target=tests.acceptance.agents:mended")
    home.env["MENDED"] = str(tmp_path / "never")
    async with TelegramServer() as server:
        add_telegram(home, server, "--policy", "allow", "--agent", "broken")
        async with desk.running("--tasks") as process:
            alice = await desk.sign_in("alice")
            server.bot.flood(300, chats=300)
            listed = ("dlq", "list", "--limit", "500")
            await becomes(home, *listed, condition=lambda items: len(items) == 300, seconds=120)
            page = await opened(alice, "/dlq/")
            await page.locator(".row.group .row-link").click()
            await act(page, "Discard all", "Discard 300", reason="a test")
            await page.wait_for_url(OPERATION)
            for pid in _children(process.pid):
                os.killpg(pid, signal.SIGKILL)
            await expect(page.locator(".operation-count")).to_contain_text("finished", timeout=150_000)
            await expect(page.locator(".outcomes")).to_contain_text("300 done")
            assert home.json("dlq", "list") == []
            events = home.json("journal", "list", "--state", "discarded", "--limit", "500")
            assert len(events) == 300


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert found, "The task cluster is a child."
    return [int(child) for child in found]


async def test_replays_in_each_way_and_the_desk_for_unknown_fates(desk: Desk) -> None:
    async with TelegramServer() as server:
        add_telegram(desk.home, server, "--policy", "allow", "--setting", "unknown_sends=hold")
        async with desk.running():
            alice, bob = await desk.sign_in("alice"), await desk.sign_in("bob")
            server.bot.say("one", user=7)
            await until(lambda: len(texts(server, 7)) == 1)
            page = await opened(alice, "/journal/1/")
            for mode, count in (("Run again and send the reply", 2), ("Send the stored reply again", 3)):
                await page.get_by_role("link", name="Replay").first.click()
                await page.get_by_role("dialog").get_by_label(mode).check()
                await answer(page, "Replay", reason="asked for")
                await until(lambda count=count: len(texts(server, 7)) == count)  # type: ignore[misc]
            await page.get_by_role("link", name="Replay").first.click()
            await page.get_by_role("dialog").get_by_label("Dry run").check()
            await page.get_by_role("dialog").get_by_role("button", name="Replay").click()
            await expect(page.get_by_role("dialog")).to_contain_text("one <")
            await page.keyboard.press("Escape")
            await page.get_by_role("link", name="Replay").first.click()
            await page.get_by_role("dialog").get_by_label("hold the reply").check()
            await answer(page, "Replay")
            held = await opened(alice, "/deliveries/?q=state:held")
            await expect(held.locator(".row")).to_have_count(1)
            await held.locator(".row-link").click()
            await act(held, "Send", "Send", inside="#drawer")
            await until(lambda: len(texts(server, 7)) == 4)

            server.fail_next("cut_after", times=1)
            server.bot.say("two", user=8)
            await until(lambda: len(texts(server, 8)) == 1)
            desk_page, other = await opened(alice, "/deliveries/?q=state:unknown"), await opened(bob, "/")
            await expect(desk_page.locator(".row")).to_have_count(1)
            await expect(other.get_by_text("1 reply of unknown fate")).to_be_visible()
            await desk_page.locator(".row-link").click()
            await act(desk_page, "It arrived", "It arrived", reason="seen in the chat", inside="#drawer")
            await expect(desk_page.locator(".row")).to_have_count(0)
            await expect(other.get_by_text("1 reply of unknown fate")).to_have_count(0)
        assert len(texts(server, 8)) == 1


async def link(page: Page, contact: str, *, joins: str) -> None:
    """From the list, say that its one conversation is Ada's."""
    await page.locator(".row-link").click()
    await page.get_by_role("link", name="Link to a person").click()
    await page.get_by_label("Person", exact=True).fill("ada")
    await page.get_by_role("button", name="Show what would be joined").click()
    await expect(page.get_by_text(joins)).to_be_visible()
    await page.get_by_label("Reason").fill("they told me")
    await page.get_by_role("button", name=f"Link {contact} to ada").click()


async def test_two_accounts_are_linked_and_the_link_is_undone_in_the_timeline(desk: Desk) -> None:
    async with TelegramServer() as telegram, SlackServer() as slack:
        add_telegram(desk.home, telegram, "--setting", "allowed_users=7")
        add_slack(desk.home, slack, "--setting", "allowed_users=U7")
        channel = slack.dm_channel("U7", slack.bot).id

        def on_slack() -> list[str]:
            return [sent.shown for sent in slack.sent if sent.channel == channel]

        async with desk.running():
            alice, bob = await desk.sign_in("alice"), await desk.sign_in("bob")
            telegram.bot.say("one", user=7)
            slack.dm("two", user="U7")
            await until(lambda: texts(telegram, 7) and on_slack())
            page, other = await opened(alice, "/people/?q=platform:slack"), await opened(bob, "/people/")
            await expect(other.locator(".row")).to_have_count(2)
            await link(page, "slack:U7", joins="0 more messages of ada")
            await page.goto("/people/?q=platform:telegram")
            await link(page, "telegram:7", joins="2 more messages of ada")
            await expect(page.locator(".bubble-text", has_text="two <>")).to_be_visible()
            await expect(other.locator(".row")).to_have_count(1)
            slack.dm("three", user="U7")
            await until(lambda: len(on_slack()) == 2)
            assert on_slack()[1] == "three <telegram>one | slack>two> as ada"

            await expect(page.locator(".bubble-text", has_text="three <telegram>one")).to_be_visible()
            undo = page.locator(".divider").get_by_role("link", name="Undo")
            await expect(undo).to_have_count(2)
            await undo.last.click()
            await answer(page, "End the link", reason="a mistake")
            await expect(page.locator(".bubble-text", has_text="three <telegram>one")).to_have_count(0)
            await expect(other.locator(".row")).to_have_count(2)
            slack.dm("four", user="U7")
            await until(lambda: len(on_slack()) == 3)
            assert on_slack()[2] == "four <slack>two | slack>three> as ada"


async def test_a_human_takes_over_while_the_bot_runs_and_hands_back(desk: Desk) -> None:
    async with TelegramServer() as server:
        add_telegram(desk.home, server, "--setting", "allowed_users=7")
        async with desk.running():
            alice, bob = await desk.sign_in("alice"), await desk.sign_in("bob")
            server.bot.say("Good morning", user=7)
            await until(lambda: len(texts(server, 7)) == 1)
            page, other = await opened(alice, "/people/"), await opened(bob, "/people/")
            await page.locator(".row-link").click()
            server.bot.say("slow", user=7)
            await expect(page.get_by_text("the bot is writing", exact=True)).to_be_visible()
            await act(page, "Take over", "Take over")
            await expect(page.locator(".detail-title")).to_contain_text("human")
            await expect(other.locator(".row")).to_contain_text("human")
            server.bot.say("Is anybody there?", user=7)
            await expect(page.locator(".bubble-text", has_text="Is anybody there?")).to_be_visible()
            await page.get_by_role("textbox", name="Reply").fill("Yes, Alice here.")
            await page.get_by_role("button", name="Send reply").click()
            await expect(page.get_by_role("alert").filter(has_text="newer")).to_be_visible()
            assert len(texts(server, 7)) == 1, "It was written before the last message came: nothing goes out unasked."
            await page.get_by_role("button", name="Send again").click()
            await until(lambda: "Yes, Alice here." in texts(server, 7))
            await expect(page.locator(".bubble", has_text="Yes, Alice here.")).to_contain_text("sent")
            await page.locator("summary", has_text="note").click()
            await page.get_by_role("textbox", name="Note").fill("calls on Monday")
            await page.get_by_role("button", name="Keep note").click()
            await expect(page.locator(".bubble.said-note")).to_contain_text("calls on Monday")
            assert len(texts(server, 7)) == 2, "The bot's answer to slow was refused, and notes are never sent."

            await act(page, "Hand back", "Hand back")
            server.bot.say("Thank you", user=7)
            await until(lambda: len(texts(server, 7)) == 3)
            assert texts(server, 7)[2].startswith("Thank you <")
            assert "calls on Monday" not in texts(server, 7)[2]
        assert desk.home.manage("ledger", check=False).returncode == 0


async def test_found_filtered_gone_back_and_reloaded_by_keyboard_alone(desk: Desk) -> None:
    async with TelegramServer() as server:
        add_telegram(desk.home, server, "--policy", "allow")
        async with desk.running():
            alice = await desk.sign_in("alice")
            for user in range(100, 110):
                server.bot.say(f"parcel {user} is late", user=user)
            await until(lambda: all(texts(server, user) for user in range(100, 110)))
            page = await opened(alice, "/")
            keys = page.keyboard
            await keys.press("g")
            await keys.press("c")
            await page.wait_for_url("**/people/")
            await expect(page.locator(".row")).to_have_count(10)
            await keys.press("/")
            await keys.type('from:105 "parcel 105"')
            await keys.press("Enter")
            hits = page.locator(".row", has_text="parcel 105 is late")
            await expect(hits.first).to_be_visible()
            found = page.url
            await keys.press("j")
            await keys.press("Enter")
            await page.wait_for_url("**/people/*/**")
            await expect(page.locator(".bubble.is-wanted")).to_contain_text("parcel 105 is late")
            await page.go_back()
            assert page.url == found
            await expect(hits.first).to_be_visible()
            await page.reload()
            await expect(hits.first).to_be_visible()

            await keys.press("g")
            await keys.press("j")
            await page.wait_for_url("**/journal/")
            for key in ("j", "x", "j", "x", "r"):
                await keys.press(key)
            dialog = page.get_by_role("dialog")
            await expect(dialog).to_contain_text("Replay 2 messages?")
            await dialog.get_by_role("button", name="Replay 2").focus()
            await keys.press("Enter")
            await expect(dialog).to_be_hidden()
            await until(lambda: sum(len(texts(server, user)) for user in range(100, 110)) == 12)
