"""Answer the webhook calls of platforms, in any process that serves HTTP. No lease is needed: storing is idempotent."""

from __future__ import annotations

from functools import cache

from django.utils import timezone

from botsrt import conf
from botsrt.adapters import registry
from botsrt.core.errors import NotFound
from botsrt.core.ports import Adapter, BotConfig, WebhookRequest, WebhookResponse
from botsrt.runtime.db import Database, database
from botsrt.runtime.intake import Intake
from botsrt.services import bots, workers


async def handle(*, platform: str, account: str, request: WebhookRequest) -> WebhookResponse:
    """Verify, parse and store one call. Returns after the commit.

    Raises:
        NotFound: no enabled bot of this name on this platform takes webhooks.
        ForgedRequest, UnreadableUpdate, StorageUnavailable: as ``core.ports.Adapter.webhook``.
    """
    response = await (await _receivers(database()).get(platform, account)).webhook(request)
    await database().call(
        workers.report_traffic, account=account, last_inbound_at=timezone.now(), last_outbound_at=None
    )
    return response


class _Receivers:
    """Adapters that only receive, one per bot, made anew when the bot changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._adapters: dict[str, tuple[BotConfig, Adapter]] = {}

    async def get(self, platform: str, account: str) -> Adapter:
        version = await self._database.call(bots.webhook_version, account=account, platform=platform)
        known = self._adapters.get(account)
        if known is not None and known[0].version == version:
            return known[1]
        config = await self._database.call(bots.adapter_config, account=account)
        adapter_class = registry.adapter_class(platform, conf.load().adapter_packages)
        if not adapter_class.capabilities.has_webhook:
            raise NotFound(f"The platform {platform} has no webhooks.")
        adapter = adapter_class(config, Intake(self._database, platform=platform, account=account))
        self._adapters[account] = (config, adapter)
        if known is not None:
            await known[1].close()
        return adapter


@cache
def _receivers(database: Database) -> _Receivers:
    return _Receivers(database)
