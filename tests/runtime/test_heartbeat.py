"""The heartbeat, when bots come and go while it waits for the database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from botsrt.conf import RuntimeConfig
from botsrt.runtime.heartbeat import Heartbeat
from botsrt.services import workers


class Bridge:
    """Answers every call; while it stores the traffic of a bot, another worker takes the other one."""

    def __init__(self, keepers: dict[str, Any]) -> None:
        self.keepers = keepers
        self.called: list[Any] = []

    async def call(self, service: Any, **arguments: Any) -> Any:
        self.called.append(service)
        if service is workers.report_traffic:
            self.keepers.pop("second", None)
        return set()


async def test_a_bot_that_goes_in_the_middle_of_a_beat_does_not_end_it(config: RuntimeConfig) -> None:
    keepers: dict[str, Any] = {name: SimpleNamespace(traffic=(None, None)) for name in ("first", "second")}
    bridge = Bridge(keepers)

    async def sync() -> None:
        return

    heartbeat = Heartbeat(
        worker_id="w",
        database=bridge,  # type: ignore[arg-type]
        config=config,
        pump=SimpleNamespace(running=frozenset()),  # type: ignore[arg-type]
        delivery=SimpleNamespace(sending=frozenset()),  # type: ignore[arg-type]
        supervisor=SimpleNamespace(keepers=keepers, sync=sync),  # type: ignore[arg-type]
    )
    await heartbeat.beat()
    assert bridge.called.count(workers.report_traffic) == 2
