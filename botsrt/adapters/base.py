"""What every adapter would otherwise write again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from botsrt.core.errors import ConfigurationError
from botsrt.core.messages import Attachment, InboundMessage, OutboundMessage, Route, SendReceipt
from botsrt.core.ports import BotConfig, Capabilities, Option, Probe, Sink, WebhookRequest, WebhookResponse


class BaseAdapter:
    """Defaults for a platform that neither receives by itself nor has webhooks; see ``core.ports.Adapter``."""

    platform: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    settings: ClassVar[tuple[Option, ...]] = ()
    credentials: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        self.config = config
        self.sink = sink
        for option in self.credentials:
            if option.is_required and not config.credentials.get(option.name):
                raise ConfigurationError(
                    f"{option.name}: missing; set it with "
                    f"manage.py bots set {config.account} --credential {option.name}=env:NAME"
                )
        for option in self.settings:
            value = self.setting(option.name)
            if option.is_required and not value:
                raise ConfigurationError(f"{option.name}: missing; {option.help}")
            if option.choices and value not in option.choices:
                raise ConfigurationError(f"{option.name}: {value!r} is not one of {', '.join(option.choices)}.")

    def setting(self, name: str) -> str:
        """The bot's value of a setting, or the declared default."""
        defaults = {option.name: option.default for option in self.settings}
        return self.config.settings.get(name) or defaults[name]

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        raise NotImplementedError

    async def start(self) -> None:
        """Nothing to connect to."""

    async def run(self) -> None:
        """Nothing to read: wait until cancelled."""
        await asyncio.Event().wait()

    async def send(self, message: OutboundMessage) -> SendReceipt:
        raise NotImplementedError

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        raise NotImplementedError

    async def delete(self, route: Route, platform_message_id: str) -> None:
        raise NotImplementedError

    async def reconcile(self, message: OutboundMessage) -> SendReceipt | None:
        raise NotImplementedError

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        raise NotImplementedError

    async def show_typing(self, route: Route) -> None:
        """The platform has no typing indicator."""

    async def probe(self) -> Probe:
        return Probe(identity=self.config.account)

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to release."""
