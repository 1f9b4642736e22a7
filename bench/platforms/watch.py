"""Says nothing and hears nothing: writes down how late the event loop of its worker wakes what sleeps 5 ms."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from botsrt.adapters.base import BaseAdapter
from botsrt.core.messages import OutboundMessage, SendReceipt
from botsrt.core.ports import Capabilities, Option

#: Gaps of this span are written down together, in seconds.
_SPAN_SECONDS = 1.0


class Adapter(BaseAdapter):
    platform = "watch"
    capabilities = Capabilities(max_text=4_000, max_concurrent_sends=1)
    settings = (Option(name="file", help="Where the gaps go, a line a second.", is_required=True),)

    async def run(self) -> None:
        gaps: list[float] = []
        began = time.perf_counter()
        while True:
            asleep = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(round((time.perf_counter() - asleep - 0.005) * 1000, 1))
            if time.perf_counter() - began >= _SPAN_SECONDS:
                with Path(self.setting("file")).open("a") as file:
                    file.write(json.dumps(gaps) + "\n")
                gaps, began = [], time.perf_counter()

    async def send(self, message: OutboundMessage) -> SendReceipt:
        return SendReceipt(platform_message_id="0")
