"""Takes every message and throws it away."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from botsrt.adapters.base import BaseAdapter
from botsrt.core.messages import OutboundMessage, SendReceipt
from botsrt.core.ports import Capabilities


class Adapter(BaseAdapter):
    platform = "null"
    capabilities = Capabilities(max_text=4_000, max_concurrent_sends=10_000)
    sent: ClassVar[int] = 0
    on_sent: ClassVar[Callable[[OutboundMessage], None]] = lambda message: None

    async def send(self, message: OutboundMessage) -> SendReceipt:
        Adapter.sent += 1
        Adapter.on_sent(message)
        return SendReceipt(platform_message_id=str(Adapter.sent))
