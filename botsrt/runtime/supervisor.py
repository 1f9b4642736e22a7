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
        self._syncing = asyncio.Lock()

    @property
    def keepers(self) -> dict[str, Keeper]:
        """The bots this worker holds, by account."""
        return self._keepers

    async def sync(self) -> None:
        """Renew and take leases; start and stop keepers accordingly."""
        async with self._syncing:
            leased = await self._database.call(
                workers.lease_adapters,
                worker_id=self._worker_id,
                accounts=self._accounts,
                lease=timedelta(seconds=self._config.lease_seconds),
                now=timezone.now(),
            )
            wanted = {bot.account: bot for bot in leased}
            gone = [account for account in self._keepers if account not in wanted]
            await asyncio.gather(*(self._stop(account) for account in gone))
            for bot in leased:
                if bot.account in self._keepers:
                    self._keepers[bot.account].wants(bot.version)
                else:
                    self._start(bot)

    async def stop_all(self) -> None:
        """Close every adapter."""
        async with self._syncing:
            await asyncio.gather(*(self._stop(account) for account in list(self._keepers)))

    def _start(self, bot: LeasedBot) -> None:
        keeper = Keeper(
            bot, worker_id=self._worker_id, database=self._database, config=self._config, on_ready=self._on_ready
        )
        self._keepers[bot.account] = keeper
        self._tasks[bot.account] = asyncio.create_task(keeper.run(), name=f"keeper {bot.account}")

    async def _stop(self, account: str) -> None:
        """Stop one keeper and give its lease back."""
        task = self._tasks.pop(account)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()):
            logger.error("the keeper of bot %s broke", account, exc_info=error)
        del self._keepers[account]
        await self._database.call(
            workers.release_adapter, worker_id=self._worker_id, account=account, now=timezone.now()
        )
