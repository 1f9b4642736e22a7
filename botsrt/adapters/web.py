"""Chat on a page of the site.

Messages come in through the site's websocket (or its form), so there is nothing to read here. Going out, a message is
pushed to the pages that show its chat. The page reads what the database holds whenever it is opened or connects again:
a push that nobody hears loses nothing, and a message counts as delivered once it is stored. What is still being written
is pushed alone: a page that is opened later shows it from the next push on.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from channels.layers import get_channel_layer

from botsrt.adapters.base import BaseAdapter
from botsrt.core.keys import group_name
from botsrt.core.messages import OutboundMessage, Route, SendReceipt
from botsrt.core.ports import Capabilities

logger = logging.getLogger(__name__)


class Adapter(BaseAdapter):
    platform = "web"
    capabilities = Capabilities(max_text=20_000, has_typing=True, can_edit=True, edit_seconds=0.25)

    async def send(self, message: OutboundMessage) -> SendReceipt:
        if message.is_unfinished:
            await self._push(message.route, {"type": "chat.preview", "text": message.text})
            return SendReceipt(platform_message_id=message.idempotency_key)
        event = {
            "type": "chat.message",
            "id": message.outbox_id,
            "text": message.text,
            "at": datetime.now(UTC).isoformat(),
        }
        await self._push(message.route, event)
        return SendReceipt(platform_message_id=str(message.outbox_id))

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        return await self.send(message)

    async def delete(self, route: Route, platform_message_id: str) -> None:
        await self._push(route, {"type": "chat.preview", "text": ""})

    async def show_typing(self, route: Route) -> None:
        await self._push(route, {"type": "chat.typing"})

    async def _push(self, route: Route, event: dict[str, Any]) -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        try:
            await layer.group_send(group_name(self.config.account, route.channel_id), event)
        except Exception as error:  # noqa: BLE001  whatever the layer's client raises: open pages will read the rows
            logger.info("%s was not pushed (%s); open pages will read it", event["type"], type(error).__name__)
