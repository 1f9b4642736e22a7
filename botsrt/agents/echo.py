"""Says what it hears: the agent that every new bot starts with."""

from __future__ import annotations

from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option


class Agent:
    settings: tuple[Option, ...] = (Option(name="prefix", help="Put before the text."),)

    def __init__(self, config: AgentConfig) -> None:
        self._prefix = config.settings.get("prefix", "")

    async def run(self, request: AgentRequest) -> AgentReply:
        return AgentReply(text=self._prefix + request.text)

    async def close(self) -> None:
        """Nothing to release."""
