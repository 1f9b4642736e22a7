"""Feed every parser of outside input with broken input: ``python -m bench.fuzz [--inputs N] [--parser NAME]...``.

Recorded events and well-formed texts are mutated at random, structure and all, from a seed that is printed; some
inputs are random bytes. A parser may refuse an input with the project's own errors. A finding is: another exception, an
input that takes longer than ``BOUND_SECONDS`` of processor time, or a result that breaks a rule (it cannot be stored,
is longer than its column, or is read back as something else). Each is printed with the smallest input that does it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import math
import os
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
    os.environ["PRAISON_HOME"] = tempfile.mkdtemp(prefix="praisonweb-fuzz-")
    django.setup()

from django.core.management.base import CommandError
from django.http import Http404

from botsrt import conf
from botsrt.adapters import discord, slack, telegram, webhook, whatsapp
from botsrt.api import journal as api_journal
from botsrt.core import chunking, commands, identity, pairing_codes, redact, resets, runtime_state
from botsrt.core.errors import BotsError
from botsrt.core.messages import MAX_ID_CHARS, MAX_NAME_CHARS, Answer, DeliveryReport, InboundMessage
from botsrt.core.ports import BotConfig, WebhookRequest
from botsrt.core.text import one_line, storable_json
from botsrt.management import archive, cli
from botsrt.services import journal, resolvers, search
from praisonweb.dashboard import consumers, filters, paging, webchat
from praisonweb.dashboard.queries import audit, deliveries, dlq, people
from praisonweb.dashboard.queries import journal as journal_page

#: Processor time that one input may take, in seconds.
BOUND_SECONDS = 0.5

#: What a parser may say to an input that it does not want.
DECLARED = (BotsError, conf.ConfigError, CommandError, argparse.ArgumentTypeError, Http404)

PAYLOADS = Path(__file__).resolve().parents[1] / "tests" / "adapters" / "payloads"

_NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
_SECRET = "offline-signing-secret"
_HOOK_SECRET = "loopback-webhook-secret_1"


class BrokenRuleError(AssertionError):
    """A result that must not be."""


def rule(holds: bool, text: str) -> None:
    if not holds:
        raise BrokenRuleError(text)


# -- mutation ----

_TEXTS = (
    "", " ", "\0", "\ud800", "a\udfffb", "\u202eevil", "\u200b", "\ufeff", "\U0001f469\u200d\U0001f4bb", "é" * 300, "0",
    "-1", "9" * 30, "1e999", "NaN", "null", "true", "{}", "[]", "<b>", "%00", "\n\r\t", "\x1b[31m",
    "'; DROP TABLE x; --", "../../etc/passwd", "٣", "²", "Ⅷ", "ı", "ß", "@shop_bot", "/link ABCD-EFGH",
    "/stop", "pairing:approve:1", "x" * 250, "x" * 5_000, "Infinity", "-0", "1_000", "+5", "0x10", "\x85", "\u2028",
)  # fmt: skip
_NUMBERS = (
    0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400,
    0.0, -0.0, 0.1, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip


def scalar(rng: random.Random) -> Any:
    pick = rng.random()
    if pick < 0.45:
        return rng.choice(_TEXTS)
    if pick < 0.8:
        return rng.choice(_NUMBERS)
    return rng.choice((None, True, False, [], {}))


def some_json(rng: random.Random, depth: int = 0) -> Any:
    pick = rng.random()
    if depth > 3 or pick < 0.5:
        return scalar(rng)
    if pick < 0.51:
        return _nested(rng, rng.choice((50, 500, 3_000)))
    if pick < 0.75:
        return [some_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {_text(rng)[:40]: some_json(rng, depth + 1) for _ in range(rng.randrange(4))}


def _nested(rng: random.Random, depth: int) -> Any:
    value: Any = scalar(rng)
    is_list = rng.random() < 0.5
    for _ in range(depth):
        value = [value] if is_list else {"a": value}
    return value


def _text(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(_TEXTS)
    return "".join(chr(rng.randrange(rng.choice((128, 0x300, 0x110000)))) for _ in range(9))


def _place(rng: random.Random, value: Any) -> tuple[Any, Any] | None:
    """A (container, key) in ``value``, found by walking down; None: it has none."""
    found = None
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        found, value = (value, key), value[key]
        if rng.random() < 0.2:
            break
    return found


def mutated_json(rng: random.Random, seeds: list[bytes]) -> Any:
    """A recorded value with one to four changes; now and then something else altogether."""
    if rng.random() < 0.02:
        return some_json(rng)
    value = pickle.loads(rng.choice(seeds))  # our own bytes: the quickest deep copy
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        place = _place(rng, value)
        if place is None:
            break
        container, key = place
        match rng.randrange(8):
            case 0 | 1 | 2:
                container[key] = scalar(rng)
            case 3:
                container[key] = some_json(rng)
            case 4:
                del container[key]
            case 5:
                container[key] = _elsewhere(rng, seeds)
            case 6 if isinstance(container[key], str):
                container[key] = mutated_text(rng, [container[key]])
            case 7 if isinstance(container, dict):
                container[_text(rng)] = container.pop(key)
            case _:
                container[key] = [container[key]]
    return value


def _elsewhere(rng: random.Random, seeds: list[bytes]) -> Any:
    """A part of another recorded value."""
    place = _place(rng, pickle.loads(rng.choice(seeds)))
    return place[0][place[1]] if place else None


def mutated_text(rng: random.Random, seeds: list[str]) -> str:
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 1, 2, 5, 20)))
        match rng.randrange(7):
            case 0:
                text = text[:at] + _text(rng) + text[at:]
            case 1:
                text = text[:at] + text[end:]
            case 2:
                text = text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]
            case 3:
                text = text[:at] + rng.choice(seeds)[at:]
            case 4:
                text = text[:at] + chr(rng.randrange(0x110000)) + text[at + 1 :]
            case 5:
                text = text[:at]
            case _:
                text = text.swapcase()
    return text


def some_text(rng: random.Random, seeds: list[str]) -> str:
    """One of ``seeds``, now and then as it is."""
    return rng.choice(seeds) if rng.random() < 0.3 else mutated_text(rng, seeds)


def json_text(rng: random.Random, seeds: list[str]) -> str:
    """JSON whose values, or whose letters, are not those of ``seeds``."""
    if rng.random() < 0.5:
        return some_text(rng, seeds)
    return as_body(mutated_json(rng, [pickle.dumps(json.loads(seed)) for seed in seeds])).decode()


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.5:
        return data
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + rng.randrange(1, 50)] * rng.choice((1, 2, 30))
            case _:
                del changed[at:]
    return bytes(changed)


def as_body(value: Any) -> bytes:
    """``value`` as a platform would send it."""
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return b"[" * 5_000


def recorded(platform: str) -> list[bytes]:
    """The recorded events of a platform, as ``mutated_json`` wants them."""
    return [pickle.dumps(json.loads(path.read_text())) for path in sorted((PAYLOADS / platform).glob("*.json"))]


# -- what is fed ----


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One reader of outside input."""

    name: str
    make: Callable[[random.Random], Any]  # the next input
    feed: Callable[[Any], object]  # reads it, and checks what comes of it


class _Sink:
    """Takes what an adapter hands on, and looks whether it could be stored."""

    async def receive(self, message: InboundMessage) -> bool:
        check_message(message)
        return True

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: Exception) -> None:
        key = journal._event_key(event_id)
        rule(len(key) <= MAX_ID_CHARS and "\0" not in key, "the id of an unreadable event cannot be stored")
        key.encode()
        check_storable(journal._raw(raw, max_bytes=262_144))

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        rule(bool(old_channel_id and new_channel_id), "a chat moves from or to nowhere")

    async def newest(self, *, limit: int) -> Sequence[InboundMessage]:
        return ()

    async def reported(self, reports: Sequence[DeliveryReport]) -> None:
        for report in reports:
            check_storable([report.idempotency_key, report.platform_message_id, report.error])
            rule(report.at.tzinfo is not None, "a time without a zone")

    async def answer_to(self, message: InboundMessage, *, within: timedelta) -> Answer:
        return Answer()

    def __getattr__(self, name: str) -> Any:
        raise BrokenRuleError(f"the sink has no {name}")


def check_storable(value: Any) -> str:
    """PostgreSQL takes neither NUL nor a lone surrogate in JSON, nor a number that is none. Returns the JSON."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    rule("\\u0000" not in text or "\\u0000" not in text.replace("\\\\", ""), "NUL in what is stored")
    text.encode()
    return text


def check_message(message: InboundMessage) -> None:
    text = check_storable(message.to_payload())
    rule(InboundMessage.from_payload(json.loads(text)) == replace(message, raw={}), "read back as something else")
    for name in ("channel_id", "message_id", "revision", "thread_id", "reply_to"):
        value = getattr(message, name)
        rule(isinstance(value, str) and len(value) <= MAX_ID_CHARS, f"{name} does not fit its column")
    rule(len(message.sender.user_id) <= MAX_ID_CHARS, "the user id does not fit its column")
    for name in (message.sender.user_name, message.sender.display_name, message.chat_name):
        rule(len(name) <= MAX_NAME_CHARS, "a name does not fit its column")
    rule(message.sent_at is None or message.sent_at.tzinfo is not None, "a time without a zone")
    check_storable(journal._raw(message.raw, max_bytes=262_144))
    journal._command(message)


_loop: asyncio.AbstractEventLoop | None = None


def _wait(work: Any) -> Any:
    global _loop
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
    return _loop.run_until_complete(work)


def _telegram() -> Any:
    adapter = telegram.Adapter(
        BotConfig(
            account="shop",
            platform="telegram",
            credentials={"token": "123456789:" + 35 * "a", "webhook_secret": _HOOK_SECRET},
        ),
        _Sink(),
    )
    adapter._user_name = "shop_bot"
    adapter._in_background = lambda work: work.close()  # type: ignore[method-assign]
    return adapter


def _slack() -> Any:
    adapter = slack.Adapter(
        BotConfig(
            account="shop",
            platform="slack",
            settings={"mode": "events"},
            credentials={"bot_token": "xoxb-offline-bot-token", "signing_secret": _SECRET},
        ),
        _Sink(),
    )
    adapter._user_id = "U0SHOP"

    class _Names:
        async def added_to(self, message: InboundMessage) -> InboundMessage:
            return message

    adapter._names = _Names()  # type: ignore[assignment]
    return adapter


def _discord() -> Any:
    config = BotConfig(account="shop", platform="discord", credentials={"token": "MTAwMDAw.FuzzIt.fuzz-bot-token"})
    adapter = discord.Adapter(config, _Sink())
    adapter._user_id = "1000000000000000000"
    return adapter


def _whatsapp() -> Any:
    credentials = {"access_token": "EAAGoffline", "app_secret": _SECRET, "verify_token": "offline"}
    settings = {"phone_number_id": "106540352242922"}
    config = BotConfig(account="line", platform="whatsapp", settings=settings, credentials=credentials)
    return whatsapp.Adapter(config, _Sink())


def _webhook(mapping: str) -> Any:
    config = BotConfig(
        account="erp", platform="webhook", settings={"mapping": mapping}, credentials={"secret": _HOOK_SECRET}
    )
    return webhook.Adapter(config, _Sink())


def _parse_of(adapter: Any) -> Callable[[Any], object]:
    def feed(value: Any) -> object:
        if not isinstance(value, dict):
            return None
        message = adapter.parse(value)
        if message is not None:
            check_message(message)
        return message

    return feed


def _parsers() -> Iterator[Parser]:
    telegrams, slacks, discords = recorded("telegram"), recorded("slack"), recorded("discord")
    one, two, three = _telegram(), _slack(), _discord()
    yield Parser(name="telegram.update", make=lambda rng: mutated_json(rng, telegrams), feed=_parse_of(one))
    yield Parser(name="slack.payload", make=lambda rng: mutated_json(rng, slacks), feed=_parse_of(two))
    yield Parser(name="discord.event", make=lambda rng: mutated_json(rng, discords), feed=_parse_of(three))

    def telegram_call(rng: random.Random) -> WebhookRequest:
        secret = _HOOK_SECRET if rng.random() < 0.95 else mutated_text(rng, [_HOOK_SECRET])
        body = mutated_bytes(rng, as_body(mutated_json(rng, telegrams)))
        return WebhookRequest(method="POST", headers={"x-telegram-bot-api-secret-token": secret}, query="", body=body)

    yield Parser(name="telegram.webhook", make=telegram_call, feed=lambda call: _wait(one.webhook(call)))

    def slack_call(rng: random.Random) -> WebhookRequest:
        value = mutated_json(rng, slacks)
        content_type = "application/json"
        body = as_body(value)
        if isinstance(value, dict) and rng.random() < 0.4:
            content_type = "application/x-www-form-urlencoded"
            pairs = {"payload": body.decode()} if "command" not in value else value
            try:
                body = urlencode({str(k): str(v) for k, v in pairs.items()}, errors="replace").encode()
            except (RecursionError, ValueError):  # what Python itself cannot write down
                body = b"payload=" + b"[" * 5_000
        body = mutated_bytes(rng, body)
        stamp = str(int(time.time())) if rng.random() < 0.97 else mutated_text(rng, [str(int(time.time()))])
        try:
            signed = b"v0:" + stamp.encode() + b":" + body
        except UnicodeEncodeError:
            signed = b""
        signature = "v0=" + hmac.new(_SECRET.encode(), signed, hashlib.sha256).hexdigest()
        if rng.random() < 0.03:
            signature = mutated_text(rng, [signature])
        headers = {
            "content-type": content_type if rng.random() < 0.97 else mutated_text(rng, [content_type]),
            "x-slack-request-timestamp": stamp,
            "x-slack-signature": signature,
        }
        return WebhookRequest(method="POST", headers=headers, query="", body=body)

    yield Parser(name="slack.webhook", make=slack_call, feed=lambda call: _wait(two.webhook(call)))

    class _Client:
        async def send_socket_mode_response(self, response: Any) -> None:
            json.dumps(response)

    envelopes = [
        pickle.dumps({"type": "events_api", "envelope_id": f"e{number}", "payload": pickle.loads(seed)})
        for number, seed in enumerate(slacks)
    ]

    def envelope(value: Any) -> object:
        return _wait(two._on_socket_message(_Client(), value)) if isinstance(value, dict) else None

    yield Parser(name="slack.envelope", make=lambda rng: mutated_json(rng, envelopes), feed=envelope)

    whatsapps, hooks = recorded("whatsapp"), recorded("webhook")
    three, four, five = _whatsapp(), _webhook(""), _webhook('{"text": "{text} {order.lines.0.sku}"}')
    yield Parser(name="whatsapp.event", make=lambda rng: mutated_json(rng, whatsapps), feed=_parse_of(three))

    def whatsapp_call(rng: random.Random) -> WebhookRequest:
        body = mutated_bytes(rng, as_body(mutated_json(rng, whatsapps)))
        signature = "sha256=" + hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
        if rng.random() < 0.03:
            signature = mutated_text(rng, [signature])
        query = mutated_text(rng, ["hub.mode=subscribe&hub.verify_token=offline&hub.challenge=1"])
        method = "GET" if rng.random() < 0.05 else "POST"
        return WebhookRequest(method=method, headers={"x-hub-signature-256": signature}, query=query, body=body)

    yield Parser(name="whatsapp.webhook", make=whatsapp_call, feed=lambda call: _wait(three.webhook(call)))
    yield Parser(name="webhook.call", make=lambda rng: mutated_json(rng, hooks), feed=_parse_of(five))

    bodies = [pickle.dumps(pickle.loads(hook)["body"]) for hook in hooks]

    def webhook_call(rng: random.Random) -> WebhookRequest:
        body = mutated_bytes(rng, as_body(mutated_json(rng, bodies)))
        stamp, nonce = str(int(time.time())), "nonce-of-a-call"
        headers = {"x-webhook-timestamp": stamp, "x-webhook-nonce": nonce}
        headers["x-webhook-signature"] = webhook._signature(_HOOK_SECRET, stamp, nonce, body)
        if rng.random() < 0.1:
            name = rng.choice(sorted(headers))
            headers[name] = mutated_text(rng, [headers[name]])
        return WebhookRequest(method="POST", headers=headers, query="", body=body)

    yield Parser(name="webhook.webhook", make=webhook_call, feed=lambda call: _wait(four.webhook(call)))

    mappings = ['{"text": "Order {order.id}: {{x}}", "user_id": "{customer.id}"}']

    def mapping(text: str) -> object:
        for template in webhook._mapping(text).values():
            template.filled({"order": {"id": 7}, "customer": {"id": "c"}})
        return None

    yield Parser(name="webhook.mapping", make=lambda rng: json_text(rng, mappings), feed=mapping)

    frames = ['{"id": "0b9c7a1e-77", "text": "Hello"}', '{"type": "reading", "session": 1}']

    def frame(text: str) -> object:
        draft = webchat.read(consumers._parsed(text))
        rule(len(draft.text) <= webchat.MAX_TEXT_CHARS, "too long")
        return draft

    yield Parser(name="web.frame", make=lambda rng: json_text(rng, frames), feed=frame)

    stored = [
        pickle.dumps(message.to_payload())
        for adapter, seeds in ((one, telegrams), (two, slacks), (three, discords), (four, whatsapps), (five, hooks))
        for message in _readable(adapter, seeds)
    ]

    def from_payload(value: Any) -> object:
        if isinstance(value, dict):
            check_message(InboundMessage.from_payload(value))
        return None

    yield Parser(name="message.stored", make=lambda rng: mutated_json(rng, stored), feed=from_payload)

    words = [
        "/link ABCD2345",
        "/stop@shop_bot now",
        "/new",
        "/help",
        "pairing:approve:17",
        "hello ABCD-2345 there",
        "/ ",
    ]

    def chat_words(text: str) -> object:
        command = commands.parse(text)
        rule(command is None or len(command.name) <= 20, "the command does not fit its column")
        press = commands.parse_press(text)
        rule(press is None or 0 < press.request_id < 2**63, "the request's id does not fit its column")
        code = pairing_codes.normalised(text)
        rule(code is None or code.isascii(), "no code")
        return pairing_codes.words_like_codes(text)

    yield Parser(name="chat.words", make=lambda rng: mutated_text(rng, words), feed=chat_words)

    files = [
        '{"links": {"telegram:7": "alice", "slack:U1": "alice"}}',
        '{"version": 1, "links": {"web:a:b": "bob.x"}, "beside": [1, 2, {"a": null}]}',
    ]

    def links(text: str) -> object:
        found = resolvers.read_links(text)
        rule(resolvers.read_links(resolvers.write_links(found)) == found, "read back as something else")
        return found

    yield Parser(name="identity.file", make=lambda rng: json_text(rng, files), feed=links)

    tokens = [
        "state:dead bot:shop from:ann hello", "-is:stuck since:24h", 'from:"Ann Zed" has:reply', "before:2026-01-15",
        "state:held,dead platform:telegram kind:edit", "is:failing has:mirror on:2026-01-01", "by:alice verb:dlq.retry",
    ]  # fmt: skip
    pages = [journal_page.KEYS, dlq.KEYS, deliveries.KEYS, people.KEYS, audit.KEYS]

    def filter_line(text: str) -> object:
        for keys in pages:
            found = filters.parse(text, keys=keys, now=_NOW)
            again = filters.parse(found.text, keys=keys, now=_NOW)
            fits = len(found.text) <= filters.MAX_CHARS
            rule(not fits or again.text == found.text, "written down as another filter")
            found.text.encode(errors="surrogatepass")
            list(found.chips)
        filters.moment(text, now=_NOW)
        paging.row_ids([text])
        return search.words_of(text)

    yield Parser(name="site.filter", make=lambda rng: mutated_text(rng, tokens), feed=filter_line)

    states = [pickle.dumps({"echo": {"t1": {"a": [1, 2, {"b": "c"}]}}}), pickle.dumps({"kept": "x" * 100})]

    def state(value: Any) -> object:
        if not isinstance(value, dict):
            return None
        runtime_state.check(value)
        kept = runtime_state.with_turn({}, runtime_id="echo", turn_id="t", state=value)
        check_storable(storable_json(kept))
        return kept

    yield Parser(name="runtime_state", make=lambda rng: mutated_json(rng, states), feed=state)

    names = [name.upper() for name in conf.RuntimeConfig.__dataclass_fields__]
    values = ["30", "0.5", "64", "database", "botsrt.adapters, my.adapters", "Sorry."]
    yield Parser(
        name="settings.environment",
        make=lambda rng: {
            (rng.choice(names) if rng.random() < 0.9 else mutated_text(rng, names)): some_text(rng, values)
            for _ in range(2)
        },
        feed=conf.from_mapping,
    )
    policies = {
        "reset": ["idle", "daily", "both", "none"],
        "reset_idle_seconds": ["3600", "60"],
        "reset_at": ["04:00", "23:59"],
        "time_zone": ["Europe/Berlin", "UTC"],
    }
    yield Parser(
        name="settings.reset",
        make=lambda rng: {name: some_text(rng, known) for name, known in policies.items() if rng.random() < 0.7},
        feed=resets.policy,
    )

    ids = ["alice", "bot_telegram_7", "web:shop:chat-1:m1:17", "24h", "7d", "2026-01-15T12:00:00+01:00", "17", "a=b"]

    def shell_words(text: str) -> object:
        for read in (identity.checked_unified_id, api_journal._entry_id, cli.since, cli.row_id, cli.limit):
            try:
                read(text)
            except DECLARED:
                continue
        shown = one_line(text)
        rule(len(shown) <= 240 and "\n" not in shown and "\x1b" not in shown, "not one harmless line")
        return cli.harmless(text)

    yield Parser(name="shell.words", make=lambda rng: mutated_text(rng, ids), feed=shell_words)

    said = [
        "```python\nprint(1)\n\n```\nand more",
        "a\n\nb " * 50,
        "\U0001f469\u200d\U0001f4bb" * 60,
        "~~~~\n" + "x" * 400,
    ]

    def reply(text: str) -> object:
        units: tuple[chunking.Unit, ...] = ("chars", "utf16")
        for unit in units:
            parts = chunking.chunk(text, limit=100, unit=unit)
            rule(all(chunking.length(part, unit) <= 100 for part in parts), "longer than the platform takes")
            rule(all(part.strip() for part in parts), "an empty part")
        return redact.redact(text)

    yield Parser(name="reply.text", make=lambda rng: mutated_text(rng, said), feed=reply)

    manifest = json.dumps(
        {
            "format": 1, "made_at": "2026-01-15T12:00:00+00:00", "version": "0.1.0", "vendor": "sqlite", "bytes": 1,
            "member": "database.sqlite3", "sha256": "0" * 64, "migrations": ["botsrt.0001_initial"], "key_id": "0" * 16,
            "not_included": [],
        }
    )  # fmt: skip
    manifests = [pickle.dumps(json.loads(manifest))]
    yield Parser(
        name="backup.manifest",
        make=lambda rng: mutated_bytes(rng, as_body(mutated_json(rng, manifests))),
        feed=archive._manifest,
    )


def _readable(adapter: Any, seeds: list[bytes]) -> Iterator[InboundMessage]:
    for seed in seeds:
        try:
            message = adapter.parse(pickle.loads(seed))
        except BotsError:
            continue
        if message is not None:
            yield message


def parsers() -> dict[str, Parser]:
    """All of them, by name."""
    return {parser.name: parser for parser in _parsers()}


# -- a run ----


@dataclass
class Finding:
    what: str
    number: int
    value: Any
    seen: int = 1


@dataclass
class Score:
    """What a run found."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    slowest: Any = None
    findings: dict[str, Finding] = field(default_factory=dict)


def problem(parser: Parser, value: Any) -> tuple[str, float, bool]:
    """What is wrong with how ``value`` is read, empty if nothing; how long it took; and whether it was accepted."""
    began = time.thread_time()
    accepted, what = False, ""
    try:
        parser.feed(value)
        accepted = True
    except DECLARED:
        pass
    except BrokenRuleError as error:
        what = str(error)
    except Exception as error:  # noqa: BLE001  that is what is looked for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        line = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        what = f"{type(error).__name__} at {line}"
    took = time.thread_time() - began
    if not what and took > BOUND_SECONDS:
        what = "too slow"
    return what, took, accepted


def run(parser: Parser, *, inputs: int, seed: int, seconds: float = math.inf) -> Score:
    """Feed ``inputs`` inputs, or as many as fit into ``seconds``."""
    rng, score, began = random.Random(f"{seed}:{parser.name}"), Score(), time.monotonic()
    for number in range(inputs):
        value = parser.make(rng)
        what, took, accepted = problem(parser, value)
        score.inputs += 1
        score.accepted += accepted
        if took > score.slowest_seconds:
            score.slowest_seconds, score.slowest = took, value
        if what and what in score.findings:
            score.findings[what].seen += 1
        elif what:
            score.findings[what] = Finding(what=what, number=number, value=smallest(parser, value, what))
        if number % 1_000 == 0 and time.monotonic() - began > seconds:
            break
    score.seconds = time.monotonic() - began
    return score


def smallest(parser: Parser, value: Any, what: str, *, tries: int = 400) -> Any:
    """Leave out of ``value`` whatever can be left out so that ``what`` still happens."""
    if what == "too slow":
        return value
    for _ in range(20):
        for smaller in _smaller(value):
            tries -= 1
            if tries < 0:
                return value
            if problem(parser, smaller)[0] == what:
                value = smaller
                break
        else:
            return value
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in ``value``."""
    found, waiting = [], [value]
    while waiting:
        container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, item in items:
            found.append((container, key))
            if isinstance(item, dict | list):
                waiting.append(item)
    return found


def _smaller(value: Any) -> Iterator[Any]:
    if isinstance(value, str | bytes):
        nothing: Any = value[:0]
        for size in (len(value) // 2, len(value) // 4, 1):
            if 0 < size < len(value):
                for at in range(0, len(value), size):
                    yield nothing.join((value[:at], value[at + size :]))
    elif isinstance(value, dict | list):
        try:
            copy = pickle.dumps(value)
        except RecursionError:
            return
        for index in range(len(_places(value))):
            smaller = pickle.loads(copy)
            container, key = _places(smaller)[index]
            del container[key]
            yield smaller


def _line(name: str, seed: int, score: Score) -> dict[str, Any]:
    return {
        "kind": "fuzz",
        "parser": name,
        "seed": seed,
        "inputs": score.inputs,
        "per_second": round(score.inputs / max(score.seconds, 0.001)),
        "accepted_percent": round(100 * score.accepted / max(score.inputs, 1)),
        "slowest_ms": round(1_000 * score.slowest_seconds, 1),
        "findings": len(score.findings),
    }


def _shown(value: Any) -> str:
    try:
        return ascii(value)[:600]
    except RecursionError:
        return "(nested deeper than Python can print)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="for each parser (100,000)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for each parser at most")
    parser.add_argument("--parser", action="append", help="only this one (repeatable)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--entries", type=int, help="called by bench: 1,000,000 inputs each, and a JSON line each")
    options = parser.parse_args()
    if options.entries is not None:
        options.inputs = 1_000_000
    known = parsers()
    wanted = options.parser or list(known)
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"there is no parser {', '.join(unknown)}; known are {', '.join(known)}")
    print(f"seed {options.seed}, {options.inputs:,} inputs each", flush=True)
    found = 0
    for name in wanted:
        score = run(known[name], inputs=options.inputs, seed=options.seed, seconds=options.seconds)
        found += len(score.findings)
        if options.entries is not None:
            print(json.dumps(_line(name, options.seed, score)), flush=True)
        print(
            f"{name:22} {score.inputs:>9,} inputs {score.inputs / max(score.seconds, 0.001):>8,.0f}/s, "
            f"{100 * score.accepted / max(score.inputs, 1):3.0f} % accepted, "
            f"slowest {1_000 * score.slowest_seconds:.1f} ms, {len(score.findings)} findings",
            flush=True,
        )
        for finding in score.findings.values():
            print(f"  {finding.what}, {finding.seen} times, first with input {finding.number}: {_shown(finding.value)}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    main()
