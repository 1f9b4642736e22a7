"""Keeps the adapter of one bot running: start, restart with backoff, apply changes, report, send through it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from django.utils import timezone

from botsrt.adapters import registry
from botsrt.conf import RuntimeConfig
from botsrt.core import backoff
from botsrt.core.errors import BotsError, ConfigurationError, CredentialError, InvalidInput, PlatformUnavailable
from botsrt.core.messages import Attachment, OutboundMessage, Route, SendReceipt
from botsrt.core.ports import Adapter, BotConfig, Capabilities
from botsrt.core.states import AdapterStatus
from botsrt.runtime.db import Database
from botsrt.runtime.intake import Intake
from botsrt.services import bots, workers
from botsrt.services.workers import LeasedBot

logger = logging.getLogger(__name__)

#: Errors that only a change of the bot can mend.
_NEEDS_CHANGE = (CredentialError, ConfigurationError, InvalidInput)

#: An adapter that ran this long was well: its next failure counts as the first.
_WELL_AFTER_SECONDS = 60.0


class Keeper:
    """One bot's adapter for as long as this worker holds its lease."""

    def __init__(
        self,
        bot: LeasedBot,
        *,
        worker_id: str,
        database: Database,
        config: RuntimeConfig,
        on_ready: Callable[[], None],
    ) -> None:
        self.account = bot.account
        self._platform = bot.platform
        self._version = bot.version
        self._worker_id = worker_id
        self._database = database
        self._config = config
        self._on_ready = on_ready
        self._intake = Intake(database, platform=bot.platform, account=bot.account)
        self._adapter: Adapter | None = None  # set while messages can be sent through it
        self._changed = asyncio.Event()
        self._sending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._outbound_at: datetime | None = None
        self._tried_version = 0
        self._refused: CredentialError | None = None

    # -- what the supervisor and the delivery use ----

    @property
    def is_ready(self) -> bool:
        """Messages can be sent through the adapter now."""
        return self._adapter is not None

    @property
    def capabilities(self) -> Capabilities:
        return registry.adapter_class(self._platform, self._config.adapter_packages).capabilities

    @property
    def traffic(self) -> tuple[datetime | None, datetime | None]:
        """When this worker last received and sent through the adapter."""
        return self._intake.last_inbound_at, self._outbound_at

    def wants(self, version: int) -> None:
        """The bot has this version now; a new one is applied."""
        if version != self._version:
            self._version = version
            self._changed.set()

    async def send(self, message: OutboundMessage) -> SendReceipt:
        """Send or edit through the adapter; raises as ``Adapter.send`` and ``Adapter.edit`` do."""
        async with self._use() as adapter:
            receipt = await (adapter.edit(message) if message.edits else adapter.send(message))
            self._outbound_at = timezone.now()
            return receipt

    async def delete(self, route: Route, platform_message_id: str) -> None:
        """Remove a message of the bot; raises as ``Adapter.delete`` does."""
        async with self._use() as adapter:
            await adapter.delete(route, platform_message_id)

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        """The content of a file; raises as ``Adapter.fetch`` does."""
        async with self._use() as adapter:
            return await adapter.fetch(attachment, max_bytes=max_bytes)

    async def reconcile(self, message: OutboundMessage) -> SendReceipt | None:
        """Ask the platform whether it has ``message``; raises as ``Adapter.reconcile`` does."""
        async with self._use() as adapter:
            return await adapter.reconcile(message)

    async def show_typing(self, route: Route) -> None:
        """Show the typing indicator once, where there is one."""
        if self.is_ready and self.capabilities.has_typing:
            async with self._use() as adapter:
                await adapter.show_typing(route)

    def refuse_credentials(self, error: CredentialError) -> None:
        """A send was refused for its credentials: the adapter stops until they are changed."""
        self._refused = error
        self._changed.set()

    # -- the life of the adapter ----

    async def run(self) -> None:
        """Keep the adapter running until cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            self._refused = None
            self._tried_version = self._version
            started_at = time.monotonic()
            try:
                await self._report(AdapterStatus.STARTING)
                adapter, error = await self._start_best()
                await self._live(adapter, error)
                failures = 0
            except _NEEDS_CHANGE as error:
                is_credentials = isinstance(error, CredentialError)
                state = AdapterStatus.CREDENTIAL_ERROR if is_credentials else AdapterStatus.FAILED
                logger.warning("bot %s cannot run: %s", self.account, error)
                await self._report(state, error=str(error))
                await self._wait_for_change()
            except Exception as error:  # noqa: BLE001  any failure of one adapter is its own, and is tried again
                if time.monotonic() - started_at > _WELL_AFTER_SECONDS:
                    failures = 0
                failures += 1
                await self._back_off(failures, error)

    async def _start_best(self) -> tuple[Adapter, str]:
        """Start the adapter with the bot's settings; if they cannot work, with those that last did.

        Returns:
            The started adapter, and why the newest settings are not applied (empty: they are).
        """
        config = None
        try:
            config = await self._database.call(bots.adapter_config, account=self.account)
            return await self._start(config), ""
        except _NEEDS_CHANGE as error:
            last_good = await self._last_good()
            if last_good is None:
                raise
            adapter = await self._start(last_good)
            return adapter, f"Version {self._version} is not applied: {error}"

    async def _last_good(self) -> BotConfig | None:
        try:
            return await self._database.call(bots.last_good_config, account=self.account)
        except BotsError:
            return None

    async def _start(self, config: BotConfig) -> Adapter:
        """A started adapter. Its identity is reported; on failure it is closed again."""
        adapter = registry.adapter_class(config.platform, self._config.adapter_packages)(config, self._intake)
        try:
            await adapter.start()
            identity = (await adapter.probe()).identity
        except BaseException:
            await adapter.close()
            raise
        if config.version == self._version:
            await self._report(AdapterStatus.RUNNING, identity=identity, applied_version=config.version)
        else:
            await self._report(AdapterStatus.RUNNING, identity=identity)
        return adapter

    async def _live(self, adapter: Adapter, error: str) -> None:
        """Run a started adapter until it fails or a usable change arrives; then let sends end and close it."""
        if error:
            await self._report(AdapterStatus.RUNNING, error=error)
        reading = asyncio.create_task(adapter.run(), name=f"adapter {self.account}")
        self._adapter = adapter
        self._on_ready()
        logger.info("bot %s is running", self.account)
        try:
            while True:
                changed = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if reading.done():
                    reading.result()  # raises what the adapter raised
                    raise PlatformUnavailable("The adapter stopped reading without an error.")
                self._changed.clear()
                if self._refused is not None:
                    raise self._refused
                if await self._is_change_usable():
                    return
        finally:
            await self._stop(adapter, reading)

    async def _is_change_usable(self) -> bool:
        """Whether the changed settings work; if not, the adapter that runs goes on, and the bot shows why."""
        self._tried_version = self._version
        try:
            config = await self._database.call(bots.adapter_config, account=self.account)
            candidate = registry.adapter_class(config.platform, self._config.adapter_packages)(config, self._intake)
            try:
                await candidate.probe()
            finally:
                await candidate.close()
        except _NEEDS_CHANGE as error:
            logger.warning("bot %s: version %d is not applied: %s", self.account, self._version, error)
            await self._report(AdapterStatus.RUNNING, error=f"Version {self._version} is not applied: {error}")
            return False
        except Exception as error:  # noqa: BLE001  the platform is away: what runs would fail as well
            logger.warning("bot %s: its change could not be tried: %s", self.account, error)
        return True

    async def _stop(self, adapter: Adapter, reading: asyncio.Task[None]) -> None:
        """Take no more to send, stop reading, let the sends under way end, close."""
        self._adapter = None  # first: where there is always something to send, it would never be idle
        while not reading.done():  # an SDK may swallow a cancellation
            reading.cancel()
            await asyncio.wait({reading}, timeout=1.0)
        try:
            async with asyncio.timeout(self._config.send_timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("bot %s is closed while a message is being sent", self.account)
        finally:
            await adapter.close()

    async def _back_off(self, failures: int, error: Exception) -> None:
        wait = backoff.exponential(failures, max_seconds=self._config.max_restart_seconds).total_seconds()
        logger.warning("bot %s failed (%s: %s); next start in %.1f s", self.account, type(error).__name__, error, wait)
        await self._report(AdapterStatus.BACKOFF, error=f"{type(error).__name__}: {error}", is_restart=True)
        await self._wait_for_change(wait)

    async def _wait_for_change(self, seconds: float | None = None) -> None:
        """Wait until the bot has another version than the one tried last, at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while self._version == self._tried_version:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    async def _report(self, state: AdapterStatus, **fields: Any) -> None:
        try:
            await self._database.call(
                workers.report_adapter,
                worker_id=self._worker_id,
                account=self.account,
                state=state,
                now=timezone.now(),
                **fields,
            )
        except BotsError as error:
            logger.warning("the state of bot %s was not stored: %s", self.account, error)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Adapter]:
        """The adapter, held open for one call."""
        if self._adapter is None:
            raise PlatformUnavailable("The bot is not connected.")
        self._sending += 1
        self._idle.clear()
        try:
            yield self._adapter
        finally:
            self._sending -= 1
            if not self._sending:
                self._idle.set()
