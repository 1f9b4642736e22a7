"""Commands of the chat that others bring: installed packages by an entry point, this installation by its settings.

One that cannot be used is left out, and said (check ``botsrt.W004``); the others work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from botsrt import conf
from botsrt.agents import dotted
from botsrt.core import commands
from botsrt.core.commands import ChatCommand
from botsrt.core.errors import ConfigurationError

#: The entry points that name commands.
GROUP = "praisonweb.commands"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was named as a command."""

    source: str  # where it was named
    command: ChatCommand | None  # None: it cannot be used
    problem: str = ""  # why


def named() -> Iterator[Found]:
    """Everything that is named as a command, each with what is wrong with it. What comes first has the name."""
    taken: dict[str, str] = {}
    for source, load in _sources():
        try:
            command = commands.check(load())
            if command.name in taken:
                raise ConfigurationError(f"/{command.name} comes from {taken[command.name]} already.")
        except (Exception, SystemExit) as error:  # noqa: BLE001  somebody else's code, which may raise anything
            said = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}"
            yield Found(source=source, command=None, problem=said)
        else:
            taken[command.name] = source
            yield Found(source=source, command=command)


def usable() -> Iterator[ChatCommand]:
    """The commands that can be used; what is wrong with others is logged."""
    for found in named():
        if found.command is None:
            logger.warning("a command of the chat is left out: %s: %s", found.source, found.problem)
        else:
            yield found.command


def _sources() -> Iterator[tuple[str, Callable[[], Any]]]:
    for path in conf.load().commands:
        yield f"BOTSRT_COMMANDS {path}", partial(dotted.named, path, setting="BOTSRT_COMMANDS")
    for point in sorted(entry_points(group=GROUP)):
        yield f"the entry point {point.name} = {point.value}", point.load
