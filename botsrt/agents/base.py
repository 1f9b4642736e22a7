"""What every kind of agent would otherwise write again."""

from __future__ import annotations

from typing import ClassVar

from botsrt.core.errors import ConfigurationError
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest, Option


class BaseAgent:
    """Defaults for an agent that holds nothing open; see ``core.ports.Agent``."""

    settings: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        for option in self.settings:
            value = self.setting(option.name)
            if option.is_required and not value:
                raise ConfigurationError(f"{option.name}: missing; {option.help}")
            if option.choices and value not in option.choices:
                raise ConfigurationError(f"{option.name}: {value!r} is not one of {', '.join(option.choices)}.")

    def setting(self, name: str) -> str:
        """The profile's value of a setting, or the declared default."""
        defaults = {option.name: option.default for option in self.settings}
        return self.config.settings.get(name) or defaults[name]

    def obstacle(self) -> str:
        """Nothing stands in the way."""
        return ""

    async def run(self, request: AgentRequest) -> AgentReply:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to release."""
