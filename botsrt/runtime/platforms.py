"""What the installed platforms and agent kinds can be given, and whether a configuration of theirs can work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botsrt import conf
from botsrt.adapters import registry
from botsrt.agents import registry as agent_registry
from botsrt.core.chunking import chunk, length
from botsrt.core.errors import StorageUnavailable, UnreadableUpdate
from botsrt.core.messages import InboundMessage
from botsrt.core.ports import AgentConfig, BotConfig, Option, Probe
from botsrt.services.bots import Shape


class _NoSink:
    """For adapters that are only asked about themselves."""

    async def receive(self, message: InboundMessage) -> bool:
        raise StorageUnavailable("This adapter takes no messages.")

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: UnreadableUpdate) -> None:
        raise StorageUnavailable("This adapter takes no messages.")

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        raise StorageUnavailable("This adapter takes no messages.")


def shape(platform: str) -> Shape:
    """The settings and credentials that bots of ``platform`` take.

    Raises:
        InvalidInput: there is no such platform.
    """
    adapter = registry.adapter_class(platform, conf.load().adapter_packages)
    return Shape(settings=adapter.settings, credentials=adapter.credentials)


def parts(text: str, platform: str) -> tuple[str, ...]:
    """A text cut for its platform, with room for the label that a second sending carries."""
    config = conf.load()
    capabilities = registry.adapter_class(platform, config.adapter_packages).capabilities
    unit = capabilities.text_unit
    return tuple(chunk(text, limit=capabilities.max_text - length(config.resend_label, unit), unit=unit))


def agent_options(kind: str) -> tuple[Option, ...]:
    """The settings that agents of ``kind`` take.

    Raises:
        InvalidInput: there is no such kind.
    """
    return agent_registry.agent_class(kind, conf.load().agent_packages).settings


def check_agent(name: str, kind: str, settings: Mapping[str, str]) -> None:
    """Make the agent once.

    Raises:
        InvalidInput: there is no such kind.
        ConfigurationError: its settings cannot work.
    """
    config = AgentConfig(name=name, kind=kind, settings=settings)
    agent_registry.agent_class(kind, conf.load().agent_packages)(config)


def check(config: BotConfig) -> None:
    """Make the adapter once, without connecting.

    Raises:
        ConfigurationError: its settings cannot work.
    """
    registry.adapter_class(config.platform, conf.load().adapter_packages)(config, _NoSink())


async def probe(config: BotConfig) -> Probe:
    """Ask the platform who the bot is; raises as ``Adapter.probe`` does."""
    adapter = registry.adapter_class(config.platform, conf.load().adapter_packages)(config, _NoSink())
    try:
        return await adapter.probe()
    finally:
        await adapter.close()
