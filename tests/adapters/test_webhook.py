"""The webhook for programs, against a program on loopback that calls and is called."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.resolver import DefaultResolver

from botsrt.adapters import webhook
from botsrt.adapters.webhook import Adapter
from botsrt.core import redact
from botsrt.core.errors import (
    ConfigurationError,
    CredentialError,
    ForgedRequest,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import Answer, Route
from botsrt.core.ports import BotConfig, WebhookRequest
from botsrt.core.states import Outcome
from tests.adapters.contract import (
    RETRY_AFTER_SECONDS,
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
from tests.fakes.webhook import SECRET, Partner, signature, signed

CONFIG = BotConfig(account="erp", platform="webhook", credentials={"secret": SECRET})
BODY = {"user_id": "customer-7", "text": "Where is my parcel?"}


class PartnerWorld(World):
    adapter_class = Adapter
    wrong_credentials = {"secret": "another-secret-that-nobody-shares"}
    identity = "erp → 127.0.0.1"
    direct = threaded = Route(channel_id="customer-7")
    replying = Route(channel_id="customer-7", reply_to="order-1")

    def __init__(self, partner: Partner, receiver: WebhookReceiver) -> None:
        self.partner = partner
        self.receiver = receiver
        settings = {"answers": "callback", "callback_url": partner.callback_url, "callback_hosts": partner.host}
        self.config = replace(CONFIG, settings=settings)

    async def say(self, text: str) -> Said:
        call = self.partner.say(text)
        message_id = json.loads(call.body)["message_id"]
        return Said(channel_id="customer-7", message_id=message_id, user_id="customer-7", text=text, event=call)

    async def edit(self, said: Said, text: str) -> None:
        self.partner.say(text, message_id=said.message_id, revision="2")

    async def deliver_again(self, said: Said) -> None:
        self.partner.call_again(said.event)

    async def do_something_else(self) -> None:
        self.partner.call({"type": "ping"}, user="customer-7")

    def is_acknowledged(self, said: Said) -> bool:
        return bool(said.event.is_taken)

    async def break_next_send(self, fault: SendFault) -> None:
        statuses = {SendFault.TARGET_GONE: 410, SendFault.REFUSED: 422, SendFault.PLATFORM_FAILED: 500}
        match fault:
            case SendFault.RATE_LIMITED:
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                self.partner.fail_next("status", status=429, headers=headers)
            case SendFault.UNREACHABLE:
                await self.partner.lose_network()
            case SendFault.CUT_AFTER:
                self.partner.fail_next("cut_after")
            case SendFault.NO_ANSWER:
                self.partner.fail_next("hang_after", seconds=60)
            case SendFault.CREDENTIALS:
                self.partner.secret = "a-new-secret-that-only-they-know"
            case _:
                self.partner.fail_next("status", status=statuses[fault])

    def sent(self) -> list[Sent]:
        return [
            Sent(
                channel_id=got.content["channel_id"],
                message_id=got.message_id,
                text=got.content["text"],
                thread_id=got.content["thread_id"],
                reply_to=got.content["in_reply_to"],
            )
            for got in self.partner.got
        ]

    async def lose_network(self) -> None:
        await self.partner.lose_network()

    async def restore_network(self) -> None:
        await self.partner.restore_network()


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "CALL_SECONDS", 0.5)


@pytest.fixture
async def world() -> AsyncIterator[PartnerWorld]:
    async with Partner() as partner, WebhookReceiver().serving() as receiver:
        partner.hook_url = f"{receiver.url}/hooks/webhook/erp/"
        yield PartnerWorld(partner, receiver)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def offline(sink: RecordingSink) -> Adapter:
    """An adapter that answers in the response, and calls nobody."""
    return Adapter(CONFIG, sink)


def call(body: object = BODY, *, nonce: str = "nonce-of-a-call", age: float = 0.0, **headers: str) -> WebhookRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    proof = {name.lower(): value for name, value in signed(raw, nonce=nonce, age=age).items()}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return WebhookRequest(method="POST", headers={**proof, **given}, query="", body=raw)


class TestWebhook(WebhookContract):
    offline_class = Adapter
    offline_config = replace(
        CONFIG, settings={"answers": "callback", "callback_url": "https://erp.example.org/answers"}
    )

    @pytest.fixture
    def world(self, world: PartnerWorld) -> PartnerWorld:
        return world

    def forged(self) -> list[WebhookRequest]:
        right = call()
        proof = right.headers["x-webhook-signature"]
        wrong = ("", proof[:-1], proof.upper(), proof.removeprefix("v1="), f"v0={proof[3:]}", "é", "\udcff")
        stamp = right.headers["x-webhook-timestamp"]
        shifted = signature(stamp + "0", "nonce-of-a-call", right.body)
        return [
            *(call(x_webhook_signature=other) for other in wrong),
            replace(right, body=right.body.replace(b"parcel", b"money")),
            call(x_webhook_nonce="nonce-of-another-call"),
            call(x_webhook_timestamp=str(int(stamp) + 1)),
            call(x_webhook_signature=shifted),
            replace(right, headers={}),
            replace(right, method="GET", headers={}, body=b""),
        ]

    def genuine(self, body: bytes) -> WebhookRequest:
        return call(body)


# -- configuration ----


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"answers": "callback"}, "callback_url: missing"),
        ({"callback_url": "http://erp.example.org/x"}, "must begin with https://"),
        ({"callback_url": "ftp://erp.example.org/x"}, "no web address"),
        ({"callback_url": "https://user:pw@erp.example.org/x"}, "no web address"),
        ({"callback_url": "https://erp.example.org:99999/x"}, "no web address"),
        ({"callback_url": "/answers"}, "no web address"),
        ({"callback_url": "https://127.0.0.1/x"}, "not a public address"),
        ({"callback_url": "https://169.254.169.254/latest/"}, "not a public address"),
        ({"callback_url": "https://[::1]/x"}, "not a public address"),
        ({"callback_url": "https://[::ffff:10.0.0.1]/x"}, "not a public address"),
        ({"callback_hosts": "http://erp.internal/"}, "callback_hosts"),
        ({"wait_seconds": "61"}, "wait_seconds"),
        ({"wait_seconds": "-1"}, "wait_seconds"),
        ({"tolerance_seconds": "many"}, "tolerance_seconds"),
        ({"mapping": "{"}, "mapping: no JSON"),
        ({"mapping": "[]"}, "mapping: no object of texts"),
        ({"mapping": '{"text": 1}'}, "mapping: no object of texts"),
        ({"mapping": '{"colour": "{c}"}'}, "'colour' is not one of text, user_id"),
        ({"mapping": '{"text": "{comment.body"}'}, "mapping: text: a brace"),
        ({"mapping": '{"text": "{a b}"}'}, "mapping: text: a brace"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says.replace("[", r"\[")):
        Adapter(replace(CONFIG, settings=settings), RecordingSink())


def test_a_short_secret_is_refused_and_a_long_one_is_masked() -> None:
    with pytest.raises(ConfigurationError, match="secret: too short"):
        Adapter(replace(CONFIG, credentials={"secret": "fifteen-letters"}), RecordingSink())
    Adapter(CONFIG, RecordingSink())
    assert redact.redact(f"at {SECRET}!") == f"at {redact.MASK}!"


# -- the proof ----


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (call(x_webhook_timestamp=""), "X-Webhook-Timestamp: missing"),
        (call(x_webhook_timestamp="now"), "X-Webhook-Timestamp: missing or no number"),
        (call(x_webhook_timestamp="²"), "X-Webhook-Timestamp: missing or no number"),
        (call(x_webhook_nonce=""), "X-Webhook-Nonce: missing"),
        (call(nonce="short"), "send 8 to 100 of"),
        (call(x_webhook_signature=""), "X-Webhook-Signature: missing or wrong; sign <timestamp>.<nonce>.<body>"),
    ],
)
async def test_a_refusal_says_what_to_do(request_: WebhookRequest, says: str, offline: Adapter) -> None:
    with pytest.raises(ForgedRequest, match=says):
        await offline.webhook(request_)


@pytest.mark.parametrize("age", [301, -301])
async def test_an_old_call_and_one_of_the_future_are_refused(age: float, offline: Adapter) -> None:
    with pytest.raises(ForgedRequest, match="Set your clock"):
        await offline.webhook(call(age=age))


@pytest.mark.parametrize("age", [290, -290])
async def test_a_clock_may_differ_a_little(age: float, offline: Adapter, sink: RecordingSink) -> None:
    assert (await offline.webhook(call(age=age))).status == 202
    assert len(sink.messages) == 1


async def test_a_call_that_was_listened_to_is_the_same_message(offline: Adapter, sink: RecordingSink) -> None:
    sink.answer = Answer(outcome=Outcome.ANSWERED, texts=("It arrives today.",))
    answers = [await offline.webhook(call()) for _ in range(3)]
    assert len(sink.messages) == 1
    assert len({answer.body for answer in answers}) == 1, "All get the same answer."


async def test_messages_without_an_id_are_known_by_their_nonce(offline: Adapter, sink: RecordingSink) -> None:
    for nonce in ("nonce-one", "nonce-two", "nonce-one"):
        await offline.webhook(call(nonce=nonce))
    assert [message.message_id for message in sink.messages] == ["nonce-one", "nonce-two"]


# -- what comes in ----


def test_a_mapping_says_where_things_stand(sink: RecordingSink) -> None:
    mapping = {
        "text": "Order {order.id}, line {order.lines.1.sku}: {comment.body} {{sic}}",
        "user_id": "crm:{customer.id}",
        "display_name": "{customer.names.0}",
        "message_id": "{comment.id}",
        "thread_id": "{nowhere.at.all}",
    }
    adapter = Adapter(replace(CONFIG, settings={"mapping": json.dumps(mapping)}), sink)
    body = {
        "order": {"id": 12, "lines": [{"sku": "A"}, {"sku": "B"}]},
        "comment": {"id": "c-1", "body": "late {text}"},
        "customer": {"id": 7, "names": ["Ann"]},
    }
    message = adapter.parse({"timestamp": 1_780_000_000, "nonce": "nonce-of-a-call", "body": body})
    assert message is not None
    assert message.text == "Order 12, line B: late {text} {sic}"
    assert (message.sender.user_id, message.sender.display_name) == ("crm:7", "Ann")
    assert (message.channel_id, message.message_id, message.thread_id) == ("crm:7", "c-1", "")
    assert message.sent_at == datetime.fromtimestamp(1_780_000_000, UTC)


def test_a_number_is_as_good_as_a_text() -> None:
    message = Adapter(CONFIG, RecordingSink()).parse(recorded("webhook")["numbers.json"])
    assert message is not None
    assert (message.sender.user_id, message.message_id, message.channel_id) == ("7", "99", "12.5")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"user_id": "u"}, "text: '{text}' gives nothing; send it, or change the setting mapping"),
        ({"text": "hi"}, "user_id: '{user_id}' gives nothing"),
        ({"text": ["hi"], "user_id": "u"}, "text: neither a text nor a number"),
        ({"text": "hi", "user_id": 10**40}, "user_id: neither a text nor a number"),
        ({"text": "hi", "user_id": "u" * 201}, "201 characters; 200 are possible"),
        (b"[1]", "no JSON object; send one like"),
        (b"text=hi", "no JSON; send a JSON object"),
    ],
)
async def test_a_body_that_cannot_be_read_is_answered_with_what_to_do(
    body: Any, says: str, offline: Adapter, sink: RecordingSink
) -> None:
    with pytest.raises(UnreadableUpdate, match=says.replace("{", r"\{")):
        await offline.webhook(call(body))
    assert (sink.messages, sink.unreadable) == ([], []), "Whoever calls is told, and can mend it."


# -- answers in the response ----


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(outcome=Outcome.ANSWERED, texts=("One.", "Two.")), "answered"),
        (Answer(outcome=Outcome.SILENT), "silent"),
        (Answer(outcome=Outcome.HELD, texts=("Your code is …",)), "held"),
        (Answer(outcome=Outcome.DEAD), "failed"),
        (Answer(outcome=Outcome.DISCARDED), "discarded"),
    ],
)
async def test_the_response_says_what_became_of_the_message(
    answer: Answer, status: str, offline: Adapter, sink: RecordingSink
) -> None:
    sink.answer = answer
    response = await offline.webhook(call())
    assert (response.status, response.content_type) == (200, "application/json")
    content = {"status": status, "message_id": "nonce-of-a-call", "replies": list(answer.texts)}
    assert json.loads(response.body) == content


async def test_whoever_waited_long_enough_is_told_how_to_get_the_answer(sink: RecordingSink) -> None:
    adapter = Adapter(replace(CONFIG, settings={"wait_seconds": "7"}), sink)
    response = await adapter.webhook(call())
    content = json.loads(response.body)
    assert (response.status, content["status"]) == (202, "waiting")
    assert "No answer within 7 s. Repeat the call" in content["detail"]
    assert sink.waits == [timedelta(seconds=7)]


async def test_an_answer_to_a_call_goes_to_nobody_else(offline: Adapter) -> None:
    receipt = await offline.send(outbound(PartnerWorld.replying))
    assert receipt.platform_message_id == "entry-1:1"


async def test_what_answers_no_call_needs_a_callback(world: PartnerWorld, sink: RecordingSink) -> None:
    inline = {**world.config.settings, "answers": "inline"}
    async with running(world, sink, settings=inline) as adapter:
        await adapter.send(outbound(world.direct, "By the way"))
    assert [got.content["text"] for got in world.partner.got] == ["By the way"]
    with pytest.raises(MessageRefused, match="no callback_url"):
        await Adapter(CONFIG, sink).send(outbound(world.direct))


# -- answers to the callback ----


async def test_the_callback_gets_a_signed_answer_with_its_key(world: PartnerWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        await adapter.send(outbound(world.replying, "It arrives today. 📦"))
    (got,) = world.partner.got
    headers = world.partner.requests[-1]
    assert headers["idempotency-key"] == got.key == got.content["id"] == "entry-1:1"
    assert got.content["in_reply_to"] == "order-1"
    assert got.content["text"] == "It arrives today. 📦"
    assert world.partner.pings >= 1, "The address was tried first."


async def test_the_same_key_at_every_attempt_lets_the_callback_take_it_once(
    world: PartnerWorld, sink: RecordingSink
) -> None:
    async with running(world, sink) as adapter:
        world.partner.fail_next("cut_after")
        with pytest.raises(OutcomeUnknown):
            await adapter.send(outbound(world.direct))
        await adapter.send(outbound(world.direct))
    (got,) = world.partner.got
    assert got.times == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, MessageRefused),
        (302, MessageRefused),
        (307, MessageRefused),
        (400, MessageRefused),
        (401, CredentialError),
        (404, PlatformUnavailable),
        (408, PlatformUnavailable),
        (409, MessageRefused),
        (410, TargetGone),
        (429, RateLimited),
        (500, PlatformUnavailable),
        (502, OutcomeUnknown),
        (503, PlatformUnavailable),
        (504, OutcomeUnknown),
    ],
)
async def test_what_the_callback_answers_says_what_became_of_the_message(
    status: int, error: type[Exception], world: PartnerWorld, sink: RecordingSink
) -> None:
    async with running(world, sink) as adapter:
        world.partner.fail_next("status", status=status, headers={"Location": "http://169.254.169.254/"})
        with pytest.raises(error) as refusal:
            await adapter.send(outbound(world.direct))
    assert type(refusal.value) is error
    assert len(world.partner.requests) - world.partner.pings == 1, "A redirect is not followed."


@pytest.mark.parametrize(
    "said", [b"", b"ok", b"[" * 60_000, b'{"id": 7}', b'{"id": ""}', b'{"id": "' + b"x" * 300 + b'"}']
)
async def test_a_callback_need_not_answer_anything(said: bytes, sink: RecordingSink) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.Response(body=said)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"127.0.0.1:{runner.addresses[0][1]}"
    settings = {"answers": "callback", "callback_url": f"http://{host}/", "callback_hosts": host}
    adapter = Adapter(replace(CONFIG, settings=settings), sink)
    receipt = await adapter.send(outbound(PartnerWorld.direct))
    await runner.cleanup()
    assert receipt.platform_message_id == "entry-1:1"


# -- the callback's address ----


async def test_a_name_that_leads_to_a_private_address_is_refused_before_anything_is_sent(
    world: PartnerWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a name meant when it was looked up before: the connection goes to what was checked."""
    looked_up: list[str] = []

    async def private(self: object, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        looked_up.append(host)
        address = {"hostname": host, "host": "127.0.0.1", "port": world.partner.port, "family": family}
        return [{**address, "proto": 0, "flags": 0}]

    monkeypatch.setattr(DefaultResolver, "resolve", private)
    settings = {"answers": "callback", "callback_url": "https://rebound.example/answers"}
    adapter = Adapter(replace(CONFIG, settings=settings), sink)
    with pytest.raises(MessageRefused, match="not public"):
        await adapter.send(outbound(world.direct))
    with pytest.raises(ConfigurationError, match="not public"):
        await adapter.start()
    assert looked_up == ["rebound.example"] * 2
    assert world.partner.requests == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost"])
async def test_other_ways_to_write_a_private_address_are_refused(host: str, sink: RecordingSink) -> None:
    settings = {"answers": "callback", "callback_url": f"https://{host}/answers"}
    with pytest.raises(MessageRefused, match="public"):
        await Adapter(replace(CONFIG, settings=settings), sink).send(outbound(PartnerWorld.direct))


async def test_a_host_that_is_named_may_be_anywhere_and_no_other(sink: RecordingSink) -> None:
    Adapter(replace(CONFIG, settings={"callback_url": "http://erp.internal/x", "callback_hosts": "ERP.internal"}), sink)
    for hosts in ("erp.internal:8080", "internal", "xerp.internal"):
        with pytest.raises(ConfigurationError, match="https://"):
            Adapter(replace(CONFIG, settings={"callback_url": "http://erp.internal/x", "callback_hosts": hosts}), sink)


async def test_a_callback_that_does_not_know_the_secret_stops_the_bot(world: PartnerWorld, sink: RecordingSink) -> None:
    world.partner.secret = "a-new-secret-that-only-they-know"
    adapter = world.adapter(sink)
    with pytest.raises(CredentialError, match="give both sides the same secret"):
        await adapter.start()


async def test_time_goes_by_the_callers_clock(world: PartnerWorld, sink: RecordingSink) -> None:
    async with running(world, sink):
        world.partner.say("hello")
        await until(lambda: bool(sink.messages), "it arrives")
    assert sink.messages[0].sent_at is not None
    assert abs(sink.messages[0].sent_at.timestamp() - time.time()) < 60
