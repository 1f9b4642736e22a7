"""The websockets of the pages: "Try it", and what keeps lists fresh.

"Try it" hears ``{"id", "text"}`` and says, each with a ``type``: ``received`` (stored; only now may the page say so),
``message`` and ``typing`` of the bot, ``error`` with a code, words and the message's id where it has one. The page
reads the conversation itself over HTTP: what is said here only tells it when. A page of lists is told ``changed``: ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import User

from botsrt.core.errors import BotsError, InvalidInput, NotFound, StorageUnavailable
from botsrt.core.keys import group_name
from botsrt.runtime.db import database
from botsrt.services import news
from praisonweb.dashboard import access, webchat
from praisonweb.dashboard.access import Act
from praisonweb.dashboard.queries import try_it

#: Longest frame, in characters: the longest text with every character escaped, and a little more.
MAX_FRAME_CHARS = 6 * webchat.MAX_TEXT_CHARS + 1_000

#: Close codes that the page understands (RFC 6455 leaves 4000 to 4999 to us).
SIGNED_OUT = 4403
NO_BOT = 4404


class TryConsumer(AsyncWebsocketConsumer):
    """One open page of one member of staff."""

    async def connect(self) -> None:
        self.account: str = self.scope["url_route"]["kwargs"]["account"]
        self.group = ""
        user = await self._staff()
        if user is None or not await database().call(try_it.takes_messages, account=self.account):
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
        return await access.staff_behind(self.scope, Act.TRY)

    async def _tell(self, event: Mapping[str, Any]) -> None:
        await self.send(text_data=json.dumps(event))


class LiveConsumer(AsyncWebsocketConsumer):
    """One open page of lists. It is told which rows changed, by id; what they say now it fetches, as everybody does."""

    async def connect(self) -> None:
        self.groups_joined: list[str] = []
        if await access.staff_behind(self.scope) is None:
            await self.close()  # before it is accepted: the handshake fails with 403
            return
        wanted = parse_qs(self.scope["query_string"].decode("latin-1")[:200]).get("topics", [""])[0].split(",")
        for topic in news.TOPICS:
            if topic in wanted:
                await self.channel_layer.group_add(news.group(topic), self.channel_name)
                self.groups_joined.append(news.group(topic))
        await self.accept()

    async def disconnect(self, code: int) -> None:
        for group in self.groups_joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages have nothing to say here."""

    async def rows_changed(self, event: dict[str, Any]) -> None:
        """Rows changed; told only while the person may know."""
        if await access.staff_behind(self.scope) is None:
            await self.close(code=SIGNED_OUT)
        else:
            await self.send(text_data=json.dumps({**event, "type": "changed"}))


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
