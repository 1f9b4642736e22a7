"""Turns that a program runs itself: wait for the lane, run the agent, end the turn, return the reply.

The same services as for a message of a platform, without a gate and without an outbox: whoever calls has decided that
the agent may answer, and gets the answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core import backoff, runtime_state
from botsrt.core.actors import Actor
from botsrt.core.context import clear_session_context, set_session_context
from botsrt.core.errors import AgentError, Conflict, StorageUnavailable
from botsrt.core.ports import Agent, AgentConfig, AgentReply
from botsrt.runtime.db import Database
from botsrt.runtime.turn import make_request
from botsrt.services import claims, finishing, inline, turns
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.finishing import Result
from botsrt.services.materials import Materials, gather

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Waits between two looks at a lane in which another process runs a turn, in seconds: the first, and the longest.
_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 0.5

#: How often a database that is away is called again before the caller hears of it.
_MAX_RETRIES = 5

#: Renewals per lease, as of a worker's heartbeat.
_BEATS_PER_LEASE = 3

#: Who runs the turns of this process.
_RUNNER = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}.inline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The agent that answers, and the profile that the turn is recorded with."""

    agent: Agent
    profile: AgentConfig
    mirrors_runtime_state: bool = False


#: Finds the agent of a turn; raises what the caller shall hear.
Choose = Callable[[Materials], Awaitable[Answering]]

#: Decides what becomes of the entries of a turn that failed or was cancelled.
EndFailed = Callable[[ClaimedTurn, Failure], Awaitable[None]]


class Inline:
    """Runs turns for the program that it is part of, on one database and in one event loop."""

    def __init__(self, *, database: Database, config: RuntimeConfig) -> None:
        self.database = database
        self._config = config
        # Callers of this process stand in line; between processes whoever looks first after an end is next.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def say(
        self, *, session_id: str, text: str, actor: Actor, sender_name: str = "", choose: Choose
    ) -> AgentReply:
        """What the agent answers to ``text`` in a session with its history. If it fails, only the caller hears of it.

        Raises:
            NotFound: there is no such session.
            InvalidInput: the text is empty.
            Conflict: the bot does not have the conversation, or it moved on during the run.
            AgentError: the agent failed, or did not answer in time.
        """
        async with self.in_line(session_id):
            entry_id = await self.database.call(
                inline.say,
                session_id=session_id,
                text=text,
                actor=actor,
                sender_name=sender_name,
                now=timezone.now(),
            )
            try:
                turn = await self.claim(entry_id)
            except BaseException:
                await asyncio.shield(self._withdraw(entry_id))
                raise
            return await self.run(turn, choose=choose, end_failed=self.give_up)

    @asynccontextmanager
    async def in_line(self, key: str) -> AsyncIterator[None]:
        """One caller of this process at a time, in the order of asking."""
        lock = self._lines.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def claim(self, entry_id: int) -> ClaimedTurn:
        """Claim an entry, as soon as no other turn of its lane runs.

        Raises:
            NotFound, Conflict: as ``claims.claim_entry``.
        """
        looks = 0
        while True:
            now = timezone.now()
            turn = await self._insist(
                claims.claim_entry,
                entry_id=entry_id,
                worker_id=_RUNNER,
                lease=timedelta(seconds=self._config.lease_seconds),
                claim_timeout=timedelta(seconds=self._config.claim_timeout_seconds),
                now=now,
            )
            if turn is not None:
                return turn
            # There may be no worker that notices when whoever runs the other turn has died.
            await self.database.call(turns.abandon_expired, max_worker_deaths=self._config.max_worker_deaths, now=now)
            wait = min(_FIRST_WAIT_SECONDS * 1.5**looks, _LONGEST_WAIT_SECONDS)
            await asyncio.sleep(random.uniform(wait / 2, wait))
            looks = min(looks + 1, 20)

    async def run(self, turn: ClaimedTurn, *, choose: Choose, end_failed: EndFailed) -> AgentReply:
        """Run a claimed turn to its end. Raises as ``say`` does; ``end_failed`` has been called then."""
        asking = asyncio.create_task(self._ask(turn, choose))
        keeping = asyncio.create_task(self._keep(turn, asking))
        try:
            answering, reply, begins_anew = await asking
        except asyncio.CancelledError as error:
            await asyncio.shield(end_failed(turn, Failure.of(error)))
            if _is_cancelled():
                raise
            raise Conflict(f"The turn in {turn.session_id} was stopped.") from error
        except Exception as error:
            await end_failed(turn, Failure.of(error, is_timeout=isinstance(error, _RanTooLong)))
            raise
        finally:
            keeping.cancel()
        await self._finish(turn, answering, reply, begins_anew=begins_anew)
        return reply

    async def give_up(self, turn: ClaimedTurn, failure: Failure) -> None:
        """The caller hears why; the message is discarded. See ``turns.give_up``."""
        await self.database.call(turns.give_up, turn=turn, failure=failure, now=timezone.now())

    async def _ask(self, turn: ClaimedTurn, choose: Choose) -> tuple[Answering, AgentReply, str]:
        """Who answers, what, and why the conversation begins anew with it, if it does."""
        materials = await self.database.call(
            gather,
            turn=turn,
            max_history=self._config.max_history,
            refused_for=self._config.pairing_terms.refused_for,
            now=timezone.now(),
        )
        answering = await choose(materials)
        if not answering.mirrors_runtime_state:
            materials = replace(materials, runtime_state={})
        request = make_request(turn, turn.entries, materials)
        token = set_session_context(request.context)
        deadline = asyncio.timeout(self._config.run_timeout_seconds)
        try:
            async with deadline:
                reply = await answering.agent.run(request)
                if answering.mirrors_runtime_state:
                    runtime_state.check(reply.runtime_state)
                return answering, reply, materials.begins_anew
        except TimeoutError as error:
            if not deadline.expired():  # the agent's own time-out, not ours
                raise
            raise _RanTooLong(f"The agent did not answer within {self._config.run_timeout_seconds:g} s.") from error
        finally:
            clear_session_context(token)

    async def _finish(self, turn: ClaimedTurn, answering: Answering, reply: AgentReply, *, begins_anew: str) -> None:
        result = Result(
            text=reply.text if reply.text.strip() else "",
            agent=answering.profile.name,
            agent_version=answering.profile.version,
            usage=reply.usage,
            metadata=reply.metadata,
            runtime_id=answering.profile.kind,
            runtime_state=reply.runtime_state if answering.mirrors_runtime_state else {},
            is_returned=True,
            begins_anew=begins_anew,
        )
        late_after = timedelta(seconds=self._config.late_reply_seconds)
        now = timezone.now()
        if not await self._insist(finishing.finish, turn=turn, result=result, late_after=late_after, now=now):
            await self.give_up(turn, Failure(error_class="Conflict", error_text="The conversation moved on."))
            raise Conflict(
                f"The conversation {turn.session_id} moved on while the agent ran (it began anew, was taken over, or "
                "another process took the turn for dead); the answer was not kept."
            )

    async def _insist(self, service: Callable[..., T], **arguments: Any) -> T:
        """Call the database again when it was away for a moment; the services refuse what was done already."""
        failures = 0
        while True:
            try:
                return await self.database.call(service, **arguments)
            except StorageUnavailable:
                failures += 1
                if failures > _MAX_RETRIES:
                    raise
                wait = backoff.exponential(failures, first_seconds=0.1, max_seconds=5.0)
                await asyncio.sleep(wait.total_seconds())

    async def _keep(self, turn: ClaimedTurn, asking: asyncio.Task[Any]) -> None:
        """Renew the turn's lease, and stop the run when the turn was taken away: by staff, or by a sweep."""
        lease = timedelta(seconds=self._config.lease_seconds)
        while True:
            await asyncio.sleep(min(self._config.lease_seconds / _BEATS_PER_LEASE, self._config.poll_seconds))
            try:
                lost = await self.database.call(
                    turns.renew, worker_id=_RUNNER, turn_ids=[turn.id], lease=lease, now=timezone.now()
                )
            except StorageUnavailable as error:
                logger.warning("turn %s was not renewed: %s", turn.id, error)
                continue
            if lost:
                asking.cancel()

    async def _withdraw(self, entry_id: int) -> None:
        await self.database.call(
            inline.withdraw, entry_id=entry_id, reason="Whoever said this did not wait.", now=timezone.now()
        )


class _RanTooLong(AgentError):
    """The agent did not answer in time."""


def _is_cancelled() -> bool:
    """Whether somebody cancels the task that runs this, and not only one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
