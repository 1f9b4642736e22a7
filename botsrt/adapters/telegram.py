"""Telegram, by long polling or by webhook.

Both ways end in ``_accept``, so what is read, migrated or unreadable is the same in both. An update is acknowledged
(by the next poll's offset, or by 200) only after the sink has stored it.

Who is meant in a group: replies to the bot and text mentions are known from the token alone, ``@name`` needs the bot's
name. A started or probed adapter has it. One that only answers webhooks asks for it when the first group message with
an ``@`` comes; while Telegram does not tell, such a message counts as not addressed to the bot, and it is asked again
a minute later.

Not read: what other bots, anonymous administrators and channels write, and everything that has neither text nor a
file (joins, pins, polls, dice). Files are referred to, and fetched when an agent asks for one.

Source: https://core.telegram.org/bots/api
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import httpx
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, ReplyParameters, error
from telegram.constants import ChatAction
from telegram.request import HTTPXRequest

from botsrt.adapters import downloads
from botsrt.adapters.base import BaseAdapter
from botsrt.core import backoff, commands, redact
from botsrt.core.errors import (
    BotsError,
    ChatMigrated,
    ConfigurationError,
    Conflict,
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
from botsrt.core.states import ChatType, EventKind
from botsrt.core.text import one_line, storable

#: How long Telegram keeps a poll open when there is nothing new, in seconds; 50 is the most.
POLL_SECONDS = 25

#: How much later than that a poll without an answer counts as lost, in seconds.
POLL_READ_SECONDS = 10.0

CONNECT_SECONDS = 5.0

#: How long a send may wait for its answer, in seconds; less than the runtime's own limit for a send.
SEND_READ_SECONDS = 15.0

#: How long a call may wait for a free connection, in seconds.
POOL_SECONDS = 5.0

#: How many polls in a row may fail before ``run`` gives up, so that the bot's state shows it: about two minutes.
MAX_POLL_FAILURES = 8

#: The longest pause between two polls that fail, in seconds.
MAX_POLL_PAUSE_SECONDS = 30.0

#: How often a bot with a webhook checks that it still is the registered one, in seconds.
WEBHOOK_CHECK_SECONDS = 300.0

#: How long to wait before the bot's name is asked for again, in seconds.
NAME_RETRY_SECONDS = 60.0

#: The kinds of update we read. Telegram does not send the others.
UPDATE_KINDS = ("message", "edited_message", "callback_query")

#: What a gateway before the Bot API answers when it does not know what became of a request.
_GATEWAY_STATUSES = frozenset({502, 504})

#: httpx errors after which the request has certainly not gone out.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

#: Parts of "400 Bad Request" descriptions that speak of the chat, not of the message.
_TARGET_PROBLEMS = (
    "chat not found",
    "user not found",
    "peer_id_invalid",
    "chat_write_forbidden",
    "chat_restricted",
    "chat_send_plain_forbidden",
    "channel_private",
    "user_is_blocked",
    "is deactivated",
    "was deactivated",
    "was deleted",
    "not enough rights",
    "no rights to send",
    "need administrator rights",
    "not a member",
    "message thread not found",
    "topic_closed",
    "topic_deleted",
)

#: Parts of descriptions that speak of the message that was to be edited.
_EDIT_PROBLEMS = ("message to edit not found", "message can't be edited", "message_id_invalid")

#: What Telegram says of an edit that changes nothing, and of the removal of what is gone.
_UNCHANGED = "message is not modified"
_REMOVED = "message to delete not found"

#: Fields of a message that are a file, and what we call them. An animation comes as a document as well.
#: Commands in the menu. Source: setMyCommands.
MAX_MENU = 100

_FILE_KINDS = ("animation", "document", "voice", "audio", "video", "video_note", "sticker")

_TOKEN = re.compile(r"\d{1,19}:[A-Za-z0-9_-]+(/test)?")  # "/test" leads to Telegram's test servers
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")  # Source: setWebhook, ``secret_token``
_PROOF_HEADER = "x-telegram-bot-api-secret-token"
_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")

# httpx logs every URL, which contains the token; python-telegram-bot every text.
for _name in ("httpx", "telegram"):
    logging.getLogger(_name).setLevel(logging.WARNING)

# Asks python-telegram-bot for waits as timedelta; the other form is deprecated, with a warning on each.
os.environ.setdefault("PTB_TIMEDELTA", "true")

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Adapter(BaseAdapter):
    platform = "telegram"
    capabilities = Capabilities(
        max_text=4096,
        text_unit="utf16",
        has_typing=True,
        has_webhook=True,
        has_groups=True,
        has_buttons=True,
        has_files=True,
        can_edit=True,
        bot_edit_seconds=0.05,
    )  # Source: sendMessage; Bots FAQ, limits: a message a second in a chat, 20 a minute in a group, 30 a second in all
    settings: ClassVar[tuple[Option, ...]] = (
        Option(
            name="mode",
            help="How messages come in: polling needs no public address, webhook calls this site.",
            default="polling",
            choices=("polling", "webhook"),
        ),
        Option(
            name="webhook_url",
            help="This site's public address, such as https://bots.example.org; for mode=webhook.",
            is_guarded=True,
        ),
        Option(
            name="api_base_url",
            help="Where the Bot API is: Telegram's own, a local Bot API server, or a test server.",
            default="https://api.telegram.org",
            is_guarded=True,
        ),
        Option(
            name="menu",
            help="The list of commands that people see: ours, or the one you made with @BotFather.",
            default="ours",
            choices=("ours", "botfather"),
        ),
    )
    credentials: ClassVar[tuple[Option, ...]] = (
        Option(name="token", help="From @BotFather, such as 123456:ABC-def.", is_required=True),
        Option(
            name="webhook_secret",
            help="Any 1 to 256 of A-Z a-z 0-9 _ -; proves that a call comes from Telegram; for mode=webhook.",
        ),
    )

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        super().__init__(config, sink)
        self._token = config.credentials["token"]
        self._secret = config.credentials.get("webhook_secret", "")
        self._check()
        redact.remember(self._token)
        redact.remember(self._secret)
        self._bot_id = int(self._token.partition(":")[0])
        self._user_name = ""  # without @; empty: not known yet
        self._next_name_try = 0.0  # on the monotonic clock
        self._offset: int | None = None  # the first update that is not acknowledged; None: Telegram knows
        self._api: _Api | None = None
        self._is_closed = False
        self._background: set[asyncio.Task[None]] = set()

    def _check(self) -> None:
        if not _TOKEN.fullmatch(self._token):
            raise ConfigurationError("token: it does not look like 123456:ABC-def; copy it again from @BotFather.")
        if self._secret and not _SECRET.fullmatch(self._secret):
            raise ConfigurationError("webhook_secret: only A-Z a-z 0-9 _ - are possible, 256 at most.")
        for name in ("api_base_url", "webhook_url"):
            if self.setting(name) and not _URL.fullmatch(self.setting(name)):
                raise ConfigurationError(f"{name}: {self.setting(name)!r} is no http(s) address.")
        if self._is_webhook and not self.setting("webhook_url"):
            raise ConfigurationError("webhook_url: missing; mode=webhook needs this site's public address.")
        if self._is_webhook and not self._secret:
            raise ConfigurationError(
                f"webhook_secret: missing; without it anybody could forge messages. Set it with "
                f"manage.py bots set {self.config.account} --credential webhook_secret=env:NAME"
            )

    @property
    def _is_webhook(self) -> bool:
        return self.setting("mode") == "webhook"

    @property
    def _webhook_url(self) -> str:
        return f"{self.setting('webhook_url').rstrip('/')}/hooks/{self.platform}/{self.config.account}/"

    # -- life cycle ----

    async def probe(self) -> Probe:
        me = await self._ask(self._bot().get_me())
        self._user_name = me.username or ""
        return Probe(identity=f"@{self._user_name}")

    async def start(self) -> None:
        """Prove the token, then tell Telegram how updates are to come and what people can type."""
        await self.probe()
        if self._is_webhook:
            await self._register_webhook()
        else:
            await self._ask(self._bot().delete_webhook())
        if self.setting("menu") == "ours":
            self._in_background(self._offer_menu())

    async def _register_webhook(self) -> None:
        try:
            await self._bot().set_webhook(
                self._webhook_url, secret_token=self._secret, allowed_updates=list(UPDATE_KINDS)
            )
        except error.BadRequest as refusal:
            raise ConfigurationError(f"webhook_url: Telegram refused it: {_said(refusal)}") from refusal
        except error.TelegramError as failure:
            raise _repeatable(failure) from failure

    async def _offer_menu(self) -> None:
        """Show the commands of the chat in Telegram's menu. A bot without one works as well."""
        try:
            await self._bot().set_my_commands(commands.menu()[:MAX_MENU])
        except (BotsError, error.TelegramError) as failure:
            logger.warning("bot %s: the menu of commands was not taken: %s", self.config.account, _said(failure))

    async def run(self) -> None:
        await (self._watch_webhook() if self._is_webhook else self._poll())

    async def close(self) -> None:
        self._is_closed = True
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._api is not None:
            await self._api.close_connections()

    def _bot(self) -> _Api:
        if self._is_closed:
            raise PlatformUnavailable("The bot is closed.")
        if self._api is None:
            self._api = _Api(self._token, base_url=self.setting("api_base_url").rstrip("/"))
        return self._api

    async def _ask(self, call: Awaitable[Answer]) -> Answer:
        """The answer of a call that may be repeated, or one of our errors."""
        try:
            return await call
        except Exception as failure:
            raise _repeatable(failure) from failure

    # -- inbound: polling ----

    async def _poll(self) -> None:
        """Fetch updates for ever.

        Raises:
            CredentialError: the token was withdrawn.
            Conflict: somebody else receives this bot's updates.
            PlatformUnavailable: Telegram could not be reached for about two minutes.
        """
        failures = 0
        while True:
            try:
                await self._store(await self._next_updates())
                failures = 0
            except (PlatformUnavailable, RateLimited, StorageUnavailable) as failure:
                failures += 1
                if failures > MAX_POLL_FAILURES and isinstance(failure, PlatformUnavailable):
                    raise
                pause = backoff.exponential(failures, max_seconds=MAX_POLL_PAUSE_SECONDS)
                if isinstance(failure, RateLimited):
                    pause = max(pause, failure.retry_after)
                seconds = pause.total_seconds()
                logger.warning("bot %s: %s; next poll in %.1f s", self.config.account, failure, seconds)
                await asyncio.sleep(seconds)

    async def _next_updates(self) -> list[dict[str, Any]]:
        """What is new, in Telegram's order; asking acknowledges everything before ``_offset``."""
        answer = await self._ask(self._bot().raw_updates(offset=self._offset))
        updates = [update for update in _items(answer) if isinstance(update, dict) and _number(update.get("update_id"))]
        if not isinstance(answer, list) or len(updates) < len(answer):
            raise PlatformUnavailable("api_base_url answers a poll with something other than updates.")
        return updates

    async def _store(self, updates: Sequence[dict[str, Any]]) -> None:
        """Store a batch: chats at the same time, each in order. ``_offset`` moves over what is stored without a gap."""
        lines: dict[object, list[dict[str, Any]]] = {}
        # A chat that moves must have moved before the first message under its new id is stored.
        is_one_line = any(_is_migration(update) for update in updates)
        for update in updates:
            lines.setdefault("all" if is_one_line else _chat_of(update), []).append(update)
        stored: set[int] = set()

        async def store_in_order(line: Sequence[dict[str, Any]]) -> None:
            for update in line:
                await self._accept(update)
                stored.add(update["update_id"])

        results = await asyncio.gather(*map(store_in_order, lines.values()), return_exceptions=True)
        for update in updates:
            if update["update_id"] not in stored:
                break
            self._offset = update["update_id"] + 1
        for failure in results:
            if failure is not None:
                raise failure

    # -- inbound: webhook ----

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        given = request.headers.get(_PROOF_HEADER, "")
        if not self._secret or not hmac.compare_digest(given.encode("utf-8", "replace"), self._secret.encode()):
            raise ForgedRequest("The secret of the webhook is missing or wrong.")
        try:
            update = json.loads(request.body)
        except (ValueError, RecursionError) as failure:
            raise UnreadableUpdate("The body is not JSON.") from failure
        if not isinstance(update, dict) or _number(update.get("update_id")) is None:
            raise UnreadableUpdate("The body is not an update.")
        if not self._user_name and _may_name_the_bot(update):
            await self._learn_name()
        await self._accept(update)
        return WebhookResponse()

    async def _learn_name(self) -> None:
        """Ask who we are, at most once a minute. Unanswered, the update is stored all the same."""
        if time.monotonic() < self._next_name_try:
            return
        self._next_name_try = time.monotonic() + NAME_RETRY_SECONDS
        try:
            await self.probe()
        except BotsError as failure:
            logger.warning("bot %s: its name is not known, mentions go unnoticed: %s", self.config.account, failure)

    async def _watch_webhook(self) -> None:
        """See to it that the webhook stays ours.

        Raises:
            CredentialError: the token was withdrawn.
            Conflict: the webhook was taken away or leads elsewhere.
        """
        reported_at = datetime.now(UTC)
        while True:
            await asyncio.sleep(WEBHOOK_CHECK_SECONDS)
            try:
                info = await self._ask(self._bot().get_webhook_info())
            except (PlatformUnavailable, RateLimited) as failure:
                logger.warning("bot %s: the webhook could not be checked: %s", self.config.account, failure)
                continue
            if info.url != self._webhook_url:
                raise Conflict("Somebody else receives this bot's messages: its webhook was changed or removed.")
            if info.last_error_date and info.last_error_date > reported_at:
                reported_at = info.last_error_date
                reason = one_line(redact.redact(info.last_error_message or ""))
                logger.warning("bot %s: Telegram could not deliver: %s", self.config.account, reason)

    # -- inbound: both ----

    async def _accept(self, update: dict[str, Any]) -> None:
        """Store one update, whatever it is. When this returns it may be acknowledged.

        Raises:
            StorageUnavailable: it may not.
        """
        try:
            move = _migration(update)
            message = None if move else self.parse(update)
        except UnreadableUpdate as problem:
            event_id = f"update:{update['update_id']}"
            await self.sink.receive_unreadable(event_id=event_id, raw=update, error=problem)
            return
        if move:
            await self.sink.chat_migrated(old_channel_id=move[0], new_channel_id=move[1])
        if message is None:
            return
        await self.sink.receive(message)
        if message.kind is EventKind.CALLBACK:
            # Ends the waiting sign on the button. Also after a redelivery: the first time may have been cut short.
            self._in_background(self._answer_callback(update["callback_query"]["id"]))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nobody waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _answer_callback(self, callback_id: str) -> None:
        try:
            await self._bot().answer_callback_query(callback_id)
        except (BotsError, error.TelegramError) as failure:
            logger.info("bot %s: a pressed button was not confirmed: %s", self.config.account, _said(failure))

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """The message of an update; see the module for what is none. Mentions by name need the bot's name."""
        if "message" in raw:
            return self._message(raw, raw["message"])
        if "edited_message" in raw:
            return self._message(raw, raw["edited_message"], is_edit=True)
        if "callback_query" in raw:
            return self._callback(raw, raw["callback_query"])
        return None

    def _message(self, raw: Mapping[str, Any], body: object, *, is_edit: bool = False) -> InboundMessage | None:
        message = _object(body, "message")
        chat = _object(message.get("chat"), "message.chat")
        chat_type = _chat_type(chat)
        if chat_type is None or (is_edit and "location" in message):  # a live location is edited every few seconds
            return None
        text = _text(message)
        attachments = tuple(_attachments(message))
        if not (text or attachments):
            return None
        sender = _sender(message)
        if sender is None:
            return None
        is_group = chat_type is ChatType.GROUP
        message_id = _id(message, "message_id")
        sent_at = _moment(message.get("edit_date" if is_edit else "date"))
        if is_edit and sent_at is None:
            raise UnreadableUpdate("message.edit_date is no time.")
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=_id(chat, "id"),
            message_id=message_id,
            revision=str(message["edit_date"]) if is_edit else "",
            thread_id=_thread(message),
            reply_to=message_id if is_group else "",
            sender=sender,
            text=self._without_address(text),
            kind=EventKind.EDIT if is_edit else EventKind.MESSAGE,
            chat_type=chat_type,
            chat_name=_string(chat.get("title")) if is_group else "",
            is_mentioned=not is_group or self._is_mentioned(message, text),
            attachments=attachments,
            album="" if is_edit else _string(message.get("media_group_id")),
            sent_at=sent_at,
            raw=raw,
        )

    def _callback(self, raw: Mapping[str, Any], body: object) -> InboundMessage | None:
        query = _object(body, "callback_query")
        if "message" not in query or "data" not in query:  # under an inline message in a foreign chat; of a game
            return None
        message = _object(query["message"], "callback_query.message")
        chat = _object(message.get("chat"), "callback_query.message.chat")
        chat_type, sender = _chat_type(chat), _sender(query)
        if chat_type is None or sender is None:
            return None
        if not _string(query.get("id")):
            raise UnreadableUpdate("callback_query.id is missing.")
        if not isinstance(query["data"], str):
            raise UnreadableUpdate("callback_query.data is no text.")
        is_group = chat_type is ChatType.GROUP
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=_id(chat, "id"),
            message_id=f"callback:{query['id']}",
            thread_id=_thread(message),
            reply_to=_id(message, "message_id") if is_group else "",
            sender=sender,
            text=query["data"],
            kind=EventKind.CALLBACK,
            chat_type=chat_type,
            chat_name=_string(chat.get("title")) if is_group else "",
            is_mentioned=True,
            raw=raw,
        )

    def _without_address(self, text: str) -> str:
        """``/new@shop_bot`` is ``/new`` to everyone behind this adapter; a command for another bot stays as it is."""
        if not self._user_name:
            return text
        return re.sub(rf"^(/\w+)@{re.escape(self._user_name)}(?!\w)", r"\1", text, count=1, flags=re.IGNORECASE)

    def _is_mentioned(self, message: Mapping[str, Any], text: str) -> bool:
        """Whether a group message is addressed to the bot: by name, by command, or as a reply."""
        replied = message.get("reply_to_message")
        # Every message of a topic replies to the topic's own first entry unless it replies to something else.
        if isinstance(replied, dict) and "forum_topic_created" not in replied and self._is_me(replied.get("from")):
            return True
        address = f"@{self._user_name}".lower()
        units = text.encode("utf-16-le", "surrogatepass")  # entities count UTF-16 units
        for entity in _items(message.get("entities" if "text" in message else "caption_entities")):
            if not isinstance(entity, dict):
                continue
            if entity.get("type") == "text_mention" and self._is_me(entity.get("user")):
                return True
            start, length = _number(entity.get("offset")), _number(entity.get("length"))
            if not self._user_name or start is None or length is None:
                continue
            words = units[2 * start : 2 * (start + length)].decode("utf-16-le", "replace").lower()
            if entity.get("type") == "mention" and words == address:
                return True
            if entity.get("type") == "bot_command" and words.endswith(address):
                return True
        return False

    def _is_me(self, user: object) -> bool:
        return isinstance(user, dict) and user.get("id") == self._bot_id

    # -- outbound ----

    async def send(self, message: OutboundMessage) -> SendReceipt:
        route = message.route
        chat_id, thread_id, reply_to = map(_parsed, (route.channel_id, route.thread_id, route.reply_to))
        if chat_id is None or (route.thread_id and thread_id is None):
            raise TargetGone(f"{one_line(route.channel_id)} {one_line(route.thread_id)} is no chat of Telegram.")
        # A message that was deleted meanwhile must not keep its answer back.
        reply = ReplyParameters(reply_to, allow_sending_without_reply=True) if reply_to is not None else None
        try:
            sent = await self._bot().send_message(
                chat_id,
                message.text,
                message_thread_id=thread_id,
                reply_parameters=reply,
                reply_markup=_keyboard(message.buttons),
            )
        except BotsError:
            raise
        except Exception as failure:  # python-telegram-bot may fail in any way on an answer that it cannot read
            raise _translated(failure) from failure
        return SendReceipt(platform_message_id=str(sent.message_id))

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        chat_id, message_id = _parsed(message.route.channel_id), _parsed(message.edits)
        if chat_id is None or message_id is None:
            raise MessageGone
        await self._change(
            self._bot().edit_message_text(
                message.text, chat_id=chat_id, message_id=message_id, reply_markup=_keyboard(message.buttons)
            ),
            done_if=_UNCHANGED,
        )
        return SendReceipt(platform_message_id=message.edits)

    async def delete(self, route: Route, platform_message_id: str) -> None:
        chat_id, message_id = _parsed(route.channel_id), _parsed(platform_message_id)
        if chat_id is not None and message_id is not None:
            with suppress(MessageGone):
                await self._change(self._bot().delete_message(chat_id, message_id), done_if=_REMOVED)

    async def _change(self, call: Awaitable[object], *, done_if: str) -> None:
        """Make a call that may be repeated, about a message of the bot; ``done_if`` is the refusal of what is done."""
        try:
            await call
        except BotsError:
            raise
        except Exception as failure:
            ours, said = _translated(failure), _said(failure).lower()
            if isinstance(ours, MessageRefused) and done_if in said:
                return
            if isinstance(ours, MessageRefused) and any(problem in said for problem in _EDIT_PROBLEMS):
                raise MessageGone(str(ours)) from failure
            raise (PlatformUnavailable(str(ours)) if isinstance(ours, OutcomeUnknown) else ours) from failure

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        if attachment.kind == "location":
            raise FileUnavailable("A place is no file.")
        try:
            info = await self._bot().raw_file(attachment.reference)
        except error.BadRequest as refusal:
            raise FileUnavailable(f"Telegram: {_said(refusal)}") from refusal
        except Exception as failure:
            raise _repeatable(failure) from failure
        path = _string(info.get("file_path")) if isinstance(info, dict) else ""
        if not path or path.startswith("/") or ".." in path.split("/"):  # of a local server: a path on its own disk
            raise FileUnavailable("Telegram did not say where the file is.")
        server = self.setting("api_base_url").rstrip("/")
        return await downloads.download(
            f"{server}/file/bot{self._token}/{quote(path)}", server=server, max_bytes=max_bytes
        )

    async def show_typing(self, route: Route) -> None:
        chat_id, thread_id = _parsed(route.channel_id), _parsed(route.thread_id)
        if chat_id is None:
            return
        try:
            await self._bot().send_chat_action(chat_id, ChatAction.TYPING, message_thread_id=thread_id)
        except (BotsError, error.TelegramError) as failure:
            logger.debug("bot %s: typing was not shown: %s", self.config.account, _said(failure))


# -- the Bot API ----


def _keyboard(buttons: Sequence[Button]) -> InlineKeyboardMarkup | None:
    row = [InlineKeyboardButton(button.label, callback_data=button.data) for button in buttons]
    return InlineKeyboardMarkup([row]) if row else None


class _GatewayAnswered(error.NetworkError):
    """Not the Bot API answered but a gateway before it, which may have passed the request on."""


class _Request(HTTPXRequest):
    """Connections of their own for polls and for sends: a poll that hangs never keeps a send waiting."""

    def __init__(self, *, connections: int, read_seconds: float) -> None:
        super().__init__(
            connection_pool_size=connections,
            read_timeout=read_seconds,
            write_timeout=read_seconds,
            connect_timeout=CONNECT_SECONDS,
            pool_timeout=POOL_SECONDS,
        )

    async def do_request(self, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        status, body = await super().do_request(*arguments, **options)
        if status in _GATEWAY_STATUSES:
            raise _GatewayAnswered(f"A gateway answered with {status}.")
        return status, body

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        """As python-telegram-bot does it, which would log a body that it cannot read."""
        try:
            answer = json.loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as failure:
            raise error.TelegramError("The answer is not JSON.") from failure
        if not isinstance(answer, dict):
            raise error.TelegramError("The answer is not a JSON object.")
        return answer


class _Api(Bot):
    """The Bot API with one token."""

    def __init__(self, token: str, *, base_url: str) -> None:
        self._requests = (
            _Request(connections=1, read_seconds=POLL_SECONDS + POLL_READ_SECONDS),
            _Request(connections=64, read_seconds=SEND_READ_SECONDS),
        )
        super().__init__(
            token,
            base_url=f"{base_url}/bot",
            base_file_url=f"{base_url}/file/bot",
            get_updates_request=self._requests[0],
            request=self._requests[1],
        )

    async def raw_updates(self, *, offset: int | None) -> Any:
        """New updates as they come: ``get_updates`` would drop a whole batch when it cannot read one of it."""
        return await self._post(
            "getUpdates", {"offset": offset, "timeout": POLL_SECONDS, "allowed_updates": list(UPDATE_KINDS)}
        )

    async def raw_file(self, file_id: str) -> Any:
        """Where a file is, below the address of files."""
        return await self._post("getFile", {"file_id": file_id})

    async def close_connections(self) -> None:
        for request in self._requests:
            await request.shutdown()


def _said(failure: Exception) -> str:
    """An error's text without secrets, as one line."""
    return one_line(redact.redact(str(failure) or type(failure).__name__))


def _translated(failure: Exception) -> BotsError:
    """What a failed call means. Whatever leaves open whether Telegram took it is ``OutcomeUnknown``."""
    said = _said(failure)
    is_refusal = isinstance(failure, error.BadRequest | error.Forbidden | error.InvalidToken | error.Conflict)
    if isinstance(failure.__cause__, error.TelegramError):  # the body was none of Telegram's: a proxy spoke
        return PlatformUnavailable(said) if is_refusal else OutcomeUnknown(said)
    if isinstance(failure.__cause__, _NEVER_SENT):
        return PlatformUnavailable(f"Telegram could not be reached: {said}")
    match failure:
        case error.RetryAfter(retry_after=wait):
            return RateLimited(wait if isinstance(wait, timedelta) else timedelta(seconds=wait))
        case error.ChatMigrated(new_chat_id=chat_id):
            return ChatMigrated(str(chat_id))
        case error.InvalidToken():
            return CredentialError("Telegram refused the token.")
        case error.Conflict():
            return PlatformUnavailable(said)
        case error.Forbidden():
            return TargetGone(said)
        case error.BadRequest():
            is_about_chat = any(problem in said.lower() for problem in _TARGET_PROBLEMS)
            return TargetGone(said) if is_about_chat else MessageRefused(said)
        case _GatewayAnswered():
            return OutcomeUnknown(said)
        case error.NetworkError() if failure.__cause__ is None:  # Telegram itself said that it failed
            return PlatformUnavailable(said)
    return OutcomeUnknown(said)


def _repeatable(failure: Exception) -> BotsError:
    """What a failed call means when it does not matter whether Telegram took it."""
    if isinstance(failure, error.Conflict) and failure.__cause__ is None:
        return Conflict(
            f"Somebody else receives this bot's messages, with the same token. Telegram says: {_said(failure)}"
        )
    ours = _translated(failure)
    return PlatformUnavailable(str(ours)) if isinstance(ours, OutcomeUnknown | TargetGone | MessageRefused) else ours


# -- reading updates ----


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableUpdate(f"{what} is no object.")
    return value


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    """An integer of at most 64 bits, which is what Telegram has."""
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _id(container: Mapping[str, Any], name: str) -> str:
    number = _number(container.get(name))
    if not number:
        raise UnreadableUpdate(f"{name} is no id.")
    return str(number)


def _parsed(given: str) -> int | None:
    """An id of a route as Telegram wants it; None where it is none, such as the id of a pressed button."""
    return int(given) if re.fullmatch(r"-?[0-9]{1,19}", given) else None


def _moment(value: object) -> datetime | None:
    seconds = _number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds and 0 < seconds < 2**35 else None


def _chat_type(chat: Mapping[str, Any]) -> ChatType | None:
    """None: a channel, or something new."""
    match chat.get("type"):
        case "private":
            return ChatType.DIRECT
        case "group" | "supergroup":
            return ChatType.GROUP
        case str():
            return None
    raise UnreadableUpdate("chat.type is missing.")


def _sender(container: Mapping[str, Any]) -> Sender | None:
    """Who wrote; None: a bot, an anonymous administrator, or a channel that the group belongs to."""
    if "sender_chat" in container or container.get("is_automatic_forward"):
        return None
    user = _object(container.get("from"), "from")
    if user.get("is_bot"):
        return None
    names = (_string(user.get("first_name")), _string(user.get("last_name")))
    return Sender(
        user_id=_id(user, "id"), user_name=_string(user.get("username")), display_name=" ".join(filter(None, names))
    )


def _text(message: Mapping[str, Any]) -> str:
    text = message.get("text", message.get("caption", ""))
    if not isinstance(text, str):
        raise UnreadableUpdate("text is no text.")
    return text


def _thread(message: Mapping[str, Any]) -> str:
    """The topic. Outside of topics ``message_thread_id`` only says which message a reply chain began with."""
    return _id(message, "message_thread_id") if message.get("is_topic_message") is True else ""


def _attachments(message: Mapping[str, Any]) -> Iterator[Attachment]:
    if "photo" in message:
        sizes = _items(message["photo"])  # of one picture; the largest is the last
        yield _file("photo", sizes[-1] if sizes else None)
    for kind in _FILE_KINDS:
        if kind in message and not (kind == "document" and "animation" in message):
            yield _file(kind, message[kind])
    if "location" in message:
        yield _location(_object(message["location"], "location"))


def _file(kind: str, value: object) -> Attachment:
    file = _object(value, kind)
    if not _string(file.get("file_id")):
        raise UnreadableUpdate(f"{kind}.file_id is missing.")
    name = _string(file.get("emoji" if kind == "sticker" else "file_name"))
    return Attachment(
        kind=kind,
        reference=storable(file["file_id"]),
        name=storable(name)[:MAX_NAME_CHARS],
        mime_type=storable(_string(file.get("mime_type")))[:MAX_NAME_CHARS],
        size_bytes=_number(file.get("file_size")),
    )


def _location(location: Mapping[str, Any]) -> Attachment:
    latitude, longitude = location.get("latitude"), location.get("longitude")
    if not _is_degrees(latitude, 90) or not _is_degrees(longitude, 180):
        raise UnreadableUpdate("location is no place.")
    return Attachment(kind="location", reference=f"{latitude:.6f},{longitude:.6f}")


def _is_degrees(value: object, most: int) -> bool:
    return type(value) in (int, float) and -most <= value <= most  # type: ignore[operator]  # checked by its type


def _is_migration(update: Mapping[str, Any]) -> bool:
    message = update.get("message")
    return isinstance(message, dict) and ("migrate_to_chat_id" in message or "migrate_from_chat_id" in message)


def _migration(update: Mapping[str, Any]) -> tuple[str, str] | None:
    """The old and the new id of a group that became a supergroup. Both chats tell it; either may be read first."""
    if not _is_migration(update):
        return None
    message = update["message"]
    chat_id = _id(_object(message.get("chat"), "message.chat"), "id")
    if "migrate_to_chat_id" in message:
        return chat_id, _id(message, "migrate_to_chat_id")
    return _id(message, "migrate_from_chat_id"), chat_id


def _chat_of(update: Mapping[str, Any]) -> int | None:
    """The chat of an update that may be unreadable; None: none."""
    for kind in UPDATE_KINDS:
        body = update.get(kind)
        if kind == "callback_query" and isinstance(body, dict):
            body = body.get("message")
        if isinstance(body, dict) and isinstance(body.get("chat"), dict):
            return _number(body["chat"].get("id"))
    return None


def _may_name_the_bot(update: Mapping[str, Any]) -> bool:
    """Whether the bot's name matters for an update: it has an @ in its text."""
    for kind in ("message", "edited_message"):
        body = update.get(kind)
        if isinstance(body, dict):
            return "@" in _string(body.get("text")) + _string(body.get("caption"))
    return False
