"""The WhatsApp adapter against a Graph API on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from botsrt.adapters import whatsapp
from botsrt.adapters.whatsapp import Adapter
from botsrt.core import redact
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
)
from botsrt.core.messages import Attachment, Button, DeliveryReport, Route
from botsrt.core.ports import BotConfig, WebhookRequest
from botsrt.core.states import EventKind, Fate
from tests.adapters.contract import (
    BUTTONS,
    RETRY_AFTER_SECONDS,
    ButtonsContract,
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
from tests.fakes.whatsapp import (
    ACCESS_TOKEN,
    APP_SECRET,
    NUMBER_ID,
    PHONE,
    TEMPLATE,
    USER_ID,
    VERIFY_TOKEN,
    Delivery,
    WhatsAppServer,
    message_of,
    signature,
)

CONFIG = BotConfig(
    account="line",
    platform="whatsapp",
    settings={"phone_number_id": NUMBER_ID},
    credentials={"access_token": ACCESS_TOKEN, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN},
)


class WhatsAppWorld(World):
    adapter_class = Adapter
    wrong_credentials = {"access_token": "EAAGan-access-token-that-nobody-gave"}
    identity = "Shop +1 555-078-3881"
    direct = threaded = Route(channel_id=PHONE)
    replying = Route(channel_id=PHONE, reply_to="wamid.of-what-was-asked")

    def __init__(self, server: WhatsAppServer, receiver: WebhookReceiver) -> None:
        self.server = server
        self.receiver = receiver
        self.config = replace(
            CONFIG, settings={"phone_number_id": NUMBER_ID, "api_base_url": server.url, "quote": "yes"}
        )

    async def say(self, text: str) -> Said:
        return _said(self.server.say(text), text)

    async def edit(self, said: Said, text: str) -> None:
        self.server.edit(said.message_id, text)

    async def deliver_again(self, said: Said) -> None:
        self.server.deliver_again(said.event)

    async def press(self, sent: Sent, data: str) -> Said:
        (standing,) = [one for one in self.server.sent if one.message_id == sent.message_id]
        return _said(self.server.press(standing, data), data)

    async def do_something_else(self) -> None:
        self.server.message({"type": "reaction", "reaction": {"message_id": "wamid.x", "emoji": "👍"}})
        self.server.event({"event": "APPROVED"}, field="message_template_status_update")

    def is_acknowledged(self, said: Said) -> bool:
        return bool(said.event.is_taken)

    async def break_next_send(self, fault: SendFault) -> None:
        match fault:
            case SendFault.RATE_LIMITED:
                self.server.fail_next("rate_limit", retry_after=RETRY_AFTER_SECONDS)
            case SendFault.TARGET_GONE:
                self.server.fail_next("gone")
            case SendFault.REFUSED:
                self.server.fail_next("refused")
            case SendFault.PLATFORM_FAILED:
                self.server.fail_next("error")
            case SendFault.UNREACHABLE:
                await self.server.lose_network()
            case SendFault.CUT_AFTER:
                self.server.fail_next("cut_after")
            case SendFault.NO_ANSWER:
                self.server.fail_next("hang_after", seconds=60)
            case SendFault.CREDENTIALS:
                self.server.revoke()

    def sent(self) -> list[Sent]:
        return [
            Sent(
                channel_id=sent.to,
                message_id=sent.message_id,
                text=sent.text,
                reply_to=sent.reply_to,
                buttons=tuple(Button(label=label, data=data) for label, data in sent.buttons),
            )
            for sent in self.server.sent
        ]

    async def lose_network(self) -> None:
        await self.server.lose_network()

    async def restore_network(self) -> None:
        await self.server.restore_network()


def _said(delivery: Delivery, text: str) -> Said:
    message = message_of(delivery)
    return Said(channel_id=PHONE, message_id=message["id"], user_id=PHONE, text=text, event=delivery)


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatsapp, "CALL_SECONDS", 0.5)


@pytest.fixture
async def server() -> AsyncIterator[WhatsAppServer]:
    async with WhatsAppServer() as server:
        yield server


@pytest.fixture
async def world(server: WhatsAppServer) -> AsyncIterator[WhatsAppWorld]:
    async with WebhookReceiver().serving() as receiver:
        server.webhook_url = f"{receiver.url}/hooks/whatsapp/line/"
        server.statuses_of = ()
        yield WhatsAppWorld(server, receiver)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def offline(sink: RecordingSink) -> Adapter:
    """An adapter that is called, and calls nobody."""
    return Adapter(CONFIG, sink)


def hook(body: object, *, proof: str | None = None) -> WebhookRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"x-hub-signature-256": signature(raw) if proof is None else proof}
    return WebhookRequest(method="POST", headers=headers, query="", body=raw)


def asked(query: str) -> WebhookRequest:
    return WebhookRequest(method="GET", headers={}, query=query, body=b"")


class TestWhatsApp(WebhookContract, ButtonsContract):
    offline_class = Adapter
    offline_config = CONFIG

    @pytest.fixture
    def world(self, world: WhatsAppWorld) -> WhatsAppWorld:
        return world

    def forged(self) -> list[WebhookRequest]:
        update = recorded("whatsapp")["text.json"]
        raw = json.dumps(update).encode()
        right = signature(raw)
        wrong = ("", right[:-1], right.upper(), right.removeprefix("sha256="), signature(raw, "another"), "é", "\udcff")
        changed = WebhookRequest(
            method="POST", headers={"x-hub-signature-256": right}, query="", body=raw.replace(b"color", b"colour")
        )
        missing = WebhookRequest(method="POST", headers={}, query="", body=raw)
        return [*(hook(raw, proof=proof) for proof in wrong), changed, missing]

    def genuine(self, body: bytes) -> WebhookRequest:
        return hook(body)


# -- configuration, and the address ----


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"phone_number_id": ""}, "phone_number_id"),
        ({"phone_number_id": "+1 555 078 3881"}, "phone_number_id"),
        ({"api_base_url": "graph.facebook.com"}, "api_base_url"),
        ({"api_version": "24"}, "api_version"),
        ({"template": "Answer ready"}, "template"),
        ({"template": "x", "template_language": "english"}, "template_language"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(settings: dict[str, str], names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        Adapter(replace(CONFIG, settings={**CONFIG.settings, **settings}), RecordingSink())


def test_all_secrets_are_masked_from_then_on(offline: Adapter) -> None:
    for secret in CONFIG.credentials.values():
        assert redact.redact(f"at {secret}!") == f"at {redact.MASK}!"


async def test_meta_proves_the_address(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink):
        assert await world.server.subscribe(world.server.webhook_url)
        assert not await world.server.subscribe(world.server.webhook_url, verify_token="another")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "hub.mode=subscribe&hub.challenge=1",
        f"hub.mode=unsubscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1",
        f"hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}x&hub.challenge=1",
        "hub.mode=subscribe&hub.verify_token=%ED%A0%80&hub.challenge=1",
        "&".join(f"a{number}=1" for number in range(100)),
    ],
)
async def test_an_address_is_proved_to_meta_alone(query: str, offline: Adapter) -> None:
    with pytest.raises(ForgedRequest):
        await offline.webhook(asked(query))


async def test_the_challenge_is_no_page(offline: Adapter) -> None:
    query = f"hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=%3Cscript%3E"
    answer = await offline.webhook(asked(query))
    assert (answer.body, answer.content_type) == ("<script>", "text/plain; charset=utf-8")


# -- what comes in ----


def parse(name: str) -> Any:
    return Adapter(CONFIG, RecordingSink()).parse(recorded("whatsapp")[f"{name}.json"])


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("text", "Does it come in another color?", EventKind.MESSAGE),
        ("text_from_ad", "Hi! Can I learn more?", EventKind.MESSAGE),
        ("image", "Taj Mahal", EventKind.MESSAGE),
        ("location", "Solomon R. Guggenheim Museum, 1071 5th Ave, New York, NY 10128", EventKind.MESSAGE),
        ("contacts", "Contact: Barbara J. Johnson, +1 (650) 555-9999", EventKind.MESSAGE),
        ("button_reply", "cancel-button", EventKind.CALLBACK),
        ("list_reply", "priority_express", EventKind.CALLBACK),
        ("template_button", "Unsubscribe", EventKind.CALLBACK),
        ("edit_text", "In blue, I mean.", EventKind.EDIT),
        ("edit_image", "Another caption", EventKind.EDIT),
    ],
)
def test_every_kind_of_message_has_its_words(name: str, text: str, kind: EventKind) -> None:
    message = parse(name)
    assert (message.text, message.kind) == (text, kind)
    assert message.sent_at == datetime.fromtimestamp(1_749_416_383, UTC)
    assert message.sender.display_name == "Sheena Nelson"


@pytest.mark.parametrize(
    ("name", "kind", "reference", "file_name"),
    [
        ("image", "photo", "1003383421387256", ""),
        ("voice", "voice", "1908647269898587", ""),
        ("video", "video", "1908647269898588", ""),
        ("document", "document", "1908647269898589", "invoice.pdf"),
        ("sticker", "sticker", "1908647269898590", ""),
        ("location", "location", "40.782910,-73.959076", ""),
    ],
)
def test_files_are_named_by_their_media_ids(name: str, kind: str, reference: str, file_name: str) -> None:
    (attachment,) = parse(name).attachments
    assert (attachment.kind, attachment.reference, attachment.name) == (kind, reference, file_name)


def test_both_ids_of_a_person_are_known_and_the_phone_number_comes_first() -> None:
    both, alone = parse("text_both_ids"), parse("text_user_id_alone")
    assert (both.sender.user_id, both.sender.aliases, both.channel_id) == (PHONE, (USER_ID,), PHONE)
    assert (alone.sender.user_id, alone.sender.aliases, alone.channel_id) == (USER_ID, (), USER_ID)
    assert both.sender.user_name == "realsheenanelson"
    assert parse("text").sender.aliases == ()


async def test_many_messages_in_one_call_are_as_many_events(offline: Adapter, sink: RecordingSink) -> None:
    payload: Any = json.loads(json.dumps(recorded("whatsapp")["text.json"]))
    value = payload["entry"][0]["changes"][0]["value"]
    (said,) = value["messages"]
    value["messages"] = [
        said,
        {**said, "id": "wamid.two", "from": "4915112345678", "text": {"body": "Guten Tag"}},
        {**said, "id": "wamid.three", "type": "hologram"},
        "no message",
    ]
    value["contacts"].append({"profile": {"name": "Erika"}, "wa_id": "4915112345678"})
    value["statuses"] = [{"id": "wamid.sent", "status": "read", "biz_opaque_callback_data": "turn:1:0"}]
    payload["entry"].append(json.loads(json.dumps(recorded("whatsapp")["button_reply.json"]["entry"][0])))
    payload["entry"][1]["changes"][0]["value"]["messages"][0]["id"] = "wamid.pressed"
    await offline.webhook(hook(payload))
    first, second, third = sink.messages
    assert [first.text, second.text, third.text] == [said["text"]["body"], "Guten Tag", "cancel-button"]
    assert [one.sender.display_name for one in sink.messages] == ["Sheena Nelson", "Erika", "Sheena Nelson"]
    assert sink.unreadable[0].event_id == "wamid.three"
    assert "hologram" in str(sink.unreadable[0].error)
    assert len(sink.unreadable) == 2
    assert [(one.idempotency_key, one.fate) for one in sink.reports] == [("turn:1:0", Fate.READ)]
    for one in sink.messages:
        assert offline.parse(one.raw) == one, "What is stored can be read again."


async def test_one_call_is_acknowledged_as_a_whole_or_not_at_all(offline: Adapter, sink: RecordingSink) -> None:
    payload: Any = json.loads(json.dumps(recorded("whatsapp")["text.json"]))
    value = payload["entry"][0]["changes"][0]["value"]
    value["messages"] = [{**value["messages"][0], "id": f"wamid.{number}"} for number in range(3)]
    sink.refusals = 1
    with pytest.raises(StorageUnavailable):
        await offline.webhook(hook(payload))
    await offline.webhook(hook(payload))
    assert [one.message_id for one in sink.messages] == ["wamid.0", "wamid.1", "wamid.2"]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"object": "whatsapp_business_account"},
        {"object": "whatsapp_business_account", "entry": []},
        {"object": "whatsapp_business_account", "entry": [7]},
        {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": []}]}]},
        {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": {"new": 1}}]}]},
        {"object": "page", "entry": [{"changes": [{"field": "messages", "value": {}}]}]},
    ],
)
async def test_an_unknown_shape_is_kept_for_staff(payload: Any, offline: Adapter, sink: RecordingSink) -> None:
    for _ in range(2):
        assert (await offline.webhook(hook(payload))).status == 200
    first, second = sink.unreadable
    assert first.raw == payload
    assert first.event_id == second.event_id, "A redelivery is recognisable."


async def test_what_is_for_another_number_is_passed_over(
    offline: Adapter, sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    await offline.webhook(hook(recorded("whatsapp")["ignored_other_number.json"]))
    assert (sink.messages, sink.unreadable) == ([], [])
    assert "for another number" in caplog.text
    assert "For another number" not in caplog.text, "Texts are not logged."


async def test_meta_reports_its_troubles(offline: Adapter, caplog: pytest.LogCaptureFixture) -> None:
    await offline.webhook(hook(recorded("whatsapp")["ignored_errors.json"]))
    assert "Rate limit hit" in caplog.text


# -- statuses ----


async def test_statuses_are_reported(offline: Adapter, sink: RecordingSink) -> None:
    for name in ("sent", "read"):
        await offline.webhook(hook(recorded("whatsapp")[f"ignored_status_{name}.json"]))
    sent_id = "wamid.HBgLMTQxMjU1NTA4MjkVAgARGBI5QUVEM0Y2RTk2OTQ5RkY5NkYA"
    assert sink.reports == [
        DeliveryReport(
            idempotency_key="turn:1:0",
            platform_message_id=sent_id,
            fate=fate,
            at=datetime.fromtimestamp(1_750_030_073, UTC),
        )
        for fate in (Fate.SENT, Fate.READ)
    ]


async def test_a_failed_message_says_why_and_what_to_do(offline: Adapter, sink: RecordingSink) -> None:
    await offline.webhook(hook(recorded("whatsapp")["ignored_status_failed.json"]))
    (report,) = sink.reports
    assert report.fate is Fate.FAILED
    assert "24 hours" in report.error
    assert "bots set line --setting template=NAME" in report.error
    assert not report.is_target_gone


async def test_a_person_who_cannot_be_reached_is_reported_as_gone(offline: Adapter, sink: RecordingSink) -> None:
    payload: Any = json.loads(json.dumps(recorded("whatsapp")["ignored_status_failed.json"]))
    (status,) = payload["entry"][0]["changes"][0]["value"]["statuses"]
    status["errors"] = [{"code": 131026, "title": "Message undeliverable"}]
    await offline.webhook(hook(payload))
    (report,) = sink.reports
    assert report.is_target_gone
    assert report.error == "WhatsApp: Message undeliverable (131026)"


async def test_statuses_of_others_and_new_words_are_no_error(offline: Adapter, sink: RecordingSink) -> None:
    payload: Any = json.loads(json.dumps(recorded("whatsapp")["ignored_status_read.json"]))
    value = payload["entry"][0]["changes"][0]["value"]
    (status,) = value["statuses"]
    keyless = {name: item for name, item in status.items() if name != "biz_opaque_callback_data"}
    value["statuses"] = [keyless, {**status, "status": "admired"}, status]
    assert (await offline.webhook(hook(payload))).status == 200
    assert [one.idempotency_key for one in sink.reports] == ["", "turn:1:0"]


async def test_a_message_carries_its_key_and_gets_it_back(world: WhatsAppWorld, sink: RecordingSink) -> None:
    world.server.statuses_of = ("sent", "delivered")
    async with running(world, sink) as adapter:
        receipt = await adapter.send(outbound(world.direct))
        await until(lambda: len(sink.reports) == 2, "its statuses come")
    assert {(one.idempotency_key, one.platform_message_id) for one in sink.reports} == {
        ("entry-1:1", receipt.platform_message_id)
    }


# -- what goes out ----


def heard(ago: timedelta) -> Any:
    return replace(outbound(WhatsAppWorld.direct, "Your parcel\n\nis  here."), heard_at=datetime.now(UTC) - ago)


async def test_a_text_within_the_window_goes_as_it_is(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        await adapter.send(heard(timedelta(hours=23, minutes=59)))
    assert world.server.sent[0].text == "Your parcel\n\nis  here."


async def test_a_text_after_the_window_is_refused_before_whatsapp_is_asked(
    world: WhatsAppWorld, sink: RecordingSink
) -> None:
    async with running(world, sink) as adapter:
        with pytest.raises(MessageRefused, match=r"24 hours .* --setting template=NAME"):
            await adapter.send(heard(timedelta(hours=24, minutes=1)))
    assert world.server.calls["send"] == 0


async def test_a_text_after_the_window_goes_as_the_template(world: WhatsAppWorld, sink: RecordingSink) -> None:
    settings = {**world.config.settings, "template": TEMPLATE}
    async with running(world, sink, settings=settings) as adapter:
        await adapter.send(heard(timedelta(days=3)))
        assert world.server.sent[0].text == "We have an answer for you: Your parcel is here."
        with pytest.raises(MessageRefused, match="900 characters"):
            await adapter.send(replace(heard(timedelta(days=3)), text="long " * 200))


async def test_whatsapp_itself_may_say_that_the_window_is_over(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        world.server.fail_next("window")
        with pytest.raises(MessageRefused, match="24 hours"):
            await adapter.send(outbound(world.direct))


async def test_a_template_that_is_not_there_is_named(world: WhatsAppWorld, sink: RecordingSink) -> None:
    settings = {**world.config.settings, "template": "no_such_template"}
    async with running(world, sink, settings=settings) as adapter:
        with pytest.raises(MessageRefused, match="Template does not exist"):
            await adapter.send(heard(timedelta(days=3)))


async def test_answers_quote_only_where_that_is_wanted(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink, settings={**world.config.settings, "quote": "no"}) as adapter:
        await adapter.send(outbound(world.replying))
    assert "context" not in world.server.last_send


async def test_somebody_without_a_number_is_written_to_by_their_id(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        await adapter.send(outbound(Route(channel_id=USER_ID)))
    assert world.server.last_send["recipient"] == USER_ID
    assert "to" not in world.server.last_send


async def test_more_buttons_than_fit_and_long_labels_become_a_list(world: WhatsAppWorld, sink: RecordingSink) -> None:
    buttons = tuple(Button(label=f"A choice with a long label {number}", data=str(number)) for number in range(4))
    async with running(world, sink) as adapter:
        await adapter.send(outbound(world.direct, "Choose:", buttons=buttons))
        await adapter.send(outbound(world.direct, "Choose:", buttons=buttons[:1], number=2))
    assert [sent.kind for sent in world.server.sent] == ["list", "interactive"]
    assert world.server.sent[0].buttons[0] == ("A choice with a long la…", "0")
    assert world.server.sent[1].buttons[0] == ("A choice with a lon…", "0")
    assert BUTTONS[0].label == "Ship it ✅"


async def test_typing_marks_the_message_as_read_once(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        for _ in range(3):
            await adapter.show_typing(world.replying)
        await adapter.show_typing(world.direct)
    assert world.server.shown_typing == [world.replying.reply_to]


async def test_typing_that_fails_is_nobodys_trouble(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        world.server.revoke()
        await adapter.show_typing(world.replying)
    assert world.server.shown_typing == []


async def test_an_empty_text_is_refused(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        with pytest.raises(MessageRefused):
            await adapter.send(outbound(world.direct, " \n"))


@pytest.mark.parametrize(
    ("fault", "details", "error"),
    [
        ("bare", {"status": 502}, OutcomeUnknown),
        ("bare", {"status": 504}, OutcomeUnknown),
        ("bare", {"status": 500}, OutcomeUnknown),
        ("bare", {"status": 503}, PlatformUnavailable),
        ("bare", {"status": 403}, PlatformUnavailable),
        ("bare", {"status": 429}, RateLimited),
        ("bare", {"status": 401}, CredentialError),
        ("bare", {"status": 200}, OutcomeUnknown),
        ("cut_before", {}, OutcomeUnknown),
    ],
)
async def test_a_gateway_that_answers_is_told_from_whatsapp(
    fault: Any, details: dict[str, int], error: type[Exception], world: WhatsAppWorld, sink: RecordingSink
) -> None:
    async with running(world, sink) as adapter:
        world.server.fail_next(fault, **details)
        with pytest.raises(error):
            await adapter.send(outbound(world.direct))


@pytest.mark.parametrize(("fault", "is_whole"), [("rate_limit", True), ("pair_limit", False)])
async def test_a_limit_is_of_the_number_or_of_one_chat(
    fault: Any, is_whole: bool, world: WhatsAppWorld, sink: RecordingSink
) -> None:
    async with running(world, sink) as adapter:
        world.server.fail_next(fault, retry_after=RETRY_AFTER_SECONDS)
        with pytest.raises(RateLimited) as limited:
            await adapter.send(outbound(world.direct))
    assert limited.value.whole_account is is_whole


# -- files ----


async def test_a_file_is_fetched(world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        world.server.send_file("image", b"\xff\xd8picture", "image/jpeg", caption="Look")
        await until(lambda: bool(sink.messages), "the picture arrives")
        (attachment,) = sink.messages[0].attachments
        assert await adapter.fetch(attachment, max_bytes=100) == b"\xff\xd8picture"
        with pytest.raises(FileUnavailable, match="more than 3 bytes"):
            await adapter.fetch(attachment, max_bytes=3)


@pytest.mark.parametrize("reference", ["", "4711", "../me", "1/messages", "40.782910,-73.959076"])
async def test_what_is_no_file_cannot_be_fetched(reference: str, world: WhatsAppWorld, sink: RecordingSink) -> None:
    async with running(world, sink) as adapter:
        with pytest.raises(FileUnavailable):
            await adapter.fetch(Attachment(kind="photo", reference=reference), max_bytes=100)


async def test_a_file_elsewhere_is_not_fetched(
    world: WhatsAppWorld, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(*_: Any, **__: Any) -> dict[str, Any]:
        return {"url": "http://169.254.169.254/latest/meta-data/"}

    async with running(world, sink) as adapter:
        monkeypatch.setattr(adapter, "_call", elsewhere)
        with pytest.raises(FileUnavailable, match="not where the platform keeps its files"):
            await adapter.fetch(Attachment(kind="photo", reference="4711"), max_bytes=100)


async def test_nothing_that_people_say_is_logged(
    world: WhatsAppWorld, sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running(world, sink) as adapter:
            await world.say("a secret of Alice")
            await until(lambda: bool(sink.messages), "it arrives")
            await asyncio.gather(adapter.send(outbound(world.direct, "a secret of the shop")))
    assert "secret of" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("botsrt", "httpx", "httpcore"))
    )
