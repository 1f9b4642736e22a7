"""What people send that the runtime answers itself: commands typed into a chat, and presses of its own buttons."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One command of the chat."""

    name: str
    help: str  # what it does, in the words of ``/help`` and of the platform's menu
    is_direct_only: bool = False
    keeps_its_place: bool = False  # answered after what was said before it; the others are answered at once


#: The commands, in the order in which ``/help`` names them.
KINDS = (
    Kind(name="help", help="what you can ask of me here"),
    Kind(name="new", help="begin a new conversation", keeps_its_place=True),
    Kind(name="stop", help="stop what I am doing"),
    Kind(name="status", help="what I am doing, and what waits"),
    Kind(name="retry", help="try your last failed message again"),
    Kind(name="whoami", help="who you are to me"),
    Kind(name="link", help="connect another account of yours", is_direct_only=True),
)

_BY_NAME = {kind.name: kind for kind in KINDS}

#: What a press of one of the runtime's own buttons is called where commands have their names.
BUTTON = "button"

#: ``/name``, ``/name@bot`` as Telegram writes it in groups, and the rest of the message.
_SHAPE = re.compile(r"\s*/([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)


_PRESS = re.compile(r"pairing:(approve|deny):([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str  # of one of KINDS
    argument: str = ""


def parse(text: str) -> Command | None:
    """The command that ``text`` is; None for an ordinary message, which any other word after a slash is."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1].lower() not in _BY_NAME:
        return None
    return Command(name=match[1].lower(), argument=(match[2] or "").strip())


def runs_aside(name: str) -> bool:
    """Whether the command (or press) of this name is answered while the lane's turn runs. Empty: an ordinary message.

    ``/new`` is not: what was said before it must be answered in the conversation that it ends.
    """
    return name == BUTTON or (name in _BY_NAME and not _BY_NAME[name].keeps_its_place)


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
