"""Go on with a stored session from a program: its own agent answers, with its history, in its lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from botsrt import conf
from botsrt.core.actors import Actor
from botsrt.core.ports import AgentReply
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.databases import bridge, place
from botsrt.runtime.db import Database
from botsrt.runtime.inline import Answering, Inline
from botsrt.services import inline
from botsrt.services.materials import Materials

T = TypeVar("T")


class Conversation:
    """One session of one database, for whoever ``actor`` is."""

    def __init__(self, *, session_id: str, actor: Actor, database: Database, agents: AgentPool) -> None:
        self.session_id = session_id
        self._actor = actor
        self._database = database
        self._agents = agents
        self._inline = Inline(database=database, config=conf.load())

    async def read(self, function: Callable[..., T], /, **arguments: Any) -> T:
        """What ``function`` reads from the session's database."""
        return await self._database.call(function, session_id=self.session_id, **arguments)

    async def say(self, text: str) -> AgentReply:
        """What the agent of the session answers; raises as ``Inline.say``, and NotFound where the bot is gone."""
        return await self._inline.say(
            session_id=self.session_id,
            text=text,
            actor=self._actor,
            sender_name=self._actor.name,
            choose=self._agent_of_the_session,
        )

    async def _agent_of_the_session(self, materials: Materials) -> Answering:
        profile = (
            materials.bot.agent
            if materials.bot is not None
            else await self._database.call(inline.library_profile, session_id=self.session_id)
        )
        return Answering(
            agent=await self._agents.get(profile),
            profile=profile,
            mirrors_runtime_state=materials.bot is not None and materials.bot.mirrors_runtime_state,
        )


@asynccontextmanager
async def conversation(*, session_id: str, actor: Actor, location: str | None = None) -> AsyncIterator[Conversation]:
    """The session ``session_id``, open for the length of the block.

    Args:
        location: path or URL of its database; None: the project's.

    Raises:
        ConfigurationError: ``location`` names no database.
    """
    database = Database(max_batch=conf.load().max_batch) if location is None else bridge(place(location))
    agents = AgentPool()
    try:
        yield Conversation(session_id=session_id, actor=actor, database=database, agents=agents)
    finally:
        await agents.close()
        await database.close()
