"""The websocket that keeps lists fresh."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient

from botsrt.models import AuditEvent, BotSession
from botsrt.services import news
from praisonweb.dashboard import consumers
from praisonweb.dashboard.access import Role
from tests.acceptance.home import ROOT
from tests.factories import a_bot, a_message, received
from tests.web.conftest import Page, a_user, open_page, signed_in

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_page_is_told_which_rows_changed(browser: AsyncClient) -> None:
    await sync_to_async(a_bot)()
    async with open_page(browser, "/ws/live/?topics=journal,dlq") as page:
        row = await sync_to_async(received)()
        event = await page.hears()
    assert (event["type"], event["topic"], event["ids"]) == ("changed", "journal", [str(row.pk)])
    assert "Hello" not in str(event), "Ids, nothing else."


async def test_a_page_hears_its_own_topics_alone(browser: AsyncClient) -> None:
    async with open_page(browser, "/ws/live/?topics=bots,nonsense") as page:
        await news.deliver("journal", [1])
        await news.deliver("bots", ["shop"])
        assert (await page.hears())["topic"] == "bots"


async def test_events_are_numbered_so_that_a_gap_is_noticed(browser: AsyncClient) -> None:
    async with open_page(browser, "/ws/live/?topics=dlq") as page:
        for _ in range(2):
            await news.deliver("dlq", range(news.MAX_IDS + 5))
        one, two = await page.hears(), await page.hears()
    assert one["from"] == two["from"]
    assert two["number"] == one["number"] + 1
    assert len(two["ids"]) == news.MAX_IDS


async def test_what_a_page_says_is_not_listened_to(browser: AsyncClient) -> None:
    async with open_page(browser, "/ws/live/?topics=dlq") as page:
        await page.send_to(text_data="x" * 10_000)
        await page.send_to(bytes_data=b"\x00")
        await news.deliver("dlq", [])
        assert (await page.hears())["topic"] == "dlq"


# -- who else is here ----


async def sign(page: Page, doing: str) -> None:
    await page.send_to(text_data=json.dumps({"type": "sign", "doing": doing}))


@pytest.fixture
async def talk(bridge: None) -> int:
    """A conversation of two sessions, addressed by the newer one."""
    await sync_to_async(a_bot)()
    await sync_to_async(received)(a_message(user_id="user-2", channel_id="chat-2"))
    await sync_to_async(received)()
    await BotSession.objects.aupdate(lane="person:ada")
    return (await BotSession.objects.alatest("pk")).pk


async def test_colleagues_are_told_who_reads_and_who_types(browser: AsyncClient, talk: int) -> None:
    anna = await signed_in(await sync_to_async(a_user)("anna", Role.OPERATOR, first_name="Anna", last_name="B"))
    other_session = (await BotSession.objects.afirst()).pk  # type: ignore[union-attr]
    async with open_page(browser, f"/ws/live/?talk={talk}") as alice:
        async with open_page(anna, f"/ws/live/?talk={other_session}") as page:
            await sign(page, "reading")
            assert await alice.hears() == {"type": "colleague", "who": "Anna B", "doing": "reading"}
            await sign(page, "typing")
            assert await alice.hears() == {"type": "colleague", "who": "Anna B", "doing": "typing"}
            await sign(alice, "reading")
            assert (await page.hears())["who"] == "Alice Ng"
        assert (await alice.hears())["doing"] == "gone"


async def test_nobody_hears_of_themselves_or_of_another_conversation(browser: AsyncClient, talk: int) -> None:
    anna = await signed_in(await sync_to_async(a_user)("anna", Role.OPERATOR))
    await sync_to_async(received)(a_message(user_id="user-3", channel_id="chat-3"))
    elsewhere = (await BotSession.objects.alatest("pk")).pk
    async with (
        open_page(browser, f"/ws/live/?topics=dlq&talk={talk}") as alice,
        open_page(browser, f"/ws/live/?talk={talk}") as second_tab,
        open_page(anna, f"/ws/live/?talk={elsewhere}") as page,
    ):
        await sign(second_tab, "reading")
        await sign(page, "typing")
        await asyncio.sleep(0.2)
        await news.deliver("dlq", [])
        assert (await alice.hears())["type"] == "changed"


async def test_signs_are_stored_nowhere_and_not_passed_on_in_a_flood(browser: AsyncClient, talk: int) -> None:
    anna = await signed_in(await sync_to_async(a_user)("anna", Role.OPERATOR))
    async with open_page(browser, f"/ws/live/?talk={talk}") as alice, open_page(anna, f"/ws/live/?talk={talk}") as page:
        audited = await AuditEvent.objects.acount()
        for _ in range(20):
            await sign(page, "typing")
        await sign(page, "reading")
        assert [(await alice.hears())["doing"] for _ in range(2)] == ["typing", "reading"]
        assert await AuditEvent.objects.acount() == audited


@pytest.mark.parametrize(
    "frame",
    ["[]", "{}", '{"type": "sign"}', '{"type": "sign", "doing": ["typing"]}', '{"doing": "typing"}', "x" * 500],
)
async def test_what_is_no_sign_is_passed_over(browser: AsyncClient, talk: int, frame: str) -> None:
    anna = await signed_in(await sync_to_async(a_user)("anna", Role.OPERATOR))
    async with open_page(browser, f"/ws/live/?talk={talk}") as alice, open_page(anna, f"/ws/live/?talk={talk}") as page:
        await page.send_to(text_data=frame)
        await sign(page, "reading")
        assert (await alice.hears())["doing"] == "reading"


@pytest.mark.parametrize("talk_id", ["0", "x", "9" * 40, "-1", ""])
async def test_signs_of_no_conversation_go_nowhere(browser: AsyncClient, talk_id: str) -> None:
    async with open_page(browser, f"/ws/live/?topics=dlq&talk={talk_id}") as page:
        await sign(page, "reading")
        await news.deliver("dlq", [])
        assert (await page.hears())["type"] == "changed"


async def test_a_sign_closes_the_page_of_somebody_who_may_not_hear_it_any_more(
    browser: AsyncClient, staff: User, talk: int
) -> None:
    anna = await signed_in(await sync_to_async(a_user)("anna", Role.OPERATOR))
    async with open_page(browser, f"/ws/live/?talk={talk}") as alice, open_page(anna, f"/ws/live/?talk={talk}") as page:
        await User.objects.filter(pk=staff.pk).aupdate(is_staff=False)
        await sign(page, "reading")
        assert await alice.is_closed_with() == 4403


# -- who may hear ----


@pytest.fixture
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "RECHECK_SECONDS", 0.0)


async def test_who_may_know_is_asked_every_few_seconds_and_no_more_often(
    browser: AsyncClient, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_page(browser, "/ws/live/?topics=dlq") as page:
        await User.objects.filter(pk=staff.pk).aupdate(is_staff=False)
        await news.deliver("dlq", [1])
        assert (await page.hears())["ids"] == ["1"]
        monkeypatch.setattr(consumers, "RECHECK_SECONDS", 0.0)  # as if the seconds had passed
        await news.deliver("dlq", [2])
        assert await page.is_closed_with() == 4403


@pytest.mark.usefixtures("_asked_each_time")
async def test_a_page_of_somebody_who_lost_the_right_is_closed(browser: AsyncClient, staff: User) -> None:
    async with open_page(browser, "/ws/live/?topics=dlq") as page:
        await User.objects.filter(pk=staff.pk).aupdate(is_staff=False)
        await news.deliver("dlq", [1])
        assert await page.is_closed_with() == 4403


@pytest.mark.usefixtures("_asked_each_time")
async def test_a_signed_out_browser_hears_nothing(staff: User, bridge: None) -> None:
    client = await signed_in(staff)
    async with open_page(client, "/ws/live/?topics=dlq") as page:
        await client.alogout()
        await news.deliver("dlq", [1])
        assert await page.is_closed_with() == 4403
    await asyncio.sleep(0)


def test_pages_ask_for_topics_that_there_are() -> None:
    pages = [path.read_text() for path in (ROOT / "templates").rglob("*.html")]
    asked = [topics for page in pages for topics in re.findall(r"{% block topics %}([^{]+){%", page)]
    assert len(asked) > 10
    assert {topic for topics in asked for topic in topics.split()} == set(news.TOPICS)
