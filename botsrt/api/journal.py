"""``InboundJournal``: what came in, once each, in a database of its own or the project's."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.api import loop
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import Conflict, InvalidInput
from botsrt.core.messages import InboundMessage, Sender
from botsrt.core.redact import redact
from botsrt.runtime.db import Database
from botsrt.services import claims, housekeeping, inline

#: One in how many new entries looks for old ones to remove, as a part of ``max_size``.
_TIDY_PART = 100


class InboundJournal:
    """An inbound journal. Any number of threads, event loops and processes may use the same one.

    Its tables are those of the runtime: a bot's journal, read as such by ``manage.py`` and the site.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_size: int = 50_000,
        ttl_seconds: float = 2_592_000,
        claim_timeout: float = 300,
    ) -> None:
        """Name the database; it is opened with the first message.

        Args:
            path: an SQLite file, made with its folders when it is missing (``~`` is the home folder), or a PostgreSQL
                URL.
            max_size: entries kept; the oldest completed ones go first. What is not completed is never removed.
            ttl_seconds: age at which completed entries are removed (30 days).
            claim_timeout: seconds after which the claim of a process that died is stale. Longer than a run.

        Raises:
            ConfigurationError: ``path`` names no database.
            InvalidInput: a number is not positive.
        """
        for name, value in (("max_size", max_size), ("ttl_seconds", ttl_seconds), ("claim_timeout", claim_timeout)):
            if not value > 0:
                raise InvalidInput(name, f"{value} is not positive.")
        self.path = path
        self.max_size = max_size
        self.ttl_seconds = ttl_seconds
        self.claim_timeout = claim_timeout
        self._database = loop.database(path)
        self._owner = f"library-{secrets.token_hex(6)}"
        self._since_tidied = 0

    def __repr__(self) -> str:
        return f"InboundJournal(path={redact(os.fspath(self.path))!r})"

    @property
    def database(self) -> Database:
        """The bridge to its database, on the library's loop."""
        return self._database

    def config(self) -> RuntimeConfig:
        """The runtime's configuration, with the limits of this journal."""
        base = conf.load()
        return dataclasses.replace(
            base,
            max_size=self.max_size,
            ttl_seconds=float(self.ttl_seconds),
            claim_timeout_seconds=float(self.claim_timeout),
            lease_seconds=float(self.claim_timeout),
            run_timeout_seconds=min(base.run_timeout_seconds, float(self.claim_timeout)),
        )

    def receive(
        self,
        platform: str,
        account: str,
        channel_id: str,
        message_id: str,
        payload: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Store a message. Returns its key; None for a duplicate, which is counted and nothing else.

        Args:
            account: the stable name of the bot; part of the key.
            payload: the platform's message; ``text`` (or ``prompt``), ``user_id`` and ``user_name`` are understood.

        Raises:
            UnreadableUpdate: an id is empty or too long.
        """
        details = payload or {}
        message = InboundMessage(
            platform=platform,
            account=account,
            channel_id=str(channel_id),
            message_id=str(message_id),
            sender=Sender(
                user_id=str(details.get("user_id") or channel_id), display_name=str(details.get("user_name") or "")
            ),
            text=str(details.get("text") or details.get("prompt") or ""),
            is_mentioned=True,
            raw=details,
        )
        entry_id = loop.run(self.store(message))
        return None if entry_id is None else f"{platform}:{account}:{channel_id}:{message_id}:{entry_id}"

    async def store(self, message: InboundMessage) -> int | None:
        """``receive`` on the library's loop: the entry's id; None for a duplicate."""
        entry_id = await self._database.call(
            inline.receive,
            message=message,
            reserved_for=timedelta(seconds=self.claim_timeout),
            max_raw_bytes=conf.load().max_raw_bytes,
            now=timezone.now(),
        )
        if entry_id is not None:
            await self._tidy()
        return entry_id

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold an entry for the length of the block; one that is not completed in it is pending again.

        Raises:
            InvalidInput: this is no key.
            NotFound: the entry was removed.
            Conflict: somebody else has it, or it is completed.
        """
        entry_id = _entry_id(key)
        loop.run(self._claim(entry_id))
        try:
            yield
        finally:
            loop.run(self._release(entry_id))

    @asynccontextmanager
    async def aclaim(self, key: str) -> AsyncIterator[None]:
        """``claim``, without blocking the event loop."""
        entry_id = _entry_id(key)
        await loop.arun(self._claim(entry_id))
        try:
            yield
        finally:
            await loop.arun(self._release(entry_id))

    def complete(self, key: str) -> bool:
        """The message is dealt with. False: it was completed before, or is not the journal's any more."""
        return loop.run(self._database.call(inline.complete, entry_id=_entry_id(key), now=timezone.now()))

    def replay(self) -> int:
        """Make entries pending again whose claim is stale. Returns how many.

        A message on which processes died twice goes to the dead letter queue instead. To have them answered see
        ``BotSessionManager.recover``.
        """
        return loop.run(
            self._database.call(inline.replay, max_worker_deaths=conf.load().max_worker_deaths, now=timezone.now())
        )

    async def _claim(self, entry_id: int) -> None:
        timeout = timedelta(seconds=self.claim_timeout)
        turn = await self._database.call(
            claims.claim_entry,
            entry_id=entry_id,
            worker_id=self._owner,
            lease=timeout,
            claim_timeout=timeout,
            lane=inline.own_lane(entry_id),
            now=timezone.now(),
        )
        if turn is None:
            raise Conflict(f"Journal entry {entry_id} is claimed; somebody else has it.")

    async def _release(self, entry_id: int) -> None:
        await self._database.call(inline.release, entry_id=entry_id, worker_id=self._owner, now=timezone.now())

    async def _tidy(self) -> None:
        """Remove what is over and old, once in a while."""
        self._since_tidied += 1
        if self._since_tidied < max(1, self.max_size // _TIDY_PART):
            return
        self._since_tidied = 0
        config = self.config()
        await self._database.call(
            housekeeping.run,
            now=timezone.now(),
            max_size=config.max_size,
            ttl=conf.period(config.ttl_seconds),
            dlq_max_size=config.dlq_max_size,
            dlq_ttl=conf.period(config.dlq_ttl_seconds),
        )


def _entry_id(key: str) -> int:
    number = key.rpartition(":")[2]
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise InvalidInput("key", f"{key[:80]!r} is not what receive returned.")
    return int(number)
