"""Give agents the files that came with messages, when they ask: from the bot's platform, or the copy that is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from django.utils import timezone

from botsrt.adapters import registry
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import (
    CredentialError,
    FileUnavailable,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
    TransientAgentError,
)
from botsrt.core.messages import Attachment
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.keeper import Keeper
from botsrt.services import attachments, bots
from botsrt.services.claimed import ClaimedTurn

logger = logging.getLogger(__name__)

#: Files that one worker fetches at a time, so that they never fill its memory.
_AT_A_TIME = 4

#: When a worker first sweeps its host's folder of copies, and how often then, in seconds.
_FIRST_SWEEP_SECONDS = 600.0
_SWEEP_SECONDS = 3_600.0


class Files:
    """The files of messages. What was fetched is kept for replays, as long as the configuration wants.

    Args:
        keepers: the bots that this process holds, by account.
        keeps: whether what is fetched is kept, too.
    """

    def __init__(
        self, *, database: Database, config: RuntimeConfig, keepers: Mapping[str, Keeper], keeps: bool = True
    ) -> None:
        self._database = database
        self._config = config
        self._keepers = keepers
        self._keeps = keeps and config.kept_file_seconds > 0
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
                    if (kept := await self._kept(turn.account, attachment)) is not None:
                        return kept
                    content = await self._fetch(turn.account, attachment)
                    await self._keep(turn, attachment, content)
                    return content
            except RateLimited as error:
                raise TransientAgentError(str(error), retry_after=error.retry_after) from error
            except (PlatformUnavailable, CredentialError) as error:
                raise TransientAgentError(f"A file could not be fetched: {error}") from error

        return fetch

    async def run(self) -> None:
        """Sweep this host's folder now and then: housekeeping runs on one host, and sees only that one's."""
        await asyncio.sleep(_FIRST_SWEEP_SECONDS)
        while True:
            try:
                await self._sweep()
            except (OSError, StorageUnavailable) as error:
                logger.warning("the folder of files was not swept: %s", error)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _sweep(self) -> None:
        """``attachments.sweep``, without letting the database's thread wait for a disk."""
        for shelf in await asyncio.to_thread(attachments.shelves):
            if old := await asyncio.to_thread(attachments.old_on, shelf):
                named = await self._database.call(attachments.named, digests=[path.name for path in old])
                await asyncio.to_thread(attachments.remove, old, named=named)

    async def _kept(self, account: str, attachment: Attachment) -> bytes | None:
        """The copy that is kept; None: there is none, or none that can be had now."""
        try:
            digest = await self._database.call(attachments.find, account=account, reference=attachment.reference)
        except StorageUnavailable:
            return None
        return await asyncio.to_thread(attachments.read, digest) if digest else None

    async def _keep(self, turn: ClaimedTurn, attachment: Attachment, content: bytes) -> None:
        """Keep a copy with the contact that sent it. The agent has its file whether or not that can be done."""
        if not self._keeps:
            return
        senders = [entry.contact_id for entry in turn.entries if attachment in entry.message.attachments]
        if not senders:  # it would be removed with nobody
            return
        try:
            digest = await asyncio.to_thread(attachments.put, content)
            await self._database.call(
                attachments.keep,
                account=turn.account,
                contact_id=senders[0],
                reference=attachment.reference,
                digest=digest,
                size_bytes=len(content),
                now=timezone.now(),
            )
        except (OSError, StorageUnavailable) as error:
            logger.warning("a file of turn %s is not kept: %s", turn.id, error)

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
