"""Slack on loopback: Web API, Socket Mode and signed Events API calls, as slack_sdk 3.47 uses them.

Try it from a shell; the tokens and the control verbs are printed at the start::

    python -m tests.fakes.slack --port 9200
    curl -s localhost:9200/control/dm -d '{"text": "hello", "user": "U0ALICE"}'
    curl -s localhost:9200/control/mention -d '{"text": "anybody here?"}'
    curl -s localhost:9200/control/command -d '{"command": "/link", "text": "ABCD"}'
    curl -s localhost:9200/control/press -d '{"channel": "D0ALICE0BOT1", "ts": "1715600000.000100", "value": "yes"}'
    curl -s localhost:9200/control/fail_next -d '{"kind": "429", "retry_after": 2, "times": 3}'
    curl -s localhost:9200/control/sent

and point a bot at it with the setting ``api_base_url=http://127.0.0.1:9200``. In a test::

    async with SlackServer() as server:
        ts = server.dm("hello")
        await server.until(lambda: server.sent)

Kept from the real one: HTTP 200 with ``ok: false`` for errors, 429 with Retry-After; an event goes to one connection of
the app and again, with a retry count, until it is acknowledged; a mention is two events with one ts; a bot hears its
own messages; metadata is returned only when asked for; thread replies are not part of a channel's history; a pressed
button and a command are delivered once, and a person is told when the app did not take them (``is_dropped``).
Different: deliveries are repeated within fractions of a second and, unless ``max_retries`` says so, for ever.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import hashlib
import hmac
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from tests.fakes.loopback import LoopbackServer

#: Longest text of a message that is changed. Source: chat.update, the error msg_too_long.
MAX_EDITED_CHARS = 4_000

#: Longest text of a message. Source: chat.postMessage, "Truncating content" and the error msg_too_long.
MAX_TEXT_CHARS = 40_000

#: Limits of blocks. Source: Block Kit reference: section, actions, button, text object.
MAX_BLOCKS = 50
MAX_SECTION_CHARS = 3_000
MAX_ACTION_ELEMENTS = 25
MAX_LABEL_CHARS = 75
MAX_VALUE_CHARS = 2_000
MAX_ACTION_ID_CHARS = 255

#: How long an answer to an event may take until it counts as lost, as with Slack; tests set ``server.ack_seconds``.
ACK_SECONDS = 3.0

#: The pause before an event that was not taken is delivered again. Slack: at once, 1 min, 5 min.
RETRY_SECONDS = 0.1

#: Calls of a bot's events URL that may be under way at a time.
MAX_EVENT_CALLS = 32

ALICE = "U0ALICE"


@dataclass(kw_only=True, eq=False)
class FakeBot:
    """An app with its bot user, installed in one workspace."""

    name: str
    team_id: str
    app_id: str
    bot_id: str
    user_id: str
    bot_token: str
    app_token: str
    signing_secret: str
    channel_id: str  # a channel the bot is in
    events_url: str = ""  # where events are posted; empty: Socket Mode
    token_error: str = ""  # what every call with the bot token is answered with
    app_token_error: str = ""
    is_frozen: bool = False  # its connections stay open and silent: no events, no pong
    connections: list[web.WebSocketResponse] = field(default_factory=list, repr=False)
    connected: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    connection_count: int = 0  # all there ever were


@dataclass(kw_only=True)
class Channel:
    id: str
    team_id: str
    name: str = ""
    kind: Literal["channel", "im", "mpim"] = "channel"
    user_id: str = ""  # the human of an im
    members: set[str] = field(default_factory=set)  # user ids of bots
    is_archived: bool = False
    messages: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  # by ts, in order


@dataclass(kw_only=True)
class Sent:
    """What a bot posted."""

    bot: str
    channel: str
    ts: str
    text: str  # as it came, with &amp; &lt; &gt;
    thread_ts: str = ""
    metadata: dict[str, Any] | None = None
    blocks: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[tuple[float, str]] = field(default_factory=list)  # texts that it had, and until when (epoch seconds)
    is_deleted: bool = False

    @property
    def shown(self) -> str:
        """The text as people see it: that of the blocks, if there are some."""
        sections = [block["text"]["text"] for block in self.blocks if block["type"] == "section"]
        text = "".join(sections) if self.blocks else self.text
        return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

    @property
    def buttons(self) -> list[dict[str, Any]]:
        return _buttons(self.blocks)


#: What is delivered; the names are those of Socket Mode's envelopes.
EnvelopeKind = Literal["events_api", "interactive", "slash_commands"]


@dataclass(kw_only=True, eq=False)
class Delivery:
    """One event, pressed button or command on its way to one app, until it is acknowledged."""

    bot: FakeBot = field(repr=False)
    payload: dict[str, Any]
    envelope_id: str
    kind: EnvelopeKind = "events_api"
    attempts: int = 0
    is_acked: bool = False
    is_dropped: bool = False  # given up: an event after ``max_retries``, all else after one attempt
    reason: str = ""  # why the last attempt failed
    statuses: list[int] = field(default_factory=list)  # answers of the events URL
    response: str = ""  # what the app said beside that it took it; a person sees it below their button or command
    sent_on: web.WebSocketResponse | None = field(default=None, repr=False)
    answer: asyncio.Future[bool] | None = field(default=None, repr=False)


#: slow: answered late; hang: applied, then answered late; cut_before, cut_after: applied or not, no answer.
FaultKind = Literal["429", "error", "status", "slow", "hang", "cut_before", "cut_after"]


@dataclass(kw_only=True)
class Fault:
    """What happens to the next matching API calls, in the order in which the faults were set."""

    kind: FaultKind
    method: str = "chat.postMessage"
    times: int = 1
    error: str = "internal_error"  # for kind error
    status: int = 503  # for kind status
    body: str = "upstream error"  # for kind status; a JSON text is sent as JSON
    retry_after: int = 1  # seconds, for kind 429
    seconds: float = 1.0  # for kinds slow and hang
    bot: str = ""  # hit this bot alone


class Refused(Exception):
    """An API call is answered with ``ok: false`` and this error."""


#: What ``POST /control/<verb>`` may call.
VERBS = frozenset(
    {
        "dm", "say", "mention", "press", "command", "recall", "edit", "unfurl", "delete", "join", "bot_message",
        "react", "redeliver", "event", "raw_event", "raw_interaction",
        "add_bot", "add_user", "add_channel", "archive", "kick", "set_events_url", "verify_url", "set_token_error",
        "fail_next", "duplicates", "disconnect", "drop_connections", "freeze", "reset",
    }
)  # fmt: skip


class SlackServer(LoopbackServer):
    """The platform. Verbs that make events return the ts of the message at once; deliveries run by themselves."""

    max_body_bytes = 10 * 1024 * 1024
    leaves_calls = False

    def __init__(self, *, port: int = 0, max_retries: int | None = None) -> None:
        super().__init__(port=port)
        self.max_retries = max_retries
        self.ack_seconds = ACK_SECONDS
        self.retry_seconds = RETRY_SECONDS
        self.bots: list[FakeBot] = []
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.sent: list[Sent] = []
        self.files: dict[str, bytes] = {}  # by name
        self.calls: list[str] = []  # names of all API methods called
        self.deliveries: list[Delivery] = []
        self._faults: deque[Fault] = deque()
        self._waiting: dict[str, Delivery] = {}  # by envelope id: sent over a websocket and not yet answered
        self._tickets: dict[str, FakeBot] = {}
        self._numbers = itertools.count(1)
        self._last_ts = 0
        self._duplicate_probability = 0.0
        self._random = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self.add_user(ALICE, name="alice", real_name="Alice Example")
        self.bot = self.add_bot("shop")

    # -- life cycle ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=10), connector=aiohttp.TCPConnector(limit=MAX_EVENT_CALLS)
        )
        await self.restore_network()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.lose_network()
        if self._http:
            await self._http.close()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/api/{method}", self._api)
        router.add_get("/link/", self._socket)
        router.add_get("/files-pri/{name}", self._file)
        router.add_post("/control/{verb}", self._control)
        router.add_get("/control/{verb}", self._control)

    async def lose_network(self) -> None:
        self.drop_connections()
        await super().lose_network()

    def so_far(self) -> str:
        return f"last API calls {self.calls[-5:]}"

    async def settled(self, *, seconds: float = 5.0) -> None:
        """Wait until every event was acknowledged or given up."""
        await self.until(lambda: all(d.is_acked or d.is_dropped for d in self.deliveries), seconds=seconds)

    def deliveries_of(self, ts: str) -> list[Delivery]:
        """The deliveries of the events about one message, of a pressed button or of a command."""
        return [d for d in self.deliveries if _event_ts(d.payload) == ts]

    def find_sent(self, channel: str, ts: str) -> Sent:
        """What a bot posted, by its place."""
        return next(sent for sent in self.sent if (sent.channel, sent.ts) == (channel, ts))

    def standing(self, channel: str) -> list[Sent]:
        """The messages of bots that stand in a channel, oldest first."""
        return [sent for sent in self.sent if sent.channel == channel and not sent.is_deleted]

    # -- the world ----------------------------------------------------------------------------------------------

    def add_bot(self, name: str, *, team_id: str = "T0FAKE", events_url: str = "") -> FakeBot:
        """An app with well-known tokens, in a channel of its workspace."""
        number = len(self.bots) + 1
        bot = FakeBot(
            name=name,
            team_id=team_id,
            app_id=f"A0APP{number}",
            bot_id=f"B0BOT{number}",
            user_id=f"U0BOT{number}",
            bot_token=f"xoxb-fake-{number}-{name}-bot-token",
            app_token=f"xapp-fake-{number}-{name}-app-token",
            signing_secret=f"fake-{number}-{name}-signing-secret",
            channel_id=f"C0GENERAL{team_id}",
            events_url=events_url,
        )
        self.bots.append(bot)
        self.add_channel(bot.channel_id, name="general", team_id=team_id).members.add(bot.user_id)
        self.add_user(bot.user_id, name=name, real_name=name.title())
        return bot

    def add_user(self, user_id: str, *, name: str = "", real_name: str = "") -> dict[str, Any]:
        profile = {"display_name": name, "real_name": real_name}
        return self.users.setdefault(
            user_id, {"id": user_id, "name": name or user_id.lower(), "real_name": real_name, "profile": profile}
        )

    def add_channel(
        self, channel_id: str, *, name: str = "", team_id: str = "T0FAKE", kind: Literal["channel", "mpim"] = "channel"
    ) -> Channel:
        """A channel with all bots that the workspace has by now."""
        if channel_id not in self.channels:
            members = {bot.user_id for bot in self.bots if bot.team_id == team_id}
            self.channels[channel_id] = Channel(
                id=channel_id, team_id=team_id, name=name or channel_id.lower(), kind=kind, members=members
            )
        return self.channels[channel_id]

    def dm_channel(self, user: str, bot: FakeBot) -> Channel:
        channel_id = f"D{user[1:]}{bot.user_id[1:]}"
        self.add_user(user)
        return self.channels.setdefault(
            channel_id, Channel(id=channel_id, team_id=bot.team_id, kind="im", user_id=user, members={bot.user_id})
        )

    def add_file(self, name: str, content: bytes, *, mime_type: str) -> dict[str, Any]:
        """A file as messages refer to it; only a bot's token opens it."""
        self.files[name] = content
        url = f"{self.url}/files-pri/{name}"
        return {"id": f"F{name}", "name": name, "mimetype": mime_type, "size": len(content), "url_private": url}

    async def _file(self, request: web.Request) -> web.Response:
        """A file; without a token that may read it, the page to sign in, as Slack gives it."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in {bot.bot_token for bot in self.bots}:
            return web.Response(text="<!DOCTYPE html><html><title>Slack</title></html>", content_type="text/html")
        content = self.files.get(request.match_info["name"])
        return web.Response(body=content) if content is not None else web.Response(status=404)

    def archive(self, channel: str) -> None:
        self.channels[channel].is_archived = True

    def kick(self, channel: str, bot: str = "") -> None:
        """Take the bot out of a channel."""
        self.channels[channel].members.discard(self._bot(bot).user_id)

    def set_events_url(self, url: str, bot: str = "") -> None:
        """Events go to ``url`` from now on; empty: to Socket Mode."""
        self._bot(bot).events_url = url

    def set_token_error(self, error: str, bot: str = "", *, app_token: bool = False) -> None:
        """Answer every call with the bot's token with ``error``; empty: accept it again."""
        setattr(self._bot(bot), "app_token_error" if app_token else "token_error", error)

    def fail_next(self, kind: FaultKind, **details: Any) -> None:
        self._faults.append(Fault(kind=kind, **details))

    def duplicates(self, probability: float, seed: int = 0) -> None:
        """Deliver events a second time, by chance, though they were acknowledged."""
        self._duplicate_probability = probability
        self._random = random.Random(seed)

    def reset(self) -> None:
        """Forget faults and what was sent."""
        self._faults.clear()
        self.sent.clear()
        self.calls.clear()

    def _bot(self, name: str) -> FakeBot:
        return next(bot for bot in self.bots if bot.name == name) if name else self.bot

    # -- what people do -----------------------------------------------------------------------------------------

    def dm(
        self, text: str, *, user: str = ALICE, bot: str = "", thread_ts: str = "", files: Sequence[dict[str, Any]] = ()
    ) -> str:
        """A direct message to the bot."""
        channel = self.dm_channel(user, self._bot(bot))
        return self._say(channel, text, user=user, thread_ts=thread_ts, files=list(files))

    def say(
        self,
        text: str,
        *,
        channel: str = "",
        user: str = ALICE,
        thread_ts: str = "",
        files: Sequence[dict[str, Any]] = (),
        app_mention_first: bool = False,
    ) -> str:
        """A message in a channel, as Slack stores it: ``<@U…>`` in the text mentions."""
        self.add_user(user)
        where = self.channels[channel or self.bot.channel_id]
        return self._say(
            where, text, user=user, thread_ts=thread_ts, files=list(files), app_mention_first=app_mention_first
        )

    def mention(self, text: str, *, bot: str = "", channel: str = "", **details: Any) -> str:
        """A channel message that begins with a mention of the bot: a ``message`` and an ``app_mention`` event."""
        target = self._bot(bot)
        return self.say(f"<@{target.user_id}> {text}", channel=channel or target.channel_id, **details)

    def press(self, channel: str, ts: str, value: str, *, user: str = ALICE) -> str:
        """Somebody presses the button with ``value`` below a bot's message; returns the action_ts.

        Raises:
            ValueError: the message has no such button.
        """
        self.add_user(user)
        where, message = self.channels[channel], self.channels[channel].messages[ts]
        button = next((button for button in _buttons(message.get("blocks", [])) if button["value"] == value), None)
        if button is None:
            raise ValueError(f"the message has no button with the value {value!r}")
        bot = next(bot for bot in self.bots if bot.bot_id == message["bot_id"])
        container = {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False}
        if "thread_ts" in message:
            container["thread_ts"] = message["thread_ts"]
        action_ts = self._new_ts()
        payload = {
            "type": "block_actions",
            **self._interaction(bot),
            "user": {"id": user, "username": self.users[user]["name"], "team_id": bot.team_id},
            "container": container,
            "team": {"id": bot.team_id, "domain": bot.team_id.lower()},
            "enterprise": None,
            "channel": {"id": channel, "name": _told_name(where)},
            "message": _stored(message, with_metadata=True),
            "state": {"values": {}},
            "actions": [{**button, "block_id": "fake=", "action_ts": action_ts}],
        }
        self._deliver(bot, payload, kind="interactive")
        return action_ts

    def command(self, command: str, text: str = "", *, channel: str = "", user: str = ALICE, bot: str = "") -> str:
        """A slash command, in the direct chat with the bot unless ``channel`` says where; returns the trigger_id."""
        target = self._bot(bot)
        where = self.channels[channel] if channel else self.dm_channel(user, target)
        self.add_user(user)
        payload = {
            **self._interaction(target),
            "team_id": target.team_id,
            "team_domain": target.team_id.lower(),
            "channel_id": where.id,
            "channel_name": _told_name(where),
            "user_id": user,
            "user_name": self.users[user]["name"],
            "command": command,
            "text": text,
        }
        self._deliver(target, payload, kind="slash_commands")
        return str(payload["trigger_id"])

    def _interaction(self, bot: FakeBot) -> dict[str, Any]:
        """What a pressed button and a command have in common."""
        number = next(self._numbers)
        return {
            "token": "fakeVerificationToken0001",
            "api_app_id": bot.app_id,
            "is_enterprise_install": "false",
            "trigger_id": f"{number}.{number}.0123456789abcdef0123456789abcdef",
            "response_url": f"{self.url}/respond/{bot.team_id}/{number}/fakeResponseSecret",
        }

    def recall(self, text: str, *, channel: str = "", user: str = ALICE) -> str:
        """A channel message of earlier days: it stands there, and no event tells of it."""
        where = self.channels[channel or self.bot.channel_id]
        message = self._message_event(where, {"user": user, "text": text, "team": where.team_id})
        where.messages[message["ts"]] = message
        return str(message["ts"])

    def edit(self, channel: str, ts: str, text: str) -> str:
        """Change a message; returns the ts of the edit."""
        where, message = self.channels[channel], self.channels[channel].messages[ts]
        previous = dict(message)
        edited = {"user": message["user"], "ts": self._new_ts()}
        message.update(text=text, edited=edited)
        self._message_changed(where, message, previous)
        for bot in self._mentioned(where, text):
            if f"<@{bot.user_id}>" not in previous["text"]:
                self._emit(bot, {**message, "type": "app_mention", "channel": channel, "event_ts": edited["ts"]})
        return str(edited["ts"])

    def unfurl(self, channel: str, ts: str) -> None:
        """Slack adds a preview of a link: a changed message that nobody edited."""
        where, message = self.channels[channel], self.channels[channel].messages[ts]
        previous = dict(message)
        message["attachments"] = [{"from_url": "https://example.com/", "title": "Example Domain", "id": 1}]
        self._message_changed(where, message, previous)

    def delete(self, channel: str, ts: str) -> None:
        where = self.channels[channel]
        previous = where.messages.pop(ts)
        event = {"subtype": "message_deleted", "hidden": True, "deleted_ts": ts, "previous_message": previous}
        self._emit_all(where, self._message_event(where, event))

    def join(self, user: str, *, channel: str = "") -> str:
        """Somebody joins a channel: a message with the subtype channel_join and a member_joined_channel event."""
        self.add_user(user)
        where = self.channels[channel or self.bot.channel_id]
        event = {"subtype": "channel_join", "user": user, "text": f"<@{user}> has joined the channel"}
        event = self._message_event(where, event)
        self._emit_all(where, event)
        self._emit_all(where, {"type": "member_joined_channel", "user": user, "channel": where.id, "channel_type": "C"})
        return str(event["ts"])

    def bot_message(self, text: str, *, channel: str = "", subtype: str = "bot_message") -> str:
        """Another app's message; with ``subtype=""`` the way apps post today."""
        where = self.channels[channel or self.bot.channel_id]
        event: dict[str, Any] = {"text": text, "bot_id": "B0OTHER", "app_id": "A0OTHER"}
        event |= {"subtype": subtype, "username": "other"} if subtype else {"user": "U0OTHER"}
        event = self._message_event(where, event)
        where.messages[event["ts"]] = event
        self._emit_all(where, event)
        return str(event["ts"])

    def react(self, channel: str, ts: str, *, user: str = ALICE, reaction: str = "thumbsup") -> None:
        item = {"type": "message", "channel": channel, "ts": ts}
        event = {"type": "reaction_added", "user": user, "reaction": reaction, "item": item, "event_ts": self._new_ts()}
        self._emit_all(self.channels[channel], event)

    def redeliver(self, ts: str) -> None:
        """Deliver the events about a message once more, as after an answer that got lost."""
        for delivery in self.deliveries_of(ts):
            self._deliver(delivery.bot, delivery.payload, kind=delivery.kind, attempts=1, reason="timeout")

    def event(self, event: dict[str, Any], *, bot: str = "") -> None:
        """Any inner event, as it is."""
        self._emit(self._bot(bot), event)

    def raw_event(self, payload: Any, *, bot: str = "") -> Delivery:
        """Any outer payload, as it is: for broken ones."""
        return self._deliver(self._bot(bot), payload)

    def raw_interaction(self, payload: Any, *, kind: EnvelopeKind = "interactive", bot: str = "") -> Delivery:
        """Any payload of a pressed button or the like, or of a command, as it is."""
        return self._deliver(self._bot(bot), payload, kind=kind)

    def _say(
        self,
        channel: Channel,
        text: str,
        *,
        user: str,
        thread_ts: str,
        files: list[dict[str, Any]],
        app_mention_first: bool = False,
    ) -> str:
        event = self._message_event(channel, {"user": user, "text": text, "team": channel.team_id})
        event["client_msg_id"] = f"00000000-0000-4000-8000-{next(self._numbers):012}"
        if thread_ts:
            event["thread_ts"] = thread_ts
        if files:
            event |= {"subtype": "file_share", "files": files, "upload": False}
            del event["client_msg_id"]
        channel.messages[event["ts"]] = event
        mention = {key: value for key, value in event.items() if key not in ("channel_type", "subtype")}
        mentioned = [] if channel.kind == "im" else self._mentioned(channel, text)
        mention["type"] = "app_mention"
        if app_mention_first:
            for bot in mentioned:
                self._emit(bot, mention)
        self._emit_all(channel, event)
        if not app_mention_first:
            for bot in mentioned:
                self._emit(bot, mention)
        return str(event["ts"])

    def _mentioned(self, channel: Channel, text: str) -> list[FakeBot]:
        return [bot for bot in self.bots if bot.user_id in channel.members and f"<@{bot.user_id}>" in text]

    def _message_changed(self, channel: Channel, message: dict[str, Any], previous: dict[str, Any]) -> None:
        event = {"subtype": "message_changed", "hidden": True, "message": dict(message), "previous_message": previous}
        self._emit_all(channel, self._message_event(channel, event))

    def _message_event(self, channel: Channel, fields: dict[str, Any]) -> dict[str, Any]:
        ts = self._new_ts()
        common = {"type": "message", "channel": channel.id, "channel_type": channel.kind, "ts": ts, "event_ts": ts}
        return common | fields

    def _new_ts(self) -> str:
        """Now, in microseconds, and never the same twice."""
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06}"

    # -- events -------------------------------------------------------------------------------------------------

    def _emit_all(self, channel: Channel, event: dict[str, Any]) -> None:
        for bot in self.bots:
            if bot.user_id in channel.members:
                self._emit(bot, event)

    def _emit(self, bot: FakeBot, event: dict[str, Any]) -> None:
        number = next(self._numbers)
        payload = {
            "token": "fakeVerificationToken0001",
            "team_id": bot.team_id,
            "context_team_id": bot.team_id,
            "api_app_id": bot.app_id,
            "event": copy.deepcopy(event),  # as it was when it happened; the message may change before it is delivered
            "type": "event_callback",
            "event_id": f"Ev{number:09}",
            "event_time": int(time.time()),
            "authorizations": [
                {"team_id": bot.team_id, "user_id": bot.user_id, "is_bot": True, "is_enterprise_install": False}
            ],
            "is_ext_shared_channel": False,
            "event_context": f"4-fake{number}",
        }
        self._deliver(bot, payload)
        if self._random.random() < self._duplicate_probability:
            self._deliver(bot, payload, attempts=1, reason="timeout")

    def _deliver(
        self,
        bot: FakeBot,
        payload: dict[str, Any],
        *,
        kind: EnvelopeKind = "events_api",
        attempts: int = 0,
        reason: str = "",
    ) -> Delivery:
        delivery = Delivery(
            bot=bot,
            payload=payload,
            kind=kind,
            envelope_id=f"env-{next(self._numbers):09}",
            attempts=attempts,
            reason=reason,
        )
        self.deliveries.append(delivery)
        task = asyncio.get_running_loop().create_task(self._deliver_until_acked(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return delivery

    async def _deliver_until_acked(self, delivery: Delivery) -> None:
        first = delivery.attempts
        max_retries = self.max_retries if delivery.kind == "events_api" else 0
        while max_retries is None or delivery.attempts - first <= max_retries:
            if delivery.bot.events_url:
                delivery.is_acked = await self._post(delivery)
            else:
                delivery.is_acked = await self._push(delivery)
            if delivery.is_acked:
                return
            await asyncio.sleep(self.retry_seconds)
        delivery.is_dropped = True

    async def _push(self, delivery: Delivery) -> bool:
        """One attempt over a websocket; waits for one if the app has none."""
        bot = delivery.bot
        while not bot.connected.is_set():  # a connection may be gone again before those who waited for it run
            await bot.connected.wait()
        if bot.is_frozen:
            return False
        envelope: dict[str, Any] = {
            "envelope_id": delivery.envelope_id,
            "payload": delivery.payload,
            "type": delivery.kind,
            "accepts_response_payload": delivery.kind != "events_api",
        }
        if delivery.kind == "events_api":
            envelope |= {"retry_attempt": delivery.attempts, "retry_reason": delivery.reason}
        delivery.attempts += 1
        delivery.sent_on = bot.connections[-1]
        delivery.answer = asyncio.get_running_loop().create_future()
        self._waiting[delivery.envelope_id] = delivery
        delivery.reason = "timeout"
        try:
            await delivery.sent_on.send_str(json.dumps(envelope))
            return await asyncio.wait_for(delivery.answer, self.ack_seconds)
        except (TimeoutError, ConnectionError):
            return False
        finally:
            del self._waiting[delivery.envelope_id]

    async def _post(self, delivery: Delivery) -> bool:
        """One attempt over HTTP, signed."""
        body = _body(delivery)
        headers = self.signed_headers(body, bot=delivery.bot, is_form=delivery.kind != "events_api")
        if delivery.attempts and delivery.kind == "events_api":
            headers |= {"X-Slack-Retry-Num": str(delivery.attempts), "X-Slack-Retry-Reason": delivery.reason}
        delivery.attempts += 1
        assert self._http
        try:
            async with self._http.post(delivery.bot.events_url, data=body, headers=headers) as response:
                delivery.statuses.append(response.status)
                delivery.response = await response.text()
                delivery.reason = "http_error"
                return 200 <= response.status < 300
        except TimeoutError:
            delivery.reason = "http_timeout"
        except aiohttp.ClientError:
            delivery.reason = "connection_failed"
        return False

    def signed_headers(
        self, body: bytes, *, bot: FakeBot | None = None, at: float | None = None, is_form: bool = False
    ) -> dict[str, str]:
        """Headers of a request that Slack made ``at`` a time (epoch seconds; None: now)."""
        timestamp = str(int(time.time() if at is None else at))
        secret = (bot or self.bot).signing_secret.encode()
        signature = hmac.new(secret, b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/x-www-form-urlencoded" if is_form else "application/json",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={signature}",
        }

    async def verify_url(self, *, bot: str = "") -> bool:
        """Whether the bot's events URL answers the challenge, as when it is entered in Slack's site."""
        challenge = f"challenge-{next(self._numbers)}"
        body = json.dumps({"token": "x", "challenge": challenge, "type": "url_verification"}).encode()
        target = self._bot(bot)
        assert self._http
        async with self._http.post(
            target.events_url, data=body, headers=self.signed_headers(body, bot=target)
        ) as response:
            return response.status == 200 and challenge in await response.text()

    # -- Socket Mode --------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        bot = self._tickets.pop(request.query.get("ticket", ""), None)
        if bot is None:
            return web.Response(status=404, text="no such link")
        socket = web.WebSocketResponse(autoping=False, timeout=0.2)
        await socket.prepare(request)
        bot.connections.append(socket)
        bot.connection_count += 1
        hello = {
            "type": "hello",
            "num_connections": len(bot.connections),
            "debug_info": {"host": "applink-fake", "build_number": 1, "approximate_connection_time": 18060},
            "connection_info": {"app_id": bot.app_id},
        }
        try:
            await socket.send_str(json.dumps(hello))
            bot.connected.set()
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    self._acknowledge(bot, json.loads(message.data))
                elif message.type == WSMsgType.PING and not bot.is_frozen:
                    await socket.pong(message.data)
        finally:
            self._forget(bot, socket)
        return socket

    def _acknowledge(self, bot: FakeBot, answer: dict[str, Any]) -> None:
        delivery = self._waiting.get(str(answer.get("envelope_id")))
        if delivery and delivery.bot is bot and delivery.answer and not delivery.answer.done():
            delivery.response = json.dumps(answer["payload"]) if "payload" in answer else ""
            delivery.answer.set_result(True)

    def _forget(self, bot: FakeBot, socket: web.WebSocketResponse) -> None:
        """A connection is gone: what it did not acknowledge is delivered again over another."""
        if socket in bot.connections:
            bot.connections.remove(socket)
        if not bot.connections:
            bot.connected.clear()
        for delivery in self._waiting.values():
            if delivery.sent_on is socket and delivery.answer and not delivery.answer.done():
                delivery.answer.set_result(False)

    async def disconnect(self, *, reason: str = "refresh_requested", bot: str = "") -> None:
        """Ask the app to connect anew, as Slack does every few hours; the old connection stays until it does."""
        for socket in list(self._bot(bot).connections):
            await socket.send_str(json.dumps({"type": "disconnect", "reason": reason, "debug_info": {"host": "fake"}}))

    def drop_connections(self, *, bot: str = "") -> None:
        """Cut the app's websockets without a closing handshake."""
        for target in [self._bot(bot)] if bot else self.bots:
            for socket in list(target.connections):
                transport = socket._req.transport if socket._req else None
                if transport:
                    transport.abort()
                self._forget(target, socket)

    def freeze(self, *, is_frozen: bool = True, bot: str = "") -> None:
        """Keep connections open but silent, as a dead network path does."""
        self._bot(bot).is_frozen = is_frozen

    # -- Web API ------------------------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.calls.append(method)
        args = await _arguments(request)
        fault = self._take_fault(method, args)
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        elif fault and fault.kind not in ("hang", "cut_after"):
            return _faulty(request, fault)
        try:
            answer = {"ok": True, **self._call(method, args)}
        except Refused as error:
            answer = {"ok": False, "error": str(error)}
        if fault and fault.kind == "cut_after":
            return _cut(request)
        if fault and fault.kind == "hang":
            await asyncio.sleep(fault.seconds)
        return web.json_response(answer)

    def _take_fault(self, method: str, args: dict[str, Any]) -> Fault | None:
        for fault in self._faults:
            if fault.method in ("*", method) and (not fault.bot or args.get("token") == self._bot(fault.bot).bot_token):
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def _call(self, method: str, args: dict[str, Any]) -> dict[str, Any]:
        token = args.get("token", "")
        if not token:
            raise Refused("not_authed")
        if method == "apps.connections.open":
            return self._connections_open(token)
        bot = next((bot for bot in self.bots if bot.bot_token == token), None)
        if bot is None:
            raise Refused("not_allowed_token_type" if token.startswith("xapp-") else "invalid_auth")
        if bot.token_error:
            raise Refused(bot.token_error)
        function = getattr(self, "_api_" + method.replace(".", "_"), None)
        if function is None:
            raise Refused("unknown_method")
        result: dict[str, Any] = function(bot, args)
        return result

    def _connections_open(self, token: str) -> dict[str, Any]:
        bot = next((bot for bot in self.bots if bot.app_token == token), None)
        if bot is None:
            raise Refused("not_allowed_token_type" if token.startswith("xoxb-") else "invalid_auth")
        if bot.app_token_error:
            raise Refused(bot.app_token_error)
        ticket = f"ticket-{next(self._numbers):06}"
        self._tickets[ticket] = bot
        return {"url": f"ws://127.0.0.1:{self.port}/link/?ticket={ticket}&app_id={bot.app_id}"}

    def _api_auth_test(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        return {
            "url": f"https://{bot.team_id.lower()}.slack.com/",
            "team": bot.team_id,
            "user": bot.name,
            "team_id": bot.team_id,
            "user_id": bot.user_id,
            "bot_id": bot.bot_id,
            "is_enterprise_install": False,
        }

    def _api_chat_postMessage(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:  # noqa: N802  a method of Slack's
        channel = self._writable(bot, str(args.get("channel", "")))
        text = str(args.get("text") or "")
        if not text.strip() and not args.get("blocks") and not args.get("attachments"):
            raise Refused("no_text")
        if len(text) > MAX_TEXT_CHARS:
            raise Refused("msg_too_long")
        blocks = _checked_blocks(_json_value(args.get("blocks")) or [])
        metadata = _json_value(args.get("metadata"))
        if metadata is not None and set(metadata) != {"event_type", "event_payload"}:
            raise Refused("invalid_metadata_format")
        thread_ts = str(args.get("thread_ts") or "")
        fields = {"user": bot.user_id, "bot_id": bot.bot_id, "app_id": bot.app_id, "text": text, "team": bot.team_id}
        message = self._message_event(channel, fields)
        if thread_ts:
            message["thread_ts"] = thread_ts
        if blocks:
            message["blocks"] = blocks
        self._emit_all(channel, dict(message))
        if metadata is not None:
            message["metadata"] = metadata
        channel.messages[message["ts"]] = message
        self.sent.append(
            Sent(
                bot=bot.name,
                channel=channel.id,
                ts=message["ts"],
                text=text,
                thread_ts=thread_ts,
                metadata=metadata,
                blocks=blocks,
            )
        )
        return {"channel": channel.id, "ts": message["ts"], "message": _stored(message, with_metadata=True)}

    def _api_chat_update(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        channel = self._writable(bot, str(args.get("channel", "")))
        message = channel.messages.get(str(args.get("ts", "")))
        if message is None:
            raise Refused("message_not_found")
        if message.get("bot_id") != bot.bot_id:
            raise Refused("cant_update_message")
        text, blocks = str(args.get("text") or ""), _json_value(args.get("blocks"))
        if not text.strip() and not blocks:
            raise Refused("no_text")
        if len(text) > MAX_EDITED_CHARS:
            raise Refused("msg_too_long")
        previous = dict(message)
        message.update(text=text, edited={"user": bot.bot_id, "ts": self._new_ts()})
        if blocks is not None:  # else the earlier ones stay, and so does the metadata
            message["blocks"] = _checked_blocks(blocks)
        if args.get("metadata") is not None:
            message["metadata"] = _json_value(args["metadata"])
        self._message_changed(channel, message, previous)
        sent = self.find_sent(channel.id, message["ts"])
        sent.earlier.append((time.time(), sent.shown))
        sent.text, sent.blocks, sent.metadata = text, message.get("blocks", []), message.get("metadata")
        return {"channel": channel.id, "ts": message["ts"], "text": text}

    def _api_chat_delete(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        channel, ts = self._writable(bot, str(args.get("channel", ""))), str(args.get("ts", ""))
        if ts not in channel.messages:
            raise Refused("message_not_found")
        if channel.messages[ts].get("bot_id") != bot.bot_id:
            raise Refused("cant_delete_message")
        self.delete(channel.id, ts)
        self.find_sent(channel.id, ts).is_deleted = True
        return {"channel": channel.id, "ts": ts}

    def _api_conversations_history(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        channel = self._readable(bot, args)
        top = [m for m in channel.messages.values() if m.get("thread_ts", m["ts"]) == m["ts"]]
        return _page(list(reversed(top)), args)

    def _api_conversations_replies(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        channel = self._readable(bot, args)
        root = str(args.get("ts", ""))
        if root not in channel.messages:
            raise Refused("thread_not_found")
        return _page([m for m in channel.messages.values() if m["ts"] == root or m.get("thread_ts") == root], args)

    def _api_conversations_info(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        channel = self._readable(bot, args)
        info: dict[str, Any] = {"id": channel.id, "is_im": channel.kind == "im", "is_archived": channel.is_archived}
        info |= {"user": channel.user_id} if channel.kind == "im" else {"name": channel.name}
        return {"channel": info}

    def _api_users_info(self, bot: FakeBot, args: dict[str, Any]) -> dict[str, Any]:
        user = self.users.get(str(args.get("user", "")))
        if user is None:
            raise Refused("user_not_found")
        return {"user": user}

    def _readable(self, bot: FakeBot, args: dict[str, Any]) -> Channel:
        channel = self.channels.get(str(args.get("channel", "")))
        if channel is None or channel.team_id != bot.team_id:
            raise Refused("channel_not_found")
        if bot.user_id not in channel.members:
            raise Refused("not_in_channel")
        return channel

    def _writable(self, bot: FakeBot, channel_id: str) -> Channel:
        if channel_id in self.users:
            return self.dm_channel(channel_id, bot)
        channel = self._readable(bot, {"channel": channel_id})
        if channel.is_archived:
            raise Refused("is_archived")
        return channel

    # -- control over HTTP ----------------------------------------------------------------------------------------

    async def _control(self, request: web.Request) -> web.Response:
        """``POST /control/<verb>`` with its arguments as JSON; ``GET /control/sent`` and ``deliveries`` to read."""
        verb = request.match_info["verb"]
        if verb == "sent":
            return web.json_response([asdict(sent) for sent in self.sent])
        if verb == "deliveries":
            return web.json_response([_delivery_summary(delivery) for delivery in self.deliveries])
        if verb not in VERBS or request.method != "POST":
            return web.json_response({"error": f"{verb}: not a verb; there are {', '.join(sorted(VERBS))}"}, status=404)
        try:
            result = getattr(self, verb)(**json.loads(await request.read() or b"{}"))
            if asyncio.iscoroutine(result):
                result = await result
        except (TypeError, ValueError, KeyError, StopIteration) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response({"ok": True, "result": _plain(result)})


def _event_ts(payload: object) -> str:
    """The ts of the message that an event is about, the action_ts of a pressed button, the trigger_id of a command."""
    if not isinstance(payload, dict):
        return ""
    if payload.get("type") == "block_actions" and payload.get("actions"):
        return str(payload["actions"][0].get("action_ts", ""))
    if "command" in payload:
        return str(payload.get("trigger_id", ""))
    event = payload.get("event")
    if not isinstance(event, dict):
        return ""
    message = event.get("message")
    return str(message["ts"] if isinstance(message, dict) else event.get("deleted_ts") or event.get("ts", ""))


def _told_name(channel: Channel) -> str:
    """What a payload of a person's act calls a conversation."""
    return "directmessage" if channel.kind == "im" else channel.name


def _body(delivery: Delivery) -> bytes:
    """The body of a call: JSON for an event; for a person's act a form, and in it JSON or single fields."""
    if delivery.kind == "events_api":
        return json.dumps(delivery.payload).encode()
    if delivery.kind == "interactive":
        return urlencode({"payload": json.dumps(delivery.payload)}).encode()
    return urlencode(delivery.payload).encode()


def _buttons(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [element for block in blocks if block["type"] == "actions" for element in block["elements"]]


def _checked_blocks(blocks: Any) -> list[dict[str, Any]]:
    """``blocks``, if they are sections and buttons as Slack takes them."""
    try:
        are_fine = len(blocks) <= MAX_BLOCKS and all(map(_is_block, blocks))
        ids = [button["action_id"] for button in _buttons(blocks)]
    except (TypeError, KeyError, AttributeError):
        raise Refused("invalid_blocks") from None
    if not are_fine or len(set(ids)) != len(ids):
        raise Refused("invalid_blocks")
    checked: list[dict[str, Any]] = blocks
    return checked


def _is_block(block: dict[str, Any]) -> bool:
    if block["type"] == "section":
        return _is_text(block["text"], {"mrkdwn", "plain_text"}, max_chars=MAX_SECTION_CHARS)
    elements = block["elements"]
    return block["type"] == "actions" and 1 <= len(elements) <= MAX_ACTION_ELEMENTS and all(map(_is_button, elements))


def _is_button(element: dict[str, Any]) -> bool:
    return (
        element["type"] == "button"
        and _is_text(element["text"], {"plain_text"}, max_chars=MAX_LABEL_CHARS)
        and 1 <= len(element["action_id"]) <= MAX_ACTION_ID_CHARS
        and isinstance(element["value"], str)
        and 1 <= len(element["value"]) <= MAX_VALUE_CHARS
    )


def _is_text(text: dict[str, Any], types: set[str], *, max_chars: int) -> bool:
    known = {"type", "text", "verbatim" if text["type"] == "mrkdwn" else "emoji"}
    return text["type"] in types and 1 <= len(text["text"]) <= max_chars and set(text) <= known


def _plain(result: Any) -> Any:
    if isinstance(result, FakeBot):
        return {key: value for key, value in vars(result).items() if isinstance(value, str)}
    if isinstance(result, Channel):
        return {"id": result.id, "name": result.name}
    if isinstance(result, Delivery):
        return _delivery_summary(result)
    return result


def _delivery_summary(delivery: Delivery) -> dict[str, Any]:
    return {
        "bot": delivery.bot.name,
        "kind": delivery.kind,
        "envelope_id": delivery.envelope_id,
        "attempts": delivery.attempts,
        "is_acked": delivery.is_acked,
        "is_dropped": delivery.is_dropped,
        "statuses": delivery.statuses,
    }


async def _arguments(request: web.Request) -> dict[str, Any]:
    """Query, form or JSON; the token from the header or beside them."""
    args: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        args |= json.loads(await request.read() or b"{}")
    elif request.method == "POST":
        args |= {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Bearer":
        args["token"] = token
    return args


def _json_value(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _is_true(value: object) -> bool:
    return str(value).lower() in ("1", "true")


def _page(messages: list[dict[str, Any]], args: dict[str, Any]) -> dict[str, Any]:
    """One page of ``messages``, with the limits and the cursor of conversations.history and .replies."""
    oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
    within = [m for m in messages if oldest < float(m["ts"]) < latest]
    start = int(args.get("cursor") or 0)
    end = start + min(int(args.get("limit") or 100), 999)
    with_metadata = _is_true(args.get("include_all_metadata"))
    page: dict[str, Any] = {
        "messages": [_stored(m, with_metadata=with_metadata) for m in within[start:end]],
        "has_more": end < len(within),
    }
    if end < len(within):
        page["response_metadata"] = {"next_cursor": str(end)}
    return page


def _stored(message: dict[str, Any], *, with_metadata: bool) -> dict[str, Any]:
    hidden = {"channel", "channel_type", "event_ts"} | (set() if with_metadata else {"metadata"})
    return {key: value for key, value in message.items() if key not in hidden}


def _faulty(request: web.Request, fault: Fault) -> web.StreamResponse:
    if fault.kind == "429":
        return web.json_response(
            {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(fault.retry_after)}
        )
    if fault.kind == "error":
        return web.json_response({"ok": False, "error": fault.error})
    if fault.kind == "status":
        content_type = "application/json" if fault.body.startswith("{") else "text/html"
        return web.Response(status=fault.status, text=fault.body, content_type=content_type)
    return _cut(request)


def _cut(request: web.Request) -> web.StreamResponse:
    """Break the connection without an answer."""
    if request.transport:
        request.transport.abort()
    return web.Response()


async def _serve(port: int) -> None:
    async with SlackServer(port=port) as server:
        bot = server.bot
        print(f"Slack on {server.url}  (bot setting: api_base_url={server.url})")
        print(f"bot_token={bot.bot_token}  app_token={bot.app_token}  signing_secret={bot.signing_secret}")
        print(f"channel {bot.channel_id}, bot user {bot.user_id}, person {ALICE}")
        print(f"POST /control/<verb>: {', '.join(sorted(VERBS))}; GET /control/sent, /control/deliveries", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Slack on loopback.")
    parser.add_argument("--port", type=int, default=9200)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
