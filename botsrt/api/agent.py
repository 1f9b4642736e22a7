"""``Agent``: something that answers, with a conversation of its own that is stored and can be resumed."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from django.utils import timezone

from botsrt import conf
from botsrt.agents import library, llm, python, registry
from botsrt.api import loop
from botsrt.core import keys, ports
from botsrt.core.actors import Actor
from botsrt.core.errors import InvalidInput
from botsrt.core.ports import AgentConfig
from botsrt.runtime import platforms
from botsrt.runtime.inline import Answering, Inline
from botsrt.services import bots, inline
from botsrt.services.materials import Materials

#: Names the model where the program does not, and what it is if nothing does.
MODEL_VARIABLE = "OPENAI_MODEL_NAME"
DEFAULT_MODEL = "gpt-5-mini"

#: Who acts, in the audit.
PROGRAM = Actor(name="library")

_MEMORY_KEYS = ("db", "session_id", "mirror_runtime_state")


class Agent:
    """An agent with one conversation. The same ``session_id`` goes on with it, in this process or any other.

    Several calls at once, from any number of threads, event loops and processes, are answered one after the other.
    """

    def __init__(
        self,
        name: str = "Agent",
        instructions: str = "",
        *,
        tools: Sequence[Callable[..., Any]] = (),
        memory: Mapping[str, Any] | None = None,
        kind: str = "llm",
        llm: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Check what is given; nothing is opened or called before the first message.

        Args:
            name: what it is called; sessions and turns are recorded with it.
            instructions: what a language model is told about its task.
            tools: functions that a language model may call; they can read ``get_session_context()``.
            memory: ``db``, the path of an SQLite file or the URL of a PostgreSQL database (without it: the project's
                database); ``session_id``, the conversation (without it: a new one); ``mirror_runtime_state``, whether
                what the agent keeps from turn to turn is stored with it (no).
            kind: a kind of agent, as of ``manage.py agents add``.
            llm: the model; else what ``OPENAI_MODEL_NAME`` says, else gpt-5-mini.
            settings: other settings of the kind, such as ``{"base_url": …}``.

        Raises:
            InvalidInput: something of this cannot be used.
            ConfigurationError: ``db`` names no database, or the settings cannot work.
        """
        given = {"db": None, "session_id": "", "mirror_runtime_state": False, **(memory or {})}
        if unknown := given.keys() - set(_MEMORY_KEYS):
            raise InvalidInput(
                "memory", f"{', '.join(sorted(unknown))}: there is no such key; write {', '.join(_MEMORY_KEYS)}."
            )
        if tools and kind != "llm":
            raise InvalidInput("tools", f"agents of kind {kind} take none.")
        self.name = name
        self.session_id = str(given["session_id"] or f"{slug(name)}-{uuid.uuid4().hex[:12]}")
        self._mirrors_runtime_state = bool(given["mirror_runtime_state"])
        self._tools = tuple(tools)
        chosen = {"model": llm or os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL} if kind == "llm" else {}
        config = conf.load()
        registry.agent_class(kind, config.agent_packages)
        self._profile = AgentConfig(
            name=keys.library_profile(slug(name)),
            kind=kind,
            instructions=instructions,
            settings={**chosen, **(settings or {})},
        )
        self._inline = Inline(database=loop.database(given["db"]), config=config)
        self._making = asyncio.Lock()
        self._agent: ports.Agent | None = None  # made on the library's loop, with the first message
        self._stored: AgentConfig | None = None  # the profile, once it and the session are in the database

    def __repr__(self) -> str:
        return f"Agent(name={self.name!r}, session_id={self.session_id!r})"

    def start(self, prompt: str) -> str:
        """What the agent answers to ``prompt``, with the conversation so far.

        Raises:
            AgentUnavailable: it cannot run at present: no key, for one.
            AgentError: it failed, or did not answer in time; the message is not part of the conversation.
            Conflict: staff have the conversation in hand.
            ConfigurationError: the database or the settings cannot be used.
        """
        return loop.run(self._say(prompt))

    chat = start

    async def achat(self, prompt: str) -> str:
        """``start``, without blocking the event loop."""
        return await loop.arun(self._say(prompt))

    astart = achat

    # -- what bots and session managers use ----

    def profile(self) -> AgentConfig:
        """What can be stored of it: as itself, where that is all there is to it, else as an agent of this program."""
        names = [dotted_name(tool) for tool in self._tools]
        if not all(names):
            return AgentConfig(name=self._profile.name, kind="library", settings={"about": self._about()})
        tools = ",".join(filter(None, (self._profile.settings.get("tools", ""), *map(str, names))))
        settings = {**self._profile.settings, "tools": tools} if tools else self._profile.settings
        return AgentConfig(
            name=self._profile.name,
            kind=self._profile.kind,
            instructions=self._profile.instructions,
            settings=settings,
        )

    def for_turns(self) -> ports.Agent:
        """A new agent of the runtime that answers as this one does, with the history that each request brings."""
        if self._profile.kind == "llm":
            return cast(ports.Agent, llm.Agent(self._profile, tools=self._tools))
        return registry.agent_class(self._profile.kind, conf.load().agent_packages)(self._profile)

    def _about(self) -> str:
        names = [getattr(tool, "__name__", type(tool).__name__) for tool in self._tools]
        return f"{self._profile.settings['model']}, with {', '.join(names)}"

    async def on_loop(self) -> ports.Agent:
        """The one for the library's loop."""
        async with self._making:
            if self._agent is None:
                self._agent = await asyncio.to_thread(self.for_turns)  # what it imports may take seconds
                loop.close_with(self, self._agent)
            return self._agent

    async def _say(self, prompt: str) -> str:
        agent, stored = await self.on_loop(), await self._begun()

        async def choose(materials: Materials) -> Answering:
            return Answering(agent=agent, profile=stored, mirrors_runtime_state=self._mirrors_runtime_state)

        reply = await self._inline.say(session_id=self.session_id, text=prompt, actor=PROGRAM, choose=choose)
        return reply.text

    async def _begun(self) -> AgentConfig:
        """Make sure that the session is there, and the profile, so that others can go on with it."""
        async with self._making:
            if self._stored is None:
                stored = await keep_profile(self._inline, self.profile())
                await self._inline.database.call(
                    inline.begin,
                    session_id=self.session_id,
                    platform=keys.LIBRARY_PLATFORM,
                    account=slug(self.name),
                    now=timezone.now(),
                )
                self._stored = stored
            return self._stored


async def keep_profile(runner: Inline, profile: AgentConfig) -> AgentConfig:
    """Store the profile where the runner's turns are, so that others can go on with its sessions."""
    return await runner.database.call(
        bots.adopt_agent,
        profile=profile,
        options=platforms.agent_options(profile.kind),
        actor=PROGRAM,
        now=timezone.now(),
    )


def described(agent: Any) -> AgentConfig:
    """The profile of an ``Agent``, of a function that takes a request, or of an object with ``chat`` or ``achat``."""
    if isinstance(agent, Agent):
        return agent.profile()
    name = getattr(agent, "name", None) or getattr(agent, "__name__", None) or type(agent).__name__
    about = dotted_name(agent) or f"{type(agent).__module__}:{type(agent).__qualname__}"
    return AgentConfig(name=keys.library_profile(slug(str(name))), kind="library", settings={"about": about})


async def on_loop(agent: Any) -> ports.Agent:
    """The runtime's agent for any of these, on the library's loop."""
    return await agent.on_loop() if isinstance(agent, Agent) else made(agent)


def made(agent: Any) -> ports.Agent:
    """A new agent of the runtime for any of these."""
    if isinstance(agent, Agent):
        return agent.for_turns()
    profile = described(agent)
    target = AgentConfig(name=profile.name, kind="python", settings={"target": profile.settings["about"]})
    return cast(ports.Agent, python.Agent(target, target=agent))


def offer(agent: Any, profile: AgentConfig) -> None:
    """Let workers of this process answer with ``agent`` where its profile alone is not enough."""
    if profile.kind == "library":
        library.offer(profile.name, lambda: made(agent))


def slug(name: str) -> str:
    """``name`` as an account: "Support Bot" is ``support-bot``."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(words)[:40] or "agent"


def dotted_name(found: Any) -> str:
    """``package.module:attribute``, where that leads any process to ``found``; else empty."""
    module, name = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
    if not module or module == "__main__" or not name.isidentifier():
        return ""
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is found else ""
