"""An agent that a program made (``botsrt.Agent``) and that no profile can describe: it answers where that program runs.

A program offers what it made under the name of its profile. Anywhere else such an agent is not available: messages wait
and lose no attempt, until the program runs again.
"""

from __future__ import annotations

from collections.abc import Callable

from botsrt.agents.base import BaseAgent
from botsrt.core import ports
from botsrt.core.errors import AgentUnavailable
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option

#: Name of a profile → what makes its agent in this process.
_offered: dict[str, Callable[[], ports.Agent]] = {}


def offer(name: str, make: Callable[[], ports.Agent]) -> None:
    """Agents of the profile ``name`` are made by ``make`` from now on."""
    _offered[name] = make


class Agent(BaseAgent):
    settings = (Option(name="about", help="What it is, for the reader."),)

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        make = _offered.get(config.name)
        self._agent = make() if make else None

    def obstacle(self) -> str:
        if self._agent is None:
            return f"{self.config.name} is made by a program, and answers only where that program runs."
        return self._agent.obstacle()

    async def run(self, request: AgentRequest) -> AgentReply:
        if self._agent is None:
            raise AgentUnavailable(self.obstacle())
        return await self._agent.run(request)

    async def close(self) -> None:
        if self._agent is not None:
            await self._agent.close()
