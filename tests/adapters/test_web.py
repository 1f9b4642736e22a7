"""The web chat's way out. Its way in is the site's: ``tests/web/test_try_socket.py``."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from hypothesis import given
from hypothesis import strategies as st

from botsrt.adapters import web
from botsrt.adapters.web import Adapter
from botsrt.core.keys import group_name
from botsrt.core.messages import Route
from botsrt.core.ports import BotConfig
from tests.adapters.contract import RecordingSink, outbound

ROUTE = Route(channel_id="staff-1")


@pytest.fixture
def adapter() -> Adapter:
    return Adapter(BotConfig(account="shop", platform="web"), RecordingSink())


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer()
    monkeypatch.setattr(web, "get_channel_layer", lambda: layer)
    return layer


async def test_a_reply_is_pushed_to_the_pages_of_its_chat(adapter: Adapter, layer: InMemoryChannelLayer) -> None:
    await layer.group_add(group_name("shop", "staff-1"), "page.1")
    await layer.group_add(group_name("shop", "staff-1"), "page.2")
    await layer.group_add(group_name("shop", "staff-2"), "other")
    receipt = await adapter.send(outbound(ROUTE, "Hi there", number=7))
    assert receipt.platform_message_id == "7"
    for page in ("page.1", "page.2"):
        event = await layer.receive(page)
        assert (event["type"], event["id"], event["text"]) == ("chat.message", 7, "Hi there")
        assert event["at"].endswith("+00:00")
    assert "other" not in layer.channels


async def test_typing_is_pushed(adapter: Adapter, layer: InMemoryChannelLayer) -> None:
    await layer.group_add(group_name("shop", "staff-1"), "page.1")
    await adapter.show_typing(ROUTE)
    assert await layer.receive("page.1") == {"type": "chat.typing"}


async def test_what_is_being_written_is_pushed_and_is_no_message(adapter: Adapter, layer: InMemoryChannelLayer) -> None:
    await layer.group_add(group_name("shop", "staff-1"), "page.1")
    begun = replace(outbound(ROUTE, "Hi", number=0), is_unfinished=True)
    receipt = await adapter.send(begun)
    await adapter.edit(replace(begun, text="Hi th", edits=receipt.platform_message_id))
    await adapter.delete(ROUTE, receipt.platform_message_id)
    assert [await layer.receive("page.1") for _ in range(3)] == [
        {"type": "chat.preview", "text": "Hi"},
        {"type": "chat.preview", "text": "Hi th"},
        {"type": "chat.preview", "text": ""},
    ]
    final = await adapter.edit(outbound(ROUTE, "Hi there", number=7, edits=receipt.platform_message_id))
    assert final.platform_message_id == "7"
    assert (await layer.receive("page.1"))["type"] == "chat.message"


async def test_a_reply_counts_as_sent_when_no_page_is_open(adapter: Adapter, layer: InMemoryChannelLayer) -> None:
    assert (await adapter.send(outbound(ROUTE))).platform_message_id == "1"


async def test_a_reply_counts_as_sent_without_a_layer(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "get_channel_layer", lambda: None)
    assert (await adapter.send(outbound(ROUTE))).platform_message_id == "1"


async def test_a_push_that_fails_loses_nothing(
    adapter: Adapter, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(group: str, message: dict[str, Any]) -> None:
        raise ConnectionError("secret text")

    monkeypatch.setattr(layer, "group_send", refuse)
    with caplog.at_level(logging.INFO):
        assert (await adapter.send(outbound(ROUTE, "secret text"))).platform_message_id == "1"
        await adapter.show_typing(ROUTE)
    assert "ConnectionError" in caplog.text
    assert "secret text" not in caplog.text


async def test_it_waits_until_it_is_cancelled_and_then_still_sends(
    adapter: Adapter, layer: InMemoryChannelLayer
) -> None:
    await adapter.start()
    assert (await adapter.probe()).identity == "shop"
    run = asyncio.create_task(adapter.run())
    await asyncio.sleep(0)
    assert not run.done()
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    await adapter.send(outbound(ROUTE))
    await adapter.close()
    await adapter.close()


@given(
    account=st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,62}", fullmatch=True), channel=st.text(st.characters(codec="utf-8"))
)
def test_every_chat_has_a_valid_group_name(account: str, channel: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_.-]{1,99}", group_name(account, channel))


def test_no_two_chats_share_a_group() -> None:
    chats = [("a", "b"), ("a", "bc"), ("ab", "c"), ("ab", ""), ("a", "b\nc"), ("A", "b")]
    assert len({group_name(*chat) for chat in chats}) == len(chats)
