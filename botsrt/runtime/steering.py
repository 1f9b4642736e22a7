"""Hand messages to runs that take text while they go on, where a bot's ``busy`` is steer.

A message joins the turn before the agent is asked to take it, so that it has one owner at any time. What is not taken
leaves the turn again and waits for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.utils import timezone

from botsrt.core.messages import as_lines
from botsrt.core.ports import AgentConfig, Steerable
from botsrt.core.states import BusyMode
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.db import Database
from botsrt.services import pace
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedEntry, ClaimedTurn

logger = logging.getLogger(__name__)

#: How long an agent may think about whether it takes a text. It only has to put it where its run looks.
_PATIENCE_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class _Run:
    agent: AgentConfig
    taken: list[ClaimedEntry] = field(default_factory=list)


class Steering:
    """The runs of this worker that can be steered."""

    def __init__(self, *, database: Database, agents: AgentPool) -> None:
        self._database = database
        self._agents = agents
        self._runs: dict[uuid.UUID, _Run] = {}

    @contextmanager
    def open(self, turn: ClaimedTurn, bot: BotView) -> Iterator[list[ClaimedEntry]]:
        """Let messages join the run of ``turn`` while the block lasts.

        Yields:
            The entries that the agent took; the turn's answer is to them, too.
        """
        run = _Run(agent=bot.agent)
        if bot.busy == BusyMode.STEER:
            self._runs[turn.id] = run
        try:
            yield run.taken
        finally:
            self._runs.pop(turn.id, None)

    async def offer(self) -> None:
        """Hand what waits behind the runs to their agents.

        Raises:
            StorageUnavailable: the database did not take it; nothing was handed over.
        """
        for turn_id, run in list(self._runs.items()):
            joined = await self._database.call(pace.join, turn_id=turn_id, now=timezone.now())
            if not joined:
                continue
            if await self._takes(turn_id, run, joined) and turn_id in self._runs:
                run.taken.extend(joined)
            else:
                self._runs.pop(turn_id, None)  # it is not asked again
                await self._database.call(pace.leave, turn_id=turn_id, entry_ids=[entry.id for entry in joined])

    async def _takes(self, turn_id: uuid.UUID, run: _Run, joined: list[ClaimedEntry]) -> bool:
        try:
            agent = await self._agents.get(run.agent)
            if not isinstance(agent, Steerable):
                return False
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await agent.steer(str(turn_id), as_lines([entry.message for entry in joined]))
        except Exception as error:  # noqa: BLE001  an agent is somebody else's code: it may raise anything
            logger.warning("agent %s took no text while it ran: %s", run.agent.name, type(error).__name__)
            return False
