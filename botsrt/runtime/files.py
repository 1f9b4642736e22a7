"""Give agents the files that came with messages, from the platform of the bot, when they ask for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from botsrt.adapters import registry
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import CredentialError, FileUnavailable, PlatformUnavailable, RateLimited, TransientAgentError
from botsrt.core.messages import Attachment
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.keeper import Keeper
from botsrt.services import bots
from botsrt.services.turns import ClaimedTurn

#: Files that one worker fetches at a time, so that they never fill its memory.
_AT_A_TIME = 4


class Files:
    """The files of messages. Nothing is kept: a replay fetches them again.

    Args:
        keepers: the bots that this process holds, by account.
    """

    def __init__(self, *, database: Database, config: RuntimeConfig, keepers: Mapping[str, Keeper]) -> None:
        self._database = database
        self._config = config
        self._keepers = keepers
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    def of(self, turn: ClaimedTurn) -> Callable[[Attachment], Awaitable[bytes]]:
        """What fetches the files of ``turn``: ``AgentRequest.fetch``."""

        async def fetch(attachment: Attachment) -> bytes:
            capabilities = registry.adapter_class(turn.platform, self._config.adapter_packages).capabilities
            if not capabilities.has_files:
                raise FileUnavailable(f"Files cannot be fetched from {turn.platform}.")
            if (attachment.size_bytes or 0) > self._config.max_file_bytes:
                raise FileUnavailable(f"The file has more than {self._config.max_file_bytes:,} bytes.")
            try:
                async with self._slots:
                    return await self._fetch(turn.account, attachment)
            except RateLimited as error:
                raise TransientAgentError(str(error), retry_after=error.retry_after) from error
            except (PlatformUnavailable, CredentialError) as error:
                raise TransientAgentError(f"A file could not be fetched: {error}") from error

        return fetch

    async def _fetch(self, account: str, attachment: Attachment) -> bytes:
        """Through the bot's adapter; where another process holds it, through one of our own that only fetches."""
        max_bytes = self._config.max_file_bytes
        keeper = self._keepers.get(account)
        if keeper is not None and keeper.is_ready:
            return await keeper.fetch(attachment, max_bytes=max_bytes)
        adapter = platforms.idle_adapter(await self._database.call(bots.adapter_config, account=account))
        try:
            return await adapter.fetch(attachment, max_bytes=max_bytes)
        finally:
            await adapter.close()
