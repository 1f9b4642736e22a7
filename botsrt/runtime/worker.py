"""One worker: its loops, in the order in which they start and stop."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import socket
from collections.abc import Collection
from datetime import timedelta
from functools import partial

from django.utils import timezone

import botsrt
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import StorageUnavailable
from botsrt.core.ports import TYPING_LASTS
from botsrt.runtime import consumers, turn
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.db import Database
from botsrt.runtime.delivery import Delivery
from botsrt.runtime.files import Files
from botsrt.runtime.heartbeat import Heartbeat
from botsrt.runtime.newsroom import Newsroom
from botsrt.runtime.previews import Previews
from botsrt.runtime.pump import Pump
from botsrt.runtime.steering import Steering
from botsrt.runtime.supervisor import Supervisor
from botsrt.runtime.wakeup import Wakeup
from botsrt.services import news, nudge, workers
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.nudge import Kind

logger = logging.getLogger(__name__)

#: In the id of every worker of this process: tells them from those of a process that had the same number before.
PROCESS_MARK = secrets.token_hex(3)

_numbers = itertools.count(1)


class Worker:
    """Runs bots, turns and deliveries in the current event loop.

    ``start`` returns when every loop is up. ``wait_broken`` returns only if a loop died, which must end the process.
    ``stop`` drains: no new work, a grace period for what runs, the rest handed back without using up an attempt.
    """

    def __init__(self, *, database: Database, config: RuntimeConfig, accounts: Collection[str] | None = None) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{PROCESS_MARK}.{next(_numbers)}"
        self._database = database
        self._config = config
        self._accounts = accounts
        self._agents = AgentPool()
        self._bots_changed = Wakeup()
        self._turns_cancelled = Wakeup()
        self._messages_behind = Wakeup()
        self._steering = Steering(database=database, agents=self._agents)
        self._supervisor = Supervisor(
            worker_id=self.id, database=database, config=config, accounts=accounts, on_ready=self._bot_is_ready
        )
        self._pump = Pump(
            worker_id=self.id, database=database, config=config, accounts=accounts, run_turn=self._run_turn
        )
        self._delivery = Delivery(worker_id=self.id, database=database, config=config, supervisor=self._supervisor)
        self._previews = Previews(database=database, config=config, supervisor=self._supervisor)
        self._files = Files(database=database, config=config, keepers=self._supervisor.keepers)
        self._heartbeat = Heartbeat(
            worker_id=self.id,
            database=database,
            config=config,
            pump=self._pump,
            delivery=self._delivery,
            supervisor=self._supervisor,
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Register, pick up what dead processes left, start the loops and the bots."""
        await self._database.call(
            workers.register,
            worker_id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=botsrt.__version__,
            lease=timedelta(seconds=self._config.lease_seconds),
            only=self._accounts,
            now=timezone.now(),
        )
        self._carry_nudges()
        news.send_with(Newsroom().take)
        await self._heartbeat.bury_dead_peers(own_mark=PROCESS_MARK)
        await self._heartbeat.sweep()
        await self._supervisor.sync()
        wakers = {"journal": self._pump.wake, "outbox": self._delivery.wake, "control": self._wake_control}
        loops = {
            "nudges": consumers.listen(wakers),  # type: ignore[arg-type]
            "control": self._follow_changes(),
            "stops": self._stop_cancelled_turns(),
            "steering": self._steer_turns(),
            "heartbeat": self._heartbeat.run(),
            "pump": self._pump.run(),
            "delivery": self._delivery.run(),
            "previews": self._previews.run(),
            "files": self._files.run(),
        }
        self._tasks = {name: asyncio.create_task(loop, name=name) for name, loop in loops.items()}

    async def wait_broken(self) -> None:
        """Return when a loop has ended by itself, which none should; the error is logged."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = None if task.cancelled() else task.exception()
            logger.critical("the %s loop ended; the process stops", task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Drain and release everything. The bots read and send until the turns have ended; then others take them."""
        await self._take_no_more_bots()
        await self._pump.drain(self._config.drain_seconds)
        await self._delivery.drain()
        await self._remove_unfinished()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._supervisor.stop_all()
        await self._agents.close()
        nudge.send_with(None)
        news.send_with(None)
        try:
            await self._database.call(workers.goodbye, worker_id=self.id, now=timezone.now())
        except StorageUnavailable as error:
            logger.warning("no goodbye: %s", error)

    async def _take_no_more_bots(self) -> None:
        try:
            await self._supervisor.drain()
        except StorageUnavailable as error:
            logger.warning("other workers do not know yet that this one stops: %s", error)

    def _bot_is_ready(self) -> None:
        self._delivery.wake()

    async def _run_turn(self, claimed: ClaimedTurn) -> None:
        await turn.run(
            claimed,
            database=self._database,
            agents=self._agents,
            steering=self._steering,
            config=self._config,
            show_typing=self._show_typing,
            previews=self._previews,
            files=self._files,
        )

    async def _remove_unfinished(self) -> None:
        """Take what was half shown out of the chats; what cannot be removed now the next worker removes."""
        try:
            await self._previews.sweep()
        except StorageUnavailable as error:
            logger.warning("unfinished answers stay in their chats for now: %s", error)

    async def _show_typing(self, claimed: ClaimedTurn) -> None:
        """Keep the indicator up until cancelled, if this worker runs the bot."""
        while keeper := self._supervisor.keepers.get(claimed.account):
            await keeper.show_typing(claimed.route)
            await asyncio.sleep(TYPING_LASTS.total_seconds() * 0.8)

    def _wake_control(self) -> None:
        self._bots_changed.wake()
        self._turns_cancelled.wake()
        self._messages_behind.wake()

    async def _follow_changes(self) -> None:
        """Start, change and stop bots as soon as they are changed."""
        while True:
            await self._bots_changed.sleep(self._config.poll_seconds)
            try:
                await self._supervisor.sync()
            except StorageUnavailable as error:
                logger.warning("the bots were not looked at: %s", error)

    async def _stop_cancelled_turns(self) -> None:
        """Stop turns as soon as they are cancelled, however long it takes a bot to start or stop."""
        while True:
            await self._turns_cancelled.sleep(self._config.poll_seconds)
            try:
                await self._heartbeat.renew_turns()
            except StorageUnavailable as error:
                logger.warning("the turns were not looked at: %s", error)

    async def _steer_turns(self) -> None:
        """Hand messages to the turns that take them while they run."""
        while True:
            await self._messages_behind.sleep(self._config.poll_seconds)
            try:
                await self._steering.offer()
            except StorageUnavailable as error:
                logger.warning("the turns were not steered: %s", error)

    def _carry_nudges(self) -> None:
        """Hand nudges of any thread to this loop; several at once count once."""
        loop = asyncio.get_running_loop()
        carrying: set[Kind] = set()
        tasks: set[asyncio.Task[None]] = set()

        def deliver(kind: Kind) -> None:
            carrying.discard(kind)
            task = loop.create_task(nudge.deliver(kind))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        def carry(kind: Kind) -> None:
            if kind in carrying:
                return
            carrying.add(kind)
            try:
                loop.call_soon_threadsafe(partial(deliver, kind))
            except RuntimeError:  # the loop has ended; other workers poll
                carrying.discard(kind)

        nudge.send_with(carry)
