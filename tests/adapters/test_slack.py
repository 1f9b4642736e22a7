"""Slack: the adapter's contract, once over Socket Mode and once as webhooks, and what is Slack's own."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from botsrt.adapters import slack
from botsrt.adapters.slack import Adapter
from botsrt.core.errors import (
    ConfigurationError,
    CredentialError,
    FileUnavailable,
    ForgedRequest,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import Button, InboundMessage, Route
from botsrt.core.ports import BotConfig, WebhookRequest
from botsrt.core.states import ChatType, EventKind
from tests.adapters.contract import (
    BUTTONS,
    RETRY_AFTER_SECONDS,
    AdapterContract,
    ButtonsContract,
    EditContract,
    ReconcileContract,
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
    until,
)
from tests.fakes.slack import ALICE, Delivery, Refused, SlackServer, _checked_blocks

SIGNING_SECRET = "offline-signing-secret"

OFFLINE_CONFIG = BotConfig(
    account="shop",
    platform="slack",
    settings={"mode": "events"},
    credentials={"bot_token": "xoxb-offline-bot-token", "signing_secret": SIGNING_SECRET},
)

#: Short, so that a test need not wait: how long a call may take, and how soon a dead connection is noticed.
API_SECONDS = 1.0
PING_SECONDS = 0.5


class SlackWorld(World):
    adapter_class = Adapter

    def __init__(self, server: SlackServer, *, mode: str, receiver: WebhookReceiver | None = None) -> None:
        self.server = server
        self.receiver = receiver
        bot = server.bot
        secrets = {"bot_token": bot.bot_token}
        secrets |= {"app_token": bot.app_token} if mode == "socket" else {"signing_secret": bot.signing_secret}
        self.config = BotConfig(
            account="shop",
            platform="slack",
            settings={"mode": mode, "api_base_url": server.url},
            credentials=secrets,
        )
        self.wrong_credentials = {"bot_token": "xoxb-9999999999-nobody-knows-me"}
        self.identity = "@shop in T0FAKE"
        self.direct = Route(channel_id=server.dm_channel(ALICE, bot).id)
        self.threaded = Route(channel_id=bot.channel_id, thread_id=server.recall("a thread"))
        self.replying = Route(channel_id=bot.channel_id, reply_to=server.recall("a question"))
        self._unplugged: Any = None

    async def say(self, text: str) -> Said:
        ts = self.server.dm(text)
        return Said(channel_id=self.direct.channel_id, message_id=ts, user_id=ALICE, text=text)

    async def edit(self, said: Said, text: str) -> None:
        self.server.edit(said.channel_id, said.message_id, text)

    async def deliver_again(self, said: Said) -> None:
        self.server.redeliver(said.event or said.message_id)

    async def press(self, sent: Sent, data: str) -> Said:
        user = ALICE if sent.channel_id == self.direct.channel_id else "U0BOB"
        acted_at = self.server.press(sent.channel_id, sent.message_id, data, user=user)
        message_id = f"callback:{sent.message_id}:{acted_at}:{user}"
        return Said(channel_id=sent.channel_id, message_id=message_id, user_id=user, text=data, event=acted_at)

    async def do_something_else(self) -> None:
        self.server.join("U0BOB")
        self.server.bot_message("build 12 failed")
        self.server.react(self.threaded.channel_id, self.threaded.thread_id)

    def is_acknowledged(self, said: Said) -> bool:
        deliveries = self.server.deliveries_of(said.event or said.message_id)
        return bool(deliveries) and all(delivery.is_acked for delivery in deliveries)

    async def remove(self, sent: Sent) -> None:
        self.server.delete(sent.channel_id, sent.message_id)
        self.server.find_sent(sent.channel_id, sent.message_id).is_deleted = True

    async def break_next_send(self, fault: SendFault) -> None:
        await self._break_next("chat.postMessage", fault)

    async def break_next_edit(self, fault: SendFault) -> None:
        await self._break_next("chat.update", fault)

    async def _break_next(self, method: str, fault: SendFault) -> None:
        match fault:
            case SendFault.RATE_LIMITED:
                self.server.fail_next("429", method=method, retry_after=RETRY_AFTER_SECONDS)
            case SendFault.TARGET_GONE:
                self.server.fail_next("error", method=method, error="is_archived")
            case SendFault.REFUSED:
                self.server.fail_next("error", method=method, error="msg_too_long")
            case SendFault.PLATFORM_FAILED:
                body = json.dumps({"ok": False, "error": "service_unavailable"})
                self.server.fail_next("status", method=method, status=503, body=body)
            case SendFault.UNREACHABLE:
                await self.lose_network()
            case SendFault.CUT_AFTER:
                self.server.fail_next("cut_after", method=method)
            case SendFault.NO_ANSWER:
                self.server.fail_next("hang", method=method, seconds=60.0)
            case SendFault.CREDENTIALS:
                self.server.set_token_error("token_revoked")

    def sent(self) -> list[Sent]:
        return [
            Sent(
                channel_id=sent.channel,
                message_id=sent.ts,
                text=sent.shown,
                thread_id=sent.thread_ts,
                reply_to=sent.thread_ts,  # the only way to refer to a message
                buttons=tuple(Button(label=item["text"]["text"], data=item["value"]) for item in sent.buttons),
            )
            for sent in self.server.sent
            if not sent.is_deleted
        ]

    async def lose_network(self) -> None:
        if self.receiver:
            self._unplugged, self.receiver.adapter = self.receiver.adapter, None
        await self.server.lose_network()

    async def restore_network(self) -> None:
        if self.receiver:
            self.receiver.adapter = self._unplugged
        await self.server.restore_network()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlackServer]:
    monkeypatch.setattr(slack, "API_SECONDS", API_SECONDS)
    monkeypatch.setattr(slack, "PING_SECONDS", PING_SECONDS)
    async with SlackServer() as server:
        server.ack_seconds = 1.0
        yield server


@pytest.fixture
def socket_world(server: SlackServer) -> SlackWorld:
    return SlackWorld(server, mode="socket")


@pytest.fixture
async def events_world(server: SlackServer) -> AsyncIterator[SlackWorld]:
    async with WebhookReceiver().serving() as receiver:
        server.set_events_url(f"{receiver.url}/hooks/slack/shop")
        yield SlackWorld(server, mode="events", receiver=receiver)
        await server.lose_network()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


def offline() -> Adapter:
    return Adapter(OFFLINE_CONFIG, RecordingSink())


def payload(name: str) -> Mapping[str, Any]:
    return recorded("slack")[f"{name}.json"]


def read(name: str) -> InboundMessage:
    message = offline().parse(payload(name))
    assert message is not None
    return message


def signed(
    server: SlackServer, body: bytes, *, at: float | None = None, secret: str = "", is_form: bool = False
) -> WebhookRequest:
    bot = replace(server.bot, signing_secret=secret) if secret else server.bot
    headers = server.signed_headers(body, bot=bot, at=at, is_form=is_form)
    return WebhookRequest(
        method="POST", headers={name.lower(): value for name, value in headers.items()}, query="", body=body
    )


async def test_a_file_is_fetched_with_the_bots_token_and_no_other(server: SlackServer, sink: RecordingSink) -> None:
    world = SlackWorld(server, mode="events")
    file = server.add_file("cat.png", b"meow", mime_type="image/png")
    attachment = slack._attachment(file)
    adapter, stranger = (
        world.adapter(sink),
        world.adapter(sink, credentials={**world.config.credentials, "bot_token": "xoxb-0"}),
    )
    assert await adapter.fetch(attachment, max_bytes=4) == b"meow"
    with pytest.raises(FileUnavailable, match="more than 3 bytes"):
        await adapter.fetch(attachment, max_bytes=3)
    with pytest.raises(FileUnavailable, match="files:read"):
        await stranger.fetch(attachment, max_bytes=1_000)
    for reference in (
        "F0CONNECT1",
        "https://evil.example/cat.png",
        "https://files.slack.com@127.0.0.1/",
        "file:///etc",
    ):
        with pytest.raises(FileUnavailable):
            await adapter.fetch(replace(attachment, reference=reference), max_bytes=1_000)
    await adapter.close()
    await stranger.close()


class TestSocketMode(AdapterContract, ButtonsContract, EditContract, ReconcileContract):
    offline_config = OFFLINE_CONFIG
    offline_class = Adapter

    @pytest.fixture
    def world(self, socket_world: SlackWorld) -> SlackWorld:
        return socket_world


class TestEventsApi(WebhookContract, ButtonsContract, EditContract, ReconcileContract):
    offline_config = OFFLINE_CONFIG
    offline_class = Adapter

    @pytest.fixture
    def world(self, events_world: SlackWorld) -> SlackWorld:
        return events_world

    def genuine(self, body: bytes) -> WebhookRequest:
        return signed(SlackServer(), body, secret=SIGNING_SECRET)

    def forged(self) -> list[WebhookRequest]:
        body = json.dumps(payload("message_direct")).encode()
        genuine = self.genuine(body)
        old = signed(SlackServer(), body, secret=SIGNING_SECRET, at=time.time() - 301)
        future = signed(SlackServer(), body, secret=SIGNING_SECRET, at=time.time() + 301)
        changes = [
            {"x-slack-signature": ""},
            {"x-slack-signature": "v0=" + "0" * 64},
            {"x-slack-signature": genuine.headers["x-slack-signature"].removeprefix("v0=")},
            {"x-slack-signature": "v0=ü\udcff"},
            {"x-slack-request-timestamp": ""},
            {"x-slack-request-timestamp": "soon"},
            {"x-slack-request-timestamp": "9" * 5000},
            {"x-slack-request-timestamp": str(int(time.time()) - 60)},  # the signature is over the time, too
        ]
        return [
            old,
            future,
            signed(SlackServer(), body, secret="another-secret"),
            signed(SlackServer(), b"command=%2Fhelp&text=", secret="another-secret", is_form=True),
            replace(genuine, headers={}),
            replace(genuine, body=body.replace(b"parcel", b"wallet")),
            *(replace(genuine, headers={**genuine.headers, **change}) for change in changes),
        ]


class TestConfiguration:
    @pytest.mark.parametrize(("mode", "credential"), [("socket", "app_token"), ("events", "signing_secret")])
    def test_each_mode_names_the_credential_it_lacks(self, mode: str, credential: str) -> None:
        config = replace(OFFLINE_CONFIG, settings={"mode": mode}, credentials={"bot_token": "xoxb-offline-bot-token"})
        with pytest.raises(ConfigurationError, match=credential):
            Adapter(config, RecordingSink())

    @pytest.mark.parametrize("url", ["slack.com", "ftp://slack.com", "https://"])
    def test_an_address_that_is_none_is_refused(self, url: str) -> None:
        config = replace(OFFLINE_CONFIG, settings={"mode": "events", "api_base_url": url})
        with pytest.raises(ConfigurationError, match="api_base_url"):
            Adapter(config, RecordingSink())

    @pytest.mark.parametrize("error", ["invalid_auth", "token_revoked"])
    async def test_a_refused_app_token_stops_the_start(
        self, error: str, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        socket_world.server.set_token_error(error, app_token=True)
        adapter = socket_world.adapter(sink)
        with pytest.raises(CredentialError, match=error):
            await adapter.start()
        await adapter.close()

    async def test_tokens_in_each_others_place_are_refused(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        bot = socket_world.server.bot
        adapter = socket_world.adapter(sink, credentials={"bot_token": bot.bot_token, "app_token": bot.bot_token})
        with pytest.raises(CredentialError, match="not_allowed_token_type"):
            await adapter.start()
        await adapter.close()

    async def test_the_proxy_of_the_environment_is_not_used_where_it_is_forbidden(
        self, monkeypatch: pytest.MonkeyPatch, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with running(socket_world, sink) as adapter:
            await adapter.send(outbound(socket_world.direct))


class TestParse:
    def test_a_mention_is_one_message_in_two_events(self) -> None:
        message, mention = read("message_mention"), read("app_mention")
        assert replace(message, raw={}) == replace(mention, raw={})
        assert message.is_mentioned
        assert message.text == "is order 4711 <shipped> & paid?"

    def test_a_channel_message_without_mention_is_not_for_the_bot(self) -> None:
        message = read("message_channel")
        assert message.chat_type is ChatType.GROUP
        assert not message.is_mentioned

    def test_a_channel_message_is_answered_in_the_thread_below_it(self) -> None:
        message = read("message_channel")
        assert message.route == Route(channel_id="C0LAN2Q65", reply_to=message.message_id)

    def test_a_message_of_a_thread_is_answered_there(self) -> None:
        message = read("message_thread")
        assert (message.thread_id, message.message_id) == ("1715600004.001500", "1715600005.000500")

    def test_an_answer_that_is_also_shown_in_the_channel_is_a_message_of_its_thread(self) -> None:
        assert read("message_thread_broadcast").thread_id == "1715600004.001500"

    def test_a_direct_message_is_answered_where_it_stands(self) -> None:
        message = read("message_direct")
        assert message.route == Route(channel_id="D024BE91L")
        assert (message.chat_type, message.is_mentioned) == (ChatType.DIRECT, True)
        assert message.sent_at == datetime(2024, 5, 13, 11, 33, 21, 100, UTC)

    def test_a_direct_message_in_a_thread_stays_there(self) -> None:
        assert read("message_direct_thread").route == Route(channel_id="D024BE91L", thread_id="1715600001.000100")

    def test_a_group_direct_message_is_a_group(self) -> None:
        message = read("message_mpim")
        assert (message.chat_type, message.is_mentioned) == (ChatType.GROUP, True)

    def test_other_markup_is_kept(self) -> None:
        assert read("message_mpim").text == (
            "hi <@U0LAN0Z89|shop>, ask <@U024BE7LH> in <#C012AB3CD|general> about <https://example.com/a?b=1&c=2|this>"
        )

    def test_an_edit_is_a_revision(self) -> None:
        edit = read("message_changed")
        assert (edit.kind, edit.message_id, edit.revision) == (
            EventKind.EDIT,
            "1715600003.000300",
            "1715600090.000000",
        )
        assert edit.text == "dinner, anybody?"

    def test_a_mention_that_was_edited_in_is_the_edit(self) -> None:
        assert read("app_mention_edited").revision == read("message_changed").revision
        assert read("app_mention_edited").is_mentioned

    def test_the_first_message_of_a_thread_stays_in_the_channel_when_it_is_edited(self) -> None:
        edit = read("message_changed_thread_root")
        assert (edit.thread_id, edit.reply_to) == ("", "1715600004.001500")

    def test_files_are_references(self) -> None:
        message = read("message_file_share")
        assert message.text == ""
        assert [(item.kind, item.name, item.size_bytes) for item in message.attachments] == [
            ("photo", "receipt.png", 48123),
            ("voice", "audio_message.m4a", 90210),
            ("document", "", None),
        ]
        assert message.attachments[0].reference.endswith("/receipt.png")
        assert message.attachments[2].reference == "F0CONNECT1"

    @pytest.mark.parametrize("name", ["message_direct", "button_direct", "command_direct"])
    def test_what_is_secret_is_not_kept(self, name: str) -> None:
        assert not {"token", "response_url"} & set(read(name).raw)

    def test_a_pressed_button_says_who_pressed_it_where_and_when(self) -> None:
        message = read("button_channel")
        assert (message.kind, message.text, message.is_mentioned) == (EventKind.CALLBACK, "order:17:yes", True)
        assert (message.sender.user_id, message.sender.user_name) == ("U061F7AUR", "alice")
        assert message.message_id == "callback:1715600010.000200:1715600015.840180:U061F7AUR"
        assert message.sent_at == datetime(2024, 5, 13, 11, 33, 35, 840180, UTC)

    def test_a_pressed_button_is_answered_where_it_stands(self) -> None:
        ts = "1715600010.000200"
        assert read("button_channel").route == Route(channel_id="C0LAN2Q65", reply_to=ts)
        assert read("button_thread_root").route == Route(channel_id="C0LAN2Q65", reply_to=ts)
        assert read("button_thread").route == Route(channel_id="C0LAN2Q65", thread_id="1715600004.001500", reply_to=ts)
        assert read("button_direct").route == Route(channel_id="D024BE91L")
        assert read("button_direct").chat_type is ChatType.DIRECT
        assert read("button_channel").chat_type is ChatType.GROUP

    def test_a_command_is_a_message_to_the_bot(self) -> None:
        message = read("command_direct")
        assert (message.kind, message.text, message.is_mentioned) == (EventKind.MESSAGE, "/link ABCD", True)
        assert message.message_id == "command:7109876543213.6012345678.f9e8d7c6b5a493827160f5e4d3c2b1a0"
        assert (message.sender.user_id, message.sender.user_name) == ("U061F7AUR", "alice")
        assert (message.chat_type, message.route) == (ChatType.DIRECT, Route(channel_id="D024BE91L"))

    def test_a_command_in_a_channel_is_answered_in_the_channel(self) -> None:
        message = read("command_channel")
        assert (message.text, message.chat_type) == ("/new", ChatType.GROUP)
        assert message.route == Route(channel_id="C0LAN2Q65")

    @pytest.mark.parametrize(
        ("changes", "chat_type"),
        [
            ({"channel_id": "C0LAN2Q65", "channel_name": "directmessage"}, ChatType.DIRECT),
            ({"channel_id": "D024BE91L", "channel_name": "anything"}, ChatType.DIRECT),
            ({"channel_id": "G0LAN2Q65", "channel_name": "privategroup"}, ChatType.GROUP),
            ({"channel_id": "C0LAN2Q65", "channel_name": "mpdm-alice--bob--shop-1"}, ChatType.GROUP),
        ],
    )
    def test_a_direct_chat_is_known_by_its_id_or_name(self, changes: dict[str, str], chat_type: ChatType) -> None:
        message = offline().parse({**payload("command_direct"), **changes})
        assert message is not None
        assert message.chat_type is chat_type

    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            ("<@U0LAN0Z89> hi", "hi"),
            ("<@U0LAN0Z89>: hi", "hi"),
            ("  <@U0LAN0Z89|shop>, hi", "hi"),
            ("hi <@U0LAN0Z89>", "hi <@U0LAN0Z89>"),
            ("<@U0LAN0Z89>", ""),
            ("&lt;@U0LAN0Z89&gt; hi", "<@U0LAN0Z89> hi"),
            ("&amp;lt;", "&lt;"),
        ],
    )
    def test_the_mention_in_front_is_taken_away(self, text: str, rest: str) -> None:
        raw = payload("message_mention")
        message = offline().parse({**raw, "event": {**raw["event"], "text": text}})
        assert message is not None
        assert message.text == rest


class TestEvents:
    """What Slack does around a message, over both ways."""

    @pytest.fixture(params=["socket", "events"])
    def world(self, request: pytest.FixtureRequest) -> SlackWorld:
        world: SlackWorld = request.getfixturevalue(f"{request.param}_world")
        return world

    @pytest.mark.parametrize("app_mention_first", [False, True])
    async def test_a_mention_is_stored_once_and_known_as_such(
        self, app_mention_first: bool, world: SlackWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink):
            world.server.mention("anybody?", app_mention_first=app_mention_first)
            await until(lambda: len(sink.deliveries) == 2, "both events arrive")
        assert [(message.text, message.is_mentioned) for message in sink.messages] == [("anybody?", True)]

    async def test_a_thread_is_followed(self, world: SlackWorld, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            ts = world.server.mention("where is it?")
            await until(lambda: len(sink.deliveries) == 2, "the question arrives")
            await adapter.send(outbound(sink.messages[0].route, "On its way."))
            world.server.say("thanks", thread_ts=ts)
            await until(lambda: len(sink.messages) == 2, "the thanks arrive")
            await adapter.send(outbound(sink.messages[1].route, "Welcome.", number=2))
        assert [sent.thread_ts for sent in world.server.sent] == [ts, ts]
        assert (sink.messages[1].thread_id, sink.messages[1].is_mentioned) == (ts, False)

    async def test_a_preview_is_no_edit_and_an_edit_after_it_is(self, world: SlackWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            ts = world.server.say("see https://example.com/")
            channel = world.server.bot.channel_id
            world.server.unfurl(channel, ts)
            revision = world.server.edit(channel, ts, "see https://example.org/")
            world.server.unfurl(channel, ts)  # shows the earlier edit once more
            await until(lambda: len(sink.messages) == 2, "message and edit arrive")
            await world.server.settled()
        assert [message.revision for message in sink.messages] == ["", revision]
        assert len(sink.messages) == 2

    async def test_what_people_did_not_say_passes_by(self, world: SlackWorld, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            server, channel = world.server, world.server.bot.channel_id
            ts = server.say("hello")
            server.delete(channel, ts)
            server.join("U0BOB")
            server.bot_message("build failed")
            server.bot_message(f"<@{server.bot.user_id}> build failed", subtype="")
            await adapter.send(outbound(Route(channel_id=channel)))
            await server.until(lambda: any("bot_id" in d.payload["event"] for d in server.deliveries))
            await server.settled()
        assert sink.texts() == ["hello"]
        assert sink.unreadable == []

    async def test_names_are_added_and_asked_for_once(self, world: SlackWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            for number in range(5):
                world.server.say(f"message {number}")
            await until(lambda: len(sink.messages) == 5, "all arrive")
        sender = sink.messages[0].sender
        assert (sender.user_id, sender.user_name, sender.display_name) == (ALICE, "alice", "alice")
        assert {message.chat_name for message in sink.messages} == {"general"}
        assert world.server.calls.count("users.info") == 1
        assert world.server.calls.count("conversations.info") == 1

    @pytest.mark.parametrize("fault", ["error", "429", "cut_before", "hang"])
    async def test_no_message_waits_long_for_a_name(
        self, fault: Any, world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slack, "NAME_SECONDS", 0.1)
        world.server.fail_next(fault, method="users.info", times=100, seconds=60)
        async with running(world, sink):
            for number in range(3):
                await world.say(f"message {number}")
            await until(lambda: len(sink.messages) == 3, "all arrive")
        assert sink.texts() == ["message 0", "message 1", "message 2"]
        assert {message.sender.user_name for message in sink.messages} == {""}

    async def test_messages_keep_their_order_while_a_name_is_asked_for(
        self, world: SlackWorld, sink: RecordingSink
    ) -> None:
        if world.receiver:
            pytest.skip("Calls of a webhook have no order.")
        world.server.fail_next("slow", method="users.info", seconds=0.1)
        async with running(world, sink):
            for number in range(500):
                await world.say(str(number))
                if not number % 50:
                    await asyncio.sleep(0.01)  # spread over the time in which the name comes
            await until(lambda: len(sink.messages) == 500, "all arrive")
        assert sink.texts() == [str(number) for number in range(500)]

    @pytest.mark.parametrize(
        "broken",
        ["unreadable_without_user", "unreadable_without_ts", "unreadable_channel_object", "unreadable_event_text"],
    )
    async def test_an_event_that_cannot_be_read_is_kept_and_acknowledged(
        self, broken: str, world: SlackWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink):
            delivery = world.server.raw_event(dict(payload(broken)))
            await until(lambda: delivery.is_acked, "it is acknowledged")
        (unreadable,) = sink.unreadable
        assert unreadable.event_id == payload(broken)["event_id"]
        assert unreadable.raw == {key: value for key, value in payload(broken).items() if key != "token"}

    async def test_an_unreadable_event_that_was_not_stored_is_delivered_again(
        self, world: SlackWorld, sink: RecordingSink
    ) -> None:
        sink.refusals = 1
        async with running(world, sink):
            delivery = world.server.raw_event(dict(payload("unreadable_without_user")))
            await until(lambda: delivery.is_acked, "it is acknowledged in the end")
        assert delivery.attempts == 2
        assert len(sink.unreadable) == 1

    @pytest.mark.parametrize("authorizations", [None, "x", [1], [{"is_bot": True, "user_id": 7}], {"a": 1}])
    async def test_odd_authorizations_lose_no_message(
        self, authorizations: Any, world: SlackWorld, sink: RecordingSink
    ) -> None:
        async with running(world, sink):
            raw = {**payload("message_direct"), "authorizations": authorizations}
            delivery = world.server.raw_event(raw)
            await until(lambda: delivery.is_acked, "it is acknowledged")
        assert len(sink.messages) + len(sink.unreadable) == 1

    async def test_a_revoked_token_loses_no_event(self, world: SlackWorld, sink: RecordingSink) -> None:
        """Bolt's own authorisation answers 200 when auth.test fails, and the event would be gone."""
        async with running(world, sink):
            world.server.set_token_error("token_revoked")
            said = await world.say("hello")
            await until(lambda: world.is_acknowledged(said), "it is acknowledged")
        assert sink.texts() == ["hello"]

    async def test_no_duplicate_gets_through(self, world: SlackWorld, sink: RecordingSink) -> None:
        world.server.duplicates(0.5, seed=7)
        async with running(world, sink):
            for number in range(100):
                await world.say(str(number))
            await until(lambda: len(sink.messages) == 100, "all arrive")
            await world.server.settled()
        assert len(sink.deliveries) > 120
        assert len(sink.messages) == 100

    async def test_bots_of_two_workspaces_get_their_own(self, world: SlackWorld, sink: RecordingSink) -> None:
        other = world.server.add_bot("garage", team_id="T0OTHER")
        async with running(world, sink):
            world.server.mention("to the garage", bot="garage", channel=other.channel_id)
            world.server.mention("to the shop")
            await until(lambda: len(sink.deliveries) == 2, "the shop's mention arrives")
        assert sink.texts() == ["to the shop"]


class TestActs:
    """Pressed buttons and commands, over both ways."""

    @pytest.fixture(params=["socket", "events"])
    def world(self, request: pytest.FixtureRequest) -> SlackWorld:
        world: SlackWorld = request.getfixturevalue(f"{request.param}_world")
        return world

    async def test_a_command_is_stored_and_then_taken_in_silence(self, world: SlackWorld, sink: RecordingSink) -> None:
        sink.gate.clear()
        async with running(world, sink) as adapter:
            trigger_id = world.server.command("/link", "ABCD &amp; more")
            await until(lambda: sink.held == 1, "it reaches the sink")
            (delivery,) = world.server.deliveries_of(trigger_id)
            assert not delivery.is_acked
            sink.gate.set()
            await until(lambda: delivery.is_acked, "it is acknowledged")
            await adapter.send(outbound(sink.messages[0].route, "Linked."))
        (message,) = sink.messages
        assert (message.kind, message.text) == (EventKind.MESSAGE, "/link ABCD & more")
        assert (message.message_id, message.sender.user_id) == (f"command:{trigger_id}", ALICE)
        assert message.sender.display_name == "alice"
        assert message.chat_type is ChatType.DIRECT
        assert delivery.response == ""
        assert [(sent.channel_id, sent.text) for sent in world.sent()] == [(world.direct.channel_id, "Linked.")]

    async def test_a_command_in_a_channel_is_answered_there(self, world: SlackWorld, sink: RecordingSink) -> None:
        channel = world.server.bot.channel_id
        async with running(world, sink) as adapter:
            world.server.command("/new", channel=channel, user="U0BOB")
            await until(lambda: bool(sink.messages), "it arrives")
            await adapter.send(outbound(sink.messages[0].route))
        (message,) = sink.messages
        assert (message.text, message.chat_type, message.chat_name) == ("/new", ChatType.GROUP, "general")
        assert [(sent.channel_id, sent.thread_id) for sent in world.sent()] == [(channel, "")]

    async def test_a_redelivered_command_is_one_message(self, world: SlackWorld, sink: RecordingSink) -> None:
        async with running(world, sink):
            trigger_id = world.server.command("/new")
            await until(lambda: len(sink.deliveries) == 1, "it arrives")
            world.server.redeliver(trigger_id)
            await until(lambda: len(sink.deliveries) == 2, "it arrives again")
            world.server.command("/new")
            await until(lambda: len(sink.messages) == 2, "another one is another")

    @pytest.mark.parametrize("act", ["press", "command"])
    async def test_what_was_not_stored_is_not_acknowledged(
        self, act: str, world: SlackWorld, sink: RecordingSink
    ) -> None:
        world.server.ack_seconds = 0.3
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct, buttons=BUTTONS))
            await world.server.settled()
            sink.refusals = 1
            if act == "press":
                key = (await world.press(world.sent()[0], BUTTONS[0].data)).event
            else:
                key = world.server.command("/new")
            (delivery,) = world.server.deliveries_of(key)
            await until(lambda: delivery.is_dropped, "the person is told that it failed")
        assert sink.messages == []
        assert sink.refused == 1
        assert delivery.statuses == ([503] if world.receiver else [])

    async def test_names_fall_back_to_those_of_the_payload(self, world: SlackWorld, sink: RecordingSink) -> None:
        world.server.fail_next("error", method="users.info", times=100)
        async with running(world, sink):
            world.server.command("/new")
            await until(lambda: bool(sink.messages), "it arrives")
        assert sink.messages[0].sender.user_name == "alice"

    @pytest.mark.parametrize("broken", ["unreadable_button_without_user", "unreadable_command_without_trigger"])
    async def test_an_act_that_cannot_be_read_is_kept_and_acknowledged(
        self, broken: str, world: SlackWorld, sink: RecordingSink
    ) -> None:
        raw = dict(payload(broken))
        async with running(world, sink):
            for _ in range(2):
                kind: Any = "slash_commands" if "command" in raw else "interactive"
                delivery = world.server.raw_interaction(raw, kind=kind)
                await until(lambda delivery=delivery: delivery.is_acked, "acknowledged")  # type: ignore[misc]
        assert [unreadable.raw for unreadable in sink.unreadable] == [
            {key: value for key, value in raw.items() if key not in ("token", "response_url")}
        ] * 2
        assert all(unreadable.event_id for unreadable in sink.unreadable)
        if world.receiver:
            assert len({unreadable.event_id for unreadable in sink.unreadable}) == 1

    @pytest.mark.parametrize("type_", ["view_submission", "shortcut", "message_action", "block_suggestion"])
    async def test_other_acts_are_acknowledged_and_pass_by(
        self, type_: str, world: SlackWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(world, sink):
            delivery = world.server.raw_interaction({"type": type_, "user": {"id": ALICE}, "view": {"id": "V1"}})
            await until(lambda: delivery.is_acked, "it is acknowledged")
        assert (sink.messages, sink.unreadable) == ([], [])
        assert type_ in caplog.text


class TestSocket:
    """What is Socket Mode's own."""

    async def test_a_refused_envelope_says_so_when_it_comes_again(
        self, socket_world: SlackWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink.refusals = 2
        async with running(socket_world, sink):
            said = await socket_world.say("hello")
            await until(lambda: socket_world.is_acknowledged(said), "it is acknowledged")
        (delivery,) = socket_world.server.deliveries_of(said.message_id)
        assert delivery.attempts == 3
        assert "not acknowledged" in caplog.text
        assert "hello" not in caplog.text

    async def test_an_error_nobody_thought_of_is_no_acknowledgement(
        self, socket_world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = asyncio.Event()

        async def broken(message: InboundMessage) -> bool:
            failed.set()
            raise RuntimeError("a bug")

        async with running(socket_world, sink):
            with monkeypatch.context() as patch:
                patch.setattr(sink, "receive", broken)
                said = await socket_world.say("hello")
                await asyncio.wait_for(failed.wait(), 5)
                assert not socket_world.is_acknowledged(said)
            await until(lambda: socket_world.is_acknowledged(said), "it comes again and is acknowledged")
        assert sink.texts() == ["hello"]

    @pytest.mark.parametrize("broken", [None, 7, [1], "x", {}])
    async def test_an_envelope_without_a_payload_is_kept_under_its_id(
        self, broken: Any, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        async with running(socket_world, sink):
            delivery = socket_world.server.raw_event(broken)
            await until(lambda: delivery.is_acked, "it is acknowledged")
        assert [unreadable.event_id for unreadable in sink.unreadable] == [delivery.envelope_id]

    async def test_it_hears_on_the_connection_it_was_asked_to_open(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        server = socket_world.server
        async with running(socket_world, sink):
            for number in range(3):
                await server.until(lambda: server.bot.connections)
                await server.disconnect()
                count = number + 2
                await server.until(lambda count=count: server.bot.connection_count == count)  # type: ignore[misc]
                await socket_world.say(f"after {number}")
                await until(lambda count=count: len(sink.messages) == count - 1, "it is heard")  # type: ignore[misc]
        assert sink.texts() == ["after 0", "after 1", "after 2"]

    @pytest.mark.parametrize("loss", ["cut", "restart", "silence"])
    async def test_it_is_not_deaf_after_a_lost_connection(
        self, loss: str, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        server = socket_world.server
        async with running(socket_world, sink):
            await socket_world.say("before")
            await until(lambda: sink.texts() == ["before"], "it is heard")
            if loss == "cut":
                server.drop_connections()
            elif loss == "restart":
                await server.lose_network()
                await server.restore_network()
            else:
                server.freeze()
                await server.until(lambda: not server.bot.connections, seconds=10)  # the client gave up on it
                server.freeze(is_frozen=False)
            await socket_world.say("after")
            await until(lambda: sink.texts() == ["before", "after"], "it hears again", seconds=10)

    async def test_an_event_in_flight_when_the_connection_is_cut_comes_again(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        sink.gate.clear()
        async with running(socket_world, sink):
            said = await socket_world.say("hello")
            await until(lambda: sink.held == 1, "it reaches the sink")
            socket_world.server.drop_connections()
            sink.gate.set()
            await until(lambda: len(sink.deliveries) == 2, "it comes over the new connection", seconds=10)
            await until(lambda: socket_world.is_acknowledged(said), "it is acknowledged")
        assert sink.texts() == ["hello"]

    async def test_a_connection_that_stays_lost_ends_the_run(
        self, socket_world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slack, "LOST_SECONDS", 0.5)
        adapter = socket_world.adapter(sink)
        await adapter.start()
        run = asyncio.create_task(adapter.run())
        await socket_world.server.until(lambda: socket_world.server.bot.connections)
        socket_world.server.set_token_error("token_revoked", app_token=True)
        socket_world.server.drop_connections()
        with pytest.raises(PlatformUnavailable):
            await asyncio.wait_for(run, 10)
        await adapter.close()

    async def test_a_link_that_leads_nowhere_ends_the_run(
        self, socket_world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slack, "LOST_SECONDS", 0.5)
        adapter = socket_world.adapter(sink)
        await adapter.start()
        await socket_world.lose_network()
        with pytest.raises(PlatformUnavailable):
            await asyncio.wait_for(adapter.run(), 10)
        await adapter.close()

    async def test_the_link_is_asked_for_once(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        async with running(socket_world, sink):
            await socket_world.server.until(lambda: socket_world.server.bot.connections)
        assert socket_world.server.calls.count("apps.connections.open") == 1  # Slack allows few per minute

    async def test_what_was_read_is_stored_and_acknowledged_before_the_socket_closes(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        sink.gate.clear()
        adapter = socket_world.adapter(sink)
        await adapter.start()
        run = asyncio.create_task(adapter.run())
        said = await socket_world.say("hello")
        await until(lambda: sink.held == 1, "it reaches the sink")
        run.cancel()
        late = await socket_world.say("too late")
        sink.gate.set()
        await asyncio.wait([run])
        await until(lambda: socket_world.is_acknowledged(said), "it is acknowledged")
        await adapter.close()
        assert sink.texts() == ["hello"]
        assert not socket_world.is_acknowledged(late)

    async def test_a_closed_adapter_leaves_no_connection(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        async with running(socket_world, sink) as adapter:
            await socket_world.say("hello")
            await until(lambda: bool(sink.messages), "it is heard")
            await adapter.send(outbound(socket_world.direct))
        await socket_world.server.until(lambda: not socket_world.server.bot.connections)

    async def test_no_token_or_link_is_logged(
        self,
        socket_world: SlackWorld,
        sink: RecordingSink,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setattr(slack, "LOST_SECONDS", 0.5)
        adapter = socket_world.adapter(sink)
        await adapter.start()
        socket_world.server._tickets.clear()  # the link has expired
        with pytest.raises(PlatformUnavailable):
            await adapter.run()
        await adapter.close()
        assert "Failed to connect" in caplog.text
        for secret in (*socket_world.config.credentials.values(), "ticket-0"):
            assert secret not in caplog.text

    @pytest.mark.slow
    async def test_a_thousand_messages_survive_bad_weather(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        server = socket_world.server
        server.duplicates(0.1, seed=3)
        async with running(socket_world, sink):
            for number in range(1000):
                await socket_world.say(str(number))
                if number % 100 == 50:
                    sink.refusals += 5
                if number % 300 == 150:
                    await server.until(lambda: server.bot.connections, seconds=10)
                    server.drop_connections()
                if number % 300 == 299:
                    await server.until(lambda: server.bot.connections, seconds=10)
                    await server.disconnect()
            await until(lambda: len(sink.messages) == 1000, "all arrive", seconds=60)
            await server.settled(seconds=60)
        assert sorted(map(int, sink.texts())) == list(range(1000))


class TestWebhook:
    """What is the Events API's own."""

    async def test_the_challenge_is_answered(self, events_world: SlackWorld, sink: RecordingSink) -> None:
        async with running(events_world, sink):
            assert await events_world.server.verify_url()

    async def test_a_refused_event_comes_again_until_it_is_stored(
        self, events_world: SlackWorld, sink: RecordingSink
    ) -> None:
        sink.refusals = 2
        async with running(events_world, sink):
            said = await events_world.say("hello")
            await until(lambda: events_world.is_acknowledged(said), "it is stored")
        (delivery,) = events_world.server.deliveries_of(said.message_id)
        assert delivery.statuses == [503, 503, 200]

    async def test_a_repeated_event_is_an_event(self, server: SlackServer, sink: RecordingSink) -> None:
        body = json.dumps(payload("message_direct")).encode()
        request = signed(server, body, secret=SIGNING_SECRET)
        retried = {**request.headers, "x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}
        adapter = Adapter(OFFLINE_CONFIG, sink)
        await adapter.webhook(replace(request, headers=retried))
        await adapter.close()
        assert sink.texts() == ["Where is my parcel?"]

    @pytest.mark.parametrize("error", [StorageUnavailable(), RuntimeError("a bug")])
    async def test_an_error_of_the_sink_reaches_the_site(
        self, error: Exception, server: SlackServer, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(message: InboundMessage) -> bool:
            raise error

        monkeypatch.setattr(sink, "receive", broken)
        adapter = Adapter(OFFLINE_CONFIG, sink)
        body = json.dumps(payload("message_direct")).encode()
        with pytest.raises(type(error)):
            await adapter.webhook(signed(server, body, secret=SIGNING_SECRET))
        await adapter.close()

    async def test_a_bot_without_signing_secret_believes_nobody(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        adapter = socket_world.adapter(sink)
        with pytest.raises(ForgedRequest):
            await adapter.webhook(signed(socket_world.server, b"{}", secret="x"))
        await adapter.close()

    async def test_a_notice_of_slack_itself_is_logged(
        self, server: SlackServer, sink: RecordingSink, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = json.dumps({"type": "app_rate_limited", "team_id": "T1", "minute_rate_limited": 1518467820}).encode()
        adapter = Adapter(OFFLINE_CONFIG, sink)
        assert (await adapter.webhook(signed(server, body, secret=SIGNING_SECRET))).status == 200
        await adapter.close()
        assert "app_rate_limited" in caplog.text

    @pytest.mark.parametrize(
        "body", [b"payload=", b"payload={", b"payload=[]", b"payload=null", b"\xff", b"nothing", b"&" * 200]
    )
    async def test_a_form_that_holds_nothing_is_unreadable(
        self, body: bytes, server: SlackServer, sink: RecordingSink
    ) -> None:
        adapter = Adapter(OFFLINE_CONFIG, sink)
        with pytest.raises(UnreadableUpdate):
            await adapter.webhook(signed(server, body, secret=SIGNING_SECRET, is_form=True))
        await adapter.close()
        assert sink.unreadable == []

    async def test_a_form_that_says_it_is_json_is_unreadable(self, server: SlackServer, sink: RecordingSink) -> None:
        adapter = Adapter(OFFLINE_CONFIG, sink)
        with pytest.raises(UnreadableUpdate):
            await adapter.webhook(signed(server, b"command=%2Fhelp&text=", secret=SIGNING_SECRET))
        await adapter.close()

    async def test_a_forged_form_is_refused(self, server: SlackServer, sink: RecordingSink) -> None:
        adapter = Adapter(OFFLINE_CONFIG, sink)
        genuine = signed(server, urlencode(payload("command_direct")).encode(), secret=SIGNING_SECRET, is_form=True)
        with pytest.raises(ForgedRequest):
            await adapter.webhook(replace(genuine, body=genuine.body.replace(b"ABCD", b"EFGH")))
        assert (await adapter.webhook(genuine)).body == ""
        await adapter.close()
        assert sink.texts() == ["/link ABCD"]

    async def test_the_trial_of_a_certificate_is_answered(self, server: SlackServer, sink: RecordingSink) -> None:
        adapter = Adapter(OFFLINE_CONFIG, sink)
        body = b"ssl_check=1&token=ZZZZZZWSxiZZZ2yIvs3peJ"
        assert (await adapter.webhook(signed(server, body, secret=SIGNING_SECRET, is_form=True))).status == 200
        await adapter.close()
        assert (sink.messages, sink.unreadable) == ([], [])

    async def test_it_asks_who_it_is_when_the_event_does_not_say(
        self, events_world: SlackWorld, sink: RecordingSink
    ) -> None:
        server = events_world.server
        adapter = events_world.adapter(sink)
        event = {**payload("message_channel")["event"], "text": f"well, <@{server.bot.user_id}>?"}
        person = [{"team_id": "T0FAKE", "user_id": ALICE, "is_bot": False}]
        body = json.dumps({**payload("message_channel"), "event": event, "authorizations": person}).encode()
        server.fail_next("status", method="auth.test", status=503)
        with pytest.raises(StorageUnavailable):
            await adapter.webhook(signed(server, body))
        await adapter.webhook(signed(server, body))
        await adapter.close()
        assert [message.is_mentioned for message in sink.messages] == [True]


class TestSend:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            ("invalid_auth", CredentialError),
            ("not_authed", CredentialError),
            ("account_inactive", CredentialError),
            ("token_expired", CredentialError),
            ("missing_scope", CredentialError),
            ("channel_not_found", TargetGone),
            ("not_in_channel", TargetGone),
            ("user_not_found", TargetGone),
            ("cannot_dm_bot", TargetGone),
            ("restricted_action_read_only_channel", TargetGone),
            ("no_text", MessageRefused),
            ("invalid_blocks", MessageRefused),
            ("an_error_of_next_year", MessageRefused),
            ("service_unavailable", PlatformUnavailable),
            ("internal_error", OutcomeUnknown),
            ("fatal_error", OutcomeUnknown),
            ("ratelimited", RateLimited),
            ("message_limit_exceeded", RateLimited),
        ],
    )
    async def test_an_error_of_slack_is_translated(
        self, error: str, expected: type[Exception], socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        socket_world.server.fail_next("error", error=error)
        async with running(socket_world, sink) as adapter:
            with pytest.raises(expected) as failure:
                await adapter.send(outbound(socket_world.direct))
        assert type(failure.value) is expected
        assert failure.value.__cause__ is not None

    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (500, "oops", OutcomeUnknown),
            (502, "<html>bad gateway</html>", OutcomeUnknown),
            (504, "", OutcomeUnknown),
            (503, "", PlatformUnavailable),
            (404, "<html>not here</html>", PlatformUnavailable),
            (500, '{"ok": false, "error": "team_added_to_org"}', PlatformUnavailable),
            (500, '{"ok": false, "error": "something_new"}', PlatformUnavailable),
            (200, "<html>log in to this wireless network</html>", OutcomeUnknown),
            (200, "{broken", OutcomeUnknown),
        ],
    )
    async def test_an_answer_of_something_in_between_is_translated(
        self, status: int, body: str, expected: type[Exception], socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        socket_world.server.fail_next("status", status=status, body=body)
        async with running(socket_world, sink) as adapter:
            with pytest.raises(expected) as failure:
                await adapter.send(outbound(socket_world.direct))
        assert type(failure.value) is expected

    @pytest.mark.parametrize("fault", ["429", "cut_before", "cut_after", "status"])
    async def test_one_send_is_one_call(self, fault: Any, socket_world: SlackWorld, sink: RecordingSink) -> None:
        socket_world.server.fail_next(fault, status=500)
        async with running(socket_world, sink) as adapter:
            with pytest.raises((RateLimited, OutcomeUnknown)):
                await adapter.send(outbound(socket_world.direct))
        assert socket_world.server.calls.count("chat.postMessage") == 1

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("1 < 2 && 3 > 2", "1 &lt; 2 &amp;&amp; 3 &gt; 2"),
            ("<!channel> wake up", "&lt;!channel&gt; wake up"),
            ("<!subteam^S1|all>", "&lt;!subteam^S1|all&gt;"),
            ("hi <@U0ALICE>, see <#C012AB3CD|general>", "hi <@U0ALICE>, see <#C012AB3CD|general>"),
            ("<https://example.com/?a=1&b=2|here>", "<https://example.com/?a=1&amp;b=2|here>"),
            ("<javascript:alert(1)|here>", "&lt;javascript:alert(1)|here&gt;"),
        ],
    )
    async def test_only_harmless_markup_is_markup(
        self, text: str, written: str, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        async with running(socket_world, sink) as adapter:
            await adapter.send(outbound(socket_world.direct, text))
        assert [sent.text for sent in socket_world.server.sent] == [written]

    async def test_blocks_are_for_buttons_alone(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        async with running(socket_world, sink) as adapter:
            await adapter.send(outbound(socket_world.direct, "*1* < 2"))
            await adapter.send(outbound(socket_world.direct, "<!here> *1* < 2", number=2, buttons=BUTTONS))
        plain, with_buttons = socket_world.server.sent
        assert plain.blocks == []
        section, actions = with_buttons.blocks
        written = "&lt;!here&gt; *1* &lt; 2"
        assert with_buttons.text == written
        assert section == {"type": "section", "text": {"type": "mrkdwn", "text": written, "verbatim": True}}
        assert [item["value"] for item in actions["elements"]] == [button.data for button in BUTTONS]
        assert len({item["action_id"] for item in actions["elements"]}) == len(BUTTONS)

    async def test_a_text_longer_than_a_section_has_several(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        lines = [f"{number}: 1 < 2 & <https://example.com/?a=1&b=2|here>" for number in range(70)]
        async with running(socket_world, sink) as adapter:
            await adapter.send(outbound(socket_world.direct, "\n".join(lines), buttons=BUTTONS))
        *sections, actions = socket_world.server.sent[0].blocks
        texts = [section["text"]["text"] for section in sections]
        assert len(texts) > 1
        assert "\n".join(texts) == socket_world.server.sent[0].text
        assert actions["type"] == "actions"

    async def test_a_long_label_is_cut_and_its_button_works(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        buttons = (Button(label="👩‍👩‍👧‍👦" * 20, data="family"), Button(label="y" * 75, data="yes"))
        async with running(socket_world, sink) as adapter:
            await adapter.send(outbound(socket_world.direct, buttons=buttons))
            (sent,) = socket_world.sent()
            await socket_world.press(sent, "family")
            await until(lambda: sink.texts() == ["family"], "the press arrives")
        labels = [button.label for button in sent.buttons]
        assert labels == ["👩‍👩‍👧‍👦" * 10 + "👩‍👩‍" + "…", "y" * 75]

    async def test_an_empty_text_is_refused(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        async with running(socket_world, sink) as adapter:
            with pytest.raises(MessageRefused):
                await adapter.send(outbound(socket_world.direct, "  \n"))
        assert "chat.postMessage" not in socket_world.server.calls


class TestReconcile:
    @pytest.mark.parametrize("route", ["direct", "threaded", "replying"])
    async def test_a_message_is_found_where_it_was_sent(
        self, route: str, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        target: Route = getattr(socket_world, route)
        async with running(socket_world, sink) as adapter:
            receipts = [await adapter.send(outbound(target, number=number)) for number in range(3)]
            found = [await adapter.reconcile(outbound(target, number=number)) for number in range(4)]
        assert found == [*receipts, None]

    @pytest.mark.parametrize("route", ["direct", "threaded"])
    async def test_all_pages_are_looked_through(
        self, route: str, socket_world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slack, "PAGE_MESSAGES", 2)
        target: Route = getattr(socket_world, route)
        async with running(socket_world, sink) as adapter:
            receipts = [await adapter.send(outbound(target, number=number)) for number in range(7)]
            found = [await adapter.reconcile(outbound(target, number=number)) for number in range(8)]
        assert found == [*receipts, None]

    async def test_a_search_without_end_says_that_it_cannot_tell(
        self, socket_world: SlackWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slack, "PAGE_MESSAGES", 1)
        monkeypatch.setattr(slack, "MAX_PAGES", 3)
        async with running(socket_world, sink) as adapter:
            for number in range(5):
                await adapter.send(outbound(socket_world.direct, number=number))
            with pytest.raises(PlatformUnavailable):
                await adapter.reconcile(outbound(socket_world.direct, number=9))

    async def test_a_forged_key_of_another_app_is_not_believed(
        self, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        message = outbound(socket_world.threaded)
        channel = socket_world.server.channels[message.route.channel_id]
        ts = socket_world.server.recall("mine")
        channel.messages[ts] |= {
            "thread_ts": message.route.thread_id,
            "metadata": {"event_type": "other", "event_payload": {"key": message.idempotency_key}},
        }
        async with running(socket_world, sink) as adapter:
            assert await adapter.reconcile(message) is None

    @pytest.mark.parametrize("error", ["missing_scope", "invalid_auth", "channel_not_found", "ratelimited"])
    async def test_a_question_that_fails_says_nothing_about_the_message(
        self, error: str, socket_world: SlackWorld, sink: RecordingSink
    ) -> None:
        socket_world.server.fail_next("error", method="conversations.history", error=error)
        async with running(socket_world, sink) as adapter:
            with pytest.raises(PlatformUnavailable, match=error if error != "ratelimited" else "wait"):
                await adapter.reconcile(outbound(socket_world.direct))


class TestFake:
    """The control face that shells and other processes use."""

    async def test_it_is_steered_over_http(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        url = socket_world.server.url
        async with running(socket_world, sink) as adapter, aiohttp.ClientSession() as http:
            async with http.post(f"{url}/control/dm", json={"text": "hello", "user": "U0BOB"}) as response:
                ts = (await response.json())["result"]
            await until(lambda: sink.texts() == ["hello"], "it is heard")
            await adapter.send(outbound(sink.messages[0].route, "hi"))
            async with http.get(f"{url}/control/sent") as response:
                assert [sent["text"] for sent in await response.json()] == ["hi"]
            await until(lambda: all(delivery.is_acked for delivery in socket_world.server.deliveries_of(ts)), "acked")
            async with http.post(f"{url}/control/nonsense", json={}) as response:
                assert response.status == 404
            async with http.post(f"{url}/control/dm", json={"colour": "red"}) as response:
                assert response.status == 400

    async def test_people_act_over_http(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        url = socket_world.server.url
        async with running(socket_world, sink) as adapter, aiohttp.ClientSession() as http:
            receipt = await adapter.send(outbound(socket_world.direct, buttons=BUTTONS))
            press = {"channel": socket_world.direct.channel_id, "ts": receipt.platform_message_id}
            async with http.post(f"{url}/control/press", json={**press, "value": BUTTONS[0].data}) as response:
                assert response.status == 200
            async with http.post(f"{url}/control/press", json={**press, "value": "never"}) as response:
                assert response.status == 400
            async with http.post(f"{url}/control/command", json={"command": "/new"}) as response:
                assert response.status == 200
            await until(lambda: len(sink.messages) == 2, "both arrive")
        assert set(sink.texts()) == {BUTTONS[0].data, "/new"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"type": "link"},
            {"value": "x" * 2001},
            {"value": 7},
            {"action_id": ""},
            {"action_id": "another"},
            {"text": {"type": "plain_text", "text": "x" * 76}},
            {"text": {"type": "mrkdwn", "text": "Yes"}},
            {"text": "Yes"},
        ],
    )
    def test_it_refuses_buttons_that_slack_would_refuse(self, changes: dict[str, Any]) -> None:
        def button(**fields: Any) -> dict[str, Any]:
            text = {"type": "plain_text", "text": "Yes"}
            return {"type": "button", "action_id": "one", "text": text, "value": "yes", **fields}

        other = button(action_id="another")
        assert _checked_blocks([{"type": "actions", "elements": [button(), other]}])
        with pytest.raises(Refused, match="invalid_blocks"):
            _checked_blocks([{"type": "actions", "elements": [button(**changes), other]}])

    @pytest.mark.parametrize(
        "blocks",
        [
            "text",
            ["text"],
            [{"type": "section"}],
            [{"type": "section", "text": {"type": "mrkdwn", "text": ""}}],
            [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}],
            [{"type": "section", "text": {"type": "mrkdwn", "text": "x", "emoji": True}}],
            [{"type": "section", "text": {"type": "mrkdwn", "text": "x"}}] * 51,
            [{"type": "actions", "elements": []}],
            [{"type": "poem", "elements": [{}]}],
        ],
    )
    def test_it_refuses_blocks_that_slack_would_refuse(self, blocks: Any) -> None:
        with pytest.raises(Refused, match="invalid_blocks"):
            _checked_blocks(blocks)

    async def test_it_gives_up_when_told_to(self, socket_world: SlackWorld, sink: RecordingSink) -> None:
        server = socket_world.server
        server.max_retries = 3
        sink.refusals = 99
        server.ack_seconds = 0.1
        async with running(socket_world, sink):
            said = await socket_world.say("hello")
            await server.settled()
        (delivery,) = server.deliveries_of(said.message_id)
        assert isinstance(delivery, Delivery)
        assert (delivery.is_dropped, delivery.attempts) == (True, 4)


def test_a_rate_limit_without_a_number_is_half_a_minute() -> None:
    assert slack._retry_after({}) == timedelta(seconds=30)
    assert slack._retry_after({"Retry-After": "7"}) == timedelta(seconds=7)
