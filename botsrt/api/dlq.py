"""``InboundDLQ``: messages that an agent could not answer, until a program or staff deal with them."""

from __future__ import annotations

import logging
import os
import secrets
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.api import loop
from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict
from botsrt.core.messages import InboundMessage, Sender
from botsrt.core.redact import redact
from botsrt.core.states import DLQState
from botsrt.models import DLQItem
from botsrt.runtime.db import Database
from botsrt.services import claimed, dlq, housekeeping, inline, turns
from botsrt.services.dlq import Failure

logger = logging.getLogger(__name__)

#: Who replays and purges, in the audit.
_PROGRAM = Actor(name="library")

#: What messages belong to whose bot nobody named.
_DEFAULT_ACCOUNT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class DLQEntry:
    """One message that waits, and why."""

    id: int
    failed_at: datetime
    platform: str
    account: str
    user_id: str
    prompt: str
    chat_id: str
    thread_id: str
    user_name: str
    error: str
    attempts: int


#: Tries to answer an entry; False, or an exception: it stays.
Handler = Callable[[DLQEntry], Awaitable[bool]]

_is_replaying: ContextVar[bool] = ContextVar("botsrt_dlq_is_replaying", default=False)


def is_replaying() -> bool:
    """Whether this runs in a handler of ``replay``: what fails then has an item already, and gets no second one."""
    return _is_replaying.get()


class InboundDLQ:
    """A dead letter queue. An open item is never dropped; ``max_size`` and ``ttl_seconds`` apply to closed ones."""

    def __init__(self, path: str | os.PathLike[str], *, max_size: int = 10_000, ttl_seconds: float = 604_800) -> None:
        """Name the database; see ``InboundJournal``, with which it may share one.

        Raises:
            ConfigurationError: ``path`` names no database.
        """
        self.path = path
        self.max_size = max_size
        self.ttl_seconds = ttl_seconds
        self._database = loop.database(path)
        self._owner = f"library-{secrets.token_hex(6)}"

    def __repr__(self) -> str:
        return f"InboundDLQ(path={redact(os.fspath(self.path))!r})"

    @property
    def database(self) -> Database:
        """The bridge to its database, on the library's loop."""
        return self._database

    def enqueue(
        self,
        *,
        platform: str,
        user_id: str,
        prompt: str,
        error: str,
        chat_id: str = "",
        thread_id: str = "",
        user_name: str = "",
        account: str = _DEFAULT_ACCOUNT,
        message_id: str = "",
    ) -> int:
        """Keep a message that failed. Returns the item's id: of the same message always the same one.

        Raises:
            UnreadableUpdate: an id is empty or too long.
        """
        message = InboundMessage(
            platform=platform,
            account=account,
            channel_id=str(chat_id or user_id),
            thread_id=str(thread_id),
            message_id=str(message_id) or f"failed-{uuid.uuid4().hex}",
            sender=Sender(user_id=str(user_id), display_name=user_name),
            text=prompt,
            is_mentioned=True,
        )
        return loop.run(self.park(message, Failure(error_class="Failed", error_text=str(error))))

    async def park(self, message: InboundMessage, failure: Failure) -> int:
        """``enqueue`` on the library's loop."""
        now = timezone.now()
        item_id = await self._database.call(inline.park, message=message, failure=failure, now=now)
        config = conf.load()
        await self._database.call(
            housekeeping.run,
            now=now,
            max_size=config.max_size,
            ttl=conf.period(config.ttl_seconds),
            dlq_max_size=self.max_size,
            dlq_ttl=timedelta(seconds=self.ttl_seconds),
        )
        return item_id

    def list(self, limit: int = 100) -> tuple[DLQEntry, ...]:
        """The open items, newest first."""
        return loop.run(self._database.call(_open_items, limit=limit, oldest_first=False))

    async def replay(self, handler: Handler, *, limit: int | None = None) -> tuple[int, int]:
        """Let ``handler`` try each open item, oldest first; two replays at once never try the same one.

        Returns:
            How many it dealt with, and how many stay.
        """
        most = self.max_size if limit is None else limit
        items = await loop.arun(self._database.call(_open_items, limit=most, oldest_first=True))
        done = left = 0
        for item in items:
            match await self._try(item, handler):
                case True:
                    done += 1
                case False:
                    left += 1
        return done, left

    def purge(self) -> int:
        """Give all open items up. Returns how many. Staff can take that back for 30 days."""
        return loop.run(self._purge())

    async def _try(self, item: DLQEntry, handler: Handler) -> bool | None:
        """Whether ``handler`` dealt with ``item``; None: somebody else has it by now."""
        turn = await loop.arun(
            self._database.call(
                inline.retake,
                item_id=item.id,
                worker_id=self._owner,
                lease=timedelta(seconds=conf.load().claim_timeout_seconds),
                actor=_PROGRAM,
                now=timezone.now(),
            )
        )
        if turn is None:
            return None
        failure = Failure(error_class="Refused", error_text="The handler did not deal with it.")
        token = _is_replaying.set(True)
        try:
            is_done = bool(await handler(item))
        except Exception as error:  # noqa: BLE001  the handler is the program's; what it raises is kept with the item
            logger.warning("replaying dead letter item %d failed: %s", item.id, error)
            is_done, failure = False, Failure.of(error)
        finally:
            _is_replaying.reset(token)
        if is_done:
            call = self._database.call(inline.complete, entry_id=turn.entry_ids[0], now=timezone.now())
        else:
            call = self._database.call(turns.fail, turn=turn, failure=failure, **NO_RETRY, now=timezone.now())
        await loop.arun(call)
        return is_done

    async def _purge(self) -> int:
        count = 0
        while items := await self._database.call(_open_items, limit=100, oldest_first=True):
            for item in items:
                count += await self._database.call(_discard, item_id=item.id)
        return count


#: A turn that fails goes to the dead letter queue at once, and nobody is told: the program is.
NO_RETRY: dict[str, Any] = {"max_attempts": 1, "notice_after": timedelta(), "notice_text": ""}


def _open_items(*, limit: int, oldest_first: bool) -> tuple[DLQEntry, ...]:
    rows = DLQItem.objects.filter(state=DLQState.OPEN, entry__contact__isnull=False).select_related("entry")
    page = list(rows.order_by("pk" if oldest_first else "-pk")[:limit])
    messages = {entry.id: entry.message for entry in claimed.entries([row.entry_id for row in page])}
    return tuple(_entry(row, messages[row.entry_id]) for row in page)


def _entry(row: DLQItem, message: InboundMessage) -> DLQEntry:
    entry = row.entry
    return DLQEntry(
        id=row.pk,
        failed_at=row.last_failed_at,
        platform=entry.platform,
        account=entry.account,
        user_id=message.sender.user_id,
        prompt=message.text,
        chat_id=entry.channel_id,
        thread_id=entry.thread_id,
        user_name=message.sender.display_name,
        error=f"{row.error_class}: {row.error_text}",
        attempts=row.attempts,
    )


def _discard(*, item_id: int) -> int:
    try:
        dlq.discard(item_id=item_id, actor=_PROGRAM, reason="Purged by the program.", now=timezone.now())
    except Conflict:  # somebody was first
        return 0
    return 1
