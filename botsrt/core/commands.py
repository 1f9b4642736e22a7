"""What people send that no agent answers: commands typed into a chat, and presses of the runtime's own buttons.

Beside the runtime's own commands there may be others, of packages or of this installation: docs/commands.md.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from botsrt.core.context import SessionContext
from botsrt.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One command of the chat."""

    name: str
    help: str  # what it does, in the words of ``/help`` and of the platform's menu
    is_direct_only: bool = False
    is_for_owners: bool = False  # of the bot
    keeps_its_place: bool = False  # answered after what was said before it; the others are answered at once


#: The commands, in the order in which ``/help`` names them.
KINDS = (
    Kind(name="help", help="what you can ask of me here"),
    Kind(name="new", help="begin a new conversation", keeps_its_place=True),
    Kind(name="stop", help="stop what I am doing"),
    Kind(name="status", help="what I am doing, and what waits"),
    Kind(name="retry", help="try your last failed message again"),
    Kind(name="resume", help="go on with an earlier conversation", is_direct_only=True, keeps_its_place=True),
    Kind(name="whoami", help="who you are to me"),
    Kind(name="link", help="connect another account of yours", is_direct_only=True),
)

_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCall:
    """What a command of one's own is given."""

    name: str
    argument: str  # the rest of the message
    context: SessionContext  # who asks, and where
    is_owner: bool  # of the bot
    account: str  # of the bot
    session_id: str
    entry_id: int  # the same at every attempt: an idempotency key for what acts on the outside world


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCommand(Kind):
    """A command of one's own.

    ``answer`` returns what is said, or None to say nothing. Blocking code runs in a thread of its own.
    """

    answer: Callable[[CommandCall], str | Awaitable[str | None] | None]


#: What a press of one of the runtime's own buttons is called where commands have their names.
BUTTON = "button"

#: ``/name``, ``/name@bot`` as Telegram writes it in groups, and the rest of the message.
_SHAPE = re.compile(r"\s*/([a-z][a-z0-9_]*)(?:@\w+)?(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)


#: The names that can be given. Source: Telegram BotCommand.command; 20 characters are the width of our column.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,19}")

#: Longest help, in characters. Source: Telegram BotCommand.description.
_MAX_HELP_CHARS = 256

_PRESS = re.compile(r"pairing:(approve|deny):([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str  # of one of ``kinds()``
    argument: str = ""


def check(command: object) -> ChatCommand:
    """``command``, if it can be used.

    Raises:
        ConfigurationError: it cannot; says why.
    """
    if not isinstance(command, ChatCommand):
        raise ConfigurationError(f"it is a {type(command).__name__}, and must be a botsrt.ChatCommand.")
    if not _NAME.fullmatch(command.name):
        raise ConfigurationError(
            f"its name {command.name!r} is not 1 to 20 of a-z, 0-9 and _, beginning with a letter."
        )
    if command.name in _BY_NAME or command.name == BUTTON:
        raise ConfigurationError(f"/{command.name} has a meaning already.")
    if not 1 <= len(command.help.strip()) <= _MAX_HELP_CHARS or "\n" in command.help:
        raise ConfigurationError(f"the help of /{command.name} is not one line of 1 to {_MAX_HELP_CHARS} characters.")
    if not callable(command.answer):
        raise ConfigurationError(f"the answer of /{command.name} cannot be called.")
    return command


def _none() -> Iterable[ChatCommand]:
    return ()


_find: Callable[[], Iterable[ChatCommand]] = _none
_own: Mapping[str, ChatCommand] | None = None


def find_own_with(find: Callable[[], Iterable[ChatCommand]]) -> None:
    """Commands beside the runtime's are what ``find`` returns, checked, when it is first needed; now or again."""
    global _find, _own
    _find, _own = find, None


def own() -> Mapping[str, ChatCommand]:
    """The commands beside the runtime's, by their names."""
    global _own
    if _own is None:
        _own = {command.name: command for command in _find()}
    return _own


def kinds() -> tuple[Kind, ...]:
    """All commands, in the order in which ``/help`` names them."""
    return *KINDS, *own().values()


def menu() -> list[tuple[str, str]]:
    """Name and help of the commands that everybody may use, for the menu of a platform."""
    return [(kind.name, kind.help) for kind in kinds() if not kind.is_for_owners]


def _kind(name: str) -> Kind | None:
    return _BY_NAME.get(name) or own().get(name)


def parse(text: str) -> Command | None:
    """The command that ``text`` is; None for an ordinary message, which any other word after a slash is."""
    match = _SHAPE.fullmatch(text)
    if match is None or _kind(match[1].lower()) is None:
        return None
    return Command(name=match[1].lower(), argument=(match[2] or "").strip())


def runs_aside(name: str) -> bool:
    """Whether the command (or press) of this name is answered while the lane's turn runs. Empty: an ordinary message.

    ``/new`` and ``/resume`` are not: what was said before them must be answered in the conversation that they end.
    """
    if name == BUTTON:
        return True
    kind = _kind(name)
    return kind is not None and not kind.keeps_its_place


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """A pressed button below a notice about a pairing request."""

    act: str  # approve or deny
    request_id: int

    @property
    def data(self) -> str:
        return f"pairing:{self.act}:{self.request_id}"


def parse_press(data: str) -> Press | None:
    """The press that a button's data means; None for buttons of agents."""
    match = _PRESS.fullmatch(data)
    return Press(act=match[1], request_id=int(match[2])) if match else None
