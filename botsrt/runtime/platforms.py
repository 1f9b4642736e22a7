"""What the installed platforms and agent kinds can be given, and whether a configuration of theirs can work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from botsrt import conf
from botsrt.adapters import registry
from botsrt.agents import registry as agent_registry
from botsrt.core.chunking import chunk, length
from botsrt.core.errors import BotsError, CredentialError, PlatformUnavailable, StorageUnavailable, UnreadableUpdate
from botsrt.core.messages import Answer, DeliveryReport, InboundMessage
from botsrt.core.ports import Adapter, AgentConfig, BotConfig, Option, Probe
from botsrt.services import bots
from botsrt.services.bots import Shape

#: Longest wait for a platform to say who a bot is, in seconds.
_PROBE_SECONDS = 20.0


class _NoSink:
    """For adapters that are only asked about themselves."""

    async def receive(self, message: InboundMessage) -> bool:
        raise StorageUnavailable("This adapter takes no messages.")

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: UnreadableUpdate) -> None:
        raise StorageUnavailable("This adapter takes no messages.")

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        raise StorageUnavailable("This adapter takes no messages.")

    async def newest(self, *, limit: int) -> Sequence[InboundMessage]:
        return ()

    async def reported(self, reports: Sequence[DeliveryReport]) -> None:
        raise StorageUnavailable("This adapter takes no messages.")

    async def answer_to(self, message: InboundMessage, *, within: timedelta) -> Answer:
        raise StorageUnavailable("This adapter takes no messages.")


def names() -> list[str]:
    """The platforms that a bot can be of. A console bot is added in a terminal, where it can be used."""
    return [name for name in registry.platforms(conf.load().adapter_packages) if name != "console"]


def agent_kinds() -> list[str]:
    """The kinds that an agent can be of. One of a program is made by the program."""
    return [name for name in agent_registry.kinds(conf.load().agent_packages) if name != "library"]


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


def check_agent(name: str, kind: str, settings: Mapping[str, str]) -> str:
    """Make the agent once. Returns what keeps it from running in this process's environment; empty: nothing.

    Raises:
        InvalidInput: there is no such kind.
        ConfigurationError: its settings cannot work.
    """
    config = AgentConfig(name=name, kind=kind, settings=settings)
    return agent_registry.agent_class(kind, conf.load().agent_packages)(config).obstacle()


def check(config: BotConfig) -> None:
    """Make the adapter once, without connecting.

    Raises:
        ConfigurationError: its settings cannot work.
    """
    idle_adapter(config)


def idle_adapter(config: BotConfig) -> Adapter:
    """An adapter that takes no messages, and is not started; close it.

    Raises:
        ConfigurationError: its settings cannot work.
    """
    return registry.adapter_class(config.platform, conf.load().adapter_packages)(config, _NoSink())


async def probe(config: BotConfig) -> Probe:
    """Ask the platform who the bot is; raises as ``Adapter.probe`` does."""
    adapter = idle_adapter(config)
    try:
        return await adapter.probe()
    finally:
        await adapter.close()


def check_stored(account: str) -> str:
    """Say now what the bot's adapter would say when it starts; in the transaction that stored it, an error undoes that.

    Returns:
        A warning when it could not be tried, because a variable of the environment is not set; else nothing.

    Raises:
        ConfigurationError: the bot could not start.
    """
    try:
        config = bots.adapter_config(account=account)
    except CredentialError as error:
        return f"{error} The bot was not tried."
    check(config)
    return ""


async def identity(config: BotConfig) -> str:
    """Who the platform says the bot is.

    Raises:
        BotsError: it did not say; the message says why.
    """
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return (await probe(config)).identity
    except BotsError:
        raise
    except TimeoutError as error:
        raise PlatformUnavailable(
            f"The platform of {config.account} did not answer within {_PROBE_SECONDS:g} s."
        ) from error
    except Exception as error:
        raise PlatformUnavailable(f"{type(error).__name__}: {error}") from error
