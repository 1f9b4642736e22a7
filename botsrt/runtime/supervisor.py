"""Which bots this worker runs: it takes and renews leases, and keeps one keeper per bot it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import timedelta

from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.runtime.db import Database
from botsrt.runtime.keeper import Keeper
from botsrt.services import workers
from botsrt.services.workers import LeasedBot

logger = logging.getLogger(__name__)


class Supervisor:
    """Starts, changes and stops keepers. One bot's failure never stops another."""

    def __init__(
        self,
        *,
        worker_id: str,
        database: Database,
        config: RuntimeConfig,
        accounts: Collection[str] | None,
        on_ready: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._database = database
        self._config = config
        self._accounts = accounts
        self._on_ready = on_ready
        self._keepers: dict[str, Keeper] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._syncing = asyncio.Lock()
        self._is_draining = False

    @property
    def keepers(self) -> dict[str, Keeper]:
        """The bots this worker holds, by account."""
        return self._keepers

    async def drain(self) -> None:
        """Take no more bots, and be left none; those that run go on until ``stop_all``."""
        self._is_draining = True
        await self._database.call(workers.drain, worker_id=self._worker_id)

    async def sync(self) -> None:
        """Renew and take leases; start and stop keepers accordingly. What must stop ends beside it: the sends under
        way may take long, and the leases of the others must be renewed meanwhile."""
        async with self._syncing:
            leased = await self._database.call(
                workers.lease_adapters,
                worker_id=self._worker_id,
                accounts=self._accounts,
                lease=timedelta(seconds=self._config.lease_seconds),
                running=[*self._keepers, *self._stopping],
                is_draining=self._is_draining,
                now=timezone.now(),
            )
            wanted = {bot.account: bot for bot in leased}
            for account in self._keepers.keys() - wanted.keys():
                self._begin_stop(account)
            for bot in leased:
                if bot.account in self._stopping:
                    continue
                if bot.account in self._keepers:
                    self._keepers[bot.account].wants(bot.version)
                else:
                    self._start(bot)

    async def stop_all(self) -> None:
        """Close every adapter."""
        async with self._syncing:
            for account in list(self._keepers):
                self._begin_stop(account)
            await asyncio.gather(*self._stopping.values(), return_exceptions=True)  # logged by ``_stopped``

    def _start(self, bot: LeasedBot) -> None:
        keeper = Keeper(
            bot, worker_id=self._worker_id, database=self._database, config=self._config, on_ready=self._on_ready
        )
        self._keepers[bot.account] = keeper
        self._tasks[bot.account] = asyncio.create_task(keeper.run(), name=f"keeper {bot.account}")

    def _begin_stop(self, account: str) -> None:
        """From now on the bot is not this worker's to send for; its lease is held until its adapter is closed."""
        del self._keepers[account]
        task = asyncio.create_task(self._stop(account, self._tasks.pop(account)), name=f"stop {account}")
        self._stopping[account] = task
        task.add_done_callback(lambda done: self._stopped(account, done))

    def _stopped(self, account: str, task: asyncio.Task[None]) -> None:
        del self._stopping[account]
        if not task.cancelled() and (error := task.exception()):
            logger.warning("bot %s was not given back yet: %s", account, error)

    async def _stop(self, account: str, keeping: asyncio.Task[None]) -> None:
        """Stop one keeper and give its lease back."""
        keeping.cancel()
        await asyncio.wait({keeping})
        if not keeping.cancelled() and (error := keeping.exception()):
            logger.error("the keeper of bot %s broke", account, exc_info=error)
        await self._database.call(
            workers.release_adapter, worker_id=self._worker_id, account=account, now=timezone.now()
        )
