"""Agent objects of this process, made when first needed and made anew when their profile changes."""

from __future__ import annotations

import logging

from botsrt import conf
from botsrt.agents import registry
from botsrt.core.ports import Agent, AgentConfig

logger = logging.getLogger(__name__)


class AgentPool:
    """One object per profile and version. Agents keep no state between turns, so one serves all conversations."""

    def __init__(self) -> None:
        self._packages = conf.load().agent_packages
        self._agents: dict[str, tuple[AgentConfig, Agent]] = {}

    def get(self, config: AgentConfig) -> Agent:
        """The agent of this profile.

        Raises:
            InvalidInput: there is no such kind.
            ConfigurationError: its settings cannot work.
        """
        known = self._agents.get(config.name)
        if known is not None and known[0] == config:
            return known[1]
        agent = registry.agent_class(config.kind, self._packages)(config)
        self._agents[config.name] = (config, agent)  # turns that run on the older object keep it alive until they end
        return agent

    async def close(self) -> None:
        for _, agent in self._agents.values():
            await agent.close()
        self._agents.clear()
