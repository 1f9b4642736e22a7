"""Agent objects of this process, made when first needed and made anew when their profile changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from botsrt import conf
from botsrt.agents import registry
from botsrt.core.ports import Agent, AgentConfig


class AgentPool:
    """One object per profile and version. Agents keep no state between turns, so one serves all conversations."""

    def __init__(self) -> None:
        self._packages = conf.load().agent_packages
        self._agents: dict[str, tuple[AgentConfig, Agent]] = {}
        self._making = asyncio.Lock()

    async def get(self, config: AgentConfig) -> Agent:
        """The agent of this profile. It is made in a thread: what it imports may take seconds.

        Raises:
            InvalidInput: there is no such kind.
            ConfigurationError: its settings cannot work.
        """
        async with self._making:
            known = self._agents.get(config.name)
            if known is not None and known[0] == config:
                return known[1]
            agent = await asyncio.to_thread(self._make, config)
            self._agents[config.name] = (config, agent)  # turns on the older object keep it alive until they end
            return agent

    def _make(self, config: AgentConfig) -> Agent:
        own = replace(config, settings=dict(config.settings))  # what it does with them changes nobody else's
        return registry.agent_class(config.kind, self._packages)(own)

    async def close(self) -> None:
        for _, agent in self._agents.values():
            await agent.close()
        self._agents.clear()
