"""Discord on loopback: gateway and REST API, as discord.py 2.7 and our adapter use them.

Try it from a shell; the token and the control verbs are printed at the start::

    python -m tests.fakes.discord --port 9300
    curl -s localhost:9300/control/dm -d '{"text": "hello"}'
    curl -s localhost:9300/control/mention -d '{"text": "anybody here?"}'
    curl -s localhost:9300/control/command -d '{"name": "link", "text": "ABCD"}'
    curl -s localhost:9300/control/fail_next -d '{"kind": "429", "retry_after": 2, "times": 3}'
    curl -s localhost:9300/control/sent

and point a bot at it with the setting ``api_base_url=http://127.0.0.1:9300``. In a test::

    async with DiscordServer() as server:
        message_id = server.dm("hello")
        await server.until(lambda: server.sent)

Kept from the real one: only a session gets events, and it keeps them, so that who resumes it gets everything after the
number they name; frames are one zlib stream where the client asks for it; content of messages that do not concern the
bot is empty without the privileged intent; threads are channels; a nonce that is enforced gives back the first message;
a nonce is not told when a message is asked for again; an interaction has to be answered within ``answer_seconds`` and
is dropped otherwise; REST says nothing of guilds in messages.
Different: sessions live for ever unless ``expire_sessions`` ends them, and heartbeats are wanted often.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

from aiohttp import WSMsgType, web

from tests.fakes.loopback import LoopbackServer

#: Source: Create Message, ``content`` and ``nonce``; Component Reference.
MAX_TEXT_CHARS = 2_000
MAX_NONCE_CHARS = 25
MAX_BUTTONS = 5
MAX_LABEL_CHARS = 80
MAX_CUSTOM_ID_CHARS = 100

#: How long an interaction waits for its first answer. Source: Receiving and Responding to Interactions.
ANSWER_SECONDS = 3.0

#: How long a nonce is known; "the past few minutes" at Discord.
NONCE_SECONDS = 300.0

#: Milliseconds between heartbeats; 41,250 at Discord.
HEARTBEAT_MS = 50

#: The first instant of ids. Source: Snowflakes.
EPOCH_MS = 1_420_070_400_000

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 0, 1 << 9, 1 << 12, 1 << 15
MAY_READ_CONTENT = 1 << 19  # of an application; GATEWAY_MESSAGE_CONTENT_LIMITED

ALICE = "501"

Json = dict[str, Any]


@dataclass(kw_only=True, eq=False)
class FakeBot:
    """An application with its bot user, a member of one guild."""

    name: str
    token: str
    user_id: str
    application_id: str
    channel_id: str  # a channel the bot is in
    flags: int = 0
    sessions_left: int = 1_000
    is_revoked: bool = False  # its token is not accepted
    commands: list[Json] = field(default_factory=list)  # as they were registered
    connection_count: int = 0  # all there ever were


@dataclass(kw_only=True, eq=False)
class Channel:
    id: str
    kind: Literal[0, 1, 11] = 0  # a channel of a guild, a direct chat, a thread
    guild_id: str = ""
    name: str = ""
    parent_id: str = ""
    user_id: str = ""  # the person of a direct chat
    bot: FakeBot | None = None  # of a direct chat
    is_closed: bool = False  # the bot may not see it, or the person does not want its messages
    messages: dict[str, Json] = field(default_factory=dict, repr=False)  # by id, in order; as REST tells them

    def told(self) -> Json:
        return {"id": self.id, "type": self.kind, "name": self.name, "parent_id": self.parent_id or None}


@dataclass(kw_only=True, eq=False)
class Session:
    """What a bot gets in one go: numbered events, kept for whoever resumes."""

    id: str
    bot: FakeBot = field(repr=False)
    intents: int
    events: list[Json] = field(default_factory=list, repr=False)  # frames
    acked: int = 0  # the highest number that a heartbeat or a resume named
    beats: int = 0  # heartbeats that came
    forgotten: int = 0  # up to this number events are not kept any more
    is_over: bool = False
    link: _Link | None = field(default=None, repr=False)


@dataclass(kw_only=True)
class Sent:
    """What a bot posted."""

    bot: str
    channel: str
    id: str
    text: str
    reply_to: str = ""
    nonce: str = ""
    buttons: list[Json] = field(default_factory=list)
    allowed_mentions: Json | None = None
    earlier: list[tuple[float, str]] = field(default_factory=list)  # texts that it had, and until when (epoch seconds)
    is_deleted: bool = False


@dataclass(kw_only=True)
class Interaction:
    """A command or a pressed button."""

    id: str
    token: str
    payload: Json
    responses: list[Json] = field(default_factory=list)
    made_at: float = field(default_factory=time.monotonic)


#: slow: answered late; hang: applied, then answered late; cut_before, cut_after: applied or not, no answer.
FaultKind = Literal["429", "error", "status", "slow", "hang", "cut_before", "cut_after"]


@dataclass(kw_only=True)
class Fault:
    """What happens to the next matching calls, in the order in which the faults were set."""

    kind: FaultKind
    call: str = "create_message"  # a name of ``_CALLS``
    times: int = 1
    status: int = 503  # for kinds error and status
    code: int = 0  # for kind error
    message: str = "Something is wrong"  # for kind error
    body: str = "upstream error"  # for kind status; a JSON text is sent as JSON
    retry_after: float = 1.0  # seconds, for kind 429
    is_global: bool = False  # for kind 429
    seconds: float = 1.0  # for kinds slow and hang


class Refused(Exception):
    """A call is answered with this status and JSON error code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Link:
    """One websocket: a zlib stream where the client asked for it."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.is_frozen = False  # it stays open and silent
        self._transport = request.transport
        self._compressor = zlib.compressobj() if request.query.get("compress") == "zlib-stream" else None
        self._order = asyncio.Lock()

    async def send(self, frame: Json) -> None:
        async with self._order:
            text = json.dumps(frame)
            if self._compressor is None:
                await self.socket.send_str(text)
                return
            body = self._compressor.compress(text.encode()) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            await self.socket.send_bytes(body)

    def abort(self) -> None:
        """Break the connection without a word."""
        if self._transport:
            self._transport.abort()


#: What ``POST /control/<verb>`` may call.
VERBS = frozenset(
    {
        "dm", "say", "mention", "press", "command", "recall", "edit", "unfurl", "delete", "join", "bot_message",
        "react", "redeliver", "add_bot", "add_channel", "add_thread", "close_channel", "revoke", "fail_next",
        "disconnect", "freeze", "drop_connections", "expire_sessions", "reset",
    }
)  # fmt: skip


class DiscordServer(LoopbackServer):
    """The platform. Verbs that make events return the id of the message at once; deliveries run by themselves."""

    max_body_bytes = 10 * 1024 * 1024
    leaves_calls = False

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.answer_seconds = ANSWER_SECONDS
        self.nonce_seconds = NONCE_SECONDS
        self.heartbeat_ms = HEARTBEAT_MS
        self.messages_per_window = 0  # of a chat; 0: no limit
        self.window_seconds = 5.0
        self.bots: list[FakeBot] = []
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, Json] = {}
        self.sent: list[Sent] = []
        self.typing: list[str] = []  # channel ids
        self.interactions: list[Interaction] = []
        self.sessions: list[Session] = []
        self.files: dict[str, bytes] = {}  # by name
        self.expired_files: set[str] = set()  # names whose address is no longer valid
        self.calls: list[str] = []  # names of ``_CALLS``
        self._faults: deque[Fault] = deque()
        self._windows: dict[str, tuple[float, int]] = {}  # by channel: until when, and how many were sent
        self._numbers = itertools.count(1)
        self._last_id = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.guild_id = self._new_id()
        self.add_user(ALICE, name="alice", global_name="Alice Example")
        self.bot = self.add_bot("shop")

    # -- life cycle ----

    async def __aenter__(self) -> Self:
        await self.restore_network()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lose_network()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/gateway/", self._socket)
        router.add_get("/files/{name}", self._file)
        router.add_route("*", "/control/{verb}", self._control)
        for name, (method, path) in _CALLS.items():
            router.add_route(method, f"/api/v10{path}", self._call(name))

    async def lose_network(self) -> None:
        self.drop_connections()
        await super().lose_network()

    def so_far(self) -> str:
        return f"last calls {self.calls[-5:]}"

    def standing(self, channel: str) -> list[Sent]:
        """The messages of bots that stand in a channel, oldest first."""
        return [sent for sent in self.sent if sent.channel == channel and not sent.is_deleted]

    def is_acked(self, event_id: str) -> bool:
        """Whether a session's client has named the number of the events about ``event_id``, or a later one."""
        found = [
            (session, frame)
            for session in self.sessions
            for frame in session.events
            if _event_id(frame) == event_id
        ]  # fmt: skip
        return bool(found) and all(session.acked >= frame["s"] for session, frame in found)

    # -- the world ----

    def add_bot(self, name: str) -> FakeBot:
        """An application whose bot is in the guild."""
        number = len(self.bots) + 1
        channel = self.add_channel("general")
        bot = FakeBot(
            name=name,
            token=f"MTAwMDAwMDAwMDAwMDAwMD{number:02}.Fake{number:02}.fake-{number}-{name}-bot-token-secret",
            user_id=str(900_000 + number),
            application_id=str(910_000 + number),
            channel_id=channel.id,
        )
        self.add_user(bot.user_id, name=name, is_bot=True)
        self.bots.append(bot)
        return bot

    def add_user(self, user_id: str, *, name: str = "", global_name: str = "", is_bot: bool = False) -> Json:
        user = {
            "id": user_id,
            "username": name or f"user{user_id}",
            "global_name": global_name or None,
            "discriminator": "0",
            "avatar": None,
        }
        return self.users.setdefault(user_id, user | ({"bot": True} if is_bot else {}))

    def add_channel(self, name: str) -> Channel:
        """A channel of the guild."""
        channel = Channel(id=self._new_id(), guild_id=self.guild_id, name=name)
        self.channels[channel.id] = channel
        return channel

    def add_thread(self, name: str, *, channel: str = "") -> Channel:
        """A thread of a channel of the guild; a channel of its own."""
        parent = self.channels[channel or self.bot.channel_id]
        thread = Channel(id=self._new_id(), kind=11, guild_id=self.guild_id, name=name, parent_id=parent.id)
        self.channels[thread.id] = thread
        self._emit_all("THREAD_CREATE", {**thread.told(), "guild_id": self.guild_id}, intent=GUILDS)
        return thread

    def dm_channel(self, user: str, bot: FakeBot | None = None) -> Channel:
        bot = bot or self.bot
        self.add_user(user)
        for channel in self.channels.values():
            if channel.kind == 1 and (channel.user_id, channel.bot) == (user, bot):
                return channel
        channel = Channel(id=self._new_id(), kind=1, user_id=user, bot=bot)
        self.channels[channel.id] = channel
        return channel

    def add_file(self, name: str, content: bytes, *, mime_type: str, is_expired: bool = False) -> Json:
        """A file as messages refer to it. Its address is valid for a day; ``is_expired``: until yesterday."""
        self.files[name] = content
        expires = int(time.time()) + (-86_400 if is_expired else 86_400)
        return {
            "id": self._new_id(),
            "filename": name,
            "size": len(content),
            "content_type": mime_type,
            "url": f"{self.url}/files/{name}?ex={expires:x}&is=0&hm=fake",
        }

    def close_channel(self, channel: str) -> None:
        """The bot cannot write there any more."""
        self.channels[channel].is_closed = True

    def revoke(self, bot: str = "") -> None:
        """The token is not accepted any more."""
        self._bot(bot).is_revoked = True

    def fail_next(self, kind: FaultKind, **details: Any) -> None:
        self._faults.append(Fault(kind=kind, **details))

    def reset(self) -> None:
        """Forget faults and what was sent."""
        self._faults.clear()
        self.sent.clear()
        self.calls.clear()

    def disconnect(self, *, resumable: bool = True, code: int = 0) -> None:
        """Ask to reconnect (op 7), or end the sessions (op 9), or close with a code."""
        for session in self.sessions:
            if session.link and code:
                self._spawn(session.link.socket.close(code=code))
            elif session.link:
                session.is_over = session.is_over or not resumable
                self._spawn(session.link.send({"op": 7, "d": None} if resumable else {"op": 9, "d": False}))

    def freeze(self) -> None:
        """The connections that are there stay open, and nothing comes over them any more."""
        for session in self.sessions:
            if session.link:
                session.link.is_frozen = True

    def drop_connections(self) -> None:
        """Break all connections without a word."""
        for session in self.sessions:
            if session.link:
                session.link.abort()

    def forget_events(self) -> None:
        """What was told so far is not told again."""
        for session in self.sessions:
            session.forgotten = len(session.events)

    def expire_sessions(self) -> None:
        """Who comes back has to begin anew, and gets nothing of what was said meanwhile."""
        for session in self.sessions:
            session.is_over = True

    def _bot(self, name: str) -> FakeBot:
        return next(bot for bot in self.bots if bot.name == name) if name else self.bot

    def _new_id(self) -> str:
        self._last_id = max(self._last_id + 1, (time.time_ns() // 1_000_000 - EPOCH_MS) << 22)
        return str(self._last_id)

    # -- what people do ----

    def dm(self, text: str, *, user: str = ALICE, bot: str = "", files: Sequence[Json] = (), **fields: Any) -> str:
        """A direct message to the bot."""
        return self._say(self.dm_channel(user, self._bot(bot)), text, user=user, files=files, **fields)

    def say(self, text: str, *, channel: str = "", user: str = ALICE, files: Sequence[Json] = (), **fields: Any) -> str:
        """A message in a channel or thread, as Discord stores it: ``<@ID>`` in the text mentions."""
        return self._say(self.channels[channel or self.bot.channel_id], text, user=user, files=files, **fields)

    def mention(self, text: str, *, bot: str = "", **details: Any) -> str:
        """A channel message that begins with a mention of the bot."""
        return self.say(f"<@{self._bot(bot).user_id}> {text}", **details)

    def recall(self, text: str, *, channel: str, user: str = ALICE) -> str:
        """A message of earlier days: it stands there, and no event tells of it."""
        message = self._message(self.channels[channel], text, user=user)
        return str(message["id"])

    def edit(self, channel: str, message_id: str, text: str) -> None:
        where = self.channels[channel]
        message = where.messages[message_id]
        message.update(content=text, edited_timestamp=_now(), mentions=self._mentioned(text))
        self._emit_message("MESSAGE_UPDATE", where, message)

    def unfurl(self, channel: str, message_id: str) -> None:
        """Discord adds a preview of a link: an update that nobody made."""
        where = self.channels[channel]
        where.messages[message_id]["embeds"] = [{"type": "link", "url": "https://example.com/"}]
        self._emit_message("MESSAGE_UPDATE", where, where.messages[message_id])

    def delete(self, channel: str, message_id: str) -> None:
        where = self.channels[channel]
        del where.messages[message_id]
        for sent in self.sent:
            if sent.id == message_id:
                sent.is_deleted = True
        self._emit_where(where, "MESSAGE_DELETE", {"id": message_id, "channel_id": channel})

    def join(self, user: str) -> None:
        """Somebody joins the guild: a message of type 7."""
        self._say(self.channels[self.bot.channel_id], "", user=user, type=7)

    def bot_message(self, text: str, *, webhook: bool = False) -> None:
        """What another bot says, or a webhook."""
        self.add_user("777", name="other", is_bot=not webhook)
        fields: Json = {"webhook_id": "777"} if webhook else {}
        self._say(self.channels[self.bot.channel_id], text, user="777", **fields)

    def react(self, channel: str, message_id: str, *, user: str = ALICE) -> None:
        data = {"user_id": user, "channel_id": channel, "message_id": message_id, "emoji": {"id": None, "name": "🔥"}}
        self._emit_where(self.channels[channel], "MESSAGE_REACTION_ADD", data)

    def press(self, channel: str, message_id: str, data: str, *, user: str = ALICE) -> str:
        """Somebody presses the button whose custom id ends in ``data``; returns the id of the interaction.

        Raises:
            ValueError: the message has no such button.
        """
        where, message = self.channels[channel], self.channels[channel].messages[message_id]
        sent = next(sent for sent in self.sent if sent.id == message_id)
        button = next((one for one in sent.buttons if one["custom_id"].partition(":")[2] == data), None)
        if button is None:
            raise ValueError(f"the message has no button with the data {data!r}")
        details = {"data": {"custom_id": button["custom_id"], "component_type": 2}, "message": message}
        return self._interact(where, self._bot(sent.bot), user=user, type=3, **details)

    def command(self, name: str, text: str = "", *, channel: str = "", user: str = ALICE, bot: str = "") -> str:
        """A slash command, in the direct chat unless ``channel`` says where; returns the id of the interaction."""
        target = self._bot(bot)
        where = self.channels[channel] if channel else self.dm_channel(user, target)
        options = [{"name": "text", "type": 3, "value": text}] if text else []
        data = {"id": "42", "name": name, "type": 1, **({"options": options} if options else {})}
        return self._interact(where, target, user=user, type=2, data=data)

    def redeliver(self, event_id: str) -> None:
        """Tell of an event once more, under a new number."""
        for session in self.sessions:
            for frame in [frame for frame in session.events if _event_id(frame) == event_id]:
                self._dispatch(session, frame["t"], frame["d"])

    def _interact(self, where: Channel, bot: FakeBot, *, user: str, **details: Any) -> str:
        person = self.add_user(user)
        number = self._new_id()
        interaction = Interaction(id=number, token=f"aW50ZXJhY3Rpb24-{number}-secret", payload={})
        interaction.payload = {
            "id": number,
            "application_id": bot.application_id,
            "token": interaction.token,
            "version": 1,
            "channel_id": where.id,
            "channel": where.told(),
            "context": 0 if where.guild_id else 1,
            **({"guild_id": where.guild_id, "member": self._member(user)} if where.guild_id else {"user": person}),
            **details,
        }
        self.interactions.append(interaction)
        for session in self._live_sessions(bot):
            self._dispatch(session, "INTERACTION_CREATE", interaction.payload)
        return number

    def _say(self, where: Channel, text: str, *, user: str, files: Sequence[Json] = (), **fields: Any) -> str:
        message = self._message(where, text, user=user, files=files, **fields)
        self._emit_message("MESSAGE_CREATE", where, message)
        return str(message["id"])

    def _message(self, where: Channel, text: str, *, user: str, files: Sequence[Json] = (), **fields: Any) -> Json:
        message: Json = {
            "id": self._new_id(),
            "type": 0,
            "channel_id": where.id,
            "author": self.add_user(user),
            "content": text,
            "timestamp": _now(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": self._mentioned(text),
            "mention_roles": [],
            "attachments": list(files),
            "embeds": [],
            "pinned": False,
            "components": [],
            **fields,
        }
        if reply_to := fields.get("reply_to"):
            del message["reply_to"]
            message |= {"type": 19, "referenced_message": where.messages[reply_to]}
        where.messages[message["id"]] = message
        return message

    def _mentioned(self, text: str) -> list[Json]:
        return [user for user_id, user in self.users.items() if f"<@{user_id}>" in text]

    def _member(self, user: str) -> Json:
        return {"user": self.users[user], "nick": None, "roles": [], "joined_at": _now()}

    # -- sessions ----

    def _live_sessions(self, bot: FakeBot) -> list[Session]:
        return [session for session in self.sessions if session.bot is bot and not session.is_over]

    def _emit_message(self, kind: str, where: Channel, message: Json) -> None:
        place: Json = {}
        if where.guild_id:
            member = {name: value for name, value in self._member(message["author"]["id"]).items() if name != "user"}
            place = {"guild_id": where.guild_id, "member": member}
        for bot in [where.bot] if where.bot else self.bots:
            for session in self._live_sessions(bot):
                if session.intents & (GUILD_MESSAGES if where.guild_id else DIRECT_MESSAGES):
                    self._dispatch(session, kind, {**self._as_told(message, where, session), **place})

    def _as_told(self, message: Json, where: Channel, session: Session) -> Json:
        """Without what does not concern the bot, unless it may read everything. Source: Message Content Intent."""
        me = session.bot.user_id
        concerns = not where.guild_id or message["author"]["id"] == me
        concerns = concerns or any(user["id"] == me for user in message["mentions"])
        if concerns or session.intents & MESSAGE_CONTENT:
            return dict(message)
        return {**message, "content": "", "attachments": [], "embeds": [], "components": []}

    def _emit_where(self, where: Channel, kind: str, data: Json) -> None:
        place = {"guild_id": where.guild_id} if where.guild_id else {}
        for bot in [where.bot] if where.bot else self.bots:
            for session in self._live_sessions(bot):
                self._dispatch(session, kind, {**data, **place})

    def _emit_all(self, kind: str, data: Json, *, intent: int) -> None:
        for session in self.sessions:
            if not session.is_over and session.intents & intent:
                self._dispatch(session, kind, data)

    def _dispatch(self, session: Session, kind: str, data: Any) -> None:
        frame = {"op": 0, "t": kind, "s": len(session.events) + 1, "d": json.loads(json.dumps(data))}
        session.events.append(frame)
        if session.link and not session.link.is_frozen:
            self._spawn(session.link.send(frame))

    def _spawn(self, work: Awaitable[Any]) -> None:
        async def quietly() -> None:
            with suppress(ConnectionError):  # the other side is gone: it gets it when it resumes
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        link = _Link(socket, request)
        session: Session | None = None
        try:
            await link.send({"op": 10, "d": {"heartbeat_interval": self.heartbeat_ms}})
            async for message in socket:
                if message.type is not WSMsgType.TEXT or link.is_frozen:
                    continue
                frame = json.loads(message.data)
                if frame["op"] == 1:
                    if session and frame["d"] is not None:
                        session.beats += 1
                        session.acked = max(session.acked, frame["d"])
                    await link.send({"op": 11, "d": None})
                elif frame["op"] in (2, 6):
                    session = await self._identified(frame, link, request)
        except ConnectionError:
            pass
        finally:
            if session and session.link is link:
                session.link = None
        return socket

    async def _identified(self, frame: Json, link: _Link, request: web.Request) -> Session | None:
        """The session that a client opens or resumes; None: it was refused."""
        given = frame["d"]
        bot = next((bot for bot in self.bots if bot.token == given["token"] and not bot.is_revoked), None)
        if bot is None:
            await link.socket.close(code=4004, message=b"Authentication failed.")
            return None
        if frame["op"] == 6:
            return await self._resumed(given, bot, link)
        if given["intents"] & MESSAGE_CONTENT and not bot.flags & MAY_READ_CONTENT:
            await link.socket.close(code=4014, message=b"Disallowed intent(s).")
            return None
        bot.connection_count += 1
        session = Session(id=f"{next(self._numbers):032x}", bot=bot, intents=given["intents"])
        self.sessions.append(session)
        ready = {
            "v": 10,
            "user": self.users[bot.user_id],
            "guilds": [{"id": self.guild_id, "unavailable": True}],
            "session_id": session.id,
            "resume_gateway_url": f"ws://{request.host}/gateway/",
            "application": {"id": bot.application_id, "flags": bot.flags},
        }
        channels = [channel.told() for channel in self.channels.values() if channel.guild_id and channel.kind == 0]
        threads = [channel.told() for channel in self.channels.values() if channel.kind == 11]
        self._dispatch(session, "READY", ready)
        guild = {"id": self.guild_id, "name": "Fake", "channels": channels, "threads": threads}
        self._dispatch(session, "GUILD_CREATE", guild)
        await self._replay(session, link, after=0)
        return session

    async def _resumed(self, given: Json, bot: FakeBot, link: _Link) -> Session | None:
        session = next((one for one in self._live_sessions(bot) if one.id == given["session_id"]), None)
        if session is None:
            await link.send({"op": 9, "d": False})
            return None
        if given["seq"] > len(session.events):
            await link.socket.close(code=4007, message=b"Invalid seq.")
            return None
        bot.connection_count += 1
        session.acked = max(session.acked, given["seq"])
        await self._replay(session, link, after=given["seq"])
        self._dispatch(session, "RESUMED", {"_trace": []})
        return session

    async def _replay(self, session: Session, link: _Link, *, after: int) -> None:
        """Give everything from a number on, then whatever comes."""
        given = max(after, session.forgotten)
        while given < len(session.events):
            await link.send(session.events[given])
            given += 1
        session.link = link

    # -- REST ----

    def _call(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:  # first of all: a call that came whole is answered even if its client dies meanwhile
                body = await request.json() if request.can_read_body else {}
            except ConnectionError:
                return _cut(request)
            self.calls.append(name)
            fault = self._fault(name)
            if fault and fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            elif fault and fault.kind == "hang":
                self._answered(name, request, body)
                await asyncio.sleep(fault.seconds)
                return _cut(request)
            elif fault and fault.kind == "cut_after":
                self._answered(name, request, body)
                return _cut(request)
            elif fault:
                return _faulty(request, fault)
            return self._answered(name, request, body)

        return handle

    def _fault(self, call: str) -> Fault | None:
        for fault in self._faults:
            if fault.call == call:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    def _answered(self, name: str, request: web.Request, body: Any) -> web.Response:
        headers: dict[str, str] = {}
        try:
            bot = None if name == "callback" else self._authorized(request)
            answer = getattr(self, f"_{name}")(bot, request, body)
            if name == "create_message":
                headers = self._limit_headers(request.match_info["channel"])
        except Refused as refusal:
            error = {"message": str(refusal), "code": refusal.code}
            return _json(error | getattr(refusal, "details", {}), status=refusal.status)
        return web.Response(status=204) if answer is None else _json(answer, headers=headers)

    def _authorized(self, request: web.Request) -> FakeBot:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        for bot in self.bots:
            if scheme == "Bot" and token == bot.token and not bot.is_revoked:
                return bot
        raise Refused(401, 0, "401: Unauthorized")

    def _me(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        return self.users[bot.user_id]

    def _application(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        return {"id": bot.application_id, "name": bot.name, "flags": bot.flags, "owner": self.users[ALICE]}

    def _gateway(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        limit = {"total": 1_000, "remaining": bot.sessions_left, "reset_after": 3_600_000, "max_concurrency": 1}
        return {"url": f"ws://{request.host}/gateway/", "shards": 1, "session_start_limit": limit}

    def _register(self, bot: FakeBot, request: web.Request, body: Any) -> Any:
        if request.match_info["application"] != bot.application_id:
            raise Refused(403, 20012, "You are not authorized to perform this action on this application")
        if len({command["name"] for command in body}) != len(body) or not all(map(_is_command, body)):
            raise Refused(400, 50035, "Invalid Form Body")
        bot.commands = body
        return body

    def _channel(self, bot: FakeBot, request: web.Request) -> Channel:
        channel = self.channels.get(request.match_info["channel"])
        if channel is None or (channel.bot and channel.bot is not bot):
            raise Refused(404, 10003, "Unknown Channel")
        if channel.is_closed:
            is_direct = channel.kind == 1
            raise Refused(403, 50007 if is_direct else 50001, "Cannot send messages to this user" * is_direct or "No")
        return channel

    def _create_message(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        channel = self._channel(bot, request)
        buttons = _checked(body)
        nonce = body.get("nonce", "")
        if len(nonce) > MAX_NONCE_CHARS:
            raise Refused(400, 50035, "Invalid Form Body")
        for sent in self.sent:
            message = channel.messages.get(sent.id)
            is_same = body.get("enforce_nonce") and nonce and sent.nonce == nonce and sent.bot == bot.name
            if is_same and message and time.time() - _made_at(sent.id) < self.nonce_seconds:
                return {**message, "nonce": nonce}
        self._count(channel)
        reference = body.get("message_reference") or {}
        reply_to = str(reference.get("message_id", ""))
        if reply_to and reply_to not in channel.messages:
            if reference.get("fail_if_not_exists", True):
                raise Refused(400, 50035, "Invalid Form Body")
            reply_to = ""
        fields: Json = {"reply_to": reply_to} if reply_to else {}
        message = self._message(
            channel, body["content"], user=bot.user_id, components=body.get("components", []), **fields
        )
        self.sent.append(
            Sent(
                bot=bot.name,
                channel=channel.id,
                id=message["id"],
                text=message["content"],
                reply_to=reply_to,
                nonce=nonce,
                buttons=buttons,
                allowed_mentions=body.get("allowed_mentions"),
            )
        )
        self._emit_message("MESSAGE_CREATE", channel, message)
        return {**message, "nonce": nonce} if nonce else message

    def _count(self, channel: Channel) -> None:
        """Limit how fast a chat is written to. Source: Rate Limits."""
        if not self.messages_per_window:
            return
        until, count = self._windows.get(channel.id, (0.0, 0))
        now = time.monotonic()
        if now >= until:
            until, count = now + self.window_seconds, 0
        if count >= self.messages_per_window:
            refusal = Refused(429, 0, "You are being rate limited.")
            refusal.details = {"retry_after": until - now, "global": False}  # type: ignore[attr-defined]
            raise refusal
        self._windows[channel.id] = until, count + 1

    def _limit_headers(self, channel: str) -> dict[str, str]:
        if channel not in self._windows:
            return {}
        until, count = self._windows[channel]
        return {
            "X-RateLimit-Limit": str(self.messages_per_window),
            "X-RateLimit-Remaining": str(self.messages_per_window - count),
            "X-RateLimit-Reset-After": f"{until - time.monotonic():.3f}",
            "X-RateLimit-Bucket": "fake",
        }

    def _edit_message(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        channel, sent = self._own(bot, request)
        buttons = _checked(body)
        sent.earlier.append((time.time(), sent.text))
        sent.text, sent.buttons = body["content"], buttons
        message = channel.messages[sent.id]
        message.update(content=sent.text, edited_timestamp=_now(), components=body.get("components", []))
        self._emit_message("MESSAGE_UPDATE", channel, message)
        return message

    def _delete_message(self, bot: FakeBot, request: web.Request, body: Json) -> None:
        channel, sent = self._own(bot, request)
        self.delete(channel.id, sent.id)

    def _own(self, bot: FakeBot, request: web.Request) -> tuple[Channel, Sent]:
        channel = self._channel(bot, request)
        message_id = request.match_info["message"]
        if message_id not in channel.messages:
            raise Refused(404, 10008, "Unknown Message")
        for sent in self.sent:
            if (sent.id, sent.bot) == (message_id, bot.name):
                return channel, sent
        raise Refused(403, 50005, "Cannot edit a message authored by another user")

    def _messages(self, bot: FakeBot, request: web.Request, body: Json) -> Any:
        """Newest first; beginning right after ``after``, if that is given."""
        channel = self._channel(bot, request)
        after, limit = int(request.query.get("after", 0)), int(request.query.get("limit", 50))
        later = [message for message in channel.messages.values() if int(message["id"]) > after]
        page = later[:limit] if after else later[-limit:]
        session = Session(id="", bot=bot, intents=MESSAGE_CONTENT if bot.flags & MAY_READ_CONTENT else 0)
        return [self._as_told(message, channel, session) for message in reversed(page)]

    def _typing(self, bot: FakeBot, request: web.Request, body: Json) -> None:
        self.typing.append(self._channel(bot, request).id)

    def _callback(self, bot: None, request: web.Request, body: Json) -> None:
        for interaction in self.interactions:
            if (interaction.id, interaction.token) == (request.match_info["id"], request.match_info["token"]):
                if time.monotonic() - interaction.made_at > self.answer_seconds:
                    raise Refused(404, 10062, "Unknown interaction")
                if interaction.responses:
                    raise Refused(400, 40060, "Interaction has already been acknowledged.")
                interaction.responses.append(body)
                return
        raise Refused(404, 10062, "Unknown interaction")

    def _refresh(self, bot: FakeBot, request: web.Request, body: Json) -> Json:
        refreshed = []
        for url in body["attachment_urls"]:
            address = url.partition("?")[0]
            if address.rpartition("/")[2] in self.files:
                expires = int(time.time()) + 86_400
                refreshed.append({"original": url, "refreshed": f"{address}?ex={expires:x}&is=0&hm=fake"})
        return {"refreshed_urls": refreshed}

    async def _file(self, request: web.Request) -> web.Response:
        """A file, while its address is valid."""
        content = self.files.get(request.match_info["name"])
        is_valid = int(request.query.get("ex", "0"), 16) > time.time()
        return web.Response(body=content) if content is not None and is_valid else web.Response(status=404)

    # -- control ----

    async def _control(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        if verb == "sent":
            return web.json_response([asdict(sent) for sent in self.sent])
        if verb not in VERBS:
            return web.json_response({"ok": False, "error": f"verbs: {', '.join(sorted(VERBS))}"}, status=404)
        try:
            result = getattr(self, verb)(**json.loads(await request.read() or b"{}"))
        except (TypeError, ValueError, KeyError, StopIteration) as error:
            return web.json_response({"ok": False, "error": f"{type(error).__name__}: {error}"}, status=400)
        result = getattr(result, "id", None) or getattr(result, "token", None) or result
        return web.json_response({"ok": True, "result": result})


#: What the API can do here: a name, and its route below /api/v10.
_CALLS = {
    "me": ("GET", "/users/@me"),
    "application": ("GET", "/oauth2/applications/@me"),
    "gateway": ("GET", "/gateway/bot"),
    "register": ("PUT", "/applications/{application}/commands"),
    "create_message": ("POST", "/channels/{channel}/messages"),
    "messages": ("GET", "/channels/{channel}/messages"),
    "edit_message": ("PATCH", "/channels/{channel}/messages/{message}"),
    "delete_message": ("DELETE", "/channels/{channel}/messages/{message}"),
    "typing": ("POST", "/channels/{channel}/typing"),
    "callback": ("POST", "/interactions/{id}/{token}/callback"),
    "refresh": ("POST", "/attachments/refresh-urls"),
}


def _event_id(frame: Json) -> str:
    data = frame["d"]
    is_of_interest = frame["t"] in ("MESSAGE_CREATE", "MESSAGE_UPDATE", "INTERACTION_CREATE")
    return str(data["id"]) if is_of_interest else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _made_at(snowflake: str) -> float:
    return ((int(snowflake) >> 22) + EPOCH_MS) / 1000


def _checked(body: Json) -> list[Json]:
    """The buttons of a message, if Discord would take it."""
    content = body.get("content") or ""
    if not content.strip():
        raise Refused(400, 50006, "Cannot send an empty message")
    buttons = [button for row in body.get("components") or [] for button in row["components"]]
    are_fine = len(buttons) <= MAX_BUTTONS and len({button["custom_id"] for button in buttons}) == len(buttons)
    if len(content) > MAX_TEXT_CHARS or not are_fine or not all(map(_is_button, buttons)):
        raise Refused(400, 50035, "Invalid Form Body")
    return buttons


def _is_button(button: Json) -> bool:
    return (
        button["type"] == 2
        and 1 <= button["style"] <= 4
        and 1 <= len(button["label"]) <= MAX_LABEL_CHARS
        and 1 <= len(button["custom_id"]) <= MAX_CUSTOM_ID_CHARS
    )


def _is_command(command: Json) -> bool:
    return 1 <= len(command["name"]) <= 32 and 1 <= len(command["description"]) <= 100


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON whose content type is exactly Discord's, without a charset."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json", **(headers or {})}
    )


def _faulty(request: web.Request, fault: Fault) -> web.StreamResponse:
    if fault.kind == "429":
        body = {"message": "You are being rate limited.", "retry_after": fault.retry_after, "global": fault.is_global}
        return _json(body, status=429, headers={"Retry-After": str(int(fault.retry_after) or 1)})
    if fault.kind == "error":
        return _json({"message": fault.message, "code": fault.code}, status=fault.status)
    if fault.kind == "status":
        is_json = fault.body.startswith(("{", "["))
        content_type = "application/json" if is_json else "text/html"
        return web.Response(status=fault.status, body=fault.body.encode(), headers={"Content-Type": content_type})
    return _cut(request)


def _cut(request: web.Request) -> web.StreamResponse:
    """Break the connection without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response()


async def _serve(port: int) -> None:
    async with DiscordServer(port=port) as server:
        server.heartbeat_ms = 5_000
        print(f"Discord on {server.url}  (bot setting: api_base_url={server.url})")
        print(f"token={server.bot.token}")
        print(f"channel {server.bot.channel_id}, bot user {server.bot.user_id}, person {ALICE}")
        print(f"POST /control/<verb>: {', '.join(sorted(VERBS))}; GET /control/sent", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Discord on loopback.")
    parser.add_argument("--port", type=int, default=9300)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
