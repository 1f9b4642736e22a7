"""Inbound events into the journal. When a call returns, the event is committed and may be acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.core.errors import UnreadableUpdate
from botsrt.core.messages import InboundMessage
from botsrt.runtime.db import Database
from botsrt.services import journal, sessions


class Intake:
    """The sink of one bot's adapter; see ``core.ports.Sink``."""

    def __init__(self, database: Database, *, platform: str, account: str) -> None:
        self._database = database
        self._platform = platform
        self._account = account
        self._max_raw_bytes = conf.load().max_raw_bytes
        self.last_inbound_at: datetime | None = None

    async def receive(self, message: InboundMessage) -> bool:
        if (message.platform, message.account) != (self._platform, self._account):
            raise ValueError(f"A message for {message.account} came in through {self._account}.")
        self.last_inbound_at = timezone.now()
        entry_id = await self._database.call(
            journal.receive, message=message, now=self.last_inbound_at, max_raw_bytes=self._max_raw_bytes
        )
        return entry_id is not None

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
