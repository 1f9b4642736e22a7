"""Keep what this worker holds, and pick up what dead workers held."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from datetime import timedelta

from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.errors import StorageUnavailable
from botsrt.runtime import pulse
from botsrt.runtime.db import Database
from botsrt.runtime.delivery import Delivery
from botsrt.runtime.pulse import Pulse
from botsrt.runtime.pump import Pump
from botsrt.runtime.supervisor import Supervisor
from botsrt.services import outbox, pairing, turns, workers

logger = logging.getLogger(__name__)

#: Beats per lease: two may be lost before the lease is.
_BEATS_PER_LEASE = 3


class Heartbeat:
    """The loop that renews the leases of this worker's turns, sends and bots, and sweeps up expired ones."""

    def __init__(
        self,
        *,
        worker_id: str,
        database: Database,
        config: RuntimeConfig,
        pump: Pump,
        delivery: Delivery,
        supervisor: Supervisor,
    ) -> None:
        self._worker_id = worker_id
        self._database = database
        self._config = config
        self._lease = timedelta(seconds=config.lease_seconds)
        self._pump = pump
        self._delivery = delivery
        self._supervisor = supervisor
        self._pulse = Pulse(lease_seconds=config.lease_seconds)

    async def run(self) -> None:
        """Beat until cancelled. While the database is away nothing is renewed; ends are guarded, so nothing is lost."""
        self._pulse.beats()  # the row of the worker is new
        pulse.running[self._worker_id] = self._pulse
        feeling = asyncio.create_task(self._pulse.feel(), name="pulse")
        try:
            while True:
                await asyncio.sleep(self._config.lease_seconds / _BEATS_PER_LEASE)
                try:
                    await self.beat()
                    await self.sweep()
                except StorageUnavailable as error:
                    logger.warning("no heartbeat: %s", error)
        finally:
            feeling.cancel()
            del pulse.running[self._worker_id]

    async def beat(self) -> None:
        """Renew everything this worker holds. Renewed before anything is swept, so that a worker that comes back from
        a database outage does not sweep up its own work."""
        now = timezone.now()
        await self.renew_turns()
        await self._database.call(
            outbox.renew, worker_id=self._worker_id, outbox_ids=self._delivery.sending, lease=self._lease, now=now
        )
        await self._supervisor.sync()
        await self._database.call(
            workers.beat,
            worker_id=self._worker_id,
            accounts=list(self._supervisor.keepers),
            running_turns=len(self._pump.running),
            loop_gap_seconds=self._pulse.take_gap(),
            now=now,
        )
        self._pulse.beats()
        for account, keeper in list(self._supervisor.keepers.items()):  # bots come and go while the database works
            inbound_at, outbound_at = keeper.traffic
            await self._database.call(
                workers.report_traffic, account=account, last_inbound_at=inbound_at, last_outbound_at=outbound_at
            )

    async def renew_turns(self) -> None:
        """Keep the running turns, and stop those that were taken away: by a sweep, or by an act of staff."""
        running = self._pump.running
        if running:
            self._pump.drop(
                await self._database.call(
                    turns.renew, worker_id=self._worker_id, turn_ids=running, lease=self._lease, now=timezone.now()
                )
            )

    async def sweep(self) -> None:
        """Free what expired leases held, and hold back what became too old to send."""
        now = timezone.now()
        abandoned = await self._database.call(
            turns.abandon_expired, max_worker_deaths=self._config.max_worker_deaths, now=now
        )
        await self._database.call(pairing.expire, now=now)
        unsure = await self._database.call(outbox.expire_sending, now=now)
        late_after = timedelta(seconds=self._config.late_reply_seconds)
        late = await self._database.call(outbox.hold_late, late_after=late_after, now=now)
        if abandoned or unsure or late:
            logger.warning(
                "picked up %d abandoned turns and %d unsure sends; held %d late replies", abandoned, unsure, late
            )

    async def bury_dead_peers(self, *, own_mark: str) -> None:
        """After a crash on this host, do not wait for the leases of processes that are certainly gone.

        Args:
            own_mark: in the ids of this process's own workers.
        """
        peers = await self._database.call(workers.peers_on, host=socket.gethostname(), except_worker_id=self._worker_id)
        dead = [worker_id for worker_id, pid in peers.items() if own_mark not in worker_id and not _is_alive(pid)]
        if dead:
            logger.info("taking over from %d processes of this host that are gone", len(dead))
            await self._database.call(workers.bury, worker_ids=dead, now=timezone.now())


def _is_alive(pid: int) -> bool:
    """Whether another process has this number. Our own, found in an older row, belonged to one that is gone."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
