"""The websockets of the pages: "Try it", and what keeps lists fresh.

"Try it" hears ``{"id", "text"}`` and says, each with a ``type``: ``received`` (stored; only now may the page say so),
``message`` and ``typing`` of the bot, ``preview`` with what it has written so far (empty: nothing comes of it),
``error`` with a code, words and the message's id where it has one. The page reads the conversation itself over HTTP:
what is said here, but for the preview, only tells it when. A page of lists is told ``changed``: ids.
The page of a conversation says ``{"type": "sign", "doing"}`` and hears of each ``colleague`` who does.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import User

from botsrt.core.errors import BotsError, InvalidInput, NotFound, StorageUnavailable
from botsrt.core.keys import group_name
from botsrt.runtime.db import database
from botsrt.services import news
from praisonweb.dashboard import access, presence, webchat
from praisonweb.dashboard.access import Act
from praisonweb.dashboard.paging import MAX_ID_CHARS
from praisonweb.dashboard.queries import people, try_it

#: Longest frame, in characters: the longest text with every character escaped, and a little more.
MAX_FRAME_CHARS = 6 * webchat.MAX_TEXT_CHARS + 1_000

#: A page of lists asks the database again whether its person may know, at most this often, in seconds. For so long can
#: it hear ids after a sign-out or the loss of a right: asked at each event, 200 pages would ask 800 times a second.
RECHECK_SECONDS = 10.0

#: Close codes that the page understands (RFC 6455 leaves 4000 to 4999 to us).
SIGNED_OUT = 4403
NO_BOT = 4404


class TryConsumer(AsyncWebsocketConsumer):
    """One open page of one member of staff."""

    async def connect(self) -> None:
        self.account: str = self.scope["url_route"]["kwargs"]["account"]
        self.group = ""
        user = await self._staff()
        scope = access.scope(user)
        if user is None or not await database().call(try_it.takes_messages, account=self.account, scope=scope):
            await self.close()  # before it is accepted: the handshake fails with 403
            return
        self.group = group_name(self.account, webchat.user_id(user))
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if self.group:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        user = await self._staff()
        if user is None:
            await self.close(code=SIGNED_OUT)
            return
        data: Mapping[str, Any] = {}
        try:
            data = _parsed(text_data)
            draft = webchat.read(data)
            is_new = await webchat.receive(draft, account=self.account, user=user)
        except BotsError as error:
            await self._refuse(error, data.get("id"))
            return
        await self._tell({"type": "received", "id": draft.id, "is_new": is_new})

    async def chat_message(self, event: dict[str, Any]) -> None:
        """The bot said something."""
        await self._push({**event, "type": "message"})

    async def chat_typing(self, event: dict[str, Any]) -> None:
        """The bot is about to say something."""
        await self._push({"type": "typing"})

    async def chat_preview(self, event: dict[str, Any]) -> None:
        """The bot has said so much by now."""
        await self._push({**event, "type": "preview"})

    async def _push(self, event: Mapping[str, Any]) -> None:
        """Tell the page, if it still belongs to somebody who may know."""
        if await self._staff() is None:
            await self.close(code=SIGNED_OUT)
        else:
            await self._tell(event)

    async def _refuse(self, error: BotsError, message_id: object) -> None:
        if isinstance(error, NotFound):
            await self.close(code=NO_BOT)
            return
        answer = {"type": "error", "code": "refused", "text": str(error)}
        if isinstance(error, StorageUnavailable):
            answer |= {"code": "not_stored", "text": "It is not stored yet; it will be sent again."}
        if isinstance(message_id, str):
            answer["id"] = message_id[:100]
        await self._tell(answer)

    async def _staff(self) -> User | None:
        user = await access.staff_behind(self.scope, Act.TRY)
        return user if access.scope(user).allows(self.account) else None

    async def _tell(self, event: Mapping[str, Any]) -> None:
        await self.send(text_data=json.dumps(event))


class LiveConsumer(AsyncWebsocketConsumer):
    """One open page. It is told which rows changed, by id; what they say now it fetches, as everybody does.

    The page of a conversation is told besides who else has it open, and says so of its own person.
    """

    async def connect(self) -> None:
        self.groups_joined: list[str] = []
        self.conversation: int | None = None
        self.signed_at: dict[str, float] = {}
        user = await access.staff_behind(self.scope)
        if user is None:
            await self.close()  # before it is accepted: the handshake fails with 403
            return
        self.checked_at = time.monotonic()
        self.limits = access.scope(user)
        wanted = parse_qs(self.scope["query_string"].decode("latin-1")[:200])
        topics = wanted.get("topics", [""])[0].split(",")
        for topic in news.TOPICS:
            if topic in topics:
                await self._join(news.group(topic))
        talk = wanted.get("talk", [""])[0]
        if talk.isascii() and talk.isdigit() and len(talk) <= MAX_ID_CHARS:
            scope = access.scope(user)
            self.conversation = await database().call(people.meeting_point, session_pk=int(talk), scope=scope)
        if self.conversation is not None:
            await self._join(presence.group(self.conversation))
        await self.accept()

    async def _join(self, group: str) -> None:
        await self.channel_layer.group_add(group, self.channel_name)
        self.groups_joined.append(group)

    async def disconnect(self, code: int) -> None:
        for group in self.groups_joined:
            await self.channel_layer.group_discard(group, self.channel_name)
        user = await access.staff_behind(self.scope) if self.signed_at else None
        if self.conversation is not None and user is not None:
            await presence.tell(self.conversation, user=user, doing=presence.GONE)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A sign of life from the page of a conversation. Pages have nothing else to say here."""
        doing, now = presence.read(text_data), time.monotonic()
        is_too_soon = now - self.signed_at.get(doing, -math.inf) < presence.MIN_APART_SECONDS
        if not doing or self.conversation is None or is_too_soon:
            return
        self.signed_at[doing] = now
        user = await access.staff_behind(self.scope, presence.SIGNS[doing])
        if user is not None:
            await presence.tell(self.conversation, user=user, doing=doing)

    async def rows_changed(self, event: dict[str, Any]) -> None:
        """Rows changed; told only while the person may know, or could ``RECHECK_SECONDS`` ago."""
        if not await self._may_know():
            await self.close(code=SIGNED_OUT)
            return
        if event["topic"] == "bots":  # their ids are names
            event = {**event, "ids": [account for account in event["ids"] if self.limits.allows(account)]}
        await self.send(text_data=json.dumps({**event, "type": "changed"}))

    async def _may_know(self) -> bool:
        now = time.monotonic()
        if now - self.checked_at < RECHECK_SECONDS:
            return True
        self.checked_at = now
        user = await access.staff_behind(self.scope)
        if user is not None:
            self.limits = access.scope(user)
        return user is not None

    async def colleague_signed(self, event: dict[str, Any]) -> None:
        """Somebody has the same conversation open; told to others only, and only while they may know."""
        user = await access.staff_behind(self.scope)
        if user is None:
            await self.close(code=SIGNED_OUT)
        elif user.pk != event["by"]:
            await self.send(text_data=json.dumps({"type": "colleague", "who": event["who"], "doing": event["doing"]}))


def _parsed(frame: str | None) -> Mapping[str, Any]:
    """The object in a frame.

    Raises:
        InvalidInput: it is too long, or no JSON object.
    """
    if frame is None:
        raise InvalidInput("frame", "send text, not bytes.")
    if len(frame) > MAX_FRAME_CHARS:
        raise InvalidInput("frame", f"has {len(frame):,} characters; {MAX_FRAME_CHARS:,} are possible.")
    try:
        data = json.loads(frame)
    except (ValueError, RecursionError):
        raise InvalidInput("frame", "is not JSON that can be read.") from None
    if not isinstance(data, dict):
        raise InvalidInput("frame", "is not a JSON object.")
    return data
