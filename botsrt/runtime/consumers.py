"""A Channels worker that carries the nudges into this process. It does no work itself: it wakes the loops that do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from channels.consumer import AsyncConsumer
from channels.layers import BaseChannelLayer, get_channel_layer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from channels.worker import Worker

from botsrt.core import backoff
from botsrt.services import nudge
from botsrt.services.nudge import Kind

logger = logging.getLogger(__name__)

#: Group membership ends by itself after a day (channels' ``group_expiry``); it is renewed well before.
_REJOIN_SECONDS = 3_600.0


class WakeConsumer(AsyncConsumer):
    """Wakes one loop per message."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Any message wakes. It touches no database, so there are no connections to look after as Channels would."""
        self._wake()


class NudgeWorker(Worker):
    """A Channels worker whose listeners end with it."""

    async def handle(self) -> None:
        try:
            async with asyncio.TaskGroup() as listeners:
                for channel in self.channels:
                    listeners.create_task(self.listener(channel))
        finally:
            consumers = [details["future"] for details in self.application_instances.values()]
            for name in list(self.application_instances):
                self.delete_application_instance(name)  # type: ignore[no-untyped-call]
            await asyncio.gather(*consumers, return_exceptions=True)


async def listen(wakers: Mapping[Kind, Callable[[], None]]) -> None:
    """Carry nudges until cancelled. While the layer is away the loops poll, and this tries again."""
    failures = 0
    while True:
        layer = get_channel_layer()
        assert layer is not None
        try:
            await _listen_once(layer, wakers)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  whatever the layer's client raises when its server is away
            failures += 1
            wait = backoff.exponential(failures, max_seconds=30.0)
            logger.warning(
                "nudges are not heard (%s); polling, next try in %.0f s", type(error).__name__, wait.total_seconds()
            )
            await asyncio.sleep(wait.total_seconds())


async def _listen_once(layer: BaseChannelLayer, wakers: Mapping[Kind, Callable[[], None]]) -> None:
    """Join the groups and listen on the channels; raises when the layer fails."""
    # Made by the layer, which knows them from then on: on Redis only such channels can join a group.
    own = {kind: await layer.new_channel() for kind in nudge.GROUPS}
    routes: dict[str, Any] = {nudge.JOURNAL_CHANNEL: WakeConsumer(wakers["journal"])}
    routes |= {channel: WakeConsumer(wakers[kind]) for kind, channel in own.items()}
    router = ProtocolTypeRouter({"channel": ChannelNameRouter(routes)})
    worker = NudgeWorker(router, list(routes), layer)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_stay_in_groups(layer, own))
        tasks.create_task(worker.arun())  # type: ignore[no-untyped-call]


async def _stay_in_groups(layer: BaseChannelLayer, own: Mapping[Kind, str]) -> None:
    while True:
        for kind, channel in own.items():
            await layer.group_add(nudge.GROUPS[kind], channel)
        await asyncio.sleep(_REJOIN_SECONDS)
