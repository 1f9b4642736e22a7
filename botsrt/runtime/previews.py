"""Show answers in their chats while they are written, and remove what no answer will take the place of.

The first call sends a message, the following ones edit it, never faster than the platform likes; the answer itself goes
through the outbox, which edits that message once more. Whatever happens to a preview, the answer does not wait for it
and does not fail by it. Only the worker that holds the bot can show anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from django.utils import timezone

from botsrt.adapters import registry
from botsrt.conf import RuntimeConfig
from botsrt.core.chunking import length
from botsrt.core.errors import (
    BotsError,
    CredentialError,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
)
from botsrt.core.messages import SendReceipt
from botsrt.core.ports import Capabilities
from botsrt.core.states import ChatType, RunMode
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.keeper import Keeper
from botsrt.runtime.supervisor import Supervisor
from botsrt.services import previews
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.previews import OpenPreview

logger = logging.getLogger(__name__)

#: Answers that take no longer are sent whole, without a preview, in seconds.
FIRST_AFTER_SECONDS = 1.0

#: How often it is looked whether there is something new to show, in seconds.
TICK_SECONDS = 0.1

#: How long a chat rests in which a preview could not be shown, in seconds.
REST_SECONDS = 5.0

#: How long a platform that can be asked is asked for what a dead worker may have left, in seconds.
FIND_SECONDS = 10.0

_ASK_AGAIN_SECONDS = 1.0

#: A removal that failed is tried again after this long.
_REMOVE_AGAIN_AFTER = timedelta(seconds=15)

#: Stands at the end of what is not finished.
_UNFINISHED = " …"


class Previews:
    """The previews of this worker."""

    def __init__(self, *, database: Database, config: RuntimeConfig, supervisor: Supervisor) -> None:
        self.database = database
        self.config = config
        self._supervisor = supervisor
        self._free_at: dict[str, float] = {}  # by account: no call for a preview before, in time.monotonic

    def of(self, turn: ClaimedTurn, bot: BotView) -> Preview | None:
        """Where the answer of ``turn`` can be shown while it is written; None where it is not to be."""
        capabilities = registry.adapter_class(turn.platform, self.config.adapter_packages).capabilities
        if not capabilities.can_edit or not bot.is_streaming or turn.run_mode != RunMode.SEND:
            return None
        return Preview(turn, previews=self, capabilities=capabilities)

    # -- for the previews ----

    def keeper(self, account: str) -> Keeper | None:
        """What the bot can be reached through, if this worker can."""
        keeper = self._supervisor.keepers.get(account)
        return keeper if keeper is not None and keeper.is_ready else None

    def takes_turn(self, account: str, seconds: float) -> bool:
        """Whether a call for a preview of this bot may be made now; if so, the next one may after ``seconds``."""
        now = time.monotonic()
        if self._free_at.get(account, 0.0) > now:
            return False
        self._free_at[account] = now + seconds
        return True

    def rest(self, account: str, wait: timedelta) -> None:
        """The platform asks to wait: previews do, so that there is room for answers."""
        self._free_at[account] = max(self._free_at.get(account, 0.0), time.monotonic() + wait.total_seconds())

    async def store(self, service: Callable[..., object], **arguments: Any) -> None:
        """Write down what the platform did, however long the database is away: it is a fact."""
        while True:
            try:
                await self.database.call(service, **arguments)
                return
            except StorageUnavailable as error:
                logger.warning("what became of a preview waits for the database: %s", error)
                await asyncio.sleep(self.config.poll_seconds)

    # -- removal ----

    async def run(self) -> None:
        """Remove leftovers until cancelled."""
        while True:
            await asyncio.sleep(self.config.poll_seconds)
            try:
                await self.sweep()
            except StorageUnavailable as error:
                logger.warning("unfinished answers were not looked at: %s", error)

    async def sweep(self) -> None:
        """Remove from the chats what no answer will take the place of."""
        accounts = [
            account
            for account, keeper in self._supervisor.keepers.items()
            if keeper.is_ready and keeper.capabilities.can_edit
        ]
        if accounts:
            left = await self.database.call(previews.leftovers, accounts=accounts, now=timezone.now())
            await asyncio.gather(*map(self._remove, left))

    async def _remove(self, preview: OpenPreview) -> None:
        row = {"preview_id": preview.id}
        try:
            async with asyncio.timeout(self.config.send_timeout_seconds):
                await self._take_back(preview)
        except (PlatformUnavailable, OutcomeUnknown, RateLimited, CredentialError, TimeoutError) as error:
            logger.info("an unfinished answer of bot %s could not be removed yet: %s", preview.account, error)
            wait = error.retry_after if isinstance(error, RateLimited) else _REMOVE_AGAIN_AFTER
            await self.store(previews.remove_later, **row, at=timezone.now() + wait)
        except Exception as error:  # noqa: BLE001  the chat is gone, or the adapter broke: nothing can be done about it
            logger.warning("an unfinished answer of bot %s stays: %s", preview.account, error)
            await self.store(previews.forget, **row)
        else:
            await self.store(previews.forget, **row)

    async def _take_back(self, preview: OpenPreview) -> None:
        """Delete the message, or where that is refused, say in it that nothing follows."""
        keeper = self.keeper(preview.account)
        if keeper is None:
            raise PlatformUnavailable("The bot is not connected.")
        if not preview.platform_message_id:
            found = await keeper.reconcile(preview.message("")) if keeper.capabilities.can_reconcile else None
            if found is None:
                return
            preview = replace(preview, platform_message_id=found.platform_message_id)
        try:
            await keeper.delete(preview.route, preview.platform_message_id)
        except MessageRefused:
            await keeper.send(preview.message(self.config.unfinished_text, is_unfinished=False))


class Preview:
    """The answer of one turn in its chat, for as long as the agent writes it: ``async with`` around the run.

    At the end no call is under way any more, so nothing overtakes the answer.
    """

    def __init__(self, turn: ClaimedTurn, *, previews: Previews, capabilities: Capabilities) -> None:
        self._turn = turn
        self._previews = previews
        self._capabilities = capabilities
        is_group = turn.entries[0].message.chat_type == ChatType.GROUP
        self._pause_seconds = capabilities.group_edit_seconds if is_group else capabilities.edit_seconds
        self._open: OpenPreview | None = None
        self._text = ""  # what the agent has so far
        self._shown = ""  # what stands in the chat
        self._next_at = 0.0  # not before, in time.monotonic
        self._has_ended = False  # it cannot be shown any more, or must not
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> int | None:
        """The preview that stands in the chat, or perhaps does; None: there is none."""
        return self._open.id if self._open else None

    def show(self, text: str) -> None:
        """This is the answer so far. May be called on any thread."""
        self._text = text

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow(), name=f"preview {self._turn.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._is_over.set()
        await asyncio.wait({self._task})  # a call under way is never cut: its outcome would be unknown

    async def _follow(self) -> None:
        try:
            if self._turn.attempt > 1:
                await self._inherit()
            await self._sleep(FIRST_AFTER_SECONDS)
            while not self._is_over.is_set() and not self._has_ended:
                await self._show_news()
                await self._sleep(TICK_SECONDS)
        except StorageUnavailable as error:
            logger.info("the answer of turn %s is not shown while it is written: %s", self._turn.id, error)
        except Exception:
            logger.exception("the preview of turn %s broke", self._turn.id)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()

    async def _inherit(self) -> None:
        """Go on with what a worker that died over these messages left in the chat."""
        self._open = await self._previews.database.call(previews.inherit, turn=self._turn)
        if self._open is None or self._open.platform_message_id:
            return
        try:
            if not self._capabilities.can_reconcile:
                raise PlatformUnavailable("The platform cannot tell whether it has the message.")
            async with asyncio.timeout(FIND_SECONDS):
                found = await self._find(self._open)
        except (BotsError, TimeoutError) as error:
            logger.info("turn %s: its answer may have begun in the chat already: %s", self._turn.id, error)
            self._has_ended = True  # perhaps it stands there, so another one must not
        else:
            await self._settle(found)

    async def _find(self, preview: OpenPreview) -> SendReceipt | None:
        """Ask the platform, as soon as it can be reached: until then the answer could not be sent either."""
        while True:
            keeper = self._previews.keeper(self._turn.account)
            if keeper is not None:
                with suppress(PlatformUnavailable):
                    return await keeper.reconcile(preview.message(""))
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
            await asyncio.sleep(TICK_SECONDS)

    async def _show_news(self) -> None:
        """Show what is new, unless the platform or the chat is to be left alone for the moment."""
        keeper = self._previews.keeper(self._turn.account)
        if keeper is None or time.monotonic() < self._next_at:
            return
        text = self._displayed()
        pause = self._capabilities.bot_edit_seconds
        if text in ("", self._shown) or not self._previews.takes_turn(self._turn.account, pause):
            return
        self._next_at = time.monotonic() + self._pause_seconds
        try:
            await (self._call(keeper, text) if self._open else self._send(keeper, text))
        except RateLimited as error:
            self._previews.rest(self._turn.account, error.retry_after)
        except (PlatformUnavailable, TimeoutError) as error:
            logger.debug("turn %s: a preview was not shown: %s", self._turn.id, error)
            self._next_at = time.monotonic() + REST_SECONDS
        except BotsError as error:  # the message or the chat is gone, or refuses: the outbox will find out by itself
            logger.info("turn %s: its answer is not shown while it is written: %s", self._turn.id, error)
            self._has_ended = True

    def _displayed(self) -> str:
        """The first part of what there is, marked as unfinished; the other parts follow when it is whole."""
        most, unit = self._capabilities.max_text, self._capabilities.text_unit
        parts = platforms.parts(self._text[: 2 * most], self._turn.platform)
        if not parts:
            return ""
        marked = parts[0] + _UNFINISHED
        return marked if length(marked, unit) <= most else parts[0]

    async def _send(self, keeper: Keeper, text: str) -> None:
        opened = await self._previews.database.call(previews.begin, turn=self._turn, now=timezone.now())
        if opened is None:
            return
        self._open = opened
        try:
            receipt = await self._call(keeper, text)
        except OutcomeUnknown:
            self._has_ended = True
            raise
        except BotsError:  # the platform certainly has not taken it
            await self._settle(None)
            raise
        except BaseException:  # cut by the time limit, or an adapter's bug: perhaps it stands there
            self._has_ended = True
            raise
        await self._settle(receipt)

    async def _call(self, keeper: Keeper, text: str) -> SendReceipt:
        assert self._open is not None
        async with asyncio.timeout(self._previews.config.send_timeout_seconds):
            receipt = await keeper.send(self._open.message(text))
        self._shown = text
        return receipt

    async def _settle(self, receipt: SendReceipt | None) -> None:
        """Write down what the first call has led to."""
        assert self._open is not None
        preview_id = self._open.id
        if receipt is None:
            self._open = None
            await self._previews.store(previews.forget, preview_id=preview_id)
            return
        message_id = receipt.platform_message_id
        self._open = replace(self._open, platform_message_id=message_id)
        await self._previews.store(previews.shown, preview_id=preview_id, platform_message_id=message_id)
