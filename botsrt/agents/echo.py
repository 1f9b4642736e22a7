"""Says what it hears: the agent that every new bot starts with."""

from __future__ import annotations

import asyncio

from botsrt.agents.base import BaseAgent
from botsrt.core.errors import ConfigurationError
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option

#: Longest pause that makes sense, in seconds.
_MAX_DELAY_SECONDS = 3_600.0


class Agent(BaseAgent):
    settings = (
        Option(name="prefix", help="Put before the text."),
        Option(name="delay_seconds", help="How long it pretends to think.", default="0"),
    )

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config)
        self._prefix = self.setting("prefix")
        self._delay_seconds = _seconds(self.setting("delay_seconds"))

    async def run(self, request: AgentRequest) -> AgentReply:
        await asyncio.sleep(self._delay_seconds)
        return AgentReply(text=self._prefix + (request.text or _named(request)))


def _named(request: AgentRequest) -> str:
    """A message without a word is echoed by what was attached: ``[photo] [document]``."""
    return " ".join(f"[{attachment.kind}]" for attachment in request.attachments)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _MAX_DELAY_SECONDS:  # also refuses nan
        raise ConfigurationError(f"delay_seconds: {text!r} is not a number from 0 to {_MAX_DELAY_SECONDS:g}.")
    return seconds
