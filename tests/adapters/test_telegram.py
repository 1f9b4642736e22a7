"""The Telegram adapter against a Bot API server on loopback, with the real SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.adapters import telegram
from botsrt.adapters.telegram import Adapter
from botsrt.core import commands, redact
from botsrt.core.errors import (
    ChatMigrated,
    ConfigurationError,
    Conflict,
    CredentialError,
    FileUnavailable,
    ForgedRequest,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import Attachment, Button, InboundMessage, Route
from botsrt.core.ports import BotConfig, WebhookRequest
from botsrt.core.states import ChatType, EventKind
from tests.adapters import contract
from tests.adapters.contract import (
    BUTTONS,
    RETRY_AFTER_SECONDS,
    AdapterContract,
    ButtonsContract,
    EditContract,
    RecordingSink,
    Said,
    SendFault,
    Sent,
    WebhookContract,
    WebhookReceiver,
    World,
    outbound,
    recorded,
    running,
    supervised,
    until,
)
from tests.fakes.telegram import TOKEN, Refused, TelegramServer, Webhook, group, person, supergroup

FORUM = supergroup(-1002233445566, "Shop forum", is_forum=True)
SECRET = "loopback-webhook-secret_1"
CONFIG = BotConfig(account="shop", platform="telegram", credentials={"token": TOKEN, "webhook_secret": SECRET})


class TelegramWorld(World):
    adapter_class = Adapter
    wrong_credentials = {"token": "7000000002:FAKE-telegram-token-that-nobody-has"}
    identity = "@shop_bot"
    direct = Route(channel_id="501")
    threaded = Route(channel_id=str(FORUM["id"]), thread_id="12")

    def __init__(self, server: TelegramServer, receiver: WebhookReceiver | None = None) -> None:
        self.server = server
        self.receiver = receiver
        settings = {"api_base_url": server.url}
        if receiver is not None:
            settings |= {"mode": "webhook", "webhook_url": receiver.url}
        self.config = replace(CONFIG, settings=settings)
        self.replying = Route(channel_id="501", reply_to=str(server.bot.next_message_id(501)))

    async def say(self, text: str) -> Said:
        return self._said(self.server.bot.say(text))

    async def edit(self, said: Said, text: str) -> None:
        self.server.bot.edit(said.event, text)

    async def deliver_again(self, said: Said) -> None:
        self.server.bot.deliver_again(said.event)

    async def press(self, sent: Sent, data: str) -> Said:
        user = 501 if sent.channel_id == self.direct.channel_id else 502
        chat = FORUM if sent.channel_id == str(FORUM["id"]) else int(sent.channel_id)
        update = self.server.bot.press(data, user=user, chat=chat, message_id=int(sent.message_id))
        message_id = f"callback:{update['callback_query']['id']}"
        return Said(channel_id=sent.channel_id, message_id=message_id, user_id=str(user), text=data, event=update)

    async def do_something_else(self) -> None:
        self.server.bot.join()
        self.server.bot.message({"poll": {"id": "1", "question": "Pizza?"}}, chat=-1001)

    def is_acknowledged(self, said: Said) -> bool:
        return self.server.bot.is_acknowledged(said.event)

    async def remove(self, sent: Sent) -> None:
        self.server.delete(int(sent.channel_id), int(sent.message_id))

    async def break_next_send(self, fault: SendFault) -> None:
        await self._break_next("sendMessage", fault)

    async def break_next_edit(self, fault: SendFault) -> None:
        await self._break_next("editMessageText", fault)

    async def _break_next(self, method: str, fault: SendFault) -> None:
        match fault:
            case SendFault.RATE_LIMITED:
                self.server.fail_next("rate_limit", method=method, retry_after=RETRY_AFTER_SECONDS)
            case SendFault.TARGET_GONE:
                self.server.fail_next("blocked", method=method)
            case SendFault.REFUSED:
                description = "Bad Request: message text is empty"
                self.server.fail_next("error", method=method, status=400, description=description)
            case SendFault.PLATFORM_FAILED:
                self.server.fail_next("error", method=method, status=500)
            case SendFault.UNREACHABLE:
                await self.server.lose_network()
            case SendFault.CUT_AFTER:
                self.server.fail_next("cut_after", method=method)
            case SendFault.NO_ANSWER:
                self.server.fail_next("hang_after", method=method, seconds=60)
            case SendFault.CREDENTIALS:
                self.server.revoke()

    def sent(self) -> list[Sent]:
        return [
            Sent(
                channel_id=str(sent.chat_id),
                message_id=str(sent.message_id),
                text=sent.text,
                thread_id=str(sent.thread_id or ""),
                reply_to=str(sent.reply_to or ""),
                buttons=tuple(Button(label=item["text"], data=item["callback_data"]) for item in sent.buttons),
            )
            for sent in self.server.sent
            if (sent.chat_id, sent.message_id) not in self.server.deleted
        ]

    async def lose_network(self) -> None:
        await self.server.lose_network()

    async def restore_network(self) -> None:
        await self.server.restore_network()

    @staticmethod
    def _said(update: dict[str, Any]) -> Said:
        message = update["message"]
        return Said(
            channel_id=str(message["chat"]["id"]),
            message_id=str(message["message_id"]),
            user_id=str(message["from"]["id"]),
            text=message["text"],
            event=update,
        )


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telegram, "SEND_READ_SECONDS", 0.5)
    monkeypatch.setattr(telegram, "MAX_POLL_PAUSE_SECONDS", 0.05)


@pytest.fixture
async def server() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
async def world(server: TelegramServer) -> TelegramWorld:
    return TelegramWorld(server)


@pytest.fixture
async def hooked(server: TelegramServer) -> AsyncIterator[TelegramWorld]:
    async with WebhookReceiver().serving() as receiver:
        yield TelegramWorld(server, receiver)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


def hook(update: object, *, secret: str | None = SECRET) -> WebhookRequest:
    body = update if isinstance(update, bytes) else json.dumps(update).encode()
    headers = {} if secret is None else {"x-telegram-bot-api-secret-token": secret}
    return WebhookRequest(method="POST", headers=headers, query="", body=body)


class TestPolling(AdapterContract, ButtonsContract, EditContract):
    offline_class = Adapter
    offline_config = CONFIG

    @pytest.fixture
    def world(self, server: TelegramServer) -> TelegramWorld:
        return TelegramWorld(server)


class TestWebhook(WebhookContract, ButtonsContract, EditContract):
    offline_class = Adapter
    offline_config = replace(CONFIG, settings={"mode": "webhook", "webhook_url": "https://bots.example.org"})

    @pytest.fixture
    def world(self, hooked: TelegramWorld) -> TelegramWorld:
        return hooked

    def forged(self) -> list[WebhookRequest]:
        update = recorded("telegram")["text_direct.json"]
        return [hook(update, secret=secret) for secret in (None, "", SECRET[:-1], SECRET.upper(), "sécret", "\udcff")]

    def genuine(self, body: bytes) -> WebhookRequest:
        return hook(body)


# -- configuration ----


@pytest.mark.parametrize(
    ("settings", "credentials", "names"),
    [
        ({}, {"token": ""}, "token"),
        ({}, {"token": "no token at all"}, "token"),
        ({}, {"token": f"{TOKEN}\n"}, "token"),
        ({"api_base_url": "localhost:9100"}, {}, "api_base_url"),
        ({"mode": "webhook"}, {}, "webhook_url"),
        ({"mode": "webhook", "webhook_url": "ftp://example.org"}, {}, "webhook_url"),
        ({"mode": "webhook", "webhook_url": "https://example.org"}, {"webhook_secret": ""}, "webhook_secret"),
        ({}, {"webhook_secret": "not allowed!"}, "webhook_secret"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(
    settings: dict[str, str], credentials: dict[str, str], names: str
) -> None:
    config = replace(CONFIG, settings=settings, credentials={**CONFIG.credentials, **credentials})
    with pytest.raises(ConfigurationError, match=names) as refusal:
        Adapter(config, RecordingSink())
    assert TOKEN not in str(refusal.value)


def test_both_secrets_are_masked_from_then_on() -> None:
    credentials = {"token": "77:not-shaped-like-one", "webhook_secret": "a-secret-of-the-site"}
    Adapter(replace(CONFIG, credentials=credentials), RecordingSink())
    for secret in credentials.values():
        assert redact.redact(f"at {secret}!") == f"at {redact.MASK}!"


async def test_polling_takes_the_webhook_away_when_the_token_is_proven(
    world: TelegramWorld, sink: RecordingSink
) -> None:
    world.server.bot.set_webhook(Webhook(url="http://127.0.0.1:9/elsewhere"))
    world.server.fail_next("error", method="getMe", status=500)
    adapter = world.adapter(sink)
    with pytest.raises(PlatformUnavailable):
        await adapter.start()
    assert world.server.bot.webhook is not None
    await adapter.start()
    await adapter.close()
    assert world.server.bot.webhook is None


async def test_the_webhook_is_registered_with_its_secret(hooked: TelegramWorld, sink: RecordingSink) -> None:
    async with running(hooked, sink):
        webhook = hooked.server.bot.webhook
    assert webhook is not None
    assert hooked.receiver is not None
    assert webhook.url == f"{hooked.receiver.url}/hooks/telegram/shop/"
    assert webhook.secret == SECRET
    assert json.loads(hooked.server.last_params["setWebhook"]["allowed_updates"]) == list(telegram.UPDATE_KINDS)


async def test_the_commands_are_offered_in_the_menu(world: TelegramWorld, sink: RecordingSink) -> None:
    async with running(world, sink):
        await until(lambda: bool(world.server.bot.commands), "the menu is set")
    assert [item["command"] for item in world.server.bot.commands] == [kind.name for kind in commands.KINDS]


async def test_a_menu_that_telegram_does_not_take_keeps_no_bot_from_running(
    world: TelegramWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.fail_next("error", method="setMyCommands", status=500)
    async with running(world, sink):
        await until(lambda: "menu of commands was not taken" in caplog.text, "it is reported")
        await world.say("hello")
        await until(lambda: sink.texts() == ["hello"], "it is received")


async def test_the_menu_of_the_bots_owner_is_left_alone(world: TelegramWorld, sink: RecordingSink) -> None:
    async with running(world, sink, settings={**world.config.settings, "menu": "botfather"}):
        await world.say("hello")
        await until(lambda: sink.texts() == ["hello"], "it is received")
    assert world.server.calls["setMyCommands"] == 0


async def test_a_webhook_address_that_telegram_refuses_is_a_matter_of_settings(
    hooked: TelegramWorld, sink: RecordingSink
) -> None:
    hooked.server.fail_next(
        "error",
        method="setWebhook",
        status=400,
        description="Bad Request: bad webhook: IP address 10.0.0.1 is reserved",
    )
    adapter = hooked.adapter(sink)
    with pytest.raises(ConfigurationError, match=r"webhook_url: .*is reserved"):
        await adapter.start()
    await adapter.close()


async def test_a_webhook_that_was_taken_away_is_noticed(
    hooked: TelegramWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telegram, "WEBHOOK_CHECK_SECONDS", 0.02)
    adapter = hooked.adapter(sink)
    await adapter.start()
    run = asyncio.create_task(adapter.run())
    hooked.server.fail_next("bare", method="getWebhookInfo", status=502)
    await until(lambda: "could not be checked" in caplog.text, "a failed check is reported")
    hooked.server.bot.set_webhook(None)
    with pytest.raises(Conflict):
        await run
    await adapter.close()


# -- inbound ----


async def test_an_unreadable_update_is_kept_and_passed(world: TelegramWorld, sink: RecordingSink) -> None:
    async with running(world, sink):
        broken = world.server.bot.update("message", {"message_id": 7, "text": "nobody, nowhere"})
        await world.say("hello")
        await until(lambda: sink.texts() == ["hello"], "the message behind it arrives")
        await until(lambda: world.server.bot.is_acknowledged(broken), "it is acknowledged")
    (kept,) = sink.unreadable
    assert kept.event_id == f"update:{broken['update_id']}"
    assert kept.raw == broken
    assert isinstance(kept.error, UnreadableUpdate)


async def test_an_unreadable_update_that_was_not_kept_comes_again(world: TelegramWorld, sink: RecordingSink) -> None:
    sink.refusals = 1
    async with running(world, sink):
        world.server.bot.update("message", "junk")
        await until(lambda: len(sink.unreadable) == 1, "it comes again")
    assert sink.refused == 1


async def test_an_unreadable_update_by_webhook_is_kept_once_and_answered(
    hooked: TelegramWorld, sink: RecordingSink
) -> None:
    assert hooked.receiver is not None
    async with running(hooked, sink):
        hooked.server.bot.update("message", ["junk"])
        await until(lambda: len(sink.unreadable) == 1, "it is kept")
        await until(lambda: not hooked.server.bot.pending, "it is acknowledged")
    assert hooked.receiver.statuses == [200]


async def test_the_offset_moves_over_what_is_stored_without_a_gap(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    await adapter.start()
    updates = [world.server.bot.say(f"{user}.{number}", user=user) for number in range(3) for user in (601, 602)]
    sink.refusals = 1  # hits 601.0, so nothing of 601 is stored, and all of 602
    run = asyncio.create_task(adapter.run())
    await until(lambda: len(sink.messages) == 6, "everything is stored")
    await until(lambda: not world.server.bot.pending, "everything is acknowledged")
    run.cancel()
    await asyncio.wait([run])
    await adapter.close()
    for user in ("601", "602"):
        assert [text for text in sink.texts() if text.startswith(user)] == [f"{user}.{number}" for number in range(3)]
    assert sink.texts()[:3] == ["602.0", "602.1", "602.2"]
    assert len(sink.deliveries) == 9  # 602 once more, behind the gap
    assert world.server.last_params["getUpdates"]["offset"] == str(updates[-1]["update_id"] + 1)


async def test_chats_do_not_wait_for_each_other(world: TelegramWorld, sink: RecordingSink) -> None:
    sink.gate.clear()
    world.server.bot.flood(40, chats=20)
    async with running(world, sink):
        await until(lambda: sink.held == 20, "the first message of every chat is being stored")
        sink.gate.set()
        await until(lambda: len(sink.messages) == 40, "all arrive")


async def test_a_bug_behind_the_sink_is_not_acknowledged(world: TelegramWorld) -> None:
    class BrokenSink(RecordingSink):
        async def receive(self, message: InboundMessage) -> bool:
            raise ZeroDivisionError

    said = await world.say("hello")
    adapter = world.adapter(BrokenSink())
    await adapter.start()
    with pytest.raises(ZeroDivisionError):
        await adapter.run()
    await adapter.close()
    assert not world.is_acknowledged(said)


class OrderedSink(RecordingSink):
    """Remembers in which order messages and moves were stored."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    async def receive(self, message: InboundMessage) -> bool:
        is_new = await super().receive(message)
        self.events.append(message.text)
        return is_new

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        await asyncio.sleep(0.02)  # lets others overtake, if they may
        await super().chat_migrated(old_channel_id=old_channel_id, new_channel_id=new_channel_id)
        self.events.append("moved")


async def test_a_group_has_moved_before_its_next_message_is_stored(world: TelegramWorld) -> None:
    sink = OrderedSink()
    world.server.bot.say("before", chat=group(-400))
    world.server.bot.message({"migrate_to_chat_id": -1001234}, chat=group(-400))
    world.server.bot.say("after", chat=-1001234)
    async with running(world, sink):
        await until(lambda: "after" in sink.events, "everything is stored")
    assert sink.events == ["before", "moved", "after"]
    assert sink.migrations == [("-400", "-1001234")]


async def test_a_group_moves_by_webhook_as_well(hooked: TelegramWorld, sink: RecordingSink) -> None:
    async with running(hooked, sink):
        hooked.server.bot.migrate(group(-400), -1001234)
        await until(lambda: len(sink.migrations) == 2, "both chats tell of the move")
    assert set(sink.migrations) == {("-400", "-1001234")}
    assert sink.unreadable == []


async def test_a_pressed_button_is_a_message_and_is_confirmed(world: TelegramWorld, sink: RecordingSink) -> None:
    async with running(world, sink):
        pressed = world.server.bot.press("order:17:yes", chat=-1001)
        await until(lambda: bool(world.server.bot.answered_callbacks), "the button stops waiting")
    (message,) = sink.messages
    callback_id = pressed["callback_query"]["id"]
    assert message.message_id == f"callback:{callback_id}"
    assert (message.kind, message.text, message.is_mentioned) == (EventKind.CALLBACK, "order:17:yes", True)
    assert world.server.bot.answered_callbacks == {callback_id}


async def test_a_button_is_confirmed_only_when_its_press_is_stored(world: TelegramWorld, sink: RecordingSink) -> None:
    sink.refusals = 1
    async with running(world, sink):
        world.server.bot.press("yes")
        await until(lambda: sink.refused == 1, "the sink refuses")
        assert world.server.calls["answerCallbackQuery"] == 0
        sink.gate.clear()
        await until(lambda: sink.held == 1, "the press comes again")
        assert world.server.calls["answerCallbackQuery"] == 0
        sink.gate.set()
        await until(lambda: bool(world.server.bot.answered_callbacks), "the button stops waiting")


async def test_a_button_below_a_message_that_is_out_of_reach_works(world: TelegramWorld, sink: RecordingSink) -> None:
    bot = world.server.bot
    async with running(world, sink) as adapter:
        await adapter.send(outbound(Route(channel_id="-1001"), buttons=BUTTONS))
        (sent,) = world.sent()
        message_id = int(sent.message_id)
        bot.press(BUTTONS[0].data, user=502, chat=-1001, message_id=message_id, is_inaccessible=True)
        await until(lambda: bool(bot.answered_callbacks), "the button stops waiting")
        world.server.delete(-1001, message_id)
        await adapter.send(outbound(sink.messages[0].route, "Done.", number=2))
    (message,) = sink.messages
    assert (message.kind, message.text, message.sender.user_id) == (EventKind.CALLBACK, BUTTONS[0].data, "502")
    assert message.route == Route(channel_id="-1001", reply_to=sent.message_id)
    assert [(sent.text, sent.reply_to) for sent in world.sent()] == [("Done.", "")]


async def test_a_button_that_cannot_be_confirmed_does_no_harm(world: TelegramWorld, sink: RecordingSink) -> None:
    world.server.fail_next("error", method="answerCallbackQuery", status=400, description="Bad Request: too old")
    async with running(world, sink):
        world.server.bot.press("yes")
        await until(lambda: world.server.calls["answerCallbackQuery"] == 1, "it is tried")
        await world.say("still here?")
        await until(lambda: "still here?" in sink.texts(), "the bot reads on")


async def test_close_does_not_wait_for_a_button(
    world: TelegramWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telegram, "SEND_READ_SECONDS", 60.0)
    world.server.fail_next("hang_after", method="answerCallbackQuery", seconds=60)
    async with asyncio.timeout(10), running(world, sink):
        world.server.bot.press("yes")
        await until(lambda: bool(world.server.bot.answered_callbacks), "the call is under way")


async def test_every_kind_of_message_arrives_through_the_sdk(world: TelegramWorld, sink: RecordingSink) -> None:
    bot = world.server.bot
    async with running(world, sink):
        bot.photo("look @shop_bot", chat=-1001)
        bot.document("the invoice")
        bot.say("in a topic", chat=FORUM, thread_id=12)
        await until(lambda: len(sink.messages) == 3, "all arrive")
    by_text = {message.text: message for message in sink.messages}
    assert by_text["look @shop_bot"].attachments[0].kind == "photo"
    assert by_text["look @shop_bot"].is_mentioned
    assert by_text["the invoice"].attachments[0].name == "invoice.pdf"
    assert by_text["in a topic"].route == Route(channel_id=str(FORUM["id"]), thread_id="12", reply_to="1")


# -- trouble while polling ----


async def test_the_older_of_two_pollers_is_told(world: TelegramWorld, sink: RecordingSink) -> None:
    first, second = world.adapter(sink), world.adapter(sink)
    await first.start()
    run = asyncio.create_task(first.run())
    await until(lambda: world.server.bot.polls == 1, "the first one polls")
    other = asyncio.create_task(second.run())
    with pytest.raises(Conflict, match="Somebody else receives"):
        await run
    await world.say("hello")
    await until(lambda: sink.texts() == ["hello"], "the newer one reads")
    other.cancel()
    await asyncio.wait([other])
    await first.close()
    await second.close()


async def test_polling_goes_on_after_every_kind_of_trouble(
    world: TelegramWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for kind in ("error", "bare", "cut_before", "cut_after"):
        world.server.fail_next(kind, method="getUpdates", status=502)
    world.server.fail_next("rate_limit", method="getUpdates", retry_after=1)
    async with running(world, sink):
        await world.say("hello")
        await until(lambda: sink.texts() == ["hello"], "the message arrives")
    assert caplog.text.count("next poll in") == 5
    assert "asks to wait 1 s.; next poll in 1.0 s" in caplog.text
    assert TOKEN not in caplog.text


async def test_polling_that_fails_for_long_gives_up_so_that_the_state_shows_it(
    world: TelegramWorld, sink: RecordingSink
) -> None:
    adapter = world.adapter(sink)
    await adapter.start()
    await world.lose_network()
    with pytest.raises(PlatformUnavailable, match="could not be reached"):
        await adapter.run()
    await adapter.close()


async def test_a_token_that_is_withdrawn_ends_the_polling(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    await adapter.start()
    run = asyncio.create_task(adapter.run())
    await until(lambda: world.server.bot.polls == 1, "it polls")
    world.server.revoke()
    world.server.bot.say("wakes the poller")
    with pytest.raises(CredentialError):
        await run
    await adapter.close()


async def test_something_else_at_the_address_is_reported_without_a_token(
    world: TelegramWorld, sink: RecordingSink
) -> None:
    adapter = world.adapter(sink, settings={"api_base_url": f"{world.server.url}/control/no-such-place"})
    with pytest.raises(PlatformUnavailable) as failure:
        await adapter.start()
    await adapter.close()
    assert TOKEN not in str(failure.value)


async def test_nothing_is_lost_or_doubled_in_chaos(world: TelegramWorld, sink: RecordingSink) -> None:
    world.server.chaos(fault_rate=0.2, duplicate_rate=0.2, seed=7)
    async with supervised(world, sink):
        for number in range(300):
            world.server.bot.say(f"{number % 7}:{number}", user=700 + number % 7)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(sink.messages) == 300, "everything arrives", seconds=60)
        await until(lambda: not world.server.bot.pending, "everything is acknowledged", seconds=60)
    for chat in range(7):
        mine = [text for text in sink.texts() if text.startswith(f"{chat}:")]
        assert mine == [f"{chat}:{number}" for number in range(chat, 300, 7)]
    assert len(sink.deliveries) > 300, "Some came twice, and only the sink could tell."


# -- outbound ----


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "bare", "status": 502}, OutcomeUnknown),
        ({"kind": "bare", "status": 504}, OutcomeUnknown),
        ({"kind": "bare", "status": 500}, OutcomeUnknown),
        ({"kind": "error", "status": 502, "description": "Bad Gateway"}, OutcomeUnknown),
        ({"kind": "error", "status": 503, "description": "Service Unavailable"}, PlatformUnavailable),
        ({"kind": "error", "status": 409, "description": "Conflict"}, PlatformUnavailable),
        ({"kind": "error", "status": 429, "description": "Too Many Requests"}, PlatformUnavailable),
        ({"kind": "bare", "status": 403}, PlatformUnavailable),
        ({"kind": "bare", "status": 404}, PlatformUnavailable),
        ({"kind": "cut_before"}, OutcomeUnknown),
        ({"kind": "no_chat"}, TargetGone),
        ({"kind": "error", "status": 403, "description": "Forbidden: user is deactivated"}, TargetGone),
        ({"kind": "error", "status": 400, "description": "Bad Request: CHAT_WRITE_FORBIDDEN"}, TargetGone),
        ({"kind": "error", "status": 400, "description": "Bad Request: message thread not found"}, TargetGone),
        ({"kind": "error", "status": 400, "description": "Bad Request: TOPIC_CLOSED"}, TargetGone),
        ({"kind": "error", "status": 400, "description": "Bad Request: message is too long"}, MessageRefused),
        ({"kind": "error", "status": 413, "description": "Request Entity Too Large"}, PlatformUnavailable),
    ],
    ids=lambda value: f"{value['kind']}-{value.get('status', '')}" if isinstance(value, dict) else value.__name__,
)
async def test_what_telegram_says_is_understood(
    fault: dict[str, Any], expected: type[Exception], world: TelegramWorld, sink: RecordingSink
) -> None:
    adapter = world.adapter(sink)
    world.server.fail_next(**fault)
    with pytest.raises(expected) as failure:
        await adapter.send(outbound(world.direct))
    await adapter.close()
    assert type(failure.value) is expected
    assert failure.value.__cause__ is not None
    assert TOKEN not in str(failure.value)
    assert world.sent() == []


async def test_a_slow_answer_is_waited_for(world: TelegramWorld, sink: RecordingSink) -> None:
    world.server.fail_next("slow", seconds=0.2)
    adapter = world.adapter(sink)
    receipt = await adapter.send(outbound(world.direct))
    await adapter.close()
    assert receipt.platform_message_id == world.sent()[0].message_id


async def test_a_chat_that_moved_tells_its_new_id(world: TelegramWorld, sink: RecordingSink) -> None:
    world.server.bot.migrate(group(-400), -1001234)
    adapter = world.adapter(sink)
    with pytest.raises(ChatMigrated) as moved:
        await adapter.send(outbound(Route(channel_id="-400")))
    await adapter.send(outbound(Route(channel_id=moved.value.new_channel_id)))
    await adapter.close()
    assert [sent.channel_id for sent in world.sent()] == ["-1001234"]


async def test_an_answer_to_a_deleted_message_is_sent_without_reference(
    world: TelegramWorld, sink: RecordingSink
) -> None:
    world.server.delete(501, int(world.replying.reply_to))
    adapter = world.adapter(sink)
    await adapter.send(outbound(world.replying))
    await adapter.close()
    assert [sent.reply_to for sent in world.sent()] == [""]


async def test_an_answer_to_a_pressed_button_refers_to_no_message(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    await adapter.send(outbound(Route(channel_id="501", reply_to="callback:4000")))
    await adapter.close()
    assert [sent.reply_to for sent in world.sent()] == [""]


@pytest.mark.parametrize("route", [Route(channel_id="C0SLACK"), Route(channel_id="501", thread_id="17.5")])
async def test_a_foreign_route_is_no_target(route: Route, world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    with pytest.raises(TargetGone):
        await adapter.send(outbound(route))
    await adapter.close()
    assert world.server.calls["sendMessage"] == 0


async def test_text_beyond_the_limit_is_refused(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    with pytest.raises(MessageRefused):
        await adapter.send(outbound(world.direct, "😀" * 2049))
    await adapter.close()


async def test_an_answer_that_is_no_message_leaves_the_outcome_open(
    world: TelegramWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(world.server._methods, "sendmessage", lambda bot, params: {"message_id": "?", "chat": 5})
    adapter = world.adapter(sink)
    with pytest.raises(OutcomeUnknown):
        await adapter.send(outbound(world.direct))
    await adapter.close()


async def test_buttons_stand_in_one_row(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    await adapter.send(outbound(world.direct, buttons=BUTTONS))
    await adapter.close()
    (sent,) = world.server.sent
    row = [{"text": button.label, "callback_data": button.data} for button in BUTTONS]
    assert sent.reply_markup == {"inline_keyboard": [row]}


async def test_typing_is_shown_in_the_thread_and_its_errors_do_not_matter(
    world: TelegramWorld, sink: RecordingSink
) -> None:
    adapter = world.adapter(sink)
    await adapter.show_typing(world.threaded)
    world.server.fail_next("cut_before", method="sendChatAction")
    await adapter.show_typing(world.direct)
    await adapter.show_typing(Route(channel_id="C0SLACK"))
    await adapter.close()
    await adapter.show_typing(world.direct)
    assert list(world.server.bot.typing) == [(FORUM["id"], 12)]


async def test_a_file_is_fetched(world: TelegramWorld, sink: RecordingSink) -> None:
    adapter = world.adapter(sink)
    message = adapter.parse(world.server.bot.document(name="my invoice#1.pdf", content="%PDF-1.7"))
    assert message is not None
    (attachment,) = message.attachments
    assert await adapter.fetch(attachment, max_bytes=8) == b"%PDF-1.7"
    with pytest.raises(FileUnavailable, match="more than 7 bytes"):
        await adapter.fetch(attachment, max_bytes=7)
    with pytest.raises(FileUnavailable, match="Invalid file_id"):
        await adapter.fetch(replace(attachment, reference="nobody's"), max_bytes=8)
    with pytest.raises(FileUnavailable):
        await adapter.fetch(Attachment(kind="location", reference="1.0,2.0"), max_bytes=8)
    world.server.fail_next("error", method="getFile", status=500)
    with pytest.raises(PlatformUnavailable):
        await adapter.fetch(attachment, max_bytes=8)
    await adapter.close()


@pytest.mark.parametrize("path", ["/var/lib/bot/secret", "../../etc/passwd", "a/../../b", "", 5])
async def test_a_path_that_leaves_the_files_is_not_followed(
    world: TelegramWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, path: object
) -> None:
    monkeypatch.setitem(world.server._methods, "getfile", lambda bot, params: {"file_id": "f", "file_path": path})
    adapter = world.adapter(sink)
    with pytest.raises(FileUnavailable, match="did not say where"):
        await adapter.fetch(Attachment(kind="photo", reference="f"), max_bytes=8)
    await adapter.close()


async def test_two_bots_do_not_mix(world: TelegramWorld, sink: RecordingSink) -> None:
    other = world.server.add_bot("7000000009:FAKE-telegram-token-of-another-bot", "help_bot")
    theirs = RecordingSink()
    async with running(world, sink), running(world, theirs, account="help", credentials={"token": other.token}):
        other.say("help!", user=501)
        await world.say("shop!")
        await until(lambda: bool(sink.messages and theirs.messages), "both arrive")
    assert (sink.texts(), theirs.texts()) == (["shop!"], ["help!"])
    assert theirs.messages[0].account == "help"


# -- reading ----


def parsed(name: str, *, knows_its_name: bool = True) -> InboundMessage:
    adapter = Adapter(CONFIG, RecordingSink())
    adapter._user_name = "shop_bot" if knows_its_name else ""
    message = adapter.parse(recorded("telegram")[f"{name}.json"])
    assert message is not None
    return message


def test_a_text_is_read_whole() -> None:
    message = parsed("text_direct")
    assert message.channel_id == "501220044"
    assert message.message_id == "1201"
    assert (message.sender.user_id, message.sender.user_name) == ("501220044", "alice_ok")
    assert message.sender.display_name == "Alice Okafor"
    assert message.text == "Where is my parcel? 📦"
    assert message.sent_at == datetime(2026, 11, 20, 22, 0, tzinfo=UTC).fromtimestamp(1795212000 + 1201, UTC)
    assert (message.reply_to, message.thread_id, message.chat_name) == ("", "", "")
    assert message.raw == recorded("telegram")["text_direct.json"]


MENTIONED = {
    "text_group": False,
    "text_group_mention": True,
    "text_group_mention_of_another": False,
    "text_group_mention_in_code": False,
    "text_group_text_mention": True,
    "text_group_command": False,
    "text_group_command_addressed": True,
    "text_group_command_for_another": False,
    "text_group_reply_to_bot": True,
    "text_group_reply_chain": False,
    "text_topic": False,
    "text_topic_reply_to_bot": True,
    "photo_caption_group": True,
    "edit_caption_group": True,
    "callback_topic": True,
}

#: What needs no name: the token says which user the bot is.
MENTIONED_WITHOUT_NAME = {"text_group_text_mention", "text_group_reply_to_bot", "text_topic_reply_to_bot"}


@pytest.mark.parametrize("name", MENTIONED)
def test_who_is_meant_in_a_group(name: str) -> None:
    message = parsed(name)
    assert message.chat_type is ChatType.GROUP
    assert message.is_mentioned is MENTIONED[name]
    unnamed = parsed(name, knows_its_name=False)
    assert unnamed.is_mentioned is (name in MENTIONED_WITHOUT_NAME or name == "callback_topic")


def test_a_command_loses_the_address_of_this_bot_only() -> None:
    assert parsed("text_group_command_addressed").text == "/new order 12"
    assert parsed("text_group_command_for_another").text == "/new@shop_bot_test"
    assert parsed("text_group_command_addressed", knows_its_name=False).text == "/new@Shop_bot order 12"


def test_an_answer_refers_to_its_message_in_groups_only() -> None:
    assert parsed("text_group").route == Route(channel_id="-4021187733", reply_to="77")
    assert parsed("text_direct_quote").route == Route(channel_id="6120033441")
    assert parsed("callback_topic").route == Route(channel_id="-1002233445566", thread_id="12", reply_to="91")


def test_only_topics_are_threads() -> None:
    assert parsed("text_topic").thread_id == "12"
    assert parsed("text_direct_topic").thread_id == "8841"
    assert parsed("text_group_reply_chain").thread_id == ""


def test_the_parts_of_an_album_say_which_one() -> None:
    assert parsed("photo_caption_group").album == "13579246801234567"
    assert parsed("photo").album == ""


def test_an_edit_is_known_by_its_time() -> None:
    edit = parsed("edit_text")
    assert (edit.kind, edit.message_id, edit.revision) == (EventKind.EDIT, "1201", "1795217000")
    assert edit.sent_at == datetime.fromtimestamp(1795217000, UTC)
    assert parsed("edit_caption_group").text == "@shop_bot is this one broken?"


@pytest.mark.parametrize(
    ("name", "kind", "reference", "file_name", "mime_type", "size_bytes"),
    [
        ("photo", "photo", "AgACAgIAAxkBAAIEumC", "", "", 98211),
        ("document", "document", "BQACAgIAAxkBAAIEu2", "Rechnung März.pdf", "application/pdf", 48213),
        ("voice", "voice", "AwACAgIAAxkBAAIEvA", "", "audio/ogg", 17211),
        ("audio", "audio", "CQACAgIAAxkBAAIEvQ", "song.mp3", "audio/mpeg", 5123456),
        ("video", "video", "BAACAgIAAxkBAAIEvg", "clip.mp4", "video/mp4", 2147483648),
        ("video_note", "video_note", "DQACAgIAAxkBAAIEvw", "", "", 402110),
        ("sticker", "sticker", "CAACAgIAAxkBAAIEwA", "👍", "", 8120),
        ("animation", "animation", "CgACAgQAAxkBAAIEwQ", "giphy.mp4", "video/mp4", 77120),
        ("location", "location", "52.520008,13.404954", "", "", None),
        ("venue", "location", "48.200000,16.000000", "", "", None),
    ],
)
def test_a_file_is_a_reference(
    name: str, kind: str, reference: str, file_name: str, mime_type: str, size_bytes: int | None
) -> None:
    (attachment,) = parsed(name).attachments
    assert (attachment.kind, attachment.reference) == (kind, reference)
    assert (attachment.name, attachment.mime_type, attachment.size_bytes) == (file_name, mime_type, size_bytes)


# -- webhooks without a running bot, as the site has them ----


async def test_a_webhook_learns_the_name_when_it_matters(server: TelegramServer, sink: RecordingSink) -> None:
    adapter = Adapter(replace(CONFIG, settings={"api_base_url": server.url}), sink)
    await adapter.webhook(hook(recorded("telegram")["text_group.json"]))
    assert server.calls["getMe"] == 0
    await adapter.webhook(hook(recorded("telegram")["text_group_mention.json"]))
    await adapter.webhook(hook(recorded("telegram")["photo_caption_group.json"]))
    await adapter.close()
    assert server.calls["getMe"] == 1
    assert [message.is_mentioned for message in sink.messages] == [False, True, True]


async def test_a_webhook_stores_though_its_name_cannot_be_learnt(server: TelegramServer, sink: RecordingSink) -> None:
    adapter = Adapter(replace(CONFIG, settings={"api_base_url": server.url}), sink)
    server.fail_next("error", method="getMe", times=10)
    for name in ("text_group_mention", "photo_caption_group"):
        await adapter.webhook(hook(recorded("telegram")[f"{name}.json"]))
    await adapter.close()
    assert server.calls["getMe"] == 1, "It is not asked again at once."
    assert [message.is_mentioned for message in sink.messages] == [False, False]


async def test_a_bot_without_a_secret_takes_no_webhook(sink: RecordingSink) -> None:
    adapter = Adapter(replace(CONFIG, credentials={"token": TOKEN}), sink)
    for secret in (None, "", "guess"):
        with pytest.raises(ForgedRequest):
            await adapter.webhook(hook(recorded("telegram")["text_direct.json"], secret=secret))


@contract._fuzz
@given(data=st.data())
def test_any_genuine_webhook_is_stored_or_named(data: st.DataObject) -> None:
    events = recorded("telegram")
    name = data.draw(st.sampled_from(sorted(events)))
    values = contract._json(sorted(contract._keys(events[name]))) | st.just(contract._REMOVED)
    damages = data.draw(st.lists(st.tuples(st.integers(0, 500), values), max_size=3))
    sink = RecordingSink()

    async def call() -> None:
        adapter = Adapter(CONFIG, sink)
        adapter._user_name = "shop_bot"
        body = json.dumps(contract.damaged(events[name], damages)).encode()
        try:
            answer = await adapter.webhook(hook(body))
        except UnreadableUpdate:
            assert not sink.messages
        else:
            assert answer.status == 200
            assert len(sink.messages) + len(sink.unreadable) + len(sink.migrations) <= 1
        await adapter.close()

    asyncio.run(call())


# -- the fake itself, where tests lean on it ----


async def test_the_fake_can_be_driven_from_another_process() -> None:
    import sys

    import aiohttp

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.telegram", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = ""
    while not url:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        url = line.partition("api_base_url=")[2].strip()
    async with aiohttp.ClientSession(url) as http:

        async def post(path: str, body: object) -> Any:
            async with http.post(path, json=body) as response:
                return await response.json()

        said = await post("/control/say", {"text": "/start", "user": 502})
        updates = await post(f"/bot{TOKEN}/getUpdates", {"timeout": 0})
        assert updates["result"] == [said]
        await post("/control/fail_next", {"kind": "rate_limit", "retry_after": 3})
        limited = await post(f"/bot{TOKEN}/sendMessage", {"chat_id": 502, "text": "hi"})
        assert (limited["error_code"], limited["parameters"]) == (429, {"retry_after": 3})
        await post(f"/bot{TOKEN}/sendMessage", {"chat_id": 502, "text": "hi"})
        assert (await post("/control/sent", {}))["messages"][0]["text"] == "hi"
        assert (await post("/control/no_such_verb", {}))["error"] == "no such verb"
        assert (await post("/control/state", {}))["bots"]["shop_bot"]["pending"] == 1
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_the_fake_lets_nobody_press_what_is_not_there(world: TelegramWorld, sink: RecordingSink) -> None:
    bot, adapter = world.server.bot, world.adapter(sink)
    await adapter.send(outbound(world.direct, buttons=BUTTONS))
    await adapter.close()
    message_id = int(world.sent()[0].message_id)
    with pytest.raises(Refused, match="DATA_INVALID"):
        bot.press("order:18:yes", message_id=message_id)
    with pytest.raises(Refused, match="MESSAGE_ID_INVALID"):
        bot.press(BUTTONS[0].data, user=502, message_id=message_id)
    world.server.delete(501, message_id)
    with pytest.raises(Refused, match="MESSAGE_ID_INVALID"):
        bot.press(BUTTONS[0].data, message_id=message_id)
    assert not bot.pending


@pytest.mark.parametrize(
    ("button", "problem"),
    [
        ({"text": "Yes", "callback_data": "ж" * 33}, "BUTTON_DATA_INVALID"),
        ({"text": "Yes", "callback_data": ""}, "BUTTON_DATA_INVALID"),
        ({"text": " ", "callback_data": "yes"}, "Text is empty"),
        ({"text": "Yes"}, "can't parse reply keyboard"),
        ("Yes", "can't parse reply keyboard"),
    ],
)
async def test_the_fake_refuses_a_keyboard_that_telegram_would_refuse(button: object, problem: str) -> None:
    server = TelegramServer()
    markup = json.dumps({"inline_keyboard": [[button]]})
    with pytest.raises(Refused, match=problem):
        server._send_message(server.bot, {"chat_id": "501", "text": "Choose:", "reply_markup": markup})
    assert not server.sent


async def test_the_fake_forgets_the_oldest_when_told_to() -> None:
    async with TelegramServer(keep=10) as server:
        adapter = Adapter(replace(CONFIG, settings={"api_base_url": server.url}), RecordingSink())
        for number in range(12):
            await adapter.send(outbound(Route(channel_id="501"), f"part {number}"))
        await adapter.close()
    assert server.sent_total == 12
    assert [sent.text for sent in server.sent] == [f"part {number}" for number in range(2, 12)]
    assert person()["id"] == 501
