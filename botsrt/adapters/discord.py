"""Discord, over its gateway.

Duty: read messages, edits, pressed buttons and slash commands; send, edit and delete messages; show typing.
Guarantee: Discord keeps the events of a session and, when it is resumed, sends again everything after the number that
the bot names. The number that this adapter names, there and in every heartbeat, is that of the last event before which
everything is stored. What could not be stored ends the connection, and comes again over the next.
Not here: retries of sends; the outbox alone decides about those.

A session outlives its process: each stored event says in its ``raw``, under ``resume``, which session it came in and
what was stored before it. A new process reads that of the newest stored event and resumes. If Discord has given the
session up by then (a few minutes), the messages missed in chats known from the latest events are asked for over REST;
what was said in other chats meanwhile, edits and commands are lost, as Discord has no way to ask for them.

How a Discord conversation becomes a session and a route: a thread is a channel of its own at Discord, and is one here
(``thread_id`` stays empty). In servers an answer refers to its message; in direct chats, and after a command, which is
no message, it just follows.

A command is answered twice at Discord: at once, after it is stored, with a receipt that only its author sees, which
ends the waiting sign for good; and by the outbox, with a message in the chat, as everywhere.

What discord.py 2.7 does, and what is done about it: its client hands events on after it has counted them as received,
sleeps and repeats calls by itself, and dies when its first connection fails. So the loop is ours, around its gateway
(``_Gateway``) and its routes (``_Api``, one call each, at the server of this bot); its models and caches are not used.

Source: https://docs.discord.com/developers
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from weakref import WeakValueDictionary

import aiohttp
import discord
from discord.errors import ConnectionClosed
from discord.gateway import DiscordClientWebSocketResponse, DiscordWebSocket, ReconnectWebSocket
from discord.http import HTTPClient
from discord.http import Route as ApiRoute
from yarl import URL

from botsrt.adapters import downloads
from botsrt.adapters.base import BaseAdapter
from botsrt.core import backoff, commands, redact
from botsrt.core.errors import (
    BotsError,
    ConfigurationError,
    CredentialError,
    FileUnavailable,
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
from botsrt.core.ports import BotConfig, Capabilities, Option, Probe, Sink
from botsrt.core.states import ChatType, EventKind
from botsrt.core.text import one_line, storable

logger = logging.getLogger(__name__)

#: Longest text of a message. Source: Create Message, ``content``. Counted in UTF-16, which is never less.
MAX_TEXT = 2_000

#: How long Discord knows a message by its nonce: "the past few minutes". Source: Create Message, ``enforce_nonce``.
NONCE_SECONDS = 120.0

#: Source: Button, ``label``; Application Command, ``description`` and the number of commands.
MAX_LABEL_CHARS = 80
MAX_DESCRIPTION_CHARS = 100
MAX_COMMANDS = 100

#: How long one call may take, in seconds; less than the runtime's own limit for a send.
API_SECONDS = 15.0
CONNECT_SECONDS = 5.0

#: How long opening a session may take, catching up apart.
SESSION_SECONDS = 30.0

#: A connection on which nothing comes for so long, not even the answer to a heartbeat, is dead.
SILENCE_SECONDS = 60.0

#: How long to try to get a connection back before this adapter gives up and is started anew.
LOST_SECONDS = 60.0

#: A connection that held for so long was well: when it is lost the next is opened at once.
WELL_SECONDS = 60.0

#: How long events that were read may take to be stored when reading stops.
DRAIN_SECONDS = 5.0

#: Events that may be on their way to the database at the same time; then reading waits.
MAX_STORING = 256

#: What is looked at after a session was lost: so many of the latest events, the chats in them, so much time.
CATCH_UP_EVENTS = 300
CATCH_UP_CHATS = 50
CATCH_UP_SECONDS = 30.0
PAGE_MESSAGES = 100

#: Names of channels that are kept.
MAX_NAMES = 20_000

#: Rate limits of routes that are remembered before those that have passed are forgotten.
MAX_LIMITS = 1_000

#: Where files are.
FILE_HOSTS = ("cdn.discordapp.com", "media.discordapp.net")

#: Message types that a person writes: a plain one, and a reply. Source: Message Types.
_PERSONS_TYPES = (0, 19)

#: Source: Interaction Type, Application Command Type, Component Type, Interaction Callback Type.
_COMMAND, _PRESS, _CHAT_INPUT, _BUTTON = 2, 3, 1, 2
_ANSWER, _UPDATE_LATER = 4, 6

#: Only the author of a command sees the answer. Source: Message Flags.
_EPHEMERAL = 1 << 6

#: The application may have the intent. Source: Application Flags, GATEWAY_MESSAGE_CONTENT and …_LIMITED.
_MAY_READ_CONTENT = 1 << 18 | 1 << 19

#: JSON error codes that speak of the chat, not of the message. Source: Opcodes and Status Codes, JSON.
_GONE_CODES = frozenset({10003, 10004, 10013, 50001, 50007, 50013, 50083, 50278, 340013, 340015})
_UNKNOWN_MESSAGE = 10008
_NOT_THE_AUTHOR = 50005
#: "Cannot reply without permission to read message history".
_MAY_NOT_REPLY = 160002
_ALREADY_ANSWERED = 40060

#: Answers that leave open what became of a call, because a gateway gave them, or the API broke in the middle.
_UNSURE_STATUSES = frozenset({500, 502, 504, 520, 521, 522, 523, 524})

#: "Reconnect and start a new session". Source: Gateway Close Event Codes.
_SESSION_OVER_CODES = (4007, 4009)

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SNOWFLAKE = re.compile(r"[0-9]{1,20}")
_EPOCH_MS = 1_420_070_400_000  # of ids. Source: Snowflakes

_INTENT_HELP = (
    "Switch on the Message Content Intent at Discord's Developer Portal, under Bot, or leave message_content=off: "
    "direct messages and mentions are read without it."
)

# discord.py logs whole events on DEBUG, and ids of sessions on INFO.
logging.getLogger("discord").setLevel(logging.WARNING)
# It warns in every process that voice needs more packages; nothing here speaks.
discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Where in which session everything before is stored."""

    server: str  # the bot's api_base_url; another one must not get its token
    session_id: str
    gateway: str  # where Discord wants the session to be resumed
    intents: int  # what the session gets; they cannot be changed
    sequence: int

    @classmethod
    def from_raw(cls, raw: object) -> _Position | None:
        match raw:
            case {
                "server": str(server),
                "session_id": str(session_id),
                "gateway": str(gateway),
                "intents": int(intents),
                "sequence": int(sequence),
            }:
                return cls(server=server, session_id=session_id, gateway=gateway, intents=intents, sequence=sequence)
        return None


class Adapter(BaseAdapter):
    """One Discord application with its bot user."""

    platform = "discord"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=MAX_TEXT,
        text_unit="utf16",
        repeat_seconds=NONCE_SECONDS,
        has_typing=True,
        has_groups=True,
        has_buttons=True,
        has_files=True,
        can_edit=True,
        edit_seconds=1.2,  # five calls in five seconds for a chat, and the answer needs one, too
        group_edit_seconds=2.4,
        bot_edit_seconds=0.05,
    )  # Source: Rate Limits: 50 calls a second for a bot; the limit of a route is in the headers of its answers
    settings: ClassVar[tuple[Option, ...]] = (
        Option(
            name="message_content",
            help="Whether the bot reads what is said in servers without a mention of it; needs the Message Content "
            "Intent, switched on at Discord's Developer Portal under Bot.",
            default="off",
            choices=("off", "on"),
        ),
        Option(
            name="menu",
            help="The slash commands that people see: ours, or those you registered yourself.",
            default="ours",
            choices=("ours", "yours"),
        ),
        Option(
            name="api_base_url",
            help="Where Discord is; the API is under /api/v10/.",
            default="https://discord.com",
            is_guarded=True,
        ),
    )
    credentials: ClassVar[tuple[Option, ...]] = (
        Option(name="token", help="Bot token; Discord's Developer Portal: Bot, Reset Token.", is_required=True),
    )

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        super().__init__(config, sink)
        self._token = config.credentials["token"]
        if not _TOKEN.fullmatch(self._token):
            raise ConfigurationError("token: it does not look like a bot token; copy it again from Discord, under Bot.")
        self._server = self.setting("api_base_url").rstrip("/")
        if urlsplit(self._server).scheme not in ("http", "https") or not urlsplit(self._server).hostname:
            raise ConfigurationError("api_base_url: not a web address; write one like https://discord.com")
        redact.remember(self._token)
        self._reads_content = self.setting("message_content") == "on"
        self._intents = discord.Intents.none()
        self._intents.guilds = self._intents.guild_messages = self._intents.dm_messages = True
        self._intents.message_content = self._reads_content
        self._user_id = ""  # the bot's own, once Discord has said it
        self._api: _Api | None = None
        self._gateway: _Gateway | None = None
        self._position: _Position | None = None  # of the session before
        self._has_session = False
        self._was_connected = False
        self._failures = 0  # of connections, since one was well
        self._channel_names: dict[str, str] = {}
        self._order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by channel
        self._background: set[asyncio.Task[None]] = set()
        self._is_closed = False

    # -- life cycle ----

    async def probe(self) -> Probe:
        me = _object(await self._ask("GET", "/users/@me"))
        self._user_id = _string(me.get("id"))
        if not self._user_id:
            raise PlatformUnavailable("api_base_url answers with something other than Discord's API.")
        if self._reads_content:
            application = _object(await self._ask("GET", "/oauth2/applications/@me"))
            flags = application.get("flags")
            if not isinstance(flags, int) or not flags & _MAY_READ_CONTENT:
                raise ConfigurationError(f"message_content: Discord does not allow it for this bot. {_INTENT_HELP}")
        return Probe(identity=f"@{_string(me.get('username'))}")

    async def start(self) -> None:
        """Prove the token, open a session or take up the last one, and tell Discord what people can type."""
        await self.probe()
        self._gateway = await self._connect()
        if self.setting("menu") == "ours":
            self._in_background(self._offer_commands())

    async def run(self) -> None:
        """Read for ever.

        Raises:
            CredentialError: the token was withdrawn.
            ConfigurationError: Discord refuses the intents, or wants more connections than one.
            PlatformUnavailable: there was no connection for about a minute.
        """
        while True:
            gateway = self._gateway or await self._reconnect()
            began = time.monotonic()
            try:
                await self._read(gateway)
            finally:
                self._gateway = None
                await self._leave(gateway)
            if time.monotonic() - began > WELL_SECONDS:
                self._failures = 0

    async def close(self) -> None:
        self._is_closed = True
        if self._gateway is not None:
            gateway, self._gateway = self._gateway, None
            await self._leave(gateway)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._api is not None:
            await self._api.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nobody waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _offer_commands(self) -> None:
        """Register the commands of the chat. A bot without them works as well."""
        offered = [_slash_command(name, description) for name, description in commands.menu()[:MAX_COMMANDS]]
        try:
            application = _object(await self._ask("GET", "/oauth2/applications/@me"))
            await self._ask(
                "PUT",
                "/applications/{application_id}/commands",
                application_id=_string(application.get("id")),
                json=offered,
            )
        except BotsError as failure:
            logger.warning("bot %s: the slash commands were not taken: %s", self.config.account, failure)

    # -- the connection ----

    async def _connect(self) -> _Gateway:
        """A connection with a session: the last one if Discord still has it, else a new one, caught up.

        Raises:
            CredentialError, ConfigurationError, PlatformUnavailable: as ``run`` does.
        """
        position = self._position or await self._last_position()
        try:
            async with asyncio.timeout(SESSION_SECONDS):
                gateway = await self._open(position) if position else None
                is_resumed = gateway is not None
                gateway = gateway or await self._open(None)
        except TimeoutError as error:
            raise PlatformUnavailable(f"Discord gave no session within {SESSION_SECONDS:.0f} s.") from error
        if gateway is None:
            raise PlatformUnavailable("Discord ended the session at once.")
        if not is_resumed:
            try:
                await self._catch_up(gateway)
            except BaseException:
                await gateway.finish()
                raise
        self._was_connected = True
        return gateway

    async def _last_position(self) -> _Position | None:
        """Where the process before stopped; None: with other settings, or it is not known."""
        known = await self.sink.newest(limit=CATCH_UP_EVENTS)
        position = next(filter(None, (_Position.from_raw(message.raw.get("resume")) for message in known)), None)
        if position and (position.server, position.intents) == (self._server, self._intents.value):
            return position
        return None

    async def _open(self, position: _Position | None) -> _Gateway | None:
        """One session; None: Discord does not have it any more, or ended it at once."""
        where = _object(await self._ask("GET", "/gateway/bot"))
        if position is None:
            _check_session_limit(where.get("session_start_limit"))
        self._has_session = False
        gateway = None
        try:
            gateway = await _Gateway.from_client(
                self._client(),
                initial=self._failures == 0,  # else it waits, so that sessions are not opened too fast
                gateway=URL(position.gateway if position else _string(where.get("url"))),
                session=position.session_id if position else None,
                sequence=position.sequence if position else None,
                resume=position is not None,
            )
            gateway.serve(
                {
                    "READY": self._on_ready,
                    "RESUMED": self._on_resumed,
                    **dict.fromkeys(_CHANNEL_EVENTS, self._on_channel),
                    **{kind: partial(self._on_event, gateway, kind) for kind in _STORED_EVENTS},
                },
            )
            while not self._has_session:
                await gateway.poll_event()
        except BaseException as failure:
            if gateway is not None:
                await gateway.finish()
            if isinstance(failure, ReconnectWebSocket) and (gateway is None or gateway.is_over(failure)):
                return None
            if isinstance(failure, Exception):
                raise _lost(failure) from failure
            raise
        return gateway

    def _client(self) -> discord.Client:
        """What discord.py's gateway wants to know of a client; it dispatches to nobody."""
        client = discord.Client(intents=self._intents, heartbeat_timeout=SILENCE_SECONDS)
        client.loop = asyncio.get_running_loop()
        client.http = self._discord()
        return client

    async def _reconnect(self) -> _Gateway:
        """A connection again after it was lost; the first try is made at once."""
        lost_at = time.monotonic()
        while True:
            if self._failures:
                pause = backoff.exponential(self._failures, first_seconds=0.2, max_seconds=30.0)
                await asyncio.sleep(pause.total_seconds())
            self._failures += 1
            try:
                return await self._connect()
            except (PlatformUnavailable, RateLimited, StorageUnavailable) as failure:
                logger.warning("bot %s: no connection to Discord: %s", self.config.account, failure)
                if time.monotonic() - lost_at > LOST_SECONDS:
                    raise

    async def _read(self, gateway: _Gateway) -> None:
        """Take events until the connection is lost."""
        try:
            while True:
                await gateway.poll_event()
                while len(gateway.storing) >= MAX_STORING:
                    await asyncio.wait(gateway.storing, return_when=asyncio.FIRST_COMPLETED)
        except ReconnectWebSocket as lost:
            if gateway.is_over(lost):
                gateway.session_id = None
        except Exception as failure:  # discord.py may fail in any way on a frame that it cannot read
            ours = _lost(failure)
            if not isinstance(ours, PlatformUnavailable):
                raise ours from failure
            logger.warning("bot %s: %s", self.config.account, ours)

    async def _leave(self, gateway: _Gateway) -> None:
        """Let what was read be stored, then hang up without ending the session."""
        if gateway.storing:
            await asyncio.wait(gateway.storing, timeout=DRAIN_SECONDS)
        self._position = self._position_of(gateway)
        await gateway.finish()

    def _position_of(self, gateway: _Gateway) -> _Position | None:
        """Where the session of a connection could be taken up; None: nowhere, it has ended."""
        if not gateway.session_id or gateway.sequence is None:
            return None
        return _Position(
            server=self._server,
            session_id=gateway.session_id,
            gateway=str(gateway.gateway),
            intents=self._intents.value,
            sequence=gateway.sequence,
        )

    # -- inbound ----

    def _on_ready(self, data: Mapping[str, Any]) -> None:
        self._has_session = True
        self._user_id = _string(data["user"].get("id"))

    def _on_resumed(self, data: Mapping[str, Any]) -> None:
        self._has_session = True

    def _on_channel(self, data: Mapping[str, Any]) -> None:
        """Keep the names of channels, which messages do not carry."""
        place = _object(data)
        for channel in (place, *_items(place.get("channels")), *_items(place.get("threads"))):
            if isinstance(channel, dict) and "type" in channel and len(self._channel_names) < MAX_NAMES:
                self._channel_names[_string(channel.get("id"))] = _string(channel.get("name"))

    def _on_event(self, gateway: _Gateway, kind: str, data: Mapping[str, Any]) -> None:
        event = {"t": kind, "s": gateway.newest, "d": data}
        gateway.store(self._store(gateway, event))

    async def _store(self, gateway: _Gateway, event: dict[str, Any]) -> None:
        """Store one event; if that fails, end the connection, so that it comes again over the next."""
        number = event["s"]
        # Locks are fair: what is said in a channel is stored in the order in which it came.
        async with self._order.setdefault(_channel_of(event), asyncio.Lock()):
            if gateway.has_failed:
                return
            try:
                is_ours = await self._receive(event, gateway)
            except Exception as failure:
                gateway.has_failed = True
                if isinstance(failure, StorageUnavailable):
                    logger.warning("Event %s was not stored and is asked for again: %s", number, failure)
                else:
                    logger.exception("Event %s was not stored and is asked for again.", number)
                await gateway.hang_up()
                return
        gateway.unstored.discard(number)
        self._failures = 0
        if is_ours and event["t"] == "INTERACTION_CREATE":
            self._in_background(self._confirm(event["d"]))

    async def _receive(self, event: Mapping[str, Any], gateway: _Gateway) -> bool:
        """Store an event, whatever it is. True: it is a message, now or before."""
        try:
            message = self.parse(event)
        except UnreadableUpdate as problem:
            raw = _without_secrets(event)
            event_id = f"{event['t']}:{_string(_object(event['d']).get('id')) or _digest(raw)}"
            await self.sink.receive_unreadable(event_id=event_id, raw=raw, error=problem)
            return False
        if message is None:
            return False
        chat_name = "" if message.chat_type is ChatType.DIRECT else self._channel_names.get(message.channel_id, "")
        position = self._position_of(gateway)
        where = {"resume": asdict(position)} if position else {}
        await self.sink.receive(replace(message, chat_name=chat_name, raw={**message.raw, **where}))
        return True

    async def _confirm(self, interaction: Mapping[str, Any]) -> None:
        """End the waiting sign of a command or a button. After a redelivery, too: the first time may have been cut."""
        answer: dict[str, Any] = {"type": _UPDATE_LATER}
        if interaction.get("type") == _COMMAND:
            name = one_line(_string(_object(interaction.get("data")).get("name")))
            answer = {"type": _ANSWER, "data": {"content": f"Received: /{name}", "flags": _EPHEMERAL}}
        try:
            await self._call(
                "POST",
                "/interactions/{webhook_id}/{webhook_token}/callback",  # discord.py's names: each has its own limit
                webhook_id=_string(interaction.get("id")),
                webhook_token=_string(interaction.get("token")),
                json=answer,
            )
        except BotsError as failure:
            logger.info("bot %s: a command or button was not confirmed: %s", self.config.account, failure)

    # -- inbound: what was missed ----

    async def _catch_up(self, gateway: _Gateway) -> None:
        """Store what was said in known chats after the newest message of each that is stored.

        Raises:
            StorageUnavailable, PlatformUnavailable: not now.
        """
        chats: dict[str, list[InboundMessage]] = {}
        for message in await self.sink.newest(limit=CATCH_UP_EVENTS):
            chats.setdefault(message.channel_id, []).append(message)
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                for channel_id, messages in list(chats.items())[:CATCH_UP_CHATS]:
                    await self._catch_up_chat(channel_id, messages, gateway)
        except TimeoutError:
            logger.warning("bot %s: there was no time to look for everything it missed", self.config.account)

    async def _catch_up_chat(self, channel_id: str, known: Sequence[InboundMessage], gateway: _Gateway) -> None:
        newest = max(
            (int(message.message_id.rpartition(":")[2]) for message in known if _has_id(message)), default=None
        )
        if newest is None:
            return
        place = {}  # REST does not say it, and what is said in a server must never count as said in private
        if known[0].chat_type is ChatType.GROUP:
            place["guild_id"] = next(filter(None, (_guild_of(message.raw) for message in known)), "unknown")
        try:
            missed = await self._patiently("/channels/{channel_id}/messages", channel_id=channel_id, after=newest)
        except (TargetGone, MessageRefused) as failure:
            logger.info("bot %s: chat %s cannot be read: %s", self.config.account, channel_id, failure)
            return
        page = [data for data in _items(missed) if isinstance(data, dict)]
        for data in reversed(page[: self._unanswered(page)]):
            await self._receive({"t": "MESSAGE_CREATE", "s": 0, "d": {**data, **place}}, gateway)

    def _unanswered(self, page: Sequence[Mapping[str, Any]]) -> int:
        """How many messages of a page, newest first, the bot has not been there for.

        It speaks only where it also listens. So when it starts, what was said before it last spoke was heard: by an
        installation that was since restored from a backup, for one. When it only comes back it may have spoken deaf.
        """
        if self._was_connected:
            return len(page)
        spoke = [number for number, data in enumerate(page) if _object(data.get("author")).get("id") == self._user_id]
        return spoke[0] if spoke else len(page)

    async def _patiently(self, path: str, *, after: int, **place: str) -> Any:
        """A page of messages, newest first; waits where Discord limits the rate."""
        while True:
            try:
                return await self._ask("GET", path, params={"after": after, "limit": PAGE_MESSAGES}, **place)
            except RateLimited as limit:
                await asyncio.sleep(limit.retry_after.total_seconds())

    # -- parse ----

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """The message of an event; mentions need the bot's id, which a started or probed adapter has."""
        try:
            match raw["t"]:
                case "MESSAGE_CREATE":
                    return self._message(raw, raw["d"])
                case "MESSAGE_UPDATE":
                    return self._message(raw, raw["d"], is_edit=True)
                case "INTERACTION_CREATE":
                    return self._interaction(raw, raw["d"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise UnreadableUpdate(f"The event lacks or garbles a field: {reason}") from error
        return None

    def _message(
        self, raw: Mapping[str, Any], message: Mapping[str, Any], *, is_edit: bool = False
    ) -> InboundMessage | None:
        edited_at = message.get("edited_timestamp") or "" if is_edit else ""
        if is_edit and not edited_at:  # Discord's own doing, such as the preview of a link
            return None
        author = message["author"]
        is_persons = not author.get("bot") and "webhook_id" not in message and author["id"] != self._user_id
        if not is_persons or message["type"] not in _PERSONS_TYPES:
            return None
        text, attachments = _text_of(message, "content"), tuple(_attachments(message))
        if not (text or attachments):  # said to others, and so not told without the Message Content Intent
            return None
        is_direct = not message.get("guild_id")
        message_id = _id(message, "id")
        mention = re.compile(rf"\s*<@!?{re.escape(self._user_id or 'nobody')}>[\s,:]*")
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=_id(message, "channel_id"),
            message_id=message_id,
            revision=_string(edited_at),
            sender=_sender(author, message.get("member")),
            text=mention.sub("", text, count=1) if mention.match(text) else text,
            reply_to="" if is_direct else message_id,
            kind=EventKind.EDIT if is_edit else EventKind.MESSAGE,
            chat_type=ChatType.DIRECT if is_direct else ChatType.GROUP,
            is_mentioned=is_direct or self._is_addressed(message),
            attachments=attachments,
            sent_at=_moment(edited_at or message["timestamp"]),
            raw=_without_secrets(raw),
        )

    def _is_addressed(self, message: Mapping[str, Any]) -> bool:
        """Whether a message names the bot, or replies to it."""
        if not self._user_id:
            return False
        replied = _object(message.get("referenced_message"))
        named = [user for user in _items(message.get("mentions")) if isinstance(user, dict)]
        return any(user.get("id") == self._user_id for user in (*named, _object(replied.get("author"))))

    def _interaction(self, raw: Mapping[str, Any], interaction: Mapping[str, Any]) -> InboundMessage | None:
        """A command, or a pressed button of a message; None for all else, such as menus and forms."""
        data = _object(interaction.get("data"))
        is_press = interaction["type"] == _PRESS
        if not (is_press or interaction["type"] == _COMMAND):
            return None
        if data["component_type"] != _BUTTON if is_press else data.get("type", _CHAT_INPUT) != _CHAT_INPUT:
            return None
        is_direct = not interaction.get("guild_id")
        member = interaction.get("member")
        interaction_id = _id(interaction, "id")
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=_id(interaction, "channel_id"),
            message_id=f"{'callback' if is_press else 'command'}:{interaction_id}",
            sender=_sender(interaction["user"] if member is None else member["user"], member),
            text=_pressed(data) if is_press else _typed(data),
            reply_to=_id(interaction["message"], "id") if is_press and not is_direct else "",
            kind=EventKind.CALLBACK if is_press else EventKind.MESSAGE,
            chat_type=ChatType.DIRECT if is_direct else ChatType.GROUP,
            is_mentioned=True,
            sent_at=datetime.fromtimestamp(((int(interaction_id) >> 22) + _EPOCH_MS) / 1000, UTC),
            raw=_without_secrets(raw),
        )

    # -- outbound ----

    async def send(self, message: OutboundMessage) -> SendReceipt:
        route = message.route
        payload = _payload(message) | {"nonce": _nonce(message), "enforce_nonce": True}
        if _SNOWFLAKE.fullmatch(route.reply_to):
            # A message that was deleted meanwhile must not keep its answer back.
            payload["message_reference"] = {"message_id": route.reply_to, "fail_if_not_exists": False}
        try:
            sent = await self._post(route, payload)
        except _MayNotReplyError:
            del payload["message_reference"]
            sent = await self._post(route, payload)
        return SendReceipt(platform_message_id=sent)

    async def _post(self, route: Route, payload: Mapping[str, Any]) -> str:
        sent = await self._call(
            "POST", "/channels/{channel_id}/messages", channel_id=_target(route), json=payload, is_about_chat=True
        )
        message_id = _string(_object(sent).get("id"))
        if not message_id:
            raise OutcomeUnknown("Discord answered with something other than a message.")
        return message_id

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        if not _SNOWFLAKE.fullmatch(message.edits):
            raise MessageGone
        await self._ask(
            "PATCH",
            "/channels/{channel_id}/messages/{message_id}",
            channel_id=_target(message.route),
            message_id=message.edits,
            json=_payload(message),
            is_about_chat=True,
        )
        return SendReceipt(platform_message_id=message.edits)

    async def delete(self, route: Route, platform_message_id: str) -> None:
        if not _SNOWFLAKE.fullmatch(platform_message_id):
            return
        with suppress(MessageGone):
            await self._ask(
                "DELETE",
                "/channels/{channel_id}/messages/{message_id}",
                channel_id=_target(route),
                message_id=platform_message_id,
                is_about_chat=True,
            )

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        try:
            if not _has_expired(attachment.reference):
                return await self._download(attachment.reference, max_bytes)
        except FileUnavailable:
            if "ex" not in parse_qs(urlsplit(attachment.reference).query):
                raise
        return await self._download(await self._refreshed(attachment.reference), max_bytes)

    async def _download(self, url: str, max_bytes: int) -> bytes:
        return await downloads.download(url, server=self._server, hosts=FILE_HOSTS, max_bytes=max_bytes)

    async def _refreshed(self, url: str) -> str:
        """The address of a file as it is now; each is valid for a day. Source: Signed Attachment CDN URLs."""
        try:
            answer = await self._ask("POST", "/attachments/refresh-urls", json={"attachment_urls": [url]})
        except (MessageRefused, TargetGone, MessageGone) as refusal:
            raise FileUnavailable(f"Discord does not say where the file is now: {refusal}") from refusal
        for item in _items(_object(answer).get("refreshed_urls")):
            if isinstance(item, dict) and _string(item.get("refreshed")):
                return _string(item.get("refreshed"))
        raise FileUnavailable("Discord does not say where the file is now.")

    async def show_typing(self, route: Route) -> None:
        try:
            await self._call("POST", "/channels/{channel_id}/typing", channel_id=_target(route), is_about_chat=True)
        except BotsError as failure:
            logger.debug("bot %s: typing was not shown: %s", self.config.account, failure)

    def _discord(self) -> _Api:
        if self._is_closed:
            raise PlatformUnavailable("The bot is closed.")
        if self._api is None:
            self._api = _Api(self._token, server=self._server)
        return self._api

    async def _call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        is_about_chat: bool = False,
        **place: str,
    ) -> Any:
        """The answer to one call.

        Raises:
            SendError, CredentialError: see ``_refusal``; ``OutcomeUnknown`` where it is open whether it was taken.
        """
        return await self._discord().request(
            ApiRoute(method, path, **place), json=json, params=params, is_about_chat=is_about_chat
        )

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer to a call that may be repeated, so that a cut is no more than no answer."""
        try:
            return await self._call(method, path, **options)
        except OutcomeUnknown as error:
            raise PlatformUnavailable(f"Discord did not answer: {error}") from error


# -- the gateway ----

_STORED_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE")
_CHANNEL_EVENTS = ("GUILD_CREATE", "CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE")


class _Gateway(DiscordWebSocket):
    """discord.py's connection, which tells Discord what is stored instead of what has come."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop) -> None:
        self.newest: int | None = None  # number of the last event that came
        self.unstored: set[int] = set()  # numbers of events that came and are not stored
        self.storing: set[asyncio.Task[None]] = set()
        self.has_failed = False  # an event was not stored: what comes after it must not be, either
        super().__init__(socket, loop=loop)

    @property
    def sequence(self) -> int | None:
        """What heartbeats and a resume tell Discord."""
        first = min(self.unstored, default=None)  # in one step: heartbeats are made on a thread
        return self.newest if first is None else first - 1

    @sequence.setter
    def sequence(self, number: int | None) -> None:
        self.newest = number

    def serve(self, handlers: Mapping[str, Any]) -> None:
        """Hand events to these instead of discord.py's models; all others are passed over."""
        self._discord_parsers = dict(handlers)

    def store(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin to store the newest event."""
        if self.newest is not None:
            self.unstored.add(self.newest)
        task = asyncio.create_task(work)
        self.storing.add(task)
        task.add_done_callback(self.storing.discard)

    def is_over(self, lost: ReconnectWebSocket) -> bool:
        """Whether the session ended with its connection, so that only a new one can be opened."""
        return not lost.resume or self.socket.close_code in _SESSION_OVER_CODES

    async def hang_up(self) -> None:
        """Close without ending the session, which other codes would. Source: Gateway, Disconnecting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.close(4000)

    async def finish(self) -> None:
        """Hang up, and end what was being stored."""
        await self.hang_up()
        for task in self.storing:
            task.cancel()
        await asyncio.gather(*self.storing, return_exceptions=True)


def _lost(failure: Exception) -> BotsError:
    """Why there is no connection. Source: Opcodes and Status Codes, Gateway Close Event Codes."""
    if isinstance(failure, BotsError):
        return failure
    match failure:
        case ConnectionClosed(code=4004):
            return CredentialError("Discord refused the token.")
        case ConnectionClosed(code=4013 | 4014):
            return ConfigurationError(f"message_content: Discord refused the intents. {_INTENT_HELP}")
        case ConnectionClosed(code=4010 | 4011):
            return ConfigurationError("The bot is in too many servers for one connection (sharding is not supported).")
        case ConnectionClosed(code=code):
            return PlatformUnavailable(f"Discord closed the connection with {code}.")
    return PlatformUnavailable(f"Discord cannot be reached: {type(failure).__name__}.")


def _check_session_limit(limit: object) -> None:
    """Discord withdraws the token of a bot that opens too many sessions a day. Source: Session Start Limit."""
    found = _object(limit)
    if found.get("remaining") == 0:
        minutes = found.get("reset_after", 0) / 60_000 if isinstance(found.get("reset_after"), int) else 0
        raise PlatformUnavailable(f"Discord allows no further session for {minutes:.0f} min.")


# -- the REST API ----


class _MayNotReplyError(MessageRefused):
    """In that chat the bot may write, but not refer to a message."""


class _Api(HTTPClient):
    """discord.py's client for one bot and its server: one call each, without waits and repetitions of its own."""

    def __init__(self, token: str, *, server: str) -> None:
        super().__init__(asyncio.get_running_loop())
        self.token = token
        self._base = f"{server}/api/v10"
        self._limits: dict[str, float] = {}  # by route and place: not before, on the monotonic clock
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=API_SECONDS, sock_connect=CONNECT_SECONDS),
            ws_response_class=DiscordClientWebSocketResponse,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,  # proxies
        )

    async def close(self) -> None:
        await self._session.close()

    async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        return await self._session.ws_connect(
            url,
            max_msg_size=0,
            autoclose=False,
            timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            headers={"User-Agent": self.user_agent},
            compress=compress,
        )

    async def request(self, route: ApiRoute, *, is_about_chat: bool = False, **options: Any) -> Any:
        """The decoded answer.

        Raises:
            SendError, CredentialError: see ``_refusal``.
        """
        key = f"{route.key} {route.major_parameters}"
        self._wait_for_nobody(key)
        try:
            async with self._session.request(
                route.method,
                self._base + route.url.removeprefix(ApiRoute.BASE),
                headers={"User-Agent": self.user_agent, "Authorization": f"Bot {self.token}"},
                allow_redirects=False,
                **{name: value for name, value in options.items() if value is not None},
            ) as response:
                answer = _decoded(await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise PlatformUnavailable(f"Discord cannot be reached: {type(error).__name__}.") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Without the error itself: it may name the address, which may hold the token of an interaction.
            raise OutcomeUnknown(f"The call was cut: {type(error).__name__}.") from None
        self._learn_limit(key, response.headers)
        if 200 <= response.status < 300:
            return answer
        raise _refusal(response.status, _object(answer), response.headers, is_about_chat=is_about_chat)

    def _wait_for_nobody(self, key: str) -> None:
        """Refuse a call that Discord would refuse: it locks out who asks too often in spite of its limits."""
        seconds = self._limits.get(key, 0.0) - time.monotonic()
        if seconds > 0:
            raise RateLimited(timedelta(seconds=seconds))

    def _learn_limit(self, key: str, headers: Mapping[str, str]) -> None:
        """Source: Rate Limits, Header Format."""
        if headers.get("X-RateLimit-Remaining") != "0":
            return
        if len(self._limits) >= MAX_LIMITS:
            now = time.monotonic()
            self._limits = {name: until for name, until in self._limits.items() if until > now}
        seconds = _seconds(headers.get("X-RateLimit-Reset-After"))
        if seconds is not None:
            self._limits[key] = time.monotonic() + seconds


def _decoded(body: bytes) -> Any:
    """The answer's JSON; None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _refusal(status: int, answer: Mapping[str, Any], headers: Mapping[str, str], *, is_about_chat: bool) -> BotsError:
    """What an answer other than 2xx says about the call. Source: Opcodes and Status Codes, HTTP and JSON."""
    if status == 429:
        seconds = _seconds(answer.get("retry_after")) or _seconds(headers.get("Retry-After")) or 30.0
        is_global = answer.get("global") is True or not answer  # a gateway before Discord locks out a whole address
        return RateLimited(timedelta(seconds=seconds), whole_account=is_global)
    code = answer.get("code")
    said = f"Discord: {one_line(redact.redact(_string(answer.get('message')) or str(status)))} ({code or status})"
    if status in _UNSURE_STATUSES:
        return OutcomeUnknown(said)
    if status == 401:
        return CredentialError("Discord refused the token.")
    if code is None or status >= 500:  # a gateway before the API spoke, or the API is overloaded
        return PlatformUnavailable(said)
    if code in (_UNKNOWN_MESSAGE, _NOT_THE_AUTHOR):
        return MessageGone(said)
    if code == _MAY_NOT_REPLY:
        return _MayNotReplyError(said)
    if code in _GONE_CODES or (is_about_chat and status in (403, 404)):
        return TargetGone(said)
    return MessageRefused(said)


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value)  # type: ignore[arg-type]  # tried
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 1e7 else None


def _target(route: Route) -> str:
    if not _SNOWFLAKE.fullmatch(route.channel_id):
        raise TargetGone(f"{one_line(route.channel_id)} is no chat of Discord.")
    return route.channel_id


def _nonce(message: OutboundMessage) -> str:
    """The message's key as Discord takes it: 25 characters at most. Source: Create Message, ``nonce``.

    With what it says and where, because a database that was emptied or restored gives its keys to other messages.
    """
    said = json.dumps([message.idempotency_key, message.route.channel_id, message.route.reply_to, message.text])
    return hashlib.blake2b(said.encode(), digest_size=12).hexdigest()


def _payload(message: OutboundMessage) -> dict[str, Any]:
    """What people see. Mentions of people are mentions; of everyone, of roles, they are text."""
    return {
        "content": message.text,
        "allowed_mentions": {"parse": ["users"], "replied_user": True},
        "components": [{"type": 1, "components": list(_buttons(message.buttons))}] if message.buttons else [],
    }


def _buttons(buttons: Sequence[Button]) -> Iterator[dict[str, Any]]:
    for number, button in enumerate(buttons):
        is_short = len(button.label) <= MAX_LABEL_CHARS
        label = button.label if is_short else f"{button.label[: MAX_LABEL_CHARS - 1]}…"
        # Numbered, because Discord wants them to differ within a message.
        yield {"type": _BUTTON, "style": 2, "label": label, "custom_id": f"{number}:{button.data}"}


def _slash_command(name: str, description: str) -> dict[str, Any]:
    """A command in servers and in direct chats, with room for what goes with it. Source: Application Commands."""
    is_short = len(description) <= MAX_DESCRIPTION_CHARS
    return {
        "type": _CHAT_INPUT,
        "name": name,
        "description": description if is_short else f"{description[: MAX_DESCRIPTION_CHARS - 1]}…",
        "contexts": [0, 1],
        "integration_types": [0],
        "options": [{"type": 3, "name": "text", "description": "What goes with it, if anything", "required": False}],
    }


# -- reading events ----


def _object(value: object) -> Mapping[str, Any]:
    """``value`` if it is an object; an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text_of(container: Mapping[str, Any], name: str) -> str:
    value = container[name]
    if not isinstance(value, str):
        raise UnreadableUpdate(f"{name} is no text.")
    return value


def _id(container: Mapping[str, Any], name: str) -> str:
    value = container[name]
    if not isinstance(value, str) or not _SNOWFLAKE.fullmatch(value):
        raise UnreadableUpdate(f"{name} is no id.")
    return value


def _has_id(message: InboundMessage) -> bool:
    """Whether the id of an event ends in one of Discord's, which tell the time."""
    return bool(_SNOWFLAKE.fullmatch(message.message_id.rpartition(":")[2]))


def _moment(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _sender(user: Mapping[str, Any], member: object) -> Sender:
    nick = _string(_object(member).get("nick"))
    return Sender(
        user_id=_id(user, "id"),
        user_name=_string(user.get("username")),
        display_name=nick or _string(user.get("global_name")),
    )


def _attachments(message: Mapping[str, Any]) -> Iterator[Attachment]:
    for file in _items(message.get("attachments")):
        mime_type = _string(file.get("content_type")).partition(";")[0]
        kinds = {"image": "photo", "audio": "audio", "video": "video"}
        size = file.get("size")
        yield Attachment(
            kind="voice" if "waveform" in file else kinds.get(mime_type.partition("/")[0], "document"),
            reference=_text_of(file, "url"),
            name=_string(file.get("filename")),
            mime_type=mime_type[:MAX_NAME_CHARS],
            size_bytes=size if type(size) is int and 0 <= size < 2**63 else None,
        )
    for sticker in _items(message.get("sticker_items")):
        ending, mime_type = _STICKERS.get(sticker["format_type"], _STICKERS[1])
        yield Attachment(
            kind="sticker",
            reference=f"https://media.discordapp.net/stickers/{_id(sticker, 'id')}.{ending}",
            name=_string(sticker.get("name")),
            mime_type=mime_type,
        )


#: How each kind of sticker is stored. Source: Sticker Format Types, CDN Endpoints.
_STICKERS = {
    1: ("png", "image/png"),
    2: ("png", "image/png"),
    3: ("json", "application/json"),
    4: ("gif", "image/gif"),
}


def _typed(data: Mapping[str, Any]) -> str:
    """A command as it would be typed."""
    given = [option.get("value") for option in _items(data.get("options")) if isinstance(option, dict)]
    return storable(" ".join([f"/{_text_of(data, 'name')}", *map(_string, given)]).strip())


def _pressed(data: Mapping[str, Any]) -> str:
    """The data of one of our buttons."""
    return re.sub(r"^[0-9]+:", "", _text_of(data, "custom_id"))


def _channel_of(event: Mapping[str, Any]) -> str:
    return _string(_object(event.get("d")).get("channel_id"))


def _guild_of(raw: Mapping[str, Any]) -> str:
    return _string(_object(raw.get("d")).get("guild_id"))


def _without_secrets(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without what lets anybody answer an interaction for a quarter of an hour."""
    data = event["d"]
    if not isinstance(data, dict) or "token" not in data:
        return dict(event)
    return {**event, "d": {name: value for name, value in data.items() if name != "token"}}


def _digest(event: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()


def _has_expired(url: str) -> bool:
    """Whether the address of a file says that it is no longer valid."""
    try:
        (expires,) = parse_qs(urlsplit(url).query).get("ex", [""])
        return bool(expires) and int(expires, 16) <= time.time()
    except ValueError:
        return False
