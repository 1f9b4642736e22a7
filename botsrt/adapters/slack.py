"""Slack through Socket Mode or the Events API.

Duty: read events, pressed buttons and slash commands, send messages, find a message of unknown outcome again by the
key in its metadata.
Guarantee: an envelope is acknowledged, and a webhook call answered with 200, only after the sink has returned. Slack
delivers an event again that was not acknowledged; of a pressed button or a command it only tells the person.
Not here: modals and menus, and retries; the outbox alone decides about those.

How a Slack conversation becomes a session and a route:

- A direct message is answered where it stands: in its thread if it has one (``thread_id``), else in the chat.
- A channel message is answered in the thread below it. A message of a thread has that thread as ``thread_id``; one at
  the top of the channel has none and names itself as ``reply_to``, so that it stays in the channel's session.
- ``message`` and ``app_mention`` tell of the same message; both give the same key, and either may come first.
- A pressed button is answered like a message that stands where the button does.
- A command is no message, so nothing can stand below it: it is answered in the chat. A person can use it where the bot
  may not write, such as in a chat with somebody else; then the answer is refused as ``channel_not_found``.

What slack_bolt 1.30 does with errors, and what is done about it: a listener's exception becomes a 500 that the caller
cannot tell from any other; an error handler that raises gets through ``async_dispatch``, so ours raises. A failed
``auth.test`` in Bolt's own authorisation becomes a 200, which would acknowledge an event that was never stored; so
authorisation is ours, and asks nobody. Pressed buttons and commands do not go through Bolt, which has nothing to add.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import json
import logging
import re
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Never
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakValueDictionary

import aiohttp
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from botsrt.adapters import downloads
from botsrt.adapters.base import BaseAdapter
from botsrt.core import chunking
from botsrt.core.errors import (
    BotsError,
    ConfigurationError,
    CredentialError,
    FileUnavailable,
    ForgedRequest,
    MessageGone,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import (
    MAX_NAME_CHARS,
    Attachment,
    Button,
    InboundMessage,
    OutboundMessage,
    Route,
    Sender,
    SendReceipt,
)
from botsrt.core.ports import BotConfig, Capabilities, Option, Probe, Sink, WebhookRequest, WebhookResponse
from botsrt.core.redact import redact
from botsrt.core.states import ChatType, EventKind
from botsrt.core.text import one_line, storable

logger = logging.getLogger(__name__)

#: Longest text of one message. Slack takes 40,000 characters, but recommends 4,000 and folds what is longer.
#: Source: chat.postMessage, "Truncating content".
MAX_TEXT_CHARS = 4_000

#: Longest text of an edited message, as it is written. Source: chat.update, ``msg_too_long``.
MAX_EDITED_CHARS = 4_000

#: Between two edits of previews: half of what a method of tier 3 may be called (50 a minute and workspace), so that
#: there is room for answers. Source: "Rate limits".
EDIT_SECONDS = 2.4

#: Where files are, and where their addresses may lead.
FILE_HOSTS = ("slack.com", "slack-files.com")

#: Source: Block Kit reference, text object and button.
MAX_SECTION_CHARS = 3_000
MAX_LABEL_CHARS = 75

#: How long one API call may take; connecting is counted apart, because then nothing can have been sent.
API_SECONDS = 30
CONNECT_SECONDS = 10

#: Seconds between pings on the websocket; a lost connection is noticed and replaced within about two of them.
PING_SECONDS = 5.0

#: How long the SDK may try to get a connection back before this adapter gives up and is started anew.
LOST_SECONDS = 30.0

#: How long events that were read may take to be stored when reading stops.
DRAIN_SECONDS = 5.0

#: Source: "Verifying requests from Slack".
MAX_SIGNATURE_AGE_SECONDS = 300
_TIMESTAMP = re.compile("[0-9]{1,12}")

#: What comes in an envelope, and what Slack calls with a form instead of JSON.
_ENVELOPE_TYPES = frozenset({"events_api", "interactive", "slash_commands"})
_FORM_TYPE = "application/x-www-form-urlencoded"

#: Secrets of a payload: Slack's old verification token of the app, what lets anybody answer for half an hour, and the
#: token of a workflow step.
_SECRET_FIELDS = frozenset({"token", "response_url", "response_urls", "bot_access_token"})

#: What ``send`` writes into a message's metadata, for ``reconcile``.
METADATA_TYPE = "praisonweb"

#: How far back a message is looked for when its route names no earlier message.
RECONCILE_WINDOW = timedelta(days=7)
PAGE_MESSAGES = 200
MAX_PAGES = 25

#: Names are asked for once an hour and never hold up an event for longer than this.
NAME_SECONDS = 1.0
NAME_LIFE_SECONDS = 3600
MAX_NAMES = 10_000

#: Subtypes that are a person's message; ``None`` is a plain one. All others are events about messages, or bots'.
_PERSONS_SUBTYPES = (None, "file_share", "thread_broadcast")

_CREDENTIAL_ERRORS = frozenset(
    {
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope",
        "not_allowed_token_type", "no_permission", "two_factor_setup_required", "accesslimited",
    }
)  # fmt: skip
_GONE_ERRORS = frozenset(
    {
        "channel_not_found", "is_archived", "not_in_channel", "user_not_found", "user_disabled", "cannot_dm_bot",
        "messages_tab_disabled", "ekm_access_denied", "access_denied", "team_not_found", "team_access_not_granted",
    }
)  # fmt: skip
#: About the message that was to be edited. Source: chat.update.
_EDIT_ERRORS = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_RATE_ERRORS = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_UNAVAILABLE_ERRORS = frozenset({"service_unavailable", "request_timeout", "team_added_to_org", "org_login_required"})
#: "It's possible some aspect of the operation succeeded before the error was raised." Source: chat.postMessage.
_UNKNOWN_ERRORS = frozenset({"internal_error", "fatal_error"})

#: Markup an agent may use: mentions of people and channels, and links. Not ``<!channel>``, which wakes everybody.
_OUTGOING_MARKUP = re.compile(
    r"(<(?:@[UW][A-Z0-9]+|#C[A-Z0-9]+(?:\|[^<>|]*)?|(?:https?://|mailto:)[^<>|\s]+(?:\|[^<>]*)?)>)"
)


class _QuietFilter(logging.Filter):
    """The SDK's records without tokens, connection tickets and tracebacks (which repeat both)."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = re.sub(r"ticket=[^&\s'\"]+", "ticket=[secret]", redact(record.getMessage()))
        record.args = record.exc_info = record.exc_text = None
        return True


#: At WARNING because the SDK logs message texts on DEBUG, and looks at the level of this logger alone.
_sdk_logger = logging.getLogger(f"{__name__}.sdk")
_sdk_logger.setLevel(logging.WARNING)
_sdk_logger.addFilter(_QuietFilter())


class Adapter(BaseAdapter):
    """One Slack app in one workspace."""

    platform = "slack"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=MAX_TEXT_CHARS,
        can_reconcile=True,
        has_webhook=True,
        has_groups=True,
        has_buttons=True,
        has_files=True,
        can_edit=True,
        group_edit_seconds=1.0,
        bot_edit_seconds=EDIT_SECONDS,
    )
    settings: ClassVar[tuple[Option, ...]] = (
        Option(
            name="mode",
            help="How events arrive: over a websocket that the bot opens, or as calls of the site's webhook URL.",
            default="socket",
            choices=("socket", "events"),
        ),
        Option(
            name="api_base_url",
            help="Where Slack is; the API is under /api/.",
            default="https://slack.com",
            is_guarded=True,
        ),
    )
    credentials: ClassVar[tuple[Option, ...]] = (
        Option(name="bot_token", help="Bot token, xoxb-…; Slack: OAuth & Permissions.", is_required=True),
        Option(name="app_token", help="App-level token, xapp-…, with connections:write; needed with mode=socket."),
        Option(name="signing_secret", help="Slack: Basic Information; needed with mode=events."),
    )

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        super().__init__(config, sink)
        self._is_socket = self.setting("mode") == "socket"
        self._require("app_token" if self._is_socket else "signing_secret")
        self._base_url = _api_url(self.setting("api_base_url"))
        self._client = self._web_client(config.credentials["bot_token"])
        self._bolt = self._bolt_app()
        self._names = _Names(self._client)
        self._order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by channel
        self._user_id = ""  # the bot's own, once Slack has said it
        self._socket: _Socket | None = None
        self._socket_url: str | None = None
        self._is_closed = False

    def _require(self, credential: str) -> None:
        if not self.config.credentials.get(credential):
            raise ConfigurationError(
                f"{credential}: missing, and needed with mode={self.setting('mode')}; set it with "
                f"manage.py bots set {self.config.account} --credential {credential}=env:NAME"
            )

    def _web_client(self, token: str | None) -> AsyncWebClient:
        """A client that calls once: the SDK's own retries would hide what the outbox has to know."""
        client = AsyncWebClient(
            token=token, base_url=self._base_url, timeout=API_SECONDS, retry_handlers=[], logger=_sdk_logger
        )
        client.proxy = _proxy_for(self._base_url)
        return client

    def _bolt_app(self) -> AsyncApp:
        """Bolt with one listener for every event. Signatures are checked before it, own messages known in ``parse``."""

        async def authorize(team_id: str | None, enterprise_id: str | None) -> AuthorizeResult:
            return AuthorizeResult(team_id=team_id, enterprise_id=enterprise_id)

        async def let_through(error: Exception) -> Never:
            raise error

        app = AsyncApp(
            name=f"{__name__}.bolt",  # Bolt sets level and filters of a logger with this name
            logger=_sdk_logger,
            client=self._web_client(None),
            signing_secret="",
            authorize=authorize,
            process_before_response=True,
            request_verification_enabled=False,
            ignoring_self_events_enabled=False,
            attaching_conversation_kwargs_enabled=False,
        )
        app.event(re.compile(""))(self._on_event)
        app.error(let_through)
        return app

    # -- life cycle ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self.probe()
        if self._is_socket:
            # The SDK's connect() swallows every error and tries for ever, so the app token is proved here.
            opened = await self._ask(self._client.apps_connections_open(app_token=self.config.credentials["app_token"]))
            self._socket_url = opened["url"]
        timeout = aiohttp.ClientTimeout(total=API_SECONDS, sock_connect=CONNECT_SECONDS)
        self._client.session = aiohttp.ClientSession(timeout=timeout)

    async def probe(self) -> Probe:
        who = await self._ask(self._client.auth_test())
        self._user_id = str(who["user_id"] or "")
        return Probe(identity=f"@{who['user']} in {who['team']}")

    async def run(self) -> None:
        if self._is_socket:
            await self._read_socket()
        else:
            await super().run()

    async def _read_socket(self) -> None:
        """Hold a connection and take its events until cancelled; then ``send`` still works."""
        self._socket = socket = _Socket(
            app_token=self.config.credentials["app_token"],
            web_client=self._web_client(None),
            logger=_sdk_logger,
            ping_interval=PING_SECONDS,
        )
        socket.proxy = self._client.proxy
        socket.wss_uri, self._socket_url = self._socket_url, None
        socket.message_listeners.append(self._on_socket_message)
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets the end of what it waits for.
            async with asyncio.timeout(LOST_SECONDS) as deadline:
                await socket.connect()  # type: ignore[no-untyped-call]
            await self._watch(socket)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise PlatformUnavailable(f"Slack gave no connection within {LOST_SECONDS:.0f} s.") from error
        finally:
            await socket.finish()

    async def _watch(self, socket: _Socket) -> Never:
        """Return never; raise when the SDK does not get a lost connection back.

        It would try for ever with an expired link or a revoked token: deaf, and seemingly alive.
        """
        loop = asyncio.get_running_loop()
        connected_at = loop.time()
        while True:
            await asyncio.sleep(PING_SECONDS / 5)
            if await socket.is_connected():
                connected_at = loop.time()
            elif loop.time() - connected_at > LOST_SECONDS:
                raise PlatformUnavailable(f"The connection to Slack is lost for more than {LOST_SECONDS:.0f} s.")

    async def close(self) -> None:
        self._is_closed = True
        if self._socket:
            await self._socket.finish()
        await self._names.close()
        if self._client.session:
            await self._client.session.close()
            self._client.session = None

    # -- inbound -------------------------------------------------------------------------------------------------

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        self._verify(request)
        payload = _payload(request)
        if payload.get("type") == "url_verification":
            return WebhookResponse(body=str(payload.get("challenge", "")))
        if payload.get("ssl_check"):  # Slack tries a command's address from time to time
            return WebhookResponse()
        if payload.get("event") and not self._user_id and not _bot_user_ids(payload):
            await self._learn_user_id()
        await self._store(payload, event_id=hashlib.sha256(request.body).hexdigest())  # for what has no id of its own
        return WebhookResponse()

    def _verify(self, request: WebhookRequest) -> None:
        """Check the v0 signature of the raw body and its age of at most five minutes."""
        secret = self.config.credentials.get("signing_secret")
        if not secret:
            raise ForgedRequest("This bot has no signing_secret, so no request can be proved.")
        timestamp = request.headers.get("x-slack-request-timestamp", "")
        if not _TIMESTAMP.fullmatch(timestamp) or abs(time.time() - int(timestamp)) > MAX_SIGNATURE_AGE_SECONDS:
            raise ForgedRequest("The request has no time, or is older than five minutes.")
        # The SDK's verifier decodes the body first, and fails on one that is not UTF-8.
        signed = b"v0:" + timestamp.encode() + b":" + request.body
        expected = "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(
            expected.encode(), request.headers.get("x-slack-signature", "").encode(errors="replace")
        ):
            raise ForgedRequest("The signature is missing or wrong.")

    async def _learn_user_id(self) -> None:
        """Ask who we are: an app that also acts for people is not always named in the events it gets."""
        try:
            await self.probe()
        except BotsError as error:
            raise StorageUnavailable("Slack did not say who the bot is, so the event cannot be read yet.") from error

    async def _on_socket_message(
        self, client: AsyncBaseSocketModeClient, message: dict[str, Any], raw: str | None = None
    ) -> None:
        """Store one envelope, then acknowledge it; what is not stored is left for Slack to deliver again."""
        kind, envelope_id = message.get("type"), message.get("envelope_id", "")
        if not isinstance(kind, str) or kind not in _ENVELOPE_TYPES or not isinstance(envelope_id, str):
            return
        try:
            await self._store(message.get("payload"), event_id=envelope_id)
        except StorageUnavailable as error:
            logger.warning("Envelope %s was not stored and is not acknowledged: %s", envelope_id, error)
            return
        except Exception:
            logger.exception("Envelope %s was not stored and is not acknowledged.", envelope_id)
            return
        try:
            await client.send_socket_mode_response({"envelope_id": envelope_id})
        except (ConnectionError, aiohttp.ClientError) as error:
            # It comes again over the next connection, and is a duplicate then.
            logger.info("Envelope %s could not be acknowledged: %s", envelope_id, type(error).__name__)

    async def _store(self, payload: object, *, event_id: str) -> None:
        """Bring one payload to the sink, an event through Bolt; returns when it is committed.

        Raises:
            StorageUnavailable: it is not; the same holds for any other error.
        """
        if isinstance(payload, dict) and (_is_press(payload) or _is_command(payload)):
            await self._receive(payload, event_id=event_id)
            return
        if isinstance(payload, dict) and payload.get("type") not in (None, "event_callback"):
            # For one: app_rate_limited, which says that Slack withheld events in the last minute.
            logger.warning("Slack sent %s; there is nothing to store.", one_line(str(payload["type"])))
            return
        try:
            request = AsyncBoltRequest(mode="socket_mode", body=_checked(payload))
        except Exception as error:  # noqa: BLE001  Bolt takes the payload apart and trips in many ways
            await self._keep_unreadable(payload, event_id, error)
            return
        response = await self._bolt.async_dispatch(request)
        if response.status != 200:
            raise StorageUnavailable(f"Bolt answered {response.status}; the event was not handled.")

    async def _on_event(self, body: dict[str, Any]) -> None:
        """Bolt's listener for all events."""
        await self._receive(body, event_id="")

    async def _receive(self, payload: dict[str, Any], *, event_id: str) -> None:
        try:
            message = self.parse(payload)
        except UnreadableUpdate as error:
            await self._keep_unreadable(payload, event_id, error)
            return
        if message is None:
            return
        # Locks are fair: what is said in a channel goes on in the order in which it came, also while a name is missing.
        async with self._order.setdefault(message.channel_id, asyncio.Lock()):
            message = await self._names.added_to(message)
        await self.sink.receive(message)

    async def _keep_unreadable(self, payload: object, event_id: str, error: Exception) -> None:
        raw = _without_secrets(payload) if isinstance(payload, dict) else {"payload": payload}
        reason = error if isinstance(error, UnreadableUpdate) else UnreadableUpdate(f"{type(error).__name__}: {error}")
        reason.__cause__ = reason.__cause__ or error
        await self.sink.receive_unreadable(event_id=str(raw.get("event_id") or event_id), raw=raw, error=reason)

    # -- parse ---------------------------------------------------------------------------------------------------

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        try:
            return self._read(raw)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise UnreadableUpdate(f"The event lacks or garbles a field: {reason}") from error

    def _read(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        if _is_press(raw):
            return self._press(raw)
        return self._command(raw) if _is_command(raw) else self._event(raw)

    def _press(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """A pressed button; None where it is not below a message, and for what is no button with a value."""
        container, (action,) = raw["container"], raw["actions"]
        if container["type"] != "message" or action["type"] != "button" or "value" not in action:
            return None
        channel, ts, thread_ts = raw["channel"], _string(container, "message_ts"), container.get("thread_ts") or ""
        acted_at, user = _string(action, "action_ts"), raw["user"]
        is_direct = _is_direct(_string(channel, "id"), channel.get("name"))
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=channel["id"],
            # Not the trigger_id: nobody says that it is the same when Slack delivers the press again.
            message_id=f"callback:{ts}:{acted_at}:{_string(user, 'id')}",
            sender=Sender(user_id=user["id"], user_name=_text(user.get("username"))),
            text=_string(action, "value"),
            thread_id="" if thread_ts == ts else thread_ts,
            reply_to="" if is_direct else ts,
            kind=EventKind.CALLBACK,
            chat_type=ChatType.DIRECT if is_direct else ChatType.GROUP,
            is_mentioned=True,
            sent_at=datetime.fromtimestamp(float(acted_at), UTC),
            raw=_without_secrets(raw),
        )

    def _command(self, raw: Mapping[str, Any]) -> InboundMessage:
        is_direct = _is_direct(_string(raw, "channel_id"), raw.get("channel_name"))
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=raw["channel_id"],
            message_id=f"command:{_string(raw, 'trigger_id')}",
            sender=Sender(user_id=_string(raw, "user_id"), user_name=_text(raw.get("user_name"))),
            text=_unescaped(f"{_string(raw, 'command')} {_text(raw.get('text'))}".strip()),
            chat_type=ChatType.DIRECT if is_direct else ChatType.GROUP,
            is_mentioned=True,
            raw=_without_secrets(raw),
        )

    def _event(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        event = raw["event"]
        if event["type"] not in ("message", "app_mention"):
            return None
        is_change = event.get("subtype") == "message_changed"
        said: Mapping[str, Any] = event["message"] if is_change else event
        edited_ts = said["edited"]["ts"] if said.get("edited") else ""
        shown_before = (event.get("previous_message") or {}).get("edited") or {}
        if is_change and edited_ts in ("", shown_before.get("ts")):  # Slack's own doing, such as the preview of a link
            return None
        me = _bot_user_ids(raw) | {self._user_id}
        if said.get("subtype") not in _PERSONS_SUBTYPES or said.get("bot_id") or said["user"] in {*me, "USLACKBOT"}:
            return None
        ts, channel, text = said["ts"], event["channel"], said.get("text") or ""
        is_direct = event.get("channel_type") in ("im", "app_home") or channel.startswith("D")
        mention = re.compile(rf"<@(?:{'|'.join(map(re.escape, filter(None, me))) or '(?!)'})(?:\|[^>]*)?>")
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=channel,
            message_id=ts,
            revision=edited_ts,
            sender=Sender(user_id=said["user"]),
            text=_unescaped(re.sub(rf"^\s*{mention.pattern}[\s,:]*", "", text)),
            # Slack gives the first message of a thread its own ts as thread_ts once it has answers.
            thread_id="" if said.get("thread_ts") in (None, ts) else said["thread_ts"],
            reply_to="" if is_direct else ts,
            kind=EventKind.EDIT if edited_ts else EventKind.MESSAGE,
            chat_type=ChatType.DIRECT if is_direct else ChatType.GROUP,
            is_mentioned=is_direct or event["type"] == "app_mention" or bool(mention.search(text)),
            attachments=tuple(_attachment(file) for file in said.get("files") or () if file.get("mode") != "tombstone"),
            sent_at=datetime.fromtimestamp(float(edited_ts or ts), UTC),
            raw=_without_secrets(raw),
        )

    # -- outbound ------------------------------------------------------------------------------------------------

    async def send(self, message: OutboundMessage) -> SendReceipt:
        if self._is_closed:
            raise PlatformUnavailable("The adapter is closed.")
        if not message.text.strip():
            raise MessageRefused("Slack takes no empty message.")
        try:
            answer = await self._client.chat_postMessage(
                channel=message.route.channel_id,
                text=_escaped(message.text),
                blocks=_blocks(message) if message.buttons else None,
                thread_ts=_thread_of(message.route),
                metadata=_metadata(message),
            )
        except Exception as error:  # the SDK also fails on answers that it does not expect
            raise _translated(error) from error
        return SendReceipt(platform_message_id=str(answer["ts"]))

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        if self._is_closed:
            raise PlatformUnavailable("The adapter is closed.")
        text = _escaped(message.text)
        needs_blocks = bool(message.buttons) or len(text) > MAX_EDITED_CHARS
        await self._ask(
            self._client.chat_update(
                channel=message.route.channel_id,
                ts=message.edits,
                text=text[:MAX_EDITED_CHARS],  # beside blocks it is what notifications show
                blocks=_blocks(message) if needs_blocks else [],  # without any, earlier ones would stay
                metadata=_metadata(message),
            )
        )
        return SendReceipt(platform_message_id=message.edits)

    async def delete(self, route: Route, platform_message_id: str) -> None:
        if self._is_closed:
            raise PlatformUnavailable("The adapter is closed.")
        with suppress(MessageGone):
            await self._ask(self._client.chat_delete(channel=route.channel_id, ts=platform_message_id))

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        if urlsplit(attachment.reference).scheme not in ("http", "https"):
            raise FileUnavailable("Slack gives no address for files of other workspaces.")
        content = await downloads.download(
            attachment.reference,
            server=self.setting("api_base_url"),
            hosts=FILE_HOSTS,
            headers={"Authorization": f"Bearer {self.config.credentials['bot_token']}"},
            max_bytes=max_bytes,
        )
        if (
            content[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))
            and "html" not in attachment.mime_type
        ):
            raise FileUnavailable("Slack gives a page instead of the file: the app lacks the scope files:read.")
        return content

    async def reconcile(self, message: OutboundMessage) -> SendReceipt | None:
        oldest = message.route.reply_to or f"{time.time() - RECONCILE_WINDOW.total_seconds():.6f}"
        cursor = None
        for _ in range(MAX_PAGES):
            page = await self._page_of(message.route, oldest=oldest, cursor=cursor)
            for item in page["messages"]:
                if _key_of(item) == message.idempotency_key:
                    return SendReceipt(platform_message_id=str(item["ts"]))
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return None
        raise PlatformUnavailable(f"The message is not among the first {MAX_PAGES * PAGE_MESSAGES} of its chat.")

    async def _page_of(self, route: Route, *, oldest: str, cursor: str | None) -> AsyncSlackResponse:
        """Some messages of the chat or thread that ``send`` writes to, with metadata.

        Raises:
            PlatformUnavailable: for whatever reason; a question that fails says nothing about the message.
        """
        thread_ts = _thread_of(route)
        limits: dict[str, Any] = {"oldest": oldest, "cursor": cursor, "limit": PAGE_MESSAGES}
        limits |= {"channel": route.channel_id, "include_all_metadata": True}
        try:
            if thread_ts:
                return await self._ask(self._client.conversations_replies(ts=thread_ts, **limits))
            return await self._ask(self._client.conversations_history(**limits))
        except BotsError as error:
            raise PlatformUnavailable(f"It cannot be told whether the message arrived. {error}") from error

    @staticmethod
    async def _ask(call: Awaitable[AsyncSlackResponse]) -> AsyncSlackResponse:
        """The answer to a call that may be repeated, so that a cut is no more than no answer."""
        try:
            return await call
        except Exception as error:  # as in send
            translated = _translated(error)
            if isinstance(translated, OutcomeUnknown):
                translated = PlatformUnavailable(f"Slack did not answer: {redact(str(translated))}")
            raise translated from error


class _Socket(SocketModeClient):
    """The SDK's websocket client, whose tasks are known and can be ended."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._handling: set[asyncio.Task[None]] = set()
        self._is_finishing = False

    async def process_message(self) -> None:
        """As the SDK's, but the task is kept: otherwise nothing holds it, and nothing can wait for it."""
        text = await self.message_queue.get()
        if self._is_finishing or not text.startswith("{"):
            return
        task = asyncio.create_task(self.run_message_listeners(json.loads(text), text))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def finish(self) -> None:
        """Take nothing more, let what was taken be stored and acknowledged, then close. Safe to call twice."""
        self._is_finishing = True
        if self._handling:
            await asyncio.wait(self._handling, timeout=DRAIN_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.disconnect()  # type: ignore[no-untyped-call]
        await self.close()  # type: ignore[no-untyped-call]
        tasks = [*self._handling, self.message_processor, self.current_session_monitor, self.message_receiver]
        left = [task for task in tasks if task]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Names:
    """Names of people and channels, which events do not carry: asked for rarely, kept for a while.

    An event is as good without them, so it waits for them briefly at most, and no error leaves here.
    """

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}  # by id: until when (monotonic), what Slack said
        self._asking: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def added_to(self, message: InboundMessage) -> InboundMessage:
        user = await self._about(message.sender.user_id, "user")
        profile = user.get("profile") or {}
        sender = Sender(
            user_id=message.sender.user_id,
            user_name=str(user.get("name") or message.sender.user_name),
            display_name=str(profile.get("display_name") or profile.get("real_name") or user.get("real_name") or ""),
        )
        chat = {} if message.chat_type is ChatType.DIRECT else await self._about(message.channel_id, "channel")
        return replace(message, sender=sender, chat_name=str(chat.get("name") or ""))

    async def _about(self, slack_id: str, kind: str) -> dict[str, Any]:
        expires_at, known = self._known.get(slack_id, (0.0, {}))
        if time.monotonic() < expires_at:
            return known
        task = self._asking.get(slack_id)
        if task is None:
            task = self._asking[slack_id] = asyncio.create_task(self._ask(slack_id, kind))
        done, _ = await asyncio.wait({task}, timeout=NAME_SECONDS)
        return task.result() if done and not task.cancelled() else {}

    async def _ask(self, slack_id: str, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        try:
            if kind == "user":
                answer = await self._client.users_info(user=slack_id)
            else:
                answer = await self._client.conversations_info(channel=slack_id)
            found = answer[kind] or {}
        except Exception as error:  # noqa: BLE001  as in send
            logger.info("Slack did not tell the name of %s: %s", slack_id, _translated(error))
        finally:
            del self._asking[slack_id]
        if len(self._known) >= MAX_NAMES:
            del self._known[next(iter(self._known))]
        self._known[slack_id] = (time.monotonic() + NAME_LIFE_SECONDS, found)
        return found

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- what Slack writes, and how it wants to be written to -------------------------------------------------------


def _checked(payload: object) -> dict[str, Any]:
    """``payload`` if Bolt can find its event."""
    if not isinstance(payload, dict):
        raise UnreadableUpdate("The payload is no object.")
    event = payload.get("event")
    if payload.get("type") != "event_callback" or not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise UnreadableUpdate("The payload holds no event with a type.")
    return payload


def _payload(request: WebhookRequest) -> dict[str, Any]:
    """What a call says: an event as JSON, a pressed button as JSON in a form, a command as a form.

    Raises:
        UnreadableUpdate: it is none of these.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _FORM_TYPE:
        return _json_object(request.body)
    try:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=100))
    except ValueError as error:
        raise UnreadableUpdate("The body is no form.") from error
    return _json_object(form["payload"].encode()) if "payload" in form else form


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableUpdate("The body is no JSON.") from error
    if not isinstance(payload, dict):
        raise UnreadableUpdate("The body is no JSON object.")
    return payload


def _without_secrets(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key not in _SECRET_FIELDS}


def _is_press(payload: Mapping[str, Any]) -> bool:
    return payload.get("type") == "block_actions"


def _is_command(payload: Mapping[str, Any]) -> bool:
    return "command" in payload and "type" not in payload


def _is_direct(channel_id: str, channel_name: object) -> bool:
    """Whether a person pressed a button or gave a command in a direct chat."""
    return channel_id.startswith("D") or channel_name == "directmessage"


def _bot_user_ids(payload: Mapping[str, Any]) -> set[str]:
    """The bot user that an event was delivered for. Source: Events API, ``authorizations``."""
    listed = payload.get("authorizations")
    items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    return {_text(item.get("user_id")) for item in items if item.get("is_bot")} - {""}


def _attachment(file: Mapping[str, Any]) -> Attachment:
    mime_type = _text(file.get("mimetype"))
    kinds = {"image": "photo", "audio": "audio", "video": "video"}
    size = file.get("size")
    return Attachment(
        kind="voice" if file.get("subtype") == "slack_audio" else kinds.get(mime_type.partition("/")[0], "document"),
        reference=_text(file.get("url_private")) or storable(file["id"]),  # other workspaces' files have no URL here
        name=_text(file.get("name") or file.get("title"))[:MAX_NAME_CHARS],
        mime_type=mime_type,
        size_bytes=size if isinstance(size, int) and 0 <= size < 2**63 else None,
    )


def _text(value: object) -> str:
    """``value`` if it is a text, made storable; empty otherwise."""
    return storable(value) if isinstance(value, str) else ""


def _string(container: Mapping[str, Any], name: str) -> str:
    value = container[name]
    if not isinstance(value, str) or not value:
        raise UnreadableUpdate(f"{name} is no text.")
    return value


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _escaped(text: str) -> str:
    """Plain text for Slack; mentions of people, and links, stay what they are. Source: "Formatting", escaping text."""
    plain_and_markup = _OUTGOING_MARKUP.split(text)
    return "".join(
        piece.replace("&", "&amp;") if index % 2 else html.escape(piece, quote=False)
        for index, piece in enumerate(plain_and_markup)
    )


def _blocks(message: OutboundMessage) -> list[dict[str, Any]]:
    """The text, in as many sections as it needs, and the buttons. Source: Block Kit reference."""
    limit = MAX_SECTION_CHARS
    parts = chunking.chunk(message.text, limit=limit)
    while any(len(_escaped(part)) > MAX_SECTION_CHARS for part in parts):
        limit //= 2
        parts = chunking.chunk(message.text, limit=limit)
    # Verbatim: otherwise Slack makes mentions of names in the text, as it does not in a message without blocks. The
    # price is that a bare address is no link.
    texts = [{"type": "mrkdwn", "text": _escaped(part), "verbatim": True} for part in parts]
    sections: list[dict[str, Any]] = [{"type": "section", "text": text} for text in texts]
    buttons = [_button(button, action_id=f"button-{number}") for number, button in enumerate(message.buttons, 1)]
    return [*sections, {"type": "actions", "elements": buttons}] if buttons else sections


def _metadata(message: OutboundMessage) -> dict[str, Any]:
    """What ``reconcile`` knows a message by."""
    return {"event_type": METADATA_TYPE, "event_payload": {"key": message.idempotency_key}}


def _button(button: Button, *, action_id: str) -> dict[str, Any]:
    is_short = len(button.label) <= MAX_LABEL_CHARS
    label = button.label if is_short else f"{button.label[: MAX_LABEL_CHARS - 1]}…"
    text = {"type": "plain_text", "text": label, "emoji": True}
    return {"type": "button", "action_id": action_id, "text": text, "value": button.data}


def _thread_of(route: Route) -> str | None:
    """The thread that an answer goes into: that of the message, or the one that begins below it."""
    return route.thread_id or route.reply_to or None


def _key_of(item: Mapping[str, Any]) -> str | None:
    """The idempotency key that ``send`` wrote into a message's metadata."""
    metadata = item.get("metadata") or {}
    if metadata.get("event_type") != METADATA_TYPE:
        return None
    key = (metadata.get("event_payload") or {}).get("key")
    return key if isinstance(key, str) else None


def _api_url(base: str) -> str:
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("api_base_url: not a web address; write one like https://slack.com")
    return f"{base.rstrip('/')}/api/"


def _proxy_for(url: str) -> str | None:
    """The proxy the environment names for ``url``; the SDK would use one even where NO_PROXY forbids it."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


# -- errors -----------------------------------------------------------------------------------------------------


def _translated(error: Exception) -> BotsError:
    """What ``error`` of a call says about the message in it."""
    if isinstance(error, SlackApiError):
        return _refusal(error)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return PlatformUnavailable(f"Slack cannot be reached: {redact(str(error))}")
    return OutcomeUnknown(f"The call was cut: {type(error).__name__}.")


def _refusal(error: SlackApiError) -> BotsError:
    """Slack's answer other than "ok". The response may be the SDK's, or aiohttp's when its body was not readable."""
    response = error.response
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0))
    body = getattr(response, "data", None)
    answer: Mapping[str, Any] = body if isinstance(body, dict) else {}
    code = str(answer.get("error") or "")
    if status == 429 or code in _RATE_ERRORS:
        return RateLimited(_retry_after(response.headers))
    if not code:
        # 502 and 504 come from a server in front, which may have lost an answer; so may any other one without a word.
        is_refused = 400 <= status < 500 or status == 503
        return (PlatformUnavailable if is_refused else OutcomeUnknown)(f"Slack answered {status} without a reason.")
    said = f"Slack: {one_line(redact(code))}"
    if code in _CREDENTIAL_ERRORS:
        needed = answer.get("needed")
        return CredentialError(f"{said}; needed: {one_line(str(needed))}" if needed else said)
    if code in _GONE_ERRORS or code.startswith("restricted_action"):
        return TargetGone(said)
    if code in _EDIT_ERRORS:
        return MessageGone(said)
    if code in _UNKNOWN_ERRORS:
        return OutcomeUnknown(said)
    if code in _UNAVAILABLE_ERRORS or status >= 500:
        return PlatformUnavailable(said)
    return MessageRefused(said)


def _retry_after(headers: Mapping[str, str]) -> timedelta:
    """How long Slack asks to wait; half a minute if it does not say."""
    seconds = headers.get("Retry-After", "")
    return timedelta(seconds=int(seconds) if seconds.isdecimal() else 30)
