"""A webhook for programs: signed calls come in, answers go back in the response or to an address of theirs.

Guarantee: a call is answered with 200 or 202 only after its message is stored. A repeated call (the same message id, or
the same nonce where the message has no id) is the same message: it is not answered a second time, but gets the answer.
Not here: files, groups, buttons.

How a call is proved: ``X-Webhook-Signature: v1=…`` is the HMAC-SHA256, in hex, of ``<timestamp>.<nonce>.<body>`` with
the shared secret; ``X-Webhook-Timestamp`` is Unix time, which may differ by ``tolerance_seconds``; ``X-Webhook-Nonce``
is new for each message. What was listened to on the way can be repeated within that time, and finds its message stored.

How an answer goes to ``callback_url``: as a POST that is signed in the same way, with ``Idempotency-Key``, the same at
every attempt. The address must be public, at the very connection that is made, and redirects are not followed; hosts of
one's own network are named in ``callback_hosts``. docs/webhook.md has all of it for those who call.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NoReturn

import aiohttp
from yarl import URL

from botsrt.adapters import downloads
from botsrt.adapters.base import BaseAdapter
from botsrt.core import redact
from botsrt.core.errors import (
    BotsError,
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
from botsrt.core.messages import MAX_ID_CHARS, Answer, InboundMessage, OutboundMessage, Sender, SendReceipt
from botsrt.core.ports import BotConfig, Capabilities, Option, Probe, Sink, WebhookRequest, WebhookResponse
from botsrt.core.states import EventKind, Outcome
from botsrt.core.text import one_line, storable

#: Longest text of one message. Programs have no limit of their own; this one keeps an answer in one piece.
MAX_TEXT_CHARS = 50_000

MIN_SECRET_CHARS = 16

#: How long a call of the callback may take, in seconds; connecting is counted apart: then nothing was sent.
CALL_SECONDS = 15.0
CONNECT_SECONDS = 5.0

#: What is read of the callback's answer.
MAX_ANSWER_BYTES = 65_536

#: The wait after a rate limit that names none.
RATE_WAIT = timedelta(seconds=30)

_TIMESTAMP = re.compile("[0-9]{1,12}")
_NONCE = re.compile("[A-Za-z0-9_.:-]{8,100}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")

#: ``{{`` and ``}}`` are braces; ``{a.b.0}`` is a place in the body.
_PLACES = re.compile(r"(\{\{|\}\}|\{[A-Za-z0-9_.-]+\}|[{}])")

#: What a message is made of, by the names of the setting ``mapping``, and where each stands unless that says otherwise.
_FIELDS = {
    "text": "{text}",
    "user_id": "{user_id}",
    "user_name": "{user_name}",
    "display_name": "{display_name}",
    "channel_id": "{channel_id}",
    "thread_id": "{thread_id}",
    "message_id": "{message_id}",
    "revision": "{revision}",
}
_REQUIRED = ("text", "user_id")

_JSON = "application/json"
_SIGN = "sign <timestamp>.<nonce>.<body> with HMAC-SHA256 and send X-Webhook-Signature: v1=<hex>"


class Adapter(BaseAdapter):
    """One shared secret."""

    platform = "webhook"
    capabilities = Capabilities(max_text=MAX_TEXT_CHARS, has_webhook=True)
    settings: ClassVar[tuple[Option, ...]] = (
        Option(
            name="answers",
            help="Where answers go: into the response of the call, or to callback_url.",
            default="inline",
            choices=("inline", "callback"),
        ),
        Option(name="wait_seconds", help="How long a call waits for its answer.", default="20", max_number=60),
        Option(
            name="callback_url",
            help="An https address of yours; for answers=callback, and for messages that answer no call.",
            is_guarded=True,
        ),
        Option(
            name="callback_hosts",
            help="Hosts of your own network that callback_url may be at, such as erp.internal:8080 10.0.0.7.",
            is_guarded=True,
        ),
        Option(
            name="mapping",
            help='Where things stand in a call, as JSON: {"text": "{comment.body}", "user_id": "{customer.id}"}.',
        ),
        Option(
            name="tolerance_seconds",
            help="How much the clock of a caller may differ.",
            default="300",
            max_number=900,
        ),
    )
    credentials: ClassVar[tuple[Option, ...]] = (
        Option(
            name="secret",
            help=f"Shared with whoever calls, {MIN_SECRET_CHARS} characters or more; openssl rand -hex 32 makes one.",
            is_required=True,
        ),
    )

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        super().__init__(config, sink)
        self._secret = config.credentials["secret"]
        if len(self._secret) < MIN_SECRET_CHARS:
            raise ConfigurationError(f"secret: too short; {MIN_SECRET_CHARS} characters or more, openssl rand -hex 32")
        redact.remember(self._secret)
        self._is_inline = self.setting("answers") == "inline"
        self._wait = timedelta(seconds=self._whole("wait_seconds"))
        self._tolerance_seconds = self._whole("tolerance_seconds")
        self._mapping = _mapping(self.setting("mapping"))
        self._own_hosts = self._hosts()
        self._callback = self._callback_url()
        self._is_closed = False

    # -- configuration ----

    def _whole(self, name: str) -> int:
        value = self.setting(name)
        most = next(option.max_number for option in self.settings if option.name == name)
        if not re.fullmatch("[0-9]{1,4}", value) or not int(value) <= (most or 0):
            raise ConfigurationError(f"{name}: {one_line(value)!r} is no whole number from 0 to {most}.")
        return int(value)

    def _hosts(self) -> frozenset[str]:
        hosts = self.setting("callback_hosts").replace(",", " ").lower().split()
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ConfigurationError(f"callback_hosts: {one_line(host)!r} is no host; write erp.internal:8080")
        return frozenset(hosts)

    def _callback_url(self) -> URL | None:
        given = self.setting("callback_url")
        if not given:
            if self._is_inline:
                return None
            raise ConfigurationError("callback_url: missing; answers=callback needs an address of yours.")
        try:
            url = URL(given)
            is_web = url.scheme in ("http", "https") and bool(url.host) and url.user is None and url.port is not None
        except ValueError:
            is_web = False
        if not is_web:
            raise ConfigurationError("callback_url: no web address; write one like https://erp.example.org/answers")
        if self._is_own(url):
            return url
        if url.scheme != "https":
            raise ConfigurationError("callback_url: must begin with https://, unless callback_hosts names its host.")
        if _is_private_address(url.host or ""):
            raise ConfigurationError(
                "callback_url: not a public address; name its host in callback_hosts if it is meant."
            )
        return url

    def _is_own(self, url: URL) -> bool:
        """Whether the host is one that the bot's owner named."""
        return not self._own_hosts.isdisjoint({(url.host or "").lower(), f"{url.host}:{url.port}".lower()})

    # -- life cycle ----

    async def start(self) -> None:
        await self.probe()

    async def probe(self) -> Probe:
        """Ask the callback, with a signed ``{"type": "ping"}``; without a callback there is nobody to ask."""
        if self._callback is None:
            return Probe(identity=self.config.account)
        try:
            await self._post({"type": "ping", "account": self.config.account}, key=f"ping:{secrets.token_hex(8)}")
        except (MessageRefused, TargetGone) as error:
            raise ConfigurationError(f"callback_url: {error}") from error
        except (OutcomeUnknown, RateLimited) as error:
            raise PlatformUnavailable(str(error)) from error
        return Probe(identity=f"{self.config.account} → {self._callback.host}")

    async def close(self) -> None:
        self._is_closed = True

    # -- inbound ----

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        timestamp, nonce = self._verify(request)
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise UnreadableUpdate("The body is no JSON; send a JSON object in UTF-8.") from error
        if not isinstance(body, dict):
            raise UnreadableUpdate("The body is no JSON object; send one like {...}.")
        message = self.parse({"timestamp": timestamp, "nonce": nonce, "body": body})
        if message is None:
            return _response(200, status="ok")
        await self.sink.receive(message)
        if not self._is_inline:
            return _response(202, status="accepted", message_id=message.message_id)
        answer = await self.sink.answer_to(message, within=self._wait)
        return self._answered(message, answer)

    def _verify(self, request: WebhookRequest) -> tuple[int, str]:
        """Check the proof over the raw body. Returns timestamp and nonce."""
        timestamp = request.headers.get("x-webhook-timestamp", "")
        nonce = request.headers.get("x-webhook-nonce", "")
        if not _TIMESTAMP.fullmatch(timestamp):
            raise ForgedRequest("X-Webhook-Timestamp: missing or no number; send the Unix time in seconds.")
        if not _NONCE.fullmatch(nonce):
            raise ForgedRequest("X-Webhook-Nonce: missing or unusable; send 8 to 100 of A-Z a-z 0-9 _ . : -")
        expected = _signature(self._secret, timestamp, nonce, request.body)
        given = request.headers.get("x-webhook-signature", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
            raise ForgedRequest(f"X-Webhook-Signature: missing or wrong; {_SIGN}")
        apart = abs(time.time() - int(timestamp))
        if apart > self._tolerance_seconds:
            raise ForgedRequest(
                f"X-Webhook-Timestamp: {apart:.0f} s from the clock here; {self._tolerance_seconds} s are possible. "
                "Set your clock, and sign each attempt anew."
            )
        return int(timestamp), nonce

    def _answered(self, message: InboundMessage, answer: Answer) -> WebhookResponse:
        if answer.outcome is None:
            return _response(
                202,
                status="waiting",
                message_id=message.message_id,
                detail=f"No answer within {self._wait.total_seconds():.0f} s. Repeat the call to get it: with a new "
                "timestamp and signature, but the same message id (or nonce).",
            )
        status = "failed" if answer.outcome is Outcome.DEAD else str(answer.outcome)
        return _response(200, status=status, message_id=message.message_id, replies=list(answer.texts))

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """The message of a call; ``raw`` is its ``timestamp``, its ``nonce`` and its ``body``. None for a ping."""
        body, nonce, timestamp = raw.get("body"), raw.get("nonce"), raw.get("timestamp")
        if not isinstance(body, dict) or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            raise UnreadableUpdate("It is no call with a nonce and a body.")
        if body == {"type": "ping"}:
            return None
        found = {name: storable(template.filled(body)) for name, template in self._mapping.items()}
        for name in _REQUIRED:
            if not found[name].strip():
                place = self._mapping[name].text
                raise UnreadableUpdate(f"{name}: {place!r} gives nothing; send it, or change the setting mapping.")
        message_id = found["message_id"] or nonce
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=found["channel_id"] or found["user_id"],
            message_id=message_id,
            revision=found["revision"],
            sender=Sender(user_id=found["user_id"], user_name=found["user_name"], display_name=found["display_name"]),
            text=found["text"],
            thread_id=found["thread_id"],
            reply_to=message_id,
            kind=EventKind.EDIT if found["revision"] else EventKind.MESSAGE,
            is_mentioned=True,
            sent_at=_moment(timestamp),
            raw=raw,
        )

    # -- outbound ----

    async def send(self, message: OutboundMessage) -> SendReceipt:
        if self._is_closed:
            raise PlatformUnavailable("The bot is closed.")
        if self._is_inline and message.route.reply_to:
            return SendReceipt(platform_message_id=message.idempotency_key)  # the call that asked reads it
        if self._callback is None:
            raise MessageRefused("It answers no call, and there is no callback_url that it could go to.")
        answer = await self._post(
            {
                "type": "message",
                "id": message.idempotency_key,
                "account": message.account,
                "channel_id": message.route.channel_id,
                "thread_id": message.route.thread_id,
                "in_reply_to": message.route.reply_to,
                "text": message.text,
                "attempt": message.attempt,
            },
            key=message.idempotency_key,
        )
        message_id = answer.get("id")
        is_id = isinstance(message_id, str) and 0 < len(message_id) <= MAX_ID_CHARS
        return SendReceipt(platform_message_id=storable(str(message_id)) if is_id else message.idempotency_key)

    async def _post(self, content: dict[str, Any], *, key: str) -> dict[str, Any]:
        """Call the callback; what it answered, or one of our errors."""
        assert self._callback is not None
        body = json.dumps(content, ensure_ascii=False).encode()
        timestamp, nonce = str(int(time.time())), secrets.token_hex(16)
        headers = {
            "Content-Type": _JSON,
            "Idempotency-Key": key,
            "X-Webhook-Timestamp": timestamp,
            "X-Webhook-Nonce": nonce,
            "X-Webhook-Signature": _signature(self._secret, timestamp, nonce, body),
        }
        refusal = ConfigurationError("callback_url: its host is at an address that is not public.")
        resolver = None if self._is_own(self._callback) else downloads.PublicResolver(refusal)
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver), timeout=timeout) as session,
                session.post(self._callback, data=body, headers=headers, allow_redirects=False) as response,
            ):
                said = await response.content.read(MAX_ANSWER_BYTES)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except ConfigurationError as error:
            raise MessageRefused(str(error)) from error
        except aiohttp.InvalidURL as error:  # such as 127.1, which is an address in disguise
            raise MessageRefused("callback_url: its host is neither a public name nor an address.") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise PlatformUnavailable(f"The callback cannot be reached: {type(error).__name__}.") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"The call of the callback was cut: {type(error).__name__}.") from error
        if not 200 <= status < 300:
            _refuse(status, retry_after)
        return _object(said)


# -- signatures, answers, errors ----


def _signature(secret: str, timestamp: str, nonce: str, body: bytes) -> str:
    signed = f"{timestamp}.{nonce}.".encode() + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _response(code: int, **content: Any) -> WebhookResponse:
    return WebhookResponse(status=code, body=json.dumps(content, ensure_ascii=False), content_type=_JSON)


def _refuse(status: int, retry_after: str) -> NoReturn:
    """What an answer other than "taken" means. Gateways do not know whether the callback took it."""
    said = f"The callback answered {status}."
    error: BotsError
    if status == 429:
        wait = timedelta(seconds=int(retry_after)) if re.fullmatch("[0-9]{1,5}", retry_after) else RATE_WAIT
        error = RateLimited(wait, whole_account=True)
    elif 300 <= status < 400:
        error = MessageRefused(f"{said} Redirects are not followed: set callback_url to where it leads.")
    elif status in (401, 403):
        error = CredentialError(f"{said} It refuses our signature: give both sides the same secret.")
    elif status == 410:
        error = TargetGone(said)
    elif status in (502, 504):
        error = OutcomeUnknown(said)
    elif status >= 500 or status in (404, 408, 425):
        error = PlatformUnavailable(said)
    else:
        error = MessageRefused(said)
    raise error


def _object(said: bytes) -> dict[str, Any]:
    """What the callback answered, if it is a JSON object; it need not be one."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _is_private_address(host: str) -> bool:
    """Whether a host is written as an address that is not public; of names, the resolver decides."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


# -- the mapping ----


@dataclass(frozen=True, slots=True)
class _Template:
    """A text with places of a body in it."""

    text: str
    pieces: tuple[str | tuple[str, ...], ...]  # plain text, and the steps to a place

    @classmethod
    def of(cls, name: str, text: str) -> _Template:
        pieces: list[str | tuple[str, ...]] = []
        for piece in filter(None, _PLACES.split(text)):
            if piece in ("{{", "}}"):
                pieces.append(piece[0])
            elif piece in ("{", "}"):
                raise ConfigurationError(f"mapping: {name}: a brace without its other; a brace alone is written twice.")
            else:
                is_place = piece[0] == "{" and piece[-1] == "}"
                pieces.append(tuple(piece[1:-1].split(".")) if is_place else piece)
        return cls(text=text, pieces=tuple(pieces))

    def filled(self, body: Mapping[str, Any]) -> str:
        return "".join(piece if isinstance(piece, str) else _at(body, piece) for piece in self.pieces)


def _mapping(given: str) -> dict[str, _Template]:
    """The setting ``mapping`` over what holds without it."""
    try:
        wanted = json.loads(given) if given else {}
    except (ValueError, RecursionError) as error:
        raise ConfigurationError('mapping: no JSON; write one like {"text": "{comment.body}"}') from error
    if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
        raise ConfigurationError('mapping: no object of texts; write one like {"text": "{comment.body}"}')
    if unknown := sorted(set(wanted) - set(_FIELDS)):
        raise ConfigurationError(f"mapping: {one_line(unknown[0])!r} is not one of {', '.join(_FIELDS)}.")
    return {name: _Template.of(name, text) for name, text in {**_FIELDS, **wanted}.items()}


def _at(body: Mapping[str, Any], steps: tuple[str, ...]) -> str:
    """What stands at a place, as text; nothing where there is no such place.

    Raises:
        UnreadableUpdate: it is neither a text nor a number.
    """
    value: Any = body
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch("[0-9]{1,6}", step):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return ""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    is_number = type(value) is float or (type(value) is int and abs(value) < 2**63)
    if isinstance(value, bool) or is_number:
        return json.dumps(value)
    raise UnreadableUpdate(f"{'.'.join(steps)}: neither a text nor a number that can be read.")


def _moment(value: object) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) and 0 < value < 2**35 else None
