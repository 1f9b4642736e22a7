"""A whole platform in one file: what adding one takes. Messages live in this process, in one hub per bot."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from botsrt.adapters.base import BaseAdapter
from botsrt.core.errors import CredentialError, MessageGone, UnreadableUpdate
from botsrt.core.messages import Attachment, InboundMessage, OutboundMessage, Route, Sender, SendReceipt
from botsrt.core.ports import Capabilities, Option, Probe
from botsrt.core.states import ChatType, EventKind


class Hub:
    """The platform's own side of one bot: what people write to it, what it was sent, and the faults to play."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.sent: list[OutboundMessage] = []
        self.faults: deque[BaseException] = deque()  # raised by the next sends, before anything is taken
        self.lost_answers = 0  # the next sends are taken, but the answer is cut
        self.typing: list[Route] = []
        self.edits: list[OutboundMessage] = []
        self.edit_faults: deque[BaseException] = deque()  # as ``faults``, for edits and removals
        self.readers = 0
        self.most_readers = 0
        self.good_tokens = {"good"}

    def write(self, text: str, *, user: str = "ann", message_id: str, **fields: Any) -> None:
        """A person writes."""
        self.inbox.put_nowait({"user": user, "text": text, "id": message_id, **fields})

    def place_of(self, message_id: str) -> int:
        """Where a message stands in ``sent``.

        Raises:
            MessageGone: nowhere (any more).
        """
        for place, message in enumerate(self.sent):
            if f"sent-{message.idempotency_key}" == message_id:
                return place
        raise MessageGone

    def texts(self, channel: str = "ann") -> list[str]:
        return [message.text for message in self.sent if message.route.channel_id == channel]


HUBS: defaultdict[str, Hub] = defaultdict(Hub)


class Adapter(BaseAdapter):
    platform = "toy"
    capabilities = Capabilities(
        max_text=400, has_typing=True, has_groups=True, has_buttons=True, can_edit=True, edit_seconds=0.02
    )
    settings = (Option(name="colour", help="Nothing, prettily.", choices=("", "red", "blue")),)
    credentials = (Option(name="token", help="The word.", is_required=True),)

    @property
    def hub(self) -> Hub:
        return HUBS[self.config.account]

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        if "user" not in raw:
            return None
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=raw.get("chat", raw["user"]),
            message_id=raw["id"],
            revision=raw.get("revision", ""),
            sender=Sender(user_id=raw["user"], display_name=raw.get("name", "")),
            chat_type=ChatType.GROUP if "chat" in raw else ChatType.DIRECT,
            is_mentioned=raw.get("mentioned", "chat" not in raw),
            kind=EventKind(raw.get("kind", EventKind.MESSAGE)),
            text=raw["text"],
            attachments=tuple(Attachment(kind="photo", reference=name) for name in raw.get("files", ())),
            album=raw.get("album", ""),
            raw=raw,
        )

    async def start(self) -> None:
        await self.probe()

    async def probe(self) -> Probe:
        if self.config.credentials["token"] not in self.hub.good_tokens:
            raise CredentialError("The word is wrong.")
        return Probe(identity=f"toy:{self.config.account}")

    async def run(self) -> None:
        self.hub.readers += 1
        self.hub.most_readers = max(self.hub.most_readers, self.hub.readers)
        try:
            while True:
                raw = await self.hub.inbox.get()
                try:
                    message = self.parse(raw)
                except (UnreadableUpdate, KeyError) as error:
                    await self.sink.receive_unreadable(
                        event_id=str(raw.get("id")), raw=raw, error=UnreadableUpdate(str(error))
                    )
                    continue
                if message is not None:
                    await self.sink.receive(message)
        finally:
            self.hub.readers -= 1

    async def send(self, message: OutboundMessage) -> SendReceipt:
        await asyncio.sleep(0)
        if self.hub.faults:
            raise self.hub.faults.popleft()
        self.hub.sent.append(message)
        if self.hub.lost_answers:
            self.hub.lost_answers -= 1
            raise TimeoutError
        return SendReceipt(platform_message_id=f"sent-{message.idempotency_key}")

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        await asyncio.sleep(0)
        if self.hub.edit_faults:
            raise self.hub.edit_faults.popleft()
        place = self.hub.place_of(message.edits)
        self.hub.edits.append(message)
        self.hub.sent[place] = replace(self.hub.sent[place], text=message.text, is_unfinished=message.is_unfinished)
        return SendReceipt(platform_message_id=message.edits)

    async def delete(self, route: Route, platform_message_id: str) -> None:
        await asyncio.sleep(0)
        if self.hub.edit_faults:
            raise self.hub.edit_faults.popleft()
        with suppress(MessageGone):
            del self.hub.sent[self.hub.place_of(platform_message_id)]

    async def show_typing(self, route: Route) -> None:
        self.hub.typing.append(route)
