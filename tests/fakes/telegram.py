"""Telegram on loopback: the Bot API, by long polling and by webhook, as python-telegram-bot 22.8 uses it.

Try it from a shell; the token and the control verbs are printed at the start::

    python -m tests.fakes.telegram --port 9100
    curl -s localhost:9100/control/say -d '{"text": "hello"}'
    curl -s localhost:9100/control/say -d '{"text": "anybody? @shop_bot", "chat": -100500, "user": 502}'
    curl -s localhost:9100/control/fail_next -d '{"kind": "rate_limit", "retry_after": 2, "times": 3}'
    curl -s localhost:9100/control/flood -d '{"count": 2000, "chats": 100}'
    curl -s localhost:9100/control/sent

and point a bot at it with the setting ``api_base_url=http://127.0.0.1:9100``. In a test::

    async with TelegramServer() as server:
        server.bot.say("hello")
        await server.until(lambda: server.sent)

Kept from the real one: an offset is the acknowledgement; a second poller ends the first with 409, and so does a
webhook; texts have 4096 UTF-16 units; ids are counted per chat, so they repeat between chats; an update that a webhook
did not take is posted again, in order per chat; commands and mentions are marked by entities; a missing reply target
is an error unless ``allow_sending_without_reply``; only a button that its message has can be pressed; errors are JSON
with ``description`` and ``parameters``, and gateway errors need not be.
Different: webhooks may be plain HTTP, a failed one is repeated within fractions of a second and for ever, and a bot
may write to a chat that it has never heard of.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

from tests.fakes.loopback import LoopbackServer

#: The token of the bot that every server begins with. Shaped like a real one, so that redaction can be tested.
TOKEN = "7000000001:FAKE-telegram-token-of-the-shop-bot"

#: Longest text, in UTF-16 code units. Source: sendMessage, "1-4096 characters after entities parsing".
MAX_TEXT_UTF16 = 4096

#: Longest data of a button, in bytes. Source: InlineKeyboardButton, ``callback_data``.
MAX_CALLBACK_BYTES = 64

#: The first pause before a webhook call is repeated, and the longest, in seconds.
WEBHOOK_RETRY_SECONDS = (0.02, 1.0)

#: Webhook calls at a time. Source: setWebhook, ``max_connections``.
MAX_WEBHOOK_CONNECTIONS = 40

#: Kinds of update that are sent only to bots that ask for them. Source: getUpdates, ``allowed_updates``.
ASKED_FOR_ONLY = frozenset({"chat_member", "message_reaction", "message_reaction_count"})

#: The account in whose name anonymous administrators of a group act.
ANONYMOUS_ADMIN = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}

_ENTITY = re.compile(r"(?<![\w/@])(?P<bot_command>/[A-Za-z0-9_]{1,64}(?:@\w{5,32})?)|(?<!\w)(?P<mention>@\w{5,32})")

Json = dict[str, Any]


def person(user_id: int = 501, first_name: str = "Alice", username: str = "alice", **more: Any) -> Json:
    """A human user."""
    return {"id": user_id, "is_bot": False, "first_name": first_name, "username": username, **more}


def private_chat(user: Json) -> Json:
    names: Json = {name: user[name] for name in ("first_name", "last_name", "username") if name in user}
    return {"id": user["id"], **names, "type": "private"}


def group(chat_id: int = -400, title: str = "Shop team") -> Json:
    """A basic group; it becomes a supergroup by ``FakeBot.migrate``."""
    return {"id": chat_id, "title": title, "type": "group", "all_members_are_administrators": True}


def supergroup(chat_id: int = -1001000000500, title: str = "Shop lounge", *, is_forum: bool = False) -> Json:
    return {"id": chat_id, "title": title, "type": "supergroup", **({"is_forum": True} if is_forum else {})}


def _user(user: Json | int) -> Json:
    """A user by id alone: 501 is Alice."""
    if not isinstance(user, int):
        return user
    return person(user) if user == 501 else person(user, f"User {user}", f"user_{user}")


def _chat(chat: Json | int | None, user: Json) -> Json:
    """A chat by id alone: below 0 a supergroup; None: the direct chat with ``user``."""
    if isinstance(chat, int):
        return supergroup(chat) if chat < 0 else private_chat(_user(chat))
    return chat if chat is not None else private_chat(user)


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def entities_in(text: str) -> list[Json]:
    """The commands and mentions that a Telegram client would mark."""
    return [
        {
            "type": str(match.lastgroup),
            "offset": utf16_length(text[: match.start()]),
            "length": utf16_length(match[0]),
        }
        for match in _ENTITY.finditer(text)
    ]


class Refused(Exception):
    """An API call is answered with ``ok: false``."""

    def __init__(self, status: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.parameters = parameters


FaultKind = Literal[
    "rate_limit", "error", "blocked", "no_chat", "migrated", "bare", "cut_before", "cut_after", "slow", "hang_after"
]


@dataclass(kw_only=True)
class Fault:
    """What happens to the next matching API calls, in the order in which the faults were set."""

    kind: FaultKind
    method: str = "sendMessage"
    times: int = 1
    chat_id: int | None = None  # hit calls for this chat alone
    status: int = 500  # for error (with the platform's JSON) and bare (an HTML page, as of a proxy; 502 is usual)
    description: str = "Internal Server Error"
    retry_after: int = 1  # seconds, for rate_limit
    new_chat_id: int = -1001000000999  # for migrated
    seconds: float = 1.0  # for slow, which is applied afterwards, and hang_after, which was applied before


#: What ``chaos`` chooses from.
CHAOS_KINDS: tuple[FaultKind, ...] = ("rate_limit", "error", "bare", "cut_before", "cut_after")


@dataclass(kw_only=True)
class Sent:
    """A message of a bot as it stands in its chat."""

    bot: str
    chat_id: int
    message_id: int
    text: str
    thread_id: int | None = None
    reply_to: int | None = None
    reply_markup: Json | None = None
    edits: int = 0
    earlier: list[tuple[float, str]] = field(default_factory=list)  # texts that it had, and until when (epoch seconds)

    @property
    def buttons(self) -> list[Json]:
        """The buttons below it, row by row."""
        return [button for row in (self.reply_markup or {}).get("inline_keyboard", ()) for button in row]


@dataclass(kw_only=True)
class Webhook:
    url: str
    secret: str = ""
    last_error: str = ""
    statuses: deque[int] = field(default_factory=lambda: deque(maxlen=1000))  # answers of the site; 0: none


class FakeBot:
    """One bot: what people do to it, and what Telegram keeps for it. Verbs return the update that they make."""

    def __init__(self, server: TelegramServer, *, token: str, username: str, first_name: str) -> None:
        self.server = server
        self.token = token
        self.id = int(token.partition(":")[0])
        self.username = username
        self.user: Json = {"id": self.id, "is_bot": True, "first_name": first_name, "username": username}
        self.pending: OrderedDict[int, Json] = OrderedDict()  # updates that were not acknowledged, by id, in order
        self.again: list[Json] = []  # acknowledged ones that the platform delivers once more
        self.allowed: frozenset[str] | None = None  # kinds of update the bot asked for; None: the usual ones
        self.webhook: Webhook | None = None
        self.commands: list[Json] = []
        self.typing: deque[tuple[int, int | None]] = deque(maxlen=1000)  # chat and thread of each chat action
        self.answered_callbacks: set[str] = set()
        self.polls = 0  # getUpdates calls so far; the newest alone may go on
        self._news = asyncio.Event()
        self._next_update_id = 80_000_000
        self._next_message_ids: Counter[int] = Counter()
        self._edit_dates: dict[tuple[int, int], int] = {}
        self._callbacks: set[str] = set()
        self._files: dict[str, tuple[str, bytes]] = {}
        self._couriers: dict[int, asyncio.Task[None]] = {}  # one per chat with updates for the webhook
        self._outbound: dict[int, deque[Json]] = {}

    # -- what people do ----

    def say(
        self,
        text: str = "hello",
        *,
        user: Json | int = 501,
        chat: Json | int | None = None,
        thread_id: int | None = None,
        reply_to: Json | None = None,
        entities: Sequence[Json] | None = None,
        **more: Any,
    ) -> Json:
        """Somebody writes a text. ``chat`` is the direct chat unless given; an integer below 0 is a supergroup."""
        marks = list(entities) if entities is not None else entities_in(text)
        fields = {"text": text, **({"entities": marks} if marks else {}), **more}
        return self.message(fields, user=user, chat=chat, thread_id=thread_id, reply_to=reply_to)

    def message(
        self,
        fields: Mapping[str, Any],
        *,
        user: Json | int = 501,
        chat: Json | int | None = None,
        thread_id: int | None = None,
        reply_to: Json | None = None,
    ) -> Json:
        """A message of any kind: ``fields`` are what comes beside id, sender, chat and date."""
        sender = _user(user)
        where = _chat(chat, sender)
        body: Json = {
            "message_id": self.next_message_id(where["id"]),
            "from": sender,
            "chat": where,
            "date": int(time.time()),
        }
        if thread_id is not None:
            body |= {"message_thread_id": thread_id, "is_topic_message": True}
        if reply_to is not None:
            body["reply_to_message"] = reply_to
        return self.update("message", {**body, **fields})

    def photo(self, caption: str = "", **who: Any) -> Json:
        sizes = [
            {**self.add_file(f"photo-{width}.jpg", b"\xff\xd8" + b"." * width), "width": width, "height": width}
            for width in (90, 320, 800)
        ]
        return self.message({"photo": sizes, **_caption(caption)}, **who)

    def document(
        self,
        caption: str = "",
        *,
        name: str = "invoice.pdf",
        content: str = "%PDF-1.7",
        mime_type: str = "application/pdf",
        **who: Any,
    ) -> Json:
        file = self.add_file(name, content.encode())
        document = {**file, "file_name": name, "mime_type": mime_type}
        return self.message({"document": document, **_caption(caption)}, **who)

    def edit(self, update: Json, text: str) -> Json:
        """The author changes their message; each edit is at least a second after the one before."""
        original = update.get("message") or update["edited_message"]
        key = (original["chat"]["id"], original["message_id"])
        date = max(int(time.time()), self._edit_dates.get(key, original["date"]) + 1)
        self._edit_dates[key] = date
        changed = {name: value for name, value in original.items() if name not in ("entities", "caption")}
        field_name = "text" if "text" in original else "caption"
        marks = entities_in(text)
        changed |= {"edit_date": date, field_name: text, **({"entities": marks} if marks else {})}
        return self.update("edited_message", changed)

    def press(
        self,
        data: str,
        *,
        user: Json | int = 501,
        chat: Json | int | None = None,
        message_id: int | None = None,
        is_inaccessible: bool = False,
    ) -> Json:
        """Somebody presses a button under a message of the bot: one that it sent, or else one of earlier days.

        An inaccessible message is one that Telegram tells no more of than its id. Raises ``Refused``, as a person's
        client would be told, when the message is none of the bot's or has no such button.
        """
        sender = _user(user)
        where = _chat(chat, sender)
        if message_id is None:
            message = self.own_message(where["id"], "Choose:", chat=where)
            message["reply_markup"] = {"inline_keyboard": [[{"text": data, "callback_data": data}]]}
        else:
            message = self._pressed_message(where, message_id, data)
        if is_inaccessible:
            message = {"chat": where, "message_id": message["message_id"], "date": 0}
        callback_id = str(4_000_000_000 + self._next_update_id)
        self._callbacks.add(callback_id)
        query = {"id": callback_id, "from": sender, "message": message, "chat_instance": "-1", "data": data}
        return self.update("callback_query", query)

    def _pressed_message(self, chat: Json, message_id: int, data: str) -> Json:
        sent = self.server.find_sent(self, chat["id"], message_id)
        if sent is None:
            raise Refused(400, "Bad Request: MESSAGE_ID_INVALID")
        if data not in [button.get("callback_data") for button in sent.buttons]:
            raise Refused(400, "Bad Request: DATA_INVALID")
        message: Json = {"message_id": message_id, "from": self.user, "chat": chat, "date": int(time.time())}
        message |= {"text": sent.text, "reply_markup": sent.reply_markup}
        if sent.thread_id is not None:
            message |= {"message_thread_id": sent.thread_id, "is_topic_message": True}
        return message

    def join(self, *, user: Json | int = 503, chat: Json | int = -1001000000500) -> Json:
        """Somebody joins a group."""
        joining = _user(user)
        return self.message({"new_chat_members": [joining], "new_chat_member": joining}, user=joining, chat=chat)

    def channel_post(self, text: str = "News!", *, chat_id: int = -1001000000700) -> Json:
        chat = {"id": chat_id, "title": "Shop news", "type": "channel"}
        body = {"message_id": self.next_message_id(chat_id), "sender_chat": chat, "chat": chat}
        return self.update("channel_post", {**body, "date": int(time.time()), "text": text})

    def migrate(self, chat: Json, new_chat_id: int, *, user: Json | int = 501) -> Json:
        """A group becomes a supergroup: both chats get a service message, and sends to the old one are refused."""
        self.server.migrations[chat["id"]] = new_chat_id
        left = self.message({"migrate_to_chat_id": new_chat_id}, user=user, chat=chat)
        new = supergroup(new_chat_id, chat["title"])
        self.message({"migrate_from_chat_id": chat["id"], "sender_chat": new}, user=ANONYMOUS_ADMIN, chat=new)
        return left

    def update(self, kind: str, body: Any) -> Json:
        """Any update, as it is: for broken ones too."""
        update = {"update_id": self._next_update_id, kind: body}
        self._next_update_id += 1
        if (kind not in ASKED_FOR_ONLY) if self.allowed is None else (kind in self.allowed):
            self.pending[update["update_id"]] = update
            self._wake(update)
        return update

    def deliver_again(self, update: Json) -> None:
        """Deliver an update once more, under its old id, though it was acknowledged."""
        self.again.append(update)
        self._wake(update)

    def flood(self, count: int, *, chats: int = 1, text: str = "message {number}", first_user: int = 10_000) -> int:
        """``count`` texts from ``chats`` people in turn."""
        for number in range(count):
            self.say(
                text.format(number=number), user=person(first_user + number % chats, "Flo", f"flo{number % chats}")
            )
        return count

    def is_acknowledged(self, update: Json) -> bool:
        return update["update_id"] not in self.pending

    # -- what Telegram keeps ----

    def next_message_id(self, chat_id: int) -> int:
        self._next_message_ids[chat_id] += 1
        return self._next_message_ids[chat_id]

    def has_message(self, chat_id: int, message_id: int) -> bool:
        return 0 < message_id <= self._next_message_ids[chat_id] and (chat_id, message_id) not in self.server.deleted

    def own_message(self, chat_id: int, text: str, *, chat: Json | None = None) -> Json:
        """A message that the bot wrote in ``chat_id``."""
        return {
            "message_id": self.next_message_id(chat_id),
            "from": self.user,
            "chat": chat or _chat(chat_id, self.user),
            "date": int(time.time()),
            "text": text,
        }

    def add_file(self, name: str, content: bytes) -> Json:
        file_id = f"AgACAgQAAxk{len(self._files):08d}-{self.id}"
        self._files[file_id] = (f"files/{len(self._files)}-{name}", content)
        return {"file_id": file_id, "file_unique_id": f"AQAD{len(self._files):08d}", "file_size": len(content)}

    def file_info(self, file_id: str) -> Json:
        if file_id not in self._files:
            raise Refused(400, "Bad Request: invalid file_id")
        path, content = self._files[file_id]
        return {"file_id": file_id, "file_unique_id": file_id[-8:], "file_size": len(content), "file_path": path}

    def file_content(self, path: str) -> bytes | None:
        return next((content for known, content in self._files.values() if known == path), None)

    def answer_callback(self, callback_id: str) -> None:
        if callback_id not in self._callbacks:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        self.answered_callbacks.add(callback_id)

    def allow(self, kinds: str | None) -> None:
        """What the bot asked for; kept until it asks again. Source: getUpdates, ``allowed_updates``."""
        if kinds is not None:
            self.allowed = frozenset(json.loads(kinds)) or None

    # -- delivery: long polling ----

    async def next_updates(self, *, offset: int, limit: int, seconds: float) -> list[Json]:
        """Wait for updates; ``offset`` acknowledges all before it. A newer call ends this one."""
        self.polls += 1
        mine = self.polls
        self._news.set()
        self._acknowledge(offset)
        deadline = time.monotonic() + seconds
        while True:
            if self.polls != mine:
                raise Refused(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
            if self.webhook is not None:
                raise Refused(
                    409,
                    "Conflict: can't use getUpdates method while webhook is active; "
                    "use deleteWebhook to delete the webhook first",
                )
            if batch := self._batch(limit):
                return batch
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._news.wait()
            if time.monotonic() >= deadline:
                return self._batch(limit) if self.polls == mine and self.webhook is None else []

    def _acknowledge(self, offset: int) -> None:
        while offset < 0 and len(self.pending) > -offset:
            self.pending.popitem(last=False)
        while self.pending and next(iter(self.pending)) < offset:
            self.server.maybe_again(self, self.pending.popitem(last=False)[1])

    def _batch(self, limit: int) -> list[Json]:
        again, self.again = self.again[:limit], self.again[limit:]
        return again + list(islice(self.pending.values(), limit - len(again)))

    def _wake(self, update: Json) -> None:
        self._news.set()
        if self.webhook is not None:
            self._post_soon(update)

    # -- delivery: webhook ----

    def set_webhook(self, webhook: Webhook | None) -> None:
        for courier in self._couriers.values():
            courier.cancel()
        self._couriers.clear()
        self._outbound.clear()
        self.webhook = webhook
        self._news.set()
        if webhook is not None:
            for update in self.pending.values():
                self._post_soon(update)

    def _post_soon(self, update: Json) -> None:
        """Queue an update behind the others of its chat."""
        chat_id = _chat_id(update)
        self._outbound.setdefault(chat_id, deque()).append(update)
        courier = self._couriers.get(chat_id)
        if courier is None or courier.done():
            self._couriers[chat_id] = asyncio.get_running_loop().create_task(self._carry(chat_id))

    async def _carry(self, chat_id: int) -> None:
        """Post one chat's updates in order, each until it is taken."""
        queue = self._outbound[chat_id]
        pause, longest_pause = self.server.webhook_retry_seconds
        while queue and (webhook := self.webhook) is not None:
            update = queue[0]
            async with self.server.webhook_slots:
                status = await self.server.post_webhook(webhook, update)
            webhook.statuses.append(status)
            if 200 <= status < 300:
                queue.popleft()
                pause = self.server.webhook_retry_seconds[0]
                if self.pending.pop(update["update_id"], None):
                    self.server.maybe_again(self, update)
                continue
            webhook.last_error = f"Wrong response from the webhook: {status}" if status else "Connection failed"
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest_pause)
        self._couriers.pop(chat_id, None)
        self._outbound.pop(chat_id, None)


def _caption(caption: str) -> Json:
    return {"caption": caption, "caption_entities": entities_in(caption)} if caption else {}


def _chat_id(update: Json) -> int:
    for body in update.values():
        if isinstance(body, dict):
            chat = body.get("chat") or (body.get("message") or {}).get("chat") or {}
            return int(chat.get("id", 0))
    return 0


#: What ``POST /control/<verb>`` may call, on the bot and on the server.
BOT_VERBS = frozenset(
    {"say", "message", "photo", "document", "edit", "press", "join", "channel_post", "migrate", "update"}
    | {"deliver_again", "flood"}
)
SERVER_VERBS = frozenset({"add_bot", "revoke", "block", "unblock", "fail_next", "chaos", "delete", "reset"})


class TelegramServer(LoopbackServer):
    """The platform. ``async with`` starts and stops it; ``lose_network`` and ``restore_network`` keep what was said.

    Args:
        port: 0 for any free one.
        keep: how many sent messages are remembered; None: all. ``sent_total`` counts all in any case.
    """

    max_body_bytes = 64 * 1024 * 1024

    def __init__(self, *, port: int = 0, keep: int | None = None) -> None:
        super().__init__(port=port)
        self.bots: dict[str, FakeBot] = {}  # by token
        self.sent: deque[Sent] = deque(maxlen=keep)
        self.sent_total = 0
        self.calls: Counter[str] = Counter()  # API calls by method
        self.last_params: dict[str, dict[str, str]] = {}  # parameters of the latest call, by method
        self.blocked: set[int] = set()  # chats that blocked every bot
        self.migrations: dict[int, int] = {}
        self.deleted: set[tuple[int, int]] = set()
        self.webhook_retry_seconds = WEBHOOK_RETRY_SECONDS
        self.webhook_slots = asyncio.Semaphore(MAX_WEBHOOK_CONNECTIONS)
        self._faults: deque[Fault] = deque()
        self._fault_rate = 0.0
        self._duplicate_rate = 0.0
        self._random = random.Random(0)
        self._http: aiohttp.ClientSession | None = None
        self._methods: dict[str, Callable[[FakeBot, dict[str, str]], Any]] = {
            "getme": self._get_me,
            "setwebhook": self._set_webhook,
            "deletewebhook": self._delete_webhook,
            "getwebhookinfo": self._get_webhook_info,
            "sendmessage": self._send_message,
            "sendchataction": self._send_chat_action,
            "editmessagetext": self._edit_message_text,
            "deletemessage": self._delete_message,
            "answercallbackquery": self._answer_callback_query,
            "setmycommands": self._set_my_commands,
            "getmycommands": self._get_my_commands,
            "deletemycommands": self._delete_my_commands,
            "getfile": self._get_file,
            "getchat": self._get_chat,
        }
        self.bot = self.add_bot()

    # -- life cycle ----

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        await self.restore_network()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for bot in self.bots.values():
            bot.set_webhook(None)
        await self.lose_network()
        if self._http:
            await self._http.close()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/bot{token:[^/]*}/{method}", self._api)
        router.add_get("/file/bot{token:[^/]*}/{path:.+}", self._file)
        router.add_route("*", "/control/{verb}", self._control)

    def so_far(self) -> str:
        return f"sent {self.sent_total}, calls {dict(self.calls)}"

    # -- the world ----

    def add_bot(self, token: str = TOKEN, username: str = "shop_bot", first_name: str = "Shop") -> FakeBot:
        self.bots[token] = FakeBot(self, token=token, username=username, first_name=first_name)
        return self.bots[token]

    def revoke(self, token: str = TOKEN) -> None:
        """The token is refused from now on; ``restore`` takes it back."""
        self.bots.pop(token).set_webhook(None)

    def restore(self, bot: FakeBot) -> None:
        self.bots[bot.token] = bot

    def block(self, chat_id: int) -> None:
        """The person blocks every bot."""
        self.blocked.add(chat_id)

    def unblock(self, chat_id: int) -> None:
        self.blocked.discard(chat_id)

    def delete(self, chat_id: int, message_id: int) -> None:
        """A message is gone: nobody can reply to it."""
        self.deleted.add((chat_id, message_id))

    def fail_next(self, kind: FaultKind, **details: Any) -> None:
        self._faults.append(Fault(kind=kind, **details))

    def chaos(self, *, fault_rate: float = 0.0, duplicate_rate: float = 0.0, seed: int = 0) -> None:
        """From now on fail API calls (any but getMe), and deliver acknowledged updates again, by chance."""
        self._fault_rate = fault_rate
        self._duplicate_rate = duplicate_rate
        self._random = random.Random(seed)

    def maybe_again(self, bot: FakeBot, update: Json) -> None:
        if self._duplicate_rate and self._random.random() < self._duplicate_rate:
            bot.deliver_again(update)

    def reset(self) -> None:
        """Forget faults, chaos, blocks and what was sent; updates that wait stay."""
        self._faults.clear()
        self.chaos()
        self.blocked.clear()
        self.migrations.clear()
        self.deleted.clear()
        self.sent.clear()
        self.sent_total = 0
        self.calls.clear()

    def state(self) -> Json:
        """What the platform knows, for people and for tests in other processes."""
        return {
            "sent_total": self.sent_total,
            "calls": dict(self.calls),
            "faults": [asdict(fault) for fault in self._faults],
            "bots": {
                bot.username: {
                    "id": bot.id,
                    "pending": len(bot.pending) + len(bot.again),
                    "webhook": bot.webhook.url if bot.webhook else "",
                    "polls": bot.polls,
                    "commands": bot.commands,
                }
                for bot in self.bots.values()
            },
        }

    def find_sent(self, bot: FakeBot, chat_id: int, message_id: int) -> Sent | None:
        """A message of the bot that still stands in its chat, if it is remembered."""
        if (chat_id, message_id) in self.deleted:
            return None
        key = (bot.username, chat_id, message_id)
        return next((sent for sent in reversed(self.sent) if (sent.bot, sent.chat_id, sent.message_id) == key), None)

    def standing(self, chat_id: int) -> list[Sent]:
        """The messages of bots that stand in a chat, oldest first."""
        return [
            sent for sent in self.sent if sent.chat_id == chat_id and (chat_id, sent.message_id) not in self.deleted
        ]

    # -- the HTTP faces ----

    async def _control(self, request: web.Request) -> web.Response:
        """Verbs for other processes: the arguments are a JSON object, the answer is JSON."""
        verb = request.match_info["verb"]
        try:
            arguments = json.loads(await request.read() or b"{}")
            if verb == "state":
                return web.json_response(self.state())
            if verb == "sent":
                since = int(request.query.get("since", 0))
                first = self.sent_total - len(self.sent)  # what a bounded record has dropped
                messages = [asdict(sent) for number, sent in enumerate(self.sent, first) if number >= since]
                return web.json_response({"total": self.sent_total, "messages": messages})
            if verb == "lose_network":
                task = asyncio.create_task(self._be_away(float(arguments.get("seconds", 3))))
                self._away = task  # the loop keeps only a weak reference
                return web.json_response(None)
            if verb in SERVER_VERBS:
                result = getattr(self, verb)(**arguments)
                return web.json_response(result.user if isinstance(result, FakeBot) else result)
            if verb in BOT_VERBS:
                name = arguments.pop("bot", "")
                bot = next((bot for bot in self.bots.values() if bot.username == name), self.bot)
                return web.json_response(getattr(bot, verb)(**arguments))
        except Refused as refused:
            return _error(refused)
        except (TypeError, ValueError, KeyError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response({"error": "no such verb", "verbs": VERBS}, status=404)

    async def _be_away(self, seconds: float) -> None:
        await asyncio.sleep(0.05)  # the answer to the control call goes out first
        await self.lose_network()
        await asyncio.sleep(seconds)
        await self.restore_network()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        try:
            bot = self._bot_of(request)
            method = request.match_info["method"]
            params = await _parameters(request)
            self.calls[method] += 1
            self.last_params[method] = params
            fault = self._fault_for(method, params)
            if fault is None:
                return _answer(await self._apply(bot, method, params))
            return await self._misbehave(request, fault, bot, method, params)
        except Refused as refused:
            return _error(refused)

    def _bot_of(self, request: web.Request) -> FakeBot:
        token = request.match_info["token"]
        if not re.fullmatch(r"\d+:[\w-]+", token):
            raise Refused(404, "Not Found")
        if token not in self.bots:
            raise Refused(401, "Unauthorized")
        return self.bots[token]

    async def _apply(self, bot: FakeBot, method: str, params: dict[str, str]) -> Any:
        if method.lower() == "getupdates":
            bot.allow(params.get("allowed_updates"))
            return await bot.next_updates(
                offset=_integer(params, "offset"),
                limit=max(1, min(_integer(params, "limit") or 100, 100)),
                seconds=min(_integer(params, "timeout"), 50),
            )
        if method.lower() not in self._methods:
            raise Refused(404, "Not Found: method not found")
        return self._methods[method.lower()](bot, params)

    # -- faults ----

    def _fault_for(self, method: str, params: dict[str, str]) -> Fault | None:
        for fault in self._faults:
            if fault.method.lower() != method.lower():
                continue
            if fault.chat_id is not None and str(fault.chat_id) != params.get("chat_id"):
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
            return fault
        if self._fault_rate and method.lower() != "getme" and self._random.random() < self._fault_rate:
            return Fault(kind=self._random.choice(CHAOS_KINDS), method=method)
        return None

    async def _misbehave(
        self, request: web.Request, fault: Fault, bot: FakeBot, method: str, params: dict[str, str]
    ) -> web.StreamResponse:
        match fault.kind:
            case "rate_limit":
                seconds = fault.retry_after
                raise Refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
            case "error":
                raise Refused(fault.status, fault.description)
            case "blocked":
                raise Refused(403, "Forbidden: bot was blocked by the user")
            case "no_chat":
                raise Refused(400, "Bad Request: chat not found")
            case "migrated":
                raise _migrated(fault.new_chat_id)
            case "bare":
                page = f"<html><head><title>{fault.status}</title></head><body>nginx</body></html>"
                return web.Response(status=fault.status, text=page, content_type="text/html")
            case "slow":
                await asyncio.sleep(fault.seconds)
                return _answer(await self._apply(bot, method, params))
            case "cut_after":
                await self._apply(bot, method, params)
            case "hang_after":
                await self._apply(bot, method, params)
                await asyncio.sleep(fault.seconds)
            case "cut_before":
                pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    # -- the Bot API: one method each ----

    def _get_me(self, bot: FakeBot, params: dict[str, str]) -> Json:
        return {
            **bot.user,
            "can_join_groups": True,
            "can_read_all_group_messages": True,
            "supports_inline_queries": False,
            "can_connect_to_business": False,
            "has_main_web_app": False,
        }

    def _set_webhook(self, bot: FakeBot, params: dict[str, str]) -> bool:
        url, secret = params.get("url", ""), params.get("secret_token", "")
        if not url:
            return self._delete_webhook(bot, params)
        if not re.match(r"https?://[^/]+", url):
            raise Refused(400, "Bad Request: bad webhook: invalid webhook URL specified")
        if secret and not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", secret):
            raise Refused(400, "Bad Request: secret token contains unallowed characters")
        bot.allow(params.get("allowed_updates"))
        self._drop_pending(bot, params)
        bot.set_webhook(Webhook(url=url, secret=secret))
        return True

    def _delete_webhook(self, bot: FakeBot, params: dict[str, str]) -> bool:
        self._drop_pending(bot, params)
        bot.set_webhook(None)
        return True

    def _drop_pending(self, bot: FakeBot, params: dict[str, str]) -> None:
        if params.get("drop_pending_updates", "").lower() == "true":
            bot.pending.clear()

    def _get_webhook_info(self, bot: FakeBot, params: dict[str, str]) -> Json:
        hook = bot.webhook
        info: Json = {
            "url": hook.url if hook else "",
            "has_custom_certificate": False,
            "pending_update_count": len(bot.pending),
        }
        if hook:
            info["max_connections"] = MAX_WEBHOOK_CONNECTIONS
        if hook and hook.last_error:
            info |= {"last_error_date": int(time.time()), "last_error_message": hook.last_error}
        return info

    def _send_message(self, bot: FakeBot, params: dict[str, str]) -> Json:
        chat_id = self._writable_chat(params)
        text = _text(params)
        keyboard = _inline_keyboard(params)
        reply = json.loads(params.get("reply_parameters", "{}"))
        reply_to = reply.get("message_id")
        if reply_to is not None and not bot.has_message(chat_id, reply_to):
            if not reply.get("allow_sending_without_reply"):
                raise Refused(400, "Bad Request: message to be replied not found")
            reply_to = None
        thread_id = _integer(params, "message_thread_id") or None
        message = bot.own_message(chat_id, text)
        if thread_id is not None:
            message |= {"message_thread_id": thread_id, "is_topic_message": True}
        if keyboard is not None:
            message["reply_markup"] = keyboard
        self.sent.append(
            Sent(
                bot=bot.username,
                chat_id=chat_id,
                message_id=message["message_id"],
                text=text,
                thread_id=thread_id,
                reply_to=reply_to,
                reply_markup=keyboard,
            )
        )
        self.sent_total += 1
        return message

    def _send_chat_action(self, bot: FakeBot, params: dict[str, str]) -> bool:
        bot.typing.append((self._writable_chat(params), _integer(params, "message_thread_id") or None))
        return True

    def _edit_message_text(self, bot: FakeBot, params: dict[str, str]) -> Json:
        chat_id, message_id = self._writable_chat(params), _integer(params, "message_id")
        text = _text(params)
        keyboard = _inline_keyboard(params)  # without one, the message has none from now on
        sent = self.find_sent(bot, chat_id, message_id)
        if sent is None:
            raise Refused(400, "Bad Request: message to edit not found")
        if (sent.text, sent.reply_markup) == (text, keyboard):
            raise Refused(400, "Bad Request: message is not modified")
        sent.earlier.append((time.time(), sent.text))
        sent.text, sent.reply_markup, sent.edits = text, keyboard, sent.edits + 1
        now = int(time.time())
        return {
            "message_id": message_id,
            "from": bot.user,
            "chat": _chat(chat_id, bot.user),
            "date": now,
            "edit_date": now,
            "text": text,
            **({"reply_markup": keyboard} if keyboard is not None else {}),
        }

    def _delete_message(self, bot: FakeBot, params: dict[str, str]) -> bool:
        chat_id, message_id = self._writable_chat(params), _integer(params, "message_id")
        if self.find_sent(bot, chat_id, message_id) is None:
            raise Refused(400, "Bad Request: message to delete not found")
        self.delete(chat_id, message_id)
        return True

    def _answer_callback_query(self, bot: FakeBot, params: dict[str, str]) -> bool:
        bot.answer_callback(params.get("callback_query_id", ""))
        return True

    def _set_my_commands(self, bot: FakeBot, params: dict[str, str]) -> bool:
        bot.commands = json.loads(params.get("commands", "[]"))
        return True

    def _get_my_commands(self, bot: FakeBot, params: dict[str, str]) -> list[Json]:
        return bot.commands

    def _delete_my_commands(self, bot: FakeBot, params: dict[str, str]) -> bool:
        bot.commands = []
        return True

    def _get_file(self, bot: FakeBot, params: dict[str, str]) -> Json:
        return bot.file_info(params.get("file_id", ""))

    def _get_chat(self, bot: FakeBot, params: dict[str, str]) -> Json:
        chat_id = self._writable_chat(params)
        return {
            **_chat(chat_id, bot.user),
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": {},
        }

    def _writable_chat(self, params: dict[str, str]) -> int:
        """The chat of a call, or the refusal that Telegram gives for it."""
        if not re.fullmatch(r"-?\d{1,19}", params.get("chat_id", "")) or not int(params["chat_id"]):
            raise Refused(400, "Bad Request: chat not found")
        chat_id = int(params["chat_id"])
        if chat_id in self.migrations:
            raise _migrated(self.migrations[chat_id])
        if chat_id in self.blocked:
            blocked = "bot was blocked by the user" if chat_id > 0 else "bot was kicked from the supergroup chat"
            raise Refused(403, f"Forbidden: {blocked}")
        return chat_id

    async def _file(self, request: web.Request) -> web.Response:
        try:
            content = self._bot_of(request).file_content(request.match_info["path"])
        except Refused as refused:
            return _error(refused)
        return web.Response(body=content) if content is not None else _error(Refused(404, "Not Found"))

    # -- webhook calls ----

    async def post_webhook(self, webhook: Webhook, update: Json) -> int:
        """The status that the site answered; 0 when nobody did."""
        assert self._http is not None
        if not self.is_reachable:  # the network is lost in both directions
            return 0
        headers = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret} if webhook.secret else {}
        try:
            async with self._http.post(webhook.url, json=update, headers=headers) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


VERBS = sorted({"state", "sent", "lose_network"} | SERVER_VERBS | BOT_VERBS)


async def _parameters(request: web.Request) -> dict[str, str]:
    """Query, form or JSON parameters; values that are no strings come as JSON, as in a form."""
    if request.content_type == "application/json":
        body = json.loads(await request.read() or b"{}")
        given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    else:
        given = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    return {**request.query, **given}


def _integer(params: Mapping[str, str], name: str) -> int:
    try:
        return int(params.get(name, 0))
    except ValueError:
        raise Refused(400, f"Bad Request: {name} is invalid") from None


def _text(params: Mapping[str, str]) -> str:
    text = params.get("text", "")
    if not text.strip():
        raise Refused(400, "Bad Request: message text is empty")
    if utf16_length(text) > MAX_TEXT_UTF16:
        raise Refused(400, "Bad Request: message is too long")
    return text


def _inline_keyboard(params: Mapping[str, str]) -> Json | None:
    """The buttons below a message; other keyboards than inline ones are none of this server's."""
    try:
        keyboard: Json = json.loads(params.get("reply_markup", "{}"))
        buttons = [button for row in keyboard.get("inline_keyboard", ()) for button in row]
        for button in buttons:
            if not button["text"].strip():
                raise Refused(400, "Bad Request: can't parse inline keyboard button: Text is empty")
            if not 1 <= len(button["callback_data"].encode()) <= MAX_CALLBACK_BYTES:
                raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(400, "Bad Request: can't parse reply keyboard markup JSON object") from None
    return keyboard if buttons else None


def _migrated(new_chat_id: int) -> Refused:
    description = "Bad Request: group chat was upgraded to a supergroup chat"
    return Refused(400, description, migrate_to_chat_id=new_chat_id)


def _answer(result: Any) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def _error(refused: Refused) -> web.Response:
    body: Json = {"ok": False, "error_code": refused.status, "description": refused.description}
    if refused.parameters:
        body["parameters"] = refused.parameters
    return web.json_response(body, status=refused.status)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.telegram", description="Telegram on loopback.")
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument("--keep", type=int, default=100_000, help="how many sent messages are remembered")
    parser.add_argument("--bot", action="append", default=[], metavar="TOKEN=USERNAME", help="one more bot")
    options = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with TelegramServer(port=options.port, keep=options.keep) as server:
        for bot in options.bot:
            token, _, username = bot.partition("=")
            server.add_bot(token, username or "another_bot")
        for bot in server.bots.values():
            print(f"@{bot.username}  token {bot.token}")
        print(f"setting api_base_url={server.url}")
        print(f"POST {server.url}/control/<verb> with a JSON object of arguments: {' '.join(VERBS)}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
