"""Inbound events into the journal. When a call returns, the event is committed and may be acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.core.errors import UnreadableUpdate
from botsrt.core.messages import Answer, DeliveryReport, InboundMessage, Sender
from botsrt.runtime.db import Database
from botsrt.services import answers, identity, journal, receipts, sessions

logger = logging.getLogger(__name__)

#: Senders whose aliases are remembered; of others the database is asked again.
_MAX_KNOWN = 10_000

#: Waits between two looks for an answer that a caller waits for, in seconds: the first, and the longest.
_FIRST_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 0.5


class Intake:
    """The sink of one bot's adapter; see ``core.ports.Sink``."""

    def __init__(self, database: Database, *, platform: str, account: str) -> None:
        self._database = database
        self._platform = platform
        self._account = account
        self._max_raw_bytes = conf.load().max_raw_bytes
        self.last_inbound_at: datetime | None = None
        self.unknown_reports = 0  # of messages that are not known here
        self._known_as: dict[str, tuple[str, ...]] = {}  # user id → its aliases, as they were declared

    async def receive(self, message: InboundMessage) -> bool:
        if (message.platform, message.account) != (self._platform, self._account):
            raise ValueError(f"A message for {message.account} came in through {self._account}.")
        self.last_inbound_at = timezone.now()
        await self._know(message.sender)
        entry_id = await self._database.call(
            journal.receive, message=message, now=self.last_inbound_at, max_raw_bytes=self._max_raw_bytes
        )
        return entry_id is not None

    async def _know(self, sender: Sender) -> None:
        """See to it that all ids of a sender are one contact, before the message chooses its lane."""
        if not sender.aliases or self._known_as.get(sender.user_id) == sender.aliases:
            return
        await self._database.call(
            identity.known_as,
            platform=self._platform,
            user_id=sender.user_id,
            aliases=sender.aliases,
            now=timezone.now(),
        )
        if len(self._known_as) >= _MAX_KNOWN:
            del self._known_as[next(iter(self._known_as))]
        self._known_as[sender.user_id] = sender.aliases

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: UnreadableUpdate) -> None:
        self.last_inbound_at = timezone.now()
        await self._database.call(
            journal.receive_unreadable,
            platform=self._platform,
            account=self._account,
            event_id=event_id,
            raw=raw,
            error=error,
            now=self.last_inbound_at,
            max_raw_bytes=self._max_raw_bytes,
        )

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        await self._database.call(
            sessions.chat_migrated,
            account=self._account,
            old_channel_id=old_channel_id,
            new_channel_id=new_channel_id,
        )

    async def newest(self, *, limit: int) -> Sequence[InboundMessage]:
        return await self._database.call(journal.newest, account=self._account, limit=limit)

    async def reported(self, reports: Sequence[DeliveryReport]) -> None:
        known = await self._database.call(
            receipts.record, account=self._account, reports=list(reports), now=timezone.now()
        )
        if unknown := len(reports) - known:
            self.unknown_reports += unknown
            logger.info(
                "bot %s: %d reports of messages that are not known here; %d since the start",
                self._account,
                unknown,
                self.unknown_reports,
            )

    async def answer_to(self, message: InboundMessage, *, within: timedelta) -> Answer:
        loop = asyncio.get_running_loop()
        until, wait = loop.time() + within.total_seconds(), _FIRST_LOOK_SECONDS
        while True:
            answer = await self._database.call(
                answers.to,
                platform=self._platform,
                account=self._account,
                channel_id=message.channel_id,
                message_id=message.message_id,
                revision=message.revision,
            )
            left = until - loop.time()
            if answer.outcome is not None or left <= 0:
                return answer
            await asyncio.sleep(min(wait, left))
            wait = min(wait * 1.5, _LONGEST_LOOK_SECONDS)
