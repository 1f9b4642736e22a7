"""Nudges over the channel layers that an installation can have."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

import pytest
from channels.layers import channel_layers

from botsrt.runtime import consumers
from botsrt.services import nudge
from botsrt.services.nudge import Kind
from tests.runtime.conftest import until

pytestmark = pytest.mark.django_db(transaction=True)  # consumers look after connections


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def _layer(request: pytest.FixtureRequest, settings: Any) -> Iterator[None]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        backend = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [url]}}
        settings.CHANNEL_LAYERS = {"default": backend}
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()


@pytest.mark.usefixtures("_layer")
async def test_all_workers_hear_of_stops_and_one_of_work(caplog: pytest.LogCaptureFixture) -> None:
    heard: Counter[tuple[int, Kind]] = Counter()

    def wake(worker: int, kind: Kind) -> None:
        heard[worker, kind] += 1

    async def nudge_until(is_heard: Any, kind: Kind) -> None:
        """Again and again: a nudge that comes before somebody listens is lost."""
        while not is_heard():
            await nudge.deliver(kind)
            await asyncio.sleep(0.05)

    workers = [
        asyncio.create_task(consumers.listen({kind: partial(wake, worker, kind) for kind in get_args(Kind)}))
        for worker in (1, 2)
    ]
    async with asyncio.timeout(10):
        await nudge_until(lambda: heard[1, "control"] and heard[2, "control"], "control")
        await nudge_until(lambda: heard[1, "outbox"] and heard[2, "outbox"], "outbox")
        await nudge_until(lambda: heard[1, "journal"] or heard[2, "journal"], "journal")
    before = heard.copy()
    await nudge.deliver("control")
    await until(lambda: all(heard[worker, "control"] > before[worker, "control"] for worker in (1, 2)), seconds=1)
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert "nudges are not heard" not in caplog.text
