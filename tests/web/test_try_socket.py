"""The websocket of "Try it", on real rows, with a real worker where an answer is due."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.test import AsyncClient
from django.utils import timezone

from botsrt import conf
from botsrt.core.keys import group_name
from botsrt.core.states import EntryState, Outcome
from botsrt.models import AdapterState, Bot, Contact, JournalEntry, OutboxMessage
from botsrt.runtime.db import database
from botsrt.runtime.worker import Worker
from botsrt.services import bots, journal, ledger
from botsrt.services.bots import Changes
from praisonweb.dashboard import consumers, webchat
from praisonweb.dashboard.access import Role
from tests.factories import ALICE, SHAPE, a_bot
from tests.web.conftest import HOST, a_user, is_let_in, open_page, page, signed_in

pytestmark = pytest.mark.django_db(transaction=True)

SHOP = "/ws/try/shop/"
FIRST_ID = "message-0001"


@pytest.fixture
async def worker(bridge: None, bot: Bot, settings: Any) -> AsyncIterator[Worker]:
    """Everything that answers, in this test's event loop."""
    settings.BOTSRT = {"POLL_SECONDS": "0.05", "LEASE_SECONDS": "5", "DRAIN_SECONDS": "1"}
    conf.load.cache_clear()
    worker = Worker(database=database(), config=conf.load())
    await worker.start()
    yield worker
    await worker.stop()


async def entries() -> list[JournalEntry]:
    return await sync_to_async(lambda: list(JournalEntry.objects.order_by("pk")))()


async def push(user: User, event: dict[str, Any]) -> None:
    """What the bot's adapter does."""
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_send(group_name("shop", f"staff-{user.pk}"), event)


# -- the way of a message ----


async def test_a_message_is_answered_on_the_real_path(browser: AsyncClient, staff: User, worker: Worker) -> None:
    async with open_page(browser, SHOP) as alice:
        await alice.say(FIRST_ID, "Hello")
        assert await alice.hears_type("received") == {"type": "received", "id": FIRST_ID, "is_new": True}
        reply = await alice.hears_type("message")
    assert reply["text"] == "Hello"
    (sent,) = await sync_to_async(lambda: list(OutboxMessage.objects.all()))()
    assert reply["id"] == sent.pk
    (entry,) = await entries()
    assert (entry.state, entry.outcome) == (EntryState.COMPLETED, Outcome.ANSWERED)
    assert (entry.platform, entry.account, entry.channel_id) == ("web", "shop", f"staff-{staff.pk}")


async def test_it_says_received_only_when_the_message_is_stored(
    browser: AsyncClient, bot: Bot, staff: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise OperationalError("disk full at db.internal")

    async with open_page(browser, SHOP) as alice:
        with monkeypatch.context() as broken:
            broken.setattr(journal, "receive", fail)
            await alice.say(FIRST_ID, "Hello")
            answer = await alice.hears()
            assert (answer["type"], answer["code"], answer["id"]) == ("error", "not_stored", FIRST_ID)
            assert "db.internal" not in answer["text"]
        assert await entries() == []
        await alice.say(FIRST_ID, "Hello")
        assert (await alice.hears())["is_new"] is True
    (entry,) = await entries()
    assert entry.payload["text"] == "Hello"


async def test_a_message_sent_again_counts_once(browser: AsyncClient, bot: Bot) -> None:
    for is_new in (True, False):  # the page connects anew in between, as after a lost network
        async with open_page(browser, SHOP) as alice:
            await alice.say(FIRST_ID, "Hello")
            assert await alice.hears() == {"type": "received", "id": FIRST_ID, "is_new": is_new}
    (entry,) = await entries()
    assert entry.duplicates == 1


async def test_a_reply_reaches_every_page_of_its_reader_and_nobody_else(
    browser: AsyncClient, staff: User, worker: Worker
) -> None:
    bob = await sync_to_async(a_user)("bob", Role.OPERATOR)
    async with (
        open_page(browser, SHOP) as laptop,
        open_page(browser, SHOP) as phone,
        open_page(await signed_in(bob), SHOP) as stranger,
    ):
        await laptop.say(FIRST_ID, "Hello")
        assert (await laptop.hears_type("message"))["text"] == "Hello"
        assert (await phone.hears_type("message"))["text"] == "Hello"
        assert await stranger.receive_nothing(timeout=0.1)


async def test_typing_is_shown(browser: AsyncClient, staff: User, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await push(staff, {"type": "chat.typing"})
        assert await alice.hears() == {"type": "typing"}


async def test_what_the_bot_writes_is_shown_while_it_does(browser: AsyncClient, staff: User, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await push(staff, {"type": "chat.preview", "text": "Once upon"})
        assert await alice.hears() == {"type": "preview", "text": "Once upon"}


async def test_the_writer_is_a_contact_of_staff(browser: AsyncClient, staff: User, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await alice.say(FIRST_ID, "Hello")
        await alice.hears()
    contact = await sync_to_async(Contact.objects.get)()
    assert (contact.platform, contact.platform_user_id) == ("web", f"staff-{staff.pk}")
    assert (contact.user_name, contact.display_name) == ("alice", "Alice Ng")


async def test_the_bot_shows_when_it_was_last_written_to(browser: AsyncClient, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await alice.say(FIRST_ID, "Hello")
        await alice.hears()
    state = await sync_to_async(AdapterState.objects.get)()
    assert state.last_inbound_at is not None
    assert timezone.now() - state.last_inbound_at < timedelta(minutes=1)


async def test_a_burst_keeps_its_order_and_loses_nothing(browser: AsyncClient, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        for number in range(100):
            await alice.say(f"message-{number:04}", f"line {number}")
        for number in range(100):
            assert (await alice.hears())["id"] == f"message-{number:04}"
    assert [entry.payload["text"] for entry in await entries()] == [f"line {number}" for number in range(100)]
    ledger_now = await sync_to_async(ledger.check)(since=None, lease=timedelta(seconds=30), now=timezone.now())
    assert (ledger_now.received, ledger_now.is_balanced) == (100, True)


# -- who may ----


@pytest.mark.parametrize(
    ("origin", "host", "is_welcome"),
    [
        (f"http://{HOST}", HOST, True),
        (f"https://{HOST}", HOST, True),
        ("http://LOCALHOST:8000", HOST, True),
        (None, HOST, False),
        ("null", HOST, False),
        ("http://localhost:9999", HOST, False),
        ("https://evil.example", HOST, False),
        ("http://localhost:8000.evil.example", HOST, False),
        ("http://[::1", HOST, False),
        ("http://evil.example", "evil.example", False),
        ("", "", False),
    ],
)
async def test_only_pages_of_this_site_may_open_it(
    browser: AsyncClient, bot: Bot, origin: str | None, host: str, is_welcome: bool
) -> None:
    assert await is_let_in(page(browser, SHOP, origin=origin, host=host)) is is_welcome


async def test_an_open_host_list_opens_no_websocket(browser: AsyncClient, bot: Bot, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert not await is_let_in(page(browser, SHOP, origin="https://evil.example"))


async def test_a_proxy_that_changes_the_host_can_be_trusted(browser: AsyncClient, bot: Bot, settings: Any) -> None:
    outside = {"origin": "https://localhost", "host": "10.0.0.7:8000"}
    assert not await is_let_in(page(browser, SHOP, **outside))
    for trusted in (["https://localhost"], ["https://*.localhost"]):
        settings.CSRF_TRUSTED_ORIGINS = trusted
        assert await is_let_in(page(browser, SHOP, **outside))
    settings.CSRF_TRUSTED_ORIGINS = ["http://localhost", "https://localhost:8443", "https://localhost.example"]
    assert not await is_let_in(page(browser, SHOP, **outside))


async def test_a_bot_that_is_no_web_bot_has_no_page(browser: AsyncClient, bot: Bot) -> None:
    await sync_to_async(a_bot)("tg", platform="telegram")
    for path in ("/ws/try/tg/", "/ws/try/nobody/", f"/ws/try/{'x' * 300}/", "/ws/try/%00/"):
        assert not await is_let_in(page(browser, path)), path


async def test_signing_out_closes_the_page_at_its_next_message(browser: AsyncClient, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await browser.alogout()
        await alice.say(FIRST_ID, "Hello")
        assert await alice.is_closed_with() == consumers.SIGNED_OUT
    assert await entries() == []


async def test_after_signing_out_nothing_more_is_shown(browser: AsyncClient, staff: User, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await browser.alogout()
        await push(staff, {"type": "chat.message", "id": 1, "text": "secret", "at": ""})
        output = await alice.receive_output()
    assert output == {"type": "websocket.close", "code": consumers.SIGNED_OUT}


@pytest.mark.parametrize("loss", ["is_staff", "is_active", "password", "session"])
async def test_losing_the_right_closes_the_page(browser: AsyncClient, staff: User, bot: Bot, loss: str) -> None:
    def lose() -> None:
        if loss == "session":
            Session.objects.all().delete()
        elif loss == "password":
            staff.set_password("another one entirely")
            staff.save()
        else:
            User.objects.filter(pk=staff.pk).update(**{loss: False})

    async with open_page(browser, SHOP) as alice:
        await sync_to_async(lose)()
        await alice.say(FIRST_ID, "Hello")
        assert await alice.is_closed_with() == consumers.SIGNED_OUT
    assert await entries() == []


@pytest.mark.parametrize("is_removed", [True, False])
async def test_a_bot_that_goes_away_closes_the_page(browser: AsyncClient, bot: Bot, is_removed: bool) -> None:
    def go() -> None:
        if is_removed:
            bots.remove(account="shop", actor=ALICE, now=timezone.now())
        else:
            changes = Changes(is_enabled=False)
            bots.change(account="shop", shape=SHAPE, changes=changes, actor=ALICE, now=timezone.now())

    async with open_page(browser, SHOP) as alice:
        await sync_to_async(go)()
        await alice.say(FIRST_ID, "Hello")
        assert await alice.is_closed_with() == consumers.NO_BOT
    assert await entries() == []


# -- bad input ----


def frame(**fields: Any) -> str:
    return json.dumps({"id": FIRST_ID, "text": "Hello"} | fields)


#: A frame, and the field that the answer names.
JUNK = [
    ("", "frame"),
    ("hello", "frame"),
    ("[]", "frame"),
    ("null", "frame"),
    ("{", "frame"),
    ("[" * 100_000, "frame"),
    ('{"a":' * 20_000, "frame"),
    ("1" * 5_000, "frame"),
    (frame(text="x" * webchat.MAX_TEXT_CHARS * 7), "frame"),
    ("{}", "id"),
    (frame(id=""), "id"),
    (frame(id=7), "id"),
    (frame(id="short"), "id"),
    (frame(id="x" * 65), "id"),
    (frame(id="message\n0001"), "id"),
    (frame(id="../../../etc"), "id"),
    (frame(text=None), "text"),
    (frame(text=""), "text"),
    (frame(text=" \n\t "), "text"),
    (frame(text=["Hello"]), "text"),
    (frame(text="x" * (webchat.MAX_TEXT_CHARS + 1)), "text"),
]


async def test_junk_is_refused_by_name_and_the_page_goes_on(browser: AsyncClient, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        for text_data, named in JUNK:
            await alice.send_input({"type": "websocket.receive", "text": text_data})
            answer = await alice.hears()
            assert (answer["type"], answer["code"]) == ("error", "refused"), text_data[:80]
            assert answer["text"].startswith(f"{named}: "), text_data[:80]
            assert len(json.dumps(answer)) < 400, text_data[:80]
        assert await entries() == []
        await alice.say(FIRST_ID, "still there?")
        assert (await alice.hears())["is_new"] is True


async def test_bytes_are_refused(browser: AsyncClient, bot: Bot) -> None:
    async with open_page(browser, SHOP) as alice:
        await alice.send_to(bytes_data=b"\x00\xff")
        assert (await alice.hears())["text"] == "frame: send text, not bytes."


@pytest.mark.parametrize("text", ["x" * webchat.MAX_TEXT_CHARS, "\x00 and \ud800", "\u202e", "<script>", "𝕳" * 100])
async def test_any_text_is_taken_as_it_is(browser: AsyncClient, bot: Bot, text: str) -> None:
    async with open_page(browser, SHOP) as alice:
        await alice.say(FIRST_ID, text)
        assert (await alice.hears())["type"] == "received"
    (entry,) = await entries()
    assert len(entry.payload["text"]) == len(text)
