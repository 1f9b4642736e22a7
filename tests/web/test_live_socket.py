"""The websocket that keeps lists fresh."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient

from botsrt.services import news
from tests.factories import a_bot, received
from tests.web.conftest import open_page, signed_in

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


async def test_a_page_of_somebody_who_lost_the_right_is_closed(browser: AsyncClient, staff: User) -> None:
    async with open_page(browser, "/ws/live/?topics=dlq") as page:
        await User.objects.filter(pk=staff.pk).aupdate(is_staff=False)
        await news.deliver("dlq", [1])
        assert await page.is_closed_with() == 4403


async def test_a_signed_out_browser_hears_nothing(staff: User, bridge: None) -> None:
    client = await signed_in(staff)
    async with open_page(client, "/ws/live/?topics=dlq") as page:
        await client.alogout()
        await news.deliver("dlq", [1])
        assert await page.is_closed_with() == 4403
    await asyncio.sleep(0)
