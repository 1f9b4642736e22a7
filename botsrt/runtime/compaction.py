"""Sum up long conversations, after the turn: nobody waits for it, and nothing depends on it."""

from __future__ import annotations

import asyncio
import logging

from django.utils import timezone

from botsrt.core.ports import Summarizing
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.db import Database
from botsrt.services import summaries
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedTurn

logger = logging.getLogger(__name__)

#: Longest time for writing a summary, in seconds.
_PATIENCE_SECONDS = 60.0


async def after(turn: ClaimedTurn, bot: BotView, *, database: Database, agents: AgentPool) -> None:
    """Let the agent sum up the conversation in which ``turn`` has ended, if it wants to and it is time."""
    try:
        agent = await agents.get(bot.agent)
        if not isinstance(agent, Summarizing) or not agent.compact_after:
            return
        draft = await database.call(summaries.due, session_pk=turn.session_pk, after=agent.compact_after)
        if draft is None:
            return
        async with asyncio.timeout(_PATIENCE_SECONDS):
            summary = await agent.summarize(draft.items, earlier=draft.earlier)
        await database.call(
            summaries.keep,
            draft=draft,
            text=summary.text,
            agent=bot.agent.name,
            usage=summary.usage,
            now=timezone.now(),
        )
    except Exception as error:  # noqa: BLE001  an agent is somebody else's code, and the answer is out already
        logger.warning("session %s was not summed up: %s: %s", turn.session_id, type(error).__name__, error)
