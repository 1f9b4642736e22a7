"""Webhooks: what comes in is verified by the adapter, stored, and only then answered with 200."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.test import AsyncClient
from django.utils import timezone

from botsrt.core.errors import (
    AlreadyExists,
    BotsError,
    ConfigurationError,
    Conflict,
    CredentialError,
    ForgedRequest,
    InvalidInput,
    NotFound,
    StorageUnavailable,
    UnreadableUpdate,
)
from botsrt.core.ports import WebhookRequest, WebhookResponse
from botsrt.models import JournalEntry
from botsrt.runtime import platforms, webhooks
from botsrt.services import journal
from tests.adapters.contract import PAYLOADS
from tests.factories import a_bot
from tests.fakes import webhook, whatsapp

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/hooks/telegram/shop/"
SECRET = "Only-Telegram-knows-this"
UPDATE = {
    "update_id": 1,
    "message": {
        "message_id": 11,
        "date": 1_780_000_000,
        "chat": {"id": 42, "type": "private", "first_name": "Ann"},
        "from": {"id": 42, "is_bot": False, "first_name": "Ann"},
        "text": "Hello",
    },
}


@pytest.fixture
def telegram_bot(transactional_db: None) -> None:
    a_bot(
        "shop",
        platform="telegram",
        shape=platforms.shape("telegram"),
        credentials={"token": "123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "webhook_secret": SECRET},
        settings={"mode": "webhook", "webhook_url": "https://bots.example"},
    )


async def deliver(body: Any, *, secret: str = SECRET, path: str = URL) -> Any:
    """Telegram calls."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await AsyncClient(enforce_csrf_checks=True).post(
        path, data, content_type="application/json", headers={"X-Telegram-Bot-Api-Secret-Token": secret}
    )


async def stored() -> list[str]:
    return await sync_to_async(lambda: [entry.payload.get("text", "") for entry in JournalEntry.objects.all()])()


def check_refusal(response: Any, status: int, code: str) -> str:
    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    answer = json.loads(response.content)
    assert set(answer) == {"error", "detail"}
    assert answer["error"] == code
    assert SECRET not in answer["detail"]
    return str(answer["detail"])


async def test_a_genuine_call_is_stored_and_answered(telegram_bot: None, bridge: None) -> None:
    assert (await deliver(UPDATE)).status_code == 200
    assert await stored() == ["Hello"]


async def test_a_second_delivery_counts_as_one(telegram_bot: None, bridge: None) -> None:
    for _ in range(2):
        assert (await deliver(UPDATE)).status_code == 200
    assert await stored() == ["Hello"]


@pytest.mark.parametrize("secret", ["", "wrong", SECRET.lower(), SECRET + "x"])
async def test_a_forged_call_is_refused(telegram_bot: None, bridge: None, secret: str) -> None:
    check_refusal(await deliver(UPDATE, secret=secret), 403, "forged")
    assert await stored() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"[" * 200_000, b'{"a":' * 100_000, b"1" * 10_000])
async def test_junk_is_refused_and_nothing_breaks(telegram_bot: None, bridge: None, body: bytes) -> None:
    check_refusal(await deliver(body), 400, "unreadable")
    assert (await deliver(UPDATE)).status_code == 200
    assert await stored() == ["Hello"]


async def test_a_large_body_is_refused_before_anybody_reads_it(
    bridge: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(**_: Any) -> WebhookResponse:
        pytest.fail("It was handed on.")

    monkeypatch.setattr(webhooks, "handle", nobody)
    settings.BOTSRT = {"MAX_WEBHOOK_BYTES": "2048"}
    detail = check_refusal(await deliver(b"x" * 2049), 413, "too_large")
    assert "2048 bytes" in detail


async def test_a_body_of_the_largest_size_is_read(bridge: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[WebhookRequest] = []

    async def look(*, platform: str, account: str, request: WebhookRequest) -> WebhookResponse:
        seen.append(request)
        return WebhookResponse(status=202, body="thanks", content_type="text/plain")

    monkeypatch.setattr(webhooks, "handle", look)
    settings.BOTSRT = {"MAX_WEBHOOK_BYTES": "2048"}
    response = await deliver(b"x" * 2048, path=f"{URL}?a=1&b=%C3%A9")
    assert (response.status_code, response.content, response["Content-Type"]) == (202, b"thanks", "text/plain")
    (request,) = seen
    assert (request.method, request.query, len(request.body)) == ("POST", "a=1&b=%C3%A9", 2048)
    assert request.headers["x-telegram-bot-api-secret-token"] == SECRET


@pytest.mark.parametrize(
    "path",
    ["/hooks/telegram/nobody/", "/hooks/slack/shop/", "/hooks/nothing/shop/", "/hooks/../shop/", "/hooks/%00/x/"],
)
async def test_a_bot_that_is_not_there_is_not_found(telegram_bot: None, bridge: None, path: str) -> None:
    assert (await deliver(UPDATE, path=path)).status_code == 404


async def test_a_platform_without_webhooks_has_no_address(bridge: None) -> None:
    await sync_to_async(a_bot)("chat", platform="web", shape=platforms.shape("web"))
    check_refusal(await deliver(UPDATE, path="/hooks/web/chat/"), 404, "not_found")


async def test_what_was_not_stored_must_be_delivered_again(
    telegram_bot: None, bridge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise OperationalError("connection to db.internal failed for user praison")

    with monkeypatch.context() as broken:
        broken.setattr(journal, "receive", fail)
        response = await deliver(UPDATE)
    detail = check_refusal(response, 503, "not_stored")
    assert response["Retry-After"] == "5"
    assert "db.internal" not in detail
    assert (await deliver(UPDATE)).status_code == 200
    assert await stored() == ["Hello"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ForgedRequest("The signature is missing."), 403, "forged"),
        (NotFound("No such bot."), 404, "not_found"),
        (UnreadableUpdate("chat.id: missing"), 400, "unreadable"),
        (InvalidInput("platform", "unknown"), 400, "invalid"),
        (AlreadyExists("There."), 409, "exists"),
        (Conflict("Taken."), 409, "conflict"),
        (StorageUnavailable("password=hunter2"), 503, "not_stored"),
        (ConfigurationError("webhook_secret: hunter2"), 503, "unavailable"),
        (CredentialError("hunter2"), 503, "unavailable"),
        (BotsError("hunter2"), 503, "unavailable"),
    ],
)
async def test_every_error_has_its_answer(
    bridge: None, monkeypatch: pytest.MonkeyPatch, error: BotsError, status: int, code: str
) -> None:
    async def fail(**_: Any) -> WebhookResponse:
        raise error

    monkeypatch.setattr(webhooks, "handle", fail)
    detail = check_refusal(await deliver(UPDATE), status, code)
    assert "hunter2" not in detail


async def test_tokens_in_an_error_are_masked(
    bridge: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(**_: Any) -> WebhookResponse:
        raise UnreadableUpdate("no chat in https://api.telegram.org/bot123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/x")

    monkeypatch.setattr(webhooks, "handle", fail)
    assert "AAAAAA" not in check_refusal(await deliver(UPDATE), 400, "unreadable")


async def test_deep_nesting_in_an_adapter_is_no_crash(bridge: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: Any) -> WebhookResponse:
        raise RecursionError

    monkeypatch.setattr(webhooks, "handle", fail)
    assert "nested too deeply" in check_refusal(await deliver(UPDATE), 400, "unreadable")


async def test_the_text_of_a_message_is_not_logged(
    telegram_bot: None, bridge: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await deliver(UPDATE, secret="wrong")
        await deliver(UPDATE)
    assert "Hello" not in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_refused(telegram_bot: None, bridge: None, method: str) -> None:
    response = await AsyncClient().generic(method, URL)
    assert (response.status_code, response["Allow"]) == (405, "GET, POST")


async def test_a_get_is_answered_by_the_adapter(telegram_bot: None, bridge: None) -> None:
    check_refusal(await AsyncClient().get(URL), 403, "forged")
    assert await stored() == []


# -- platforms that only call ----


async def a_bot_of(platform: str, account: str, credentials: dict[str, str], settings: dict[str, str]) -> None:
    shape = platforms.shape(platform)
    await sync_to_async(a_bot)(
        account, platform=platform, shape=shape, credentials=credentials, settings=settings, now=timezone.now()
    )


async def test_whatsapp_proves_the_address_and_calls_it(bridge: None) -> None:
    credentials = {"access_token": "EAAG-token-of-the-line", "app_secret": SECRET, "verify_token": "a-word-of-ours"}
    await a_bot_of("whatsapp", "line", credentials, {"phone_number_id": whatsapp.NUMBER_ID})
    url = "/hooks/whatsapp/line/"
    query = {"hub.mode": "subscribe", "hub.verify_token": "a-word-of-ours", "hub.challenge": "<b>1158201444</b>"}
    response = await AsyncClient().get(url, query)
    assert (response.status_code, response.content) == (200, b"<b>1158201444</b>")
    assert response["Content-Type"].startswith("text/plain")
    assert response["X-Content-Type-Options"] == "nosniff"
    check_refusal(await AsyncClient().get(url, {**query, "hub.verify_token": "another"}), 403, "forged")
    body = (PAYLOADS / "whatsapp" / "text.json").read_bytes()
    for secret, status in (("another", 403), (SECRET, 200)):
        headers = {"X-Hub-Signature-256": whatsapp.signature(body, secret)}
        answer = await AsyncClient().post(url, body, content_type="application/json", headers=headers)
        assert answer.status_code == status
    assert await stored() == ["Does it come in another color?"]


async def test_a_program_is_told_what_to_mend(bridge: None) -> None:
    await a_bot_of("webhook", "erp", {"secret": SECRET}, {"wait_seconds": "0"})

    async def call(body: bytes, **changed: str) -> Any:
        headers = {**webhook.signed(body, nonce="nonce-of-a-call", secret=SECRET), **changed}
        del headers["Content-Type"]
        return await AsyncClient(enforce_csrf_checks=True).post(
            "/hooks/webhook/erp/", body, content_type="application/json", headers=headers
        )

    good = b'{"user_id": "u", "text": "Hello"}'
    assert "X-Webhook-Signature: missing or wrong; sign" in check_refusal(
        await call(good, **{"X-Webhook-Signature": "v1=0"}), 403, "forged"
    )
    assert "text: '{text}' gives nothing" in check_refusal(await call(b'{"user_id": "u"}'), 400, "unreadable")
    assert "send a JSON object" in check_refusal(await call(b"text=Hello"), 400, "unreadable")
    response = await call(good)
    assert (response.status_code, json.loads(response.content)["status"]) == (202, "waiting")
    assert await stored() == ["Hello"]
