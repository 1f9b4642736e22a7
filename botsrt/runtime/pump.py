"""Claim lanes that have work, and run their turns, at most ``concurrency`` at a time."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.errors import StorageUnavailable
from botsrt.runtime.db import Database
from botsrt.runtime.wakeup import Wakeup
from botsrt.services import claims
from botsrt.services.claimed import ClaimedTurn

logger = logging.getLogger(__name__)

#: Lanes claimed in one transaction at most, so that one claim never takes long.
_CLAIM_LIMIT = 64

#: Commands answered beside their lanes at a time. They run no agent, so they need no room among the turns that do.
_ASIDE_LIMIT = 32


class Pump:
    """The loop that turns due entries into running turns."""

    def __init__(
        self,
        *,
        worker_id: str,
        database: Database,
        config: RuntimeConfig,
        accounts: Collection[str] | None,
        run_turn: Callable[[ClaimedTurn], Coroutine[Any, Any, None]],
    ) -> None:
        self._worker_id = worker_id
        self._database = database
        self._config = config
        self._accounts = accounts
        self._run_turn = run_turn
        self._wakeup = Wakeup()
        self._running: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._asides: set[uuid.UUID] = set()  # those of the running turns that answer a command beside its lane
        self._is_draining = False
        self._round = asyncio.Lock()  # held while turns are claimed and started

    def wake(self) -> None:
        self._wakeup.wake()

    @property
    def running(self) -> frozenset[uuid.UUID]:
        """The turns under way in this process."""
        return frozenset(self._running)

    async def run(self) -> None:
        """Claim and start turns until drained."""
        while not self._is_draining:
            async with self._round:
                free = self._config.concurrency - (len(self._running) - len(self._asides))
                claimed = await self._claim(limit=min(free, _CLAIM_LIMIT), aside_limit=_ASIDE_LIMIT - len(self._asides))
                for turn in claimed:
                    self._start(turn)
            if not claimed:
                await self._wakeup.sleep(await self._idle_seconds())

    async def drain(self, grace_seconds: float) -> None:
        """Claim no more; give the running turns ``grace_seconds``, then hand back what is left."""
        self._is_draining = True
        self.wake()
        async with self._round:  # what is being claimed has its grace, too
            pass
        if self._running:
            await asyncio.wait(self._running.values(), timeout=grace_seconds)
        left = list(self._running.values())
        for task in left:
            task.cancel()
        if left:
            logger.info("handing back %d turns that did not end in %.0f s", len(left), grace_seconds)
            await asyncio.wait(left, timeout=self._config.lease_seconds)

    def drop(self, turn_ids: Collection[uuid.UUID]) -> None:
        """Stop turns that are no longer this worker's; their results would be refused."""
        for turn_id in turn_ids:
            if task := self._running.get(turn_id):
                logger.warning("turn %s was cancelled, lost to another worker or ran too long; it is stopped", turn_id)
                task.cancel()

    async def _claim(self, *, limit: int, aside_limit: int) -> list[ClaimedTurn]:
        try:
            return await self._database.call(
                claims.claim,
                worker_id=self._worker_id,
                limit=limit,
                aside_limit=aside_limit,
                accounts=self._accounts,
                max_entries_per_turn=self._config.max_entries_per_turn,
                lease=timedelta(seconds=self._config.lease_seconds),
                claim_timeout=timedelta(seconds=self._config.claim_timeout_seconds),
                now=timezone.now(),
            )
        except StorageUnavailable as error:
            logger.warning("no work could be claimed: %s", error)
            return []

    async def _idle_seconds(self) -> float:
        """How long nothing will be due that waits for its time; at most one poll interval."""
        now = timezone.now()
        try:
            due_at = await self._database.call(claims.next_due_at, now=now)
        except StorageUnavailable:  # the next claim says so
            return self._config.poll_seconds
        if due_at is None:
            return self._config.poll_seconds
        return min(self._config.poll_seconds, (due_at - now).total_seconds())

    def _start(self, turn: ClaimedTurn) -> None:
        task = asyncio.create_task(self._run_turn(turn))
        self._running[turn.id] = task
        if turn.runs_aside:
            self._asides.add(turn.id)
        task.add_done_callback(lambda done: self._ended(turn, done))

    def _ended(self, turn: ClaimedTurn, task: asyncio.Task[None]) -> None:
        del self._running[turn.id]
        self._asides.discard(turn.id)
        self.wake()
        if not task.cancelled() and (error := task.exception()):
            # Nothing of the turn is lost: its lease runs out and its entries become pending again.
            logger.error("turn %s broke; it will be run again", turn.id, exc_info=error)
