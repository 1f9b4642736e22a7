"""``Bot`` and ``BotOS``: bots in a program of one's own, run by the same worker as ``runbots``.

What a program says becomes a bot like any other: it is stored in the project's database, and the site shows it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import transaction
from django.utils import timezone

from botsrt import conf
from botsrt.api import project
from botsrt.api.agent import PROGRAM, described, offer
from botsrt.api.sessions import BotSessionManager
from botsrt.core.errors import BotsError, CredentialError
from botsrt.core.identity import IdentityResolverProtocol
from botsrt.core.ports import AgentConfig, Option
from botsrt.core.resets import Reset
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.shutdown import on_signal
from botsrt.runtime.worker import Worker
from botsrt.services import bots, identity
from botsrt.services.bots import Changes, Shape

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BotConfig:
    """What a bot is told beside its platform and its agent. What is not said here stays as it is in the database, or is
    taken from the environment: ``TELEGRAM_POLICY``, and ``TELEGRAM_<SETTING>`` for each setting of its platform."""

    account: str = ""  # its stable name, part of every key; empty: platform and agent, such as telegram-assistant
    unknown_user_policy: str | None = None  # what strangers may do: deny (so it is in the beginning), pair or allow
    allowed_users: Sequence[str] | None = None  # user ids that may always write
    session_ttl: float | None = None  # seconds of silence after which a conversation begins anew
    settings: Mapping[str, str] = field(default_factory=dict)  # as of ``bots add --setting``


class Bot:
    """One bot on one platform.

    Its credentials come from the environment: ``TELEGRAM_TOKEN``; ``SLACK_BOT_TOKEN`` and ``SLACK_APP_TOKEN``.
    """

    def __init__(self, platform: str, *, agent: Any, config: BotConfig | None = None) -> None:
        """Say what shall run; nothing is opened or checked before it runs.

        Args:
            agent: an ``Agent``, a function that takes a request, or an object with ``chat`` or ``achat``.
        """
        self.platform = platform
        self.agent = agent
        self.config = config or BotConfig()
        self._fleet = _Fleet([self])

    def __repr__(self) -> str:
        return f"Bot({self.platform!r}, account={self.account!r})"

    @property
    def account(self) -> str:
        """The stable name of the bot."""
        return self.config.account or f"{self.platform}-{described(self.agent).name.partition('.')[2]}"

    @cached_property
    def _session(self) -> BotSessionManager:
        """Its conversations, for ``mirror_to_session``."""
        return BotSessionManager(platform=self.platform)

    def run(self) -> None:
        """Run until SIGTERM or Ctrl-C, then drain: running turns get a grace period, nothing is lost.

        Raises:
            CredentialError: a credential is missing; names its variable.
            BotsError: the bot cannot work as it is configured, or the runtime broke.
        """
        self._fleet.run()

    async def start(self) -> None:
        """``run`` in the event loop of the caller: returns after ``stop``; cancelled, it drains."""
        await self._fleet.start()

    async def stop(self) -> None:
        """Let ``start`` drain and return."""
        self._fleet.stop()


class BotOS:
    """Bots on several platforms with one agent, and one conversation for each linked person."""

    def __init__(
        self,
        *,
        agent: Any,
        platforms: Sequence[str],
        identity_resolver: IdentityResolverProtocol | None = None,
        config: BotConfig | None = None,
    ) -> None:
        """Say what shall run.

        Args:
            identity_resolver: who is who, for this process; None: as the settings say, which is the database.
            config: for all of them; without an account, because each has its own.
        """
        self.bots = [Bot(platform, agent=agent, config=config) for platform in platforms]
        self._fleet = _Fleet(self.bots, identity_resolver=identity_resolver)

    def run(self) -> None:
        """As ``Bot.run``."""
        self._fleet.run()

    async def start(self) -> None:
        """As ``Bot.start``."""
        await self._fleet.start()

    async def stop(self) -> None:
        """As ``Bot.stop``."""
        self._fleet.stop()


class _Fleet:
    """The bots of one program, and the worker that runs them."""

    def __init__(self, members: Sequence[Bot], *, identity_resolver: IdentityResolverProtocol | None = None) -> None:
        self._members = members
        self._resolver = identity_resolver
        self._stop: asyncio.Event | None = None

    def run(self) -> None:
        asyncio.run(self._until_signal())

    async def _until_signal(self) -> None:
        config = conf.load()
        self._stop = on_signal(hard_after_seconds=config.drain_seconds + config.send_timeout_seconds + 15)
        await self._serve(self._stop)

    async def start(self) -> None:
        self._stop = asyncio.Event()
        await self._serve(self._stop)

    def stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    async def _serve(self, stop: asyncio.Event) -> None:
        config = conf.load()
        database = Database(max_batch=config.max_batch, enter=project.check_database)
        if self._resolver is not None:
            identity.resolve_with(self._resolver)
        try:
            for bot in self._members:
                await _settle(bot, database)
            worker = Worker(database=database, config=config, accounts=[bot.account for bot in self._members])
            await worker.start()
            logger.info("running as %s: %s", worker.id, ", ".join(bot.account for bot in self._members))
            await _until_stopped(worker, stop)
        finally:
            await database.close()
            if self._resolver is not None:
                identity.resolve_with(None)


async def _until_stopped(worker: Worker, stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    broken = asyncio.create_task(worker.wait_broken())
    try:
        await asyncio.wait({stopping, broken}, return_when=asyncio.FIRST_COMPLETED)
        if broken.done():
            raise BotsError("A loop of the runtime ended, which none should; the log says why.")
    finally:
        stopping.cancel()
        broken.cancel()
        await worker.stop()


async def _settle(bot: Bot, database: Database) -> None:
    """Store the bot and its agent, as the program and the environment describe them."""
    profile = described(bot.agent)
    offer(bot.agent, profile)
    shape = await asyncio.to_thread(platforms.shape, bot.platform)  # imports the platform's SDK
    options = await asyncio.to_thread(platforms.agent_options, profile.kind)
    changes = _changes(bot, shape, agent=profile.name)
    warning = await database.call(_store, bot=bot, profile=profile, options=options, shape=shape, changes=changes)
    if warning:
        raise CredentialError(warning)


def _store(*, bot: Bot, profile: AgentConfig, options: tuple[Option, ...], shape: Shape, changes: Changes) -> str:
    now = timezone.now()
    with transaction.atomic():
        bots.adopt_agent(profile=profile, options=options, actor=PROGRAM, now=now)
        bots.adopt(account=bot.account, platform=bot.platform, shape=shape, changes=changes, actor=PROGRAM, now=now)
        return platforms.check_stored(bot.account)


def _changes(bot: Bot, shape: Shape, *, agent: str) -> Changes:
    """What the environment says of the bot, and then the program.

    Raises:
        CredentialError: a credential is missing; names its variable.
    """
    config = bot.config
    settings = {
        option.name: value
        for option in (*bots.COMMON_SETTINGS, *shape.settings)
        if (value := os.environ.get(_variable(bot, option.name)))
    }
    if config.allowed_users is not None:
        settings["allowed_users"] = ",".join(config.allowed_users)
    if config.session_ttl is not None:
        settings |= {"reset": Reset.IDLE, "reset_idle_seconds": f"{config.session_ttl:.0f}"}
    credentials = {}
    for option in shape.credentials:
        name = _variable(bot, option.name)
        if os.environ.get(name):
            credentials[option.name] = f"env:{name}"
        elif option.is_required:
            raise CredentialError(f"{name} is not set in the environment: the {option.name} of the bot. {option.help}")
    return Changes(
        agent=agent,
        policy=config.unknown_user_policy or os.environ.get(_variable(bot, "policy")) or None,
        settings={**settings, **config.settings},
        credentials=credentials,
        is_enabled=True,
    )


def _variable(bot: Bot, name: str) -> str:
    return f"{bot.platform}_{name}".upper()
