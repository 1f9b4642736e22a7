"""WhatsApp through Meta's Cloud API: calls of the site's webhook come in, HTTPS calls go out.

Guarantee: a call of the webhook is answered with 200 only after the sink has stored all that is in it: messages, what
became of sent ones, and whatever has a shape that is not known here, which is kept for staff.
Not here: groups, templates of more than one line of text, files that are sent.

How people are known: by their phone number, and since 2026 by an id that Meta gives them for each business
(``user_id``, such as ``US.13491208655302741918``), which is all that there is of people who hide their number. Where an
event has both, the second is an alias of the first, so that both are one contact. An answer goes to whichever id the
message came from.

When may be written: within 24 hours after the person's last message. After that WhatsApp takes nothing but templates;
so a message is sent as the configured one, or refused with the reason before WhatsApp is asked. Where it is not known
when the person last wrote, WhatsApp decides.

What became of a message comes later (``statuses``). Every message carries its key in ``biz_opaque_callback_data``,
which comes back with its statuses: so they find their row, and tell that a message arrived whose own call was cut.

Source: https://developers.facebook.com/docs/whatsapp/cloud-api (messages, webhooks, error codes, business-scoped ids)
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx

from botsrt.adapters import downloads
from botsrt.adapters.base import BaseAdapter
from botsrt.core import redact
from botsrt.core.errors import (
    BotsError,
    ConfigurationError,
    CredentialError,
    FileUnavailable,
    ForgedRequest,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import (
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    Attachment,
    Button,
    DeliveryReport,
    InboundMessage,
    OutboundMessage,
    Route,
    Sender,
    SendReceipt,
)
from botsrt.core.ports import BotConfig, Capabilities, Option, Probe, Sink, WebhookRequest, WebhookResponse
from botsrt.core.states import EventKind, Fate
from botsrt.core.text import one_line, storable

logger = logging.getLogger(__name__)

#: Longest text, also of a message with a list of choices. Source: text messages; interactive list messages.
MAX_TEXT_CHARS = 4_096

#: Longest text above reply buttons, most buttons, and their longest label. Source: interactive reply buttons messages.
MAX_BUTTONS_TEXT_CHARS = 1_024
MAX_BUTTONS = 3
MAX_BUTTON_CHARS = 20

#: Most rows of a list, and their longest title. Source: interactive list messages.
MAX_ROWS = 10
MAX_ROW_CHARS = 24

#: Longest text of a template's variable that is sure to fit. Source: templates, body of 1,024 characters in all.
MAX_TEMPLATE_CHARS = 900

#: How long after a person's message they may be written to freely. Source: customer service windows.
WINDOW = timedelta(hours=24)

#: Where files are. Source: media, "lookaside.fbsbx.com".
FILE_HOSTS = ("lookaside.fbsbx.com",)

CONNECT_SECONDS = 5.0

#: How long a call may take, in seconds; less than the runtime's own limit for a send.
CALL_SECONDS = 15.0

#: The waits after rate limits that name none. A pair of numbers may have one message in six seconds. Source: 131056.
RATE_WAIT = timedelta(seconds=30)
PAIR_WAIT = timedelta(seconds=6)

#: How long the typing indicator lasts, in seconds, and for how many messages it is known that it is shown.
TYPING_SECONDS = 20.0
MAX_TYPING = 1_000

_OBJECT = "whatsapp_business_account"
_FILE_KINDS = {"image": "photo", "audio": "audio", "video": "video", "document": "document", "sticker": "sticker"}

#: Kinds of message that are none of our business.
_OTHER_KINDS = frozenset({"reaction", "system", "revoke", "request_welcome"})

_PHONE = re.compile(r"[0-9]{1,20}")
_NUMBER_ID = re.compile(r"[0-9]{1,32}")
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]")
_TEMPLATE = re.compile(r"[a-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?")

#: httpx errors after which the request has certainly not gone out.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)

# What the codes of errors mean. Source: "Error codes" of the Cloud API.
_CREDENTIAL_CODES = frozenset({0, 3, 10, 33, 190, 368, 131005, 131031, 131042, 131045, 133010, *range(200, 300)})
_ACCOUNT_RATE_CODES = frozenset({4, 80007, 130429, 131048, 133016})
_PAIR_RATE_CODE = 131056
_UNAVAILABLE_CODES = frozenset({1, 2, 131000, 131016, 131057, 133004})
_GONE_CODES = frozenset({131021, 131026, 131030})
_WINDOW_CODES = frozenset({470, 131047})
_WINDOW_TEXT = (
    "WhatsApp takes no free text more than 24 hours after the person last wrote. Wait until they write, or give the "
    "bot a template: manage.py bots set {account} --setting template=NAME"
)

for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # addresses hold ids of people


class Adapter(BaseAdapter):
    """One business phone number."""

    platform = "whatsapp"
    capabilities = Capabilities(
        max_text=MAX_TEXT_CHARS,
        tells_fate=True,
        has_typing=True,
        has_webhook=True,
        has_buttons=True,
        has_files=True,
        has_reply_window=True,
    )
    settings: ClassVar[tuple[Option, ...]] = (
        Option(
            name="phone_number_id",
            help="Id of the business phone number, not the number itself; Meta: WhatsApp, API Setup.",
            is_required=True,
        ),
        Option(name="template", help="Name of a template whose body has one variable; for messages after 24 hours."),
        Option(name="template_language", help="Language of the template, such as en or pt_BR.", default="en"),
        Option(name="quote", help="Whether answers quote what they answer.", default="no", choices=("no", "yes")),
        Option(
            name="api_base_url",
            help="Where the Graph API is: Meta's own, or a test server.",
            default="https://graph.facebook.com",
            is_guarded=True,
        ),
        Option(name="api_version", help="Version of the Graph API.", default="v24.0"),
    )
    credentials: ClassVar[tuple[Option, ...]] = (
        Option(name="access_token", help="Token of a system user with whatsapp_business_messaging.", is_required=True),
        Option(
            name="app_secret",
            help="Meta: App settings, Basic; proves that a call comes from Meta.",
            is_required=True,
        ),
        Option(
            name="verify_token",
            help="Any word of yours; give the same one to Meta beside the webhook's address.",
            is_required=True,
        ),
    )

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        super().__init__(config, sink)
        self._check()
        for secret in config.credentials.values():
            redact.remember(secret)
        self._number_id = self.setting("phone_number_id")
        self._http: httpx.AsyncClient | None = None
        self._typing_until: dict[str, float] = {}  # message id → monotonic
        self._is_closed = False

    def _check(self) -> None:
        base = urlsplit(self.setting("api_base_url"))
        if base.scheme not in ("http", "https") or not base.hostname:
            raise ConfigurationError("api_base_url: not a web address; write one like https://graph.facebook.com")
        for name, shape, example in (
            ("phone_number_id", _NUMBER_ID, "106540352242922"),
            ("api_version", _VERSION, "v24.0"),
            ("template", _TEMPLATE, "answer_ready"),
            ("template_language", _LANGUAGE, "en or pt_BR"),
        ):
            value = self.setting(name)
            if value and not shape.fullmatch(value):
                raise ConfigurationError(f"{name}: {one_line(value)!r} cannot be one; write one like {example}")

    # -- life cycle ----

    async def start(self) -> None:
        await self.probe()

    async def probe(self) -> Probe:
        number = await self._ask("GET", self._number_id, params={"fields": "display_phone_number,verified_name"})
        names = (_text(number.get("verified_name")), _text(number.get("display_phone_number")))
        return Probe(identity=one_line(" ".join(filter(None, names))) or self._number_id)

    async def close(self) -> None:
        self._is_closed = True
        if self._http is not None:
            await self._http.aclose()

    # -- inbound ----

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        if request.method == "GET":
            return self._proved_address(request.query)
        self._verify(request)
        try:
            payload = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise UnreadableUpdate("The body is no JSON.") from error
        if not isinstance(payload, dict):
            raise UnreadableUpdate("The body is no JSON object.")
        await self._store(payload, digest=hashlib.sha256(request.body).hexdigest())
        return WebhookResponse()

    def _proved_address(self, query: str) -> WebhookResponse:
        """Meta asks whether this address is ours before it uses it. Source: webhooks, verification requests."""
        try:
            given = {name: values[0] for name, values in parse_qs(query, max_num_fields=20).items()}
        except ValueError as error:
            raise ForgedRequest("The query has too many fields.") from error
        if given.get("hub.mode") != "subscribe" or not _is_same(
            given.get("hub.verify_token", ""), self.config.credentials["verify_token"]
        ):
            raise ForgedRequest("The verify token is missing or wrong.")
        return WebhookResponse(body=given.get("hub.challenge", "")[:MAX_ID_CHARS])

    def _verify(self, request: WebhookRequest) -> None:
        """Check the signature of the raw body."""
        secret = self.config.credentials["app_secret"]
        expected = "sha256=" + hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
        if not _is_same(request.headers.get("x-hub-signature-256", ""), expected):
            raise ForgedRequest("The signature is missing or wrong.")

    async def _store(self, payload: dict[str, Any], *, digest: str) -> None:
        """Store all that a call tells, in its order.

        Raises:
            StorageUnavailable: something was not stored; Meta must deliver all of it again.
        """
        reports: list[DeliveryReport] = []
        for number, event in enumerate(_events(payload)):
            try:
                self._look(event)
                message = self.parse(event)
                reports += self._reports(event)
            except UnreadableUpdate as error:
                event_id = _message_id(event) or f"{digest}:{number}"
                await self.sink.receive_unreadable(event_id=event_id, raw=event, error=error)
                continue
            if message is not None:
                await self.sink.receive(message)
        if reports:
            await self.sink.reported(reports)

    def _look(self, event: Mapping[str, Any]) -> None:
        """Report what is not stored: notices about the account, troubles of Meta, and what is for other numbers."""
        if event.get("object") != _OBJECT:
            return
        for change in _changes(event):
            value = change["value"]
            for error in _objects(value.get("errors")):
                logger.warning("bot %s: Meta reports: %s", self.config.account, _said(error))
            if change["field"] != "messages":
                logger.info("bot %s: Meta sent %s; nothing to store", self.config.account, one_line(change["field"]))
            elif not self._is_ours(value):
                logger.warning("bot %s: an event for another number was passed over", self.config.account)

    def _is_ours(self, value: Mapping[str, Any]) -> bool:
        """Whether an event is for this number. All numbers of an account may share one address."""
        return _object(value.get("metadata"), "metadata").get("phone_number_id") == self._number_id

    # -- parse ----

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """The message of an event with one of them, which is what ``_events`` makes of a call."""
        if raw.get("object") != _OBJECT:
            raise UnreadableUpdate("It is no event of a WhatsApp business account.")
        changes = _changes(raw)
        if len(changes) != 1:
            raise UnreadableUpdate("It is not one event.")
        value = changes[0]["value"]
        if changes[0]["field"] != "messages" or not self._is_ours(value):
            return None
        messages = _objects(value.get("messages"))
        if not messages:
            if not value.get("statuses") and not value.get("errors"):
                raise UnreadableUpdate("It has neither messages nor statuses.")
            return None
        if len(messages) != 1:
            raise UnreadableUpdate("It is more than one message.")
        return self._message(raw, value, messages[0])

    def _message(
        self, raw: Mapping[str, Any], value: Mapping[str, Any], said: Mapping[str, Any]
    ) -> InboundMessage | None:
        kind = _id(said, "type")
        if kind in _OTHER_KINDS:
            return None
        if said.get("group_id"):
            raise UnreadableUpdate("It was written in a group; this adapter knows direct chats alone.")
        message_id, revision, content = _id(said, "id"), "", said
        if kind == "edit":
            edit = _object(said.get("edit"), "edit")
            message_id, revision = _id(edit, "original_message_id"), message_id
            content = _object(edit.get("message"), "edit.message")
            kind = _id(content, "type")
        contact = _contact(value)
        sender = _sender(said, contact)
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=sender.user_id,
            message_id=message_id,
            revision=revision,
            sender=sender,
            text=_words(kind, content),
            reply_to=message_id,
            kind=_event_kind(kind, is_edit=bool(revision)),
            is_mentioned=True,
            attachments=tuple(_attachments(kind, content)),
            sent_at=_moment(said.get("timestamp")),
            raw=raw,
        )

    def _reports(self, event: Mapping[str, Any]) -> Iterator[DeliveryReport]:
        """What became of messages; those without our key were not sent by us."""
        (change,) = _changes(event)
        value = change["value"]
        if change["field"] != "messages" or not self._is_ours(value):
            return
        for status in _objects(value.get("statuses")):
            name, key = _text(status.get("status")), _text(status.get("biz_opaque_callback_data"))
            if name not in set(Fate):
                continue  # "warning", "deleted": about what is past
            errors = _objects(status.get("errors"))
            codes = {_number(error.get("code")) for error in errors}
            failure = self._refusal(errors[0]) if errors else "WhatsApp did not say why."
            yield DeliveryReport(
                idempotency_key=key[:MAX_ID_CHARS],
                platform_message_id=_id(status, "id")[:MAX_ID_CHARS],
                fate=Fate(name),
                at=_moment(status.get("timestamp")) or datetime.now(UTC),
                error=failure if name == Fate.FAILED else "",
                is_target_gone=bool(codes & _GONE_CODES),
            )

    def _refusal(self, error: Mapping[str, Any]) -> str:
        """Why WhatsApp does not deliver a message, and what can be done."""
        if _number(error.get("code")) in _WINDOW_CODES:
            return _WINDOW_TEXT.format(account=self.config.account)
        return f"WhatsApp: {_said(error)}"

    # -- outbound ----

    async def send(self, message: OutboundMessage) -> SendReceipt:
        if not message.text.strip():
            raise MessageRefused("WhatsApp takes no empty message.")
        body = self._addressed(message.route)
        if self._is_window_over(message):
            body |= self._as_template(message.text)
        elif message.buttons:
            body |= {"type": "interactive", "interactive": _interactive(message)}
        else:
            body |= {"type": "text", "text": {"body": message.text, "preview_url": False}}
        answer = await self._call(
            "POST", f"{self._number_id}/messages", json={**body, "biz_opaque_callback_data": message.idempotency_key}
        )
        sent = _objects(answer.get("messages"))
        message_id = _text(sent[0].get("id")) if sent else ""
        if not message_id:
            raise OutcomeUnknown("WhatsApp's answer names no message.")
        return SendReceipt(platform_message_id=message_id)

    def _addressed(self, route: Route) -> dict[str, Any]:
        is_phone = bool(_PHONE.fullmatch(route.channel_id))
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to" if is_phone else "recipient": route.channel_id,
        }
        if route.reply_to and self.setting("quote") == "yes":
            body["context"] = {"message_id": route.reply_to}
        return body

    @staticmethod
    def _is_window_over(message: OutboundMessage) -> bool:
        return message.heard_at is not None and datetime.now(UTC) - message.heard_at > WINDOW

    def _as_template(self, text: str) -> dict[str, Any]:
        """The text in the configured template. Its variables take neither line breaks nor rows of spaces."""
        name = self.setting("template")
        if not name:
            raise MessageRefused(_WINDOW_TEXT.format(account=self.config.account))
        line = " ".join(text.split())
        if len(line) > MAX_TEMPLATE_CHARS:
            raise MessageRefused(f"A template takes {MAX_TEMPLATE_CHARS} characters, and this has {len(line):,}.")
        body = {"type": "body", "parameters": [{"type": "text", "text": line}]}
        language = {"code": self.setting("template_language")}
        return {"type": "template", "template": {"name": name, "language": language, "components": [body]}}

    async def show_typing(self, route: Route) -> None:
        """Show that the message was read and an answer is being written. Source: typing indicators."""
        if not route.reply_to or time.monotonic() < self._typing_until.get(route.reply_to, 0.0):
            return
        if len(self._typing_until) >= MAX_TYPING:
            del self._typing_until[next(iter(self._typing_until))]
        self._typing_until[route.reply_to] = time.monotonic() + TYPING_SECONDS
        shown = {"status": "read", "message_id": route.reply_to, "typing_indicator": {"type": "text"}}
        try:
            await self._call("POST", f"{self._number_id}/messages", json={"messaging_product": "whatsapp", **shown})
        except BotsError as error:
            logger.debug("bot %s: typing was not shown: %s", self.config.account, error)

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        if attachment.kind == "location" or not re.fullmatch(r"[0-9A-Za-z_-]{1,200}", attachment.reference):
            raise FileUnavailable("It is no file of WhatsApp.")
        try:
            media = await self._ask("GET", attachment.reference, params={"phone_number_id": self._number_id})
        except MessageRefused as error:
            raise FileUnavailable(str(error)) from error
        return await downloads.download(
            _text(media.get("url")),
            server=self.setting("api_base_url"),
            hosts=FILE_HOSTS,
            headers={"Authorization": f"Bearer {self.config.credentials['access_token']}"},
            max_bytes=max_bytes,
        )

    # -- the Graph API ----

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The answer to a call that may be repeated, so that a cut is no more than no answer."""
        try:
            return await self._call(method, path, **options)
        except OutcomeUnknown as error:
            raise PlatformUnavailable(str(error)) from error

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """What WhatsApp answers, or one of our errors."""
        try:
            response = await self._client().request(method, f"/{self.setting('api_version')}/{path}", **options)
        except _NEVER_SENT as error:
            raise PlatformUnavailable(f"WhatsApp could not be reached: {type(error).__name__}.") from error
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"The call was cut: {type(error).__name__}.") from error
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        error_body = answer.get("error") if isinstance(answer, dict) else None
        raise self._translated(response, error_body if isinstance(error_body, dict) else None)

    def _client(self) -> httpx.AsyncClient:
        if self._is_closed:
            raise PlatformUnavailable("The bot is closed.")
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.setting("api_base_url").rstrip("/"),
                headers={"Authorization": f"Bearer {self.config.credentials['access_token']}"},
                timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            )
        return self._http

    def _translated(self, response: httpx.Response, error: Mapping[str, Any] | None) -> BotsError:
        """What an answer other than "taken" says about the message. Without Graph's own error, a gateway spoke."""
        status = response.status_code
        if error is None:
            if status == 429:
                return RateLimited(_retry_after(response, RATE_WAIT), whole_account=True)
            if status == 401:
                return CredentialError("WhatsApp refused the access token.")
            is_refused = 400 <= status < 500 or status == 503
            return (PlatformUnavailable if is_refused else OutcomeUnknown)(
                f"WhatsApp answered {status} without a word."
            )
        code, said = _number(error.get("code")), f"WhatsApp: {_said(error)}"
        if code == _PAIR_RATE_CODE:
            return RateLimited(_retry_after(response, PAIR_WAIT))
        if code in _ACCOUNT_RATE_CODES or status == 429:
            return RateLimited(_retry_after(response, RATE_WAIT), whole_account=True)
        if code in _CREDENTIAL_CODES or status == 401:
            return CredentialError(said)
        if code in _WINDOW_CODES:
            return MessageRefused(self._refusal(error))
        if code in _GONE_CODES:
            return TargetGone(said)
        if code in _UNAVAILABLE_CODES or error.get("is_transient") is True or status >= 500:
            return PlatformUnavailable(said)
        return MessageRefused(said)


def _retry_after(response: httpx.Response, default: timedelta) -> timedelta:
    seconds = response.headers.get("Retry-After", "")
    return timedelta(seconds=int(seconds)) if re.fullmatch("[0-9]{1,5}", seconds) else default


def _said(error: Mapping[str, Any]) -> str:
    """An error's number and words, as one line without secrets."""
    data = error.get("error_data")
    words = [error.get("message") or error.get("title"), data.get("details") if isinstance(data, dict) else None]
    said = " – ".join(dict.fromkeys(filter(None, map(_text, words))))
    return one_line(redact.redact(f"{said or 'no reason'} ({_number(error.get('code'))})"), max_chars=500)


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _interactive(message: OutboundMessage) -> dict[str, Any]:
    """Text and buttons; as a list where the text is too long for buttons, or there are too many."""
    buttons = message.buttons[:MAX_ROWS]
    body = {"text": message.text}
    if len(buttons) <= MAX_BUTTONS and len(message.text) <= MAX_BUTTONS_TEXT_CHARS:
        replies = [{"type": "reply", "reply": _choice(button, MAX_BUTTON_CHARS)} for button in buttons]
        return {"type": "button", "body": body, "action": {"buttons": replies}}
    rows = [_choice(button, MAX_ROW_CHARS) for button in buttons]
    return {"type": "list", "body": body, "action": {"button": "Choose", "sections": [{"rows": rows}]}}


def _choice(button: Button, max_chars: int) -> dict[str, str]:
    label = button.label if len(button.label) <= max_chars else f"{button.label[: max_chars - 1]}…"
    return {"id": button.data, "title": label}


# -- reading events ----


def _events(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call in pieces of one message each, or of the statuses of one change; what has no known shape stays whole."""
    try:
        changes = [(entry, change) for entry in _listed(payload, "entry") for change in _listed(entry, "changes")]
        pieces = [(entry, change, value) for entry, change in changes for value in _values(change)]
    except UnreadableUpdate:
        yield payload
        return
    if not pieces:
        yield payload
    for entry, change, value in pieces:
        yield {**payload, "entry": [{**entry, "changes": [{**change, "value": value}]}]}


def _values(change: Mapping[str, Any]) -> list[Any]:
    """The value of a change, once for each of its messages, with the contacts of that message's sender alone."""
    value = change.get("value")
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list) or len(value["messages"]) < 2:
        return [value]
    rest = {name: item for name, item in value.items() if name not in ("messages", "statuses", "errors")}
    split: list[Any] = [
        {**rest, "contacts": _contacts_of(message, value.get("contacts")), "messages": [message]}
        for message in value["messages"]
    ]
    if value.get("statuses"):
        split.append({**rest, "statuses": value["statuses"]})
    return split


def _contacts_of(message: object, contacts: object) -> list[Any]:
    said: Mapping[str, Any] = message if isinstance(message, dict) else {}
    ids = {_text(said.get("from")), _text(said.get("from_user_id"))} - {""}
    return [item for item in _objects(contacts) if {_text(item.get("wa_id")), _text(item.get("user_id"))} & ids]


def _changes(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The changes of an event, each with a ``field`` and a ``value``."""
    changes = [change for entry in _listed(event, "entry") for change in _listed(entry, "changes")]
    for change in changes:
        _id(change, "field")
        _object(change.get("value"), "value")
    return changes


def _listed(container: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = container.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnreadableUpdate(f"{name} is no list of objects.")
    return items


def _message_id(event: Mapping[str, Any]) -> str:
    """The id of an event's message, if it has one; by it a redelivery is known."""
    try:
        (change,) = _changes(event)
        (message,) = _objects(change["value"].get("messages"))
        return _id(message, "id")
    except (UnreadableUpdate, ValueError):
        return ""


def _sender(said: Mapping[str, Any], contact: Mapping[str, Any]) -> Sender:
    """Who wrote: by phone number where there is one, with the other id as an alias."""
    ids = [_text(said.get("from")), _text(contact.get("wa_id"))]
    ids += [_text(said.get("from_user_id")), _text(contact.get("user_id"))]
    known = list(dict.fromkeys(filter(None, ids)))
    if not known:
        raise UnreadableUpdate("It does not say who wrote.")
    profile = contact.get("profile")
    names: Mapping[str, Any] = profile if isinstance(profile, dict) else {}
    return Sender(
        user_id=known[0],
        user_name=_text(names.get("username")).removeprefix("@"),
        display_name=_text(names.get("name")),
        aliases=tuple(known[1:]),
    )


def _contact(value: Mapping[str, Any]) -> Mapping[str, Any]:
    contacts = _objects(value.get("contacts"))
    return contacts[0] if contacts else {}


def _event_kind(kind: str, *, is_edit: bool) -> EventKind:
    if is_edit:
        return EventKind.EDIT
    return EventKind.CALLBACK if kind in ("interactive", "button") else EventKind.MESSAGE


def _words(kind: str, said: Mapping[str, Any]) -> str:
    """What a message says in words.

    Raises:
        UnreadableUpdate: it is of a kind that is not known here, or lacks its words.
    """
    match kind:
        case "text":
            return _string(_object(said.get("text"), "text"), "body")
        case "button":
            return _string(_object(said.get("button"), "button"), "payload")
        case "interactive":
            return _pressed(_object(said.get("interactive"), "interactive"))
        case "contacts":
            return "\n".join(map(_card, _listed(said, "contacts")))
        case "location":
            place = _object(said.get("location"), "location")
            return ", ".join(filter(None, (_text(place.get("name")), _text(place.get("address")))))
    if kind in _FILE_KINDS:
        return _text(_object(said.get(kind), kind).get("caption"))
    errors = _objects(said.get("errors"))
    why = f" WhatsApp: {_said(errors[0])}" if errors else ""
    raise UnreadableUpdate(f"A message of the kind {one_line(kind, max_chars=40)!r} cannot be read here.{why}")


def _pressed(interactive: Mapping[str, Any]) -> str:
    """The id of the pressed button, or of the row that was chosen."""
    kind = _id(interactive, "type")
    if kind not in ("button_reply", "list_reply"):
        raise UnreadableUpdate(f"An answer of the kind {one_line(kind, max_chars=40)!r} cannot be read here.")
    return _string(_object(interactive.get(kind), kind), "id")


def _card(card: Mapping[str, Any]) -> str:
    """A contact that somebody shared, as one line."""
    name = card.get("name")
    shown = _text(name.get("formatted_name")) if isinstance(name, dict) else ""
    phones = [_text(phone.get("phone")) or _text(phone.get("wa_id")) for phone in _objects(card.get("phones"))]
    return one_line(f"Contact: {', '.join(filter(None, [shown, *phones]))}", max_chars=MAX_NAME_CHARS)


def _attachments(kind: str, said: Mapping[str, Any]) -> Iterator[Attachment]:
    if kind == "location":
        place = _object(said.get("location"), "location")
        latitude, longitude = place.get("latitude"), place.get("longitude")
        if not _is_degrees(latitude, 90) or not _is_degrees(longitude, 180):
            raise UnreadableUpdate("location is no place.")
        yield Attachment(kind="location", reference=f"{latitude:.6f},{longitude:.6f}")
    elif kind in _FILE_KINDS:
        file = _object(said.get(kind), kind)
        yield Attachment(
            kind="voice" if file.get("voice") is True else _FILE_KINDS[kind],
            reference=_id(file, "id"),
            name=_text(file.get("filename")),
            mime_type=_text(file.get("mime_type"))[:MAX_NAME_CHARS],
        )


def _is_degrees(value: object, most: int) -> bool:
    return type(value) in (int, float) and -most <= value <= most  # type: ignore[operator]  # checked by its type


def _moment(value: object) -> datetime | None:
    """A time, which comes as digits in a text."""
    seconds = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value) else value
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) and 0 < seconds < 2**35 else None


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableUpdate(f"{what} is no object.")
    return value


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _id(container: Mapping[str, Any], name: str) -> str:
    value = container.get(name)
    if not isinstance(value, str) or not value:
        raise UnreadableUpdate(f"{name} is missing.")
    return storable(value)


def _string(container: Mapping[str, Any], name: str) -> str:
    value = container.get(name)
    if not isinstance(value, str):
        raise UnreadableUpdate(f"{name} is no text.")
    return value


def _text(value: object) -> str:
    """``value`` if it is a text, made storable; empty otherwise."""
    return storable(value) if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**31 else None
