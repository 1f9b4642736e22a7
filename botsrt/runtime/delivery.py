"""Send what waits in the outbox, chat by chat in order, and be honest about what became of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.errors import (
    BotsError,
    ChatMigrated,
    CredentialError,
    MessageGone,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
    TargetGone,
)
from botsrt.core.states import UnknownSendPolicy
from botsrt.runtime.db import Database
from botsrt.runtime.keeper import Keeper
from botsrt.runtime.supervisor import Supervisor
from botsrt.runtime.wakeup import Wakeup
from botsrt.services import bots, outbox
from botsrt.services.outbox import ClaimedSend

logger = logging.getLogger(__name__)

#: Messages taken from the outbox in one transaction at most.
_CLAIM_LIMIT = 64

#: How long a message waits when its bot has no valid credentials or no connection; costs no attempt.
_NOT_CONNECTED_WAIT = timedelta(seconds=5)

#: When the platform cannot say whether it has a message, it is asked again after this long.
_RECONCILE_WAIT = timedelta(seconds=15)

#: How long a platform that tells of the messages it took may take to tell of one whose call was cut. Until then it is
#: not sent again.
_FATE_WAIT = timedelta(seconds=10)


class Delivery:
    """The loop that sends. It serves the bots whose leases this worker holds."""

    def __init__(self, *, worker_id: str, database: Database, config: RuntimeConfig, supervisor: Supervisor) -> None:
        self._worker_id = worker_id
        self._database = database
        self._config = config
        self._supervisor = supervisor
        self._wakeup = Wakeup()
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._load: Counter[str] = Counter()  # calls under way per bot
        self._closed_until: dict[str, float] = {}  # bots that the platform told to wait, in time.monotonic
        self._look_at_unknown_at = 0.0
        self._deciding: list[str] = []  # bots whose messages of unknown fate are decided here, without staff
        self._looked_at: frozenset[str] = frozenset()  # bots of which it is known whether they are
        self._is_draining = False
        self._round = asyncio.Lock()  # held while messages are claimed and their calls started

    def wake(self) -> None:
        self._wakeup.wake()

    @property
    def sending(self) -> frozenset[int]:
        """The outbox rows whose calls are under way."""
        return frozenset(self._sending)

    async def run(self) -> None:
        """Send until drained."""
        while not self._is_draining:
            try:
                await self._decide_unknown()
                async with self._round:
                    is_busy = not self._is_draining and await self._send_waiting()
            except StorageUnavailable as error:
                logger.warning("nothing can be sent: %s", error)
                is_busy = False
            if not is_busy:
                await self._wakeup.sleep(self._config.poll_seconds)

    async def drain(self) -> None:
        """Start no more calls; wait for those under way."""
        self._is_draining = True
        self.wake()
        async with self._round:  # what is being claimed is a call under way, too
            pass
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=self._config.send_timeout_seconds)

    # -- claim ----

    async def _send_waiting(self) -> bool:
        """Claim and start what can go out now. True when there was something."""
        accounts = self._open_accounts()
        if not accounts:
            return False
        claimed_at = time.monotonic()
        claims = await self._database.call(
            outbox.claim,
            worker_id=self._worker_id,
            accounts=accounts,
            limit=_CLAIM_LIMIT,
            lease=timedelta(seconds=self._config.lease_seconds),
            late_after=timedelta(seconds=self._config.late_reply_seconds),
            waits_for_unknown=self._deciding,
            now=timezone.now(),
        )
        for claim in claims:
            self._start(claim, claimed_at)
        return bool(claims)

    def _open_accounts(self) -> list[str]:
        """The bots that can send now: connected, below their limit of calls, and not told to wait."""
        now = time.monotonic()
        return [
            account
            for account, keeper in self._supervisor.keepers.items()
            if keeper.is_ready
            and account in self._looked_at  # else what follows a message of unknown fate might overtake it
            and self._load[account] < keeper.capabilities.max_concurrent_sends
            and self._closed_until.get(account, 0.0) <= now
        ]

    def _start(self, claim: ClaimedSend, claimed_at: float) -> None:
        message = claim.message
        task = asyncio.create_task(self._send(claim, claimed_at))
        self._sending[message.outbox_id] = task
        self._load[message.account] += 1
        task.add_done_callback(lambda done: self._ended(claim, done))

    def _ended(self, claim: ClaimedSend, task: asyncio.Task[None]) -> None:
        del self._sending[claim.message.outbox_id]
        self._load[claim.message.account] -= 1
        self.wake()
        if not task.cancelled() and (error := task.exception()):
            # The row stays "sending" until its lease runs out; then it is unknown, which is the truth.
            logger.error("sending %d broke", claim.message.outbox_id, exc_info=error)

    # -- one message ----

    async def _send(self, claim: ClaimedSend, claimed_at: float) -> None:
        """Hand one message to the platform, and write down what became of it."""
        message = claim.message
        row = {"outbox_id": message.outbox_id, "worker_id": self._worker_id}
        keeper = self._supervisor.keepers.get(message.account)
        if keeper is None or not keeper.is_ready:
            after = _NOT_CONNECTED_WAIT if keeper else timedelta(0)  # another worker has the bot by now, or takes it
            await self._wait(claim, "The bot is not connected.", after=after, is_attempt=False)
            return
        if time.monotonic() - claimed_at > self._config.lease_seconds:
            logger.warning("message %d is left: this process was stopped longer than its lease", message.outbox_id)
            return
        if claim.is_resend:
            message = replace(message, text=self._config.resend_label + message.text)
        try:
            if keeper.capabilities.has_reply_window:
                heard_at = await self._database.call(outbox.heard_at, outbox_id=message.outbox_id)
                message = replace(message, heard_at=heard_at)
            async with asyncio.timeout(self._config.send_timeout_seconds):
                receipt = await keeper.send(message)
        except StorageUnavailable as error:
            await self._wait(claim, str(error), after=None, is_attempt=False)
        except RateLimited as error:
            await self._rate_limited(claim, error)
        except CredentialError as error:
            await self._wait(claim, str(error), after=_NOT_CONNECTED_WAIT, is_attempt=False)
            keeper.refuse_credentials(error)
        except PlatformUnavailable as error:
            await self._wait(claim, str(error), after=None, is_attempt=True)
        except ChatMigrated as error:
            await self._store(outbox.mark_migrated, **row, new_channel_id=error.new_channel_id, now=timezone.now())
        except MessageGone as error:
            await self._store(outbox.send_anew, **row, error=str(error), now=timezone.now())
        except TargetGone as error:
            await self._store(outbox.mark_gone, **row, error=str(error))
        except MessageRefused as error:
            await self._store(outbox.mark_dead, **row, error=str(error))
        except (OutcomeUnknown, TimeoutError) as error:
            text = str(error) or f"No answer within {self._config.send_timeout_seconds:g} s."
            await self._store(outbox.mark_unknown, **row, error=text, now=timezone.now())
        except Exception as error:  # an adapter's bug: whether the message went out is not known
            logger.exception("adapter of bot %s broke while sending", message.account)
            await self._store(outbox.mark_unknown, **row, error=f"{type(error).__name__}: {error}", now=timezone.now())
        else:
            await self._store(outbox.mark_sent, **row, receipt=receipt, now=timezone.now())

    async def _rate_limited(self, claim: ClaimedSend, error: RateLimited) -> None:
        if error.whole_account:
            self._closed_until[claim.message.account] = time.monotonic() + error.retry_after.total_seconds()
        await self._wait(claim, str(error), after=error.retry_after, is_attempt=False)

    async def _wait(self, claim: ClaimedSend, error: str, *, after: timedelta | None, is_attempt: bool) -> None:
        now = timezone.now()
        await self._store(
            outbox.wait,
            outbox_id=claim.message.outbox_id,
            worker_id=self._worker_id,
            error=error,
            until=now + after if after is not None else None,
            is_attempt=is_attempt,
            now=now,
        )

    async def _store(self, service: Callable[..., object], **arguments: Any) -> None:
        """Write down an ending. While the database is away it is tried again: what the platform did is a fact."""
        while True:
            try:
                await self._database.call(service, **arguments)
                return
            except StorageUnavailable as error:
                logger.warning("what became of a message waits for the database: %s", error)
                await asyncio.sleep(self._config.poll_seconds)

    # -- unknown outcomes ----

    async def _decide_unknown(self) -> None:
        """Settle messages of unknown fate: ask the platform where it can tell, else follow the bot's policy."""
        ready = {account: keeper for account, keeper in self._supervisor.keepers.items() if keeper.is_ready}
        if time.monotonic() < self._look_at_unknown_at and self._looked_at.issuperset(ready):
            return
        self._look_at_unknown_at = time.monotonic() + self._config.poll_seconds
        if not ready:
            return
        views = await self._database.call(bots.views, accounts=list(ready))
        self._deciding = [
            account
            for account, keeper in ready.items()
            if keeper.capabilities.can_reconcile
            or (account in views and views[account].unknown_sends == UnknownSendPolicy.RESEND)
        ]
        self._looked_at = frozenset(ready)
        claims = await self._undecided(ready)
        for claim in claims:
            if self._is_draining:
                return
            if ready[claim.message.account].capabilities.can_reconcile:
                await self._reconcile(claim)
            else:
                await self._store(
                    outbox.resend, outbox_id=claim.message.outbox_id, is_labelled=True, now=timezone.now()
                )

    async def _undecided(self, ready: Mapping[str, Keeper]) -> list[ClaimedSend]:
        """What has to be decided, after what the platforms would know as the same message was released to go again."""
        alike: dict[tuple[float, timedelta], list[str]] = {}
        for account, keeper in ready.items():
            patience = _FATE_WAIT if keeper.capabilities.tells_fate else timedelta()
            alike.setdefault((keeper.capabilities.repeat_seconds, patience), []).append(account)
        undecided = []
        for (seconds, patience), accounts in alike.items():
            now = timezone.now()
            border = now - timedelta(seconds=seconds)  # what becomes unknown meanwhile falls on the same side of it
            if seconds:
                await self._database.call(outbox.repeat, accounts=accounts, made_after=border, now=now)
            undecided += await self._database.call(
                outbox.unknown,
                accounts=[account for account in accounts if account in self._deciding],
                limit=_CLAIM_LIMIT,
                made_before=border if seconds else None,
                patience=patience,
                now=now,
            )
        return undecided

    async def _reconcile(self, claim: ClaimedSend) -> None:
        """Ask the platform; what it denies having is sent again without a label."""
        row = {"outbox_id": claim.message.outbox_id}
        try:
            async with asyncio.timeout(self._config.send_timeout_seconds):
                receipt = await self._supervisor.keepers[claim.message.account].reconcile(claim.message)
        except (BotsError, TimeoutError, KeyError) as error:
            logger.info("message %d could not be reconciled yet: %s", claim.message.outbox_id, error)
            await self._store(outbox.look_again, **row, at=timezone.now() + _RECONCILE_WAIT)
            return
        if receipt is None:
            await self._store(outbox.resend, **row, is_labelled=False, now=timezone.now())
        else:
            await self._store(outbox.mark_sent, **row, worker_id=self._worker_id, receipt=receipt, now=timezone.now())
