"""What people send that the runtime answers itself: commands typed into a chat, and presses of its own buttons."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The names that are commands; any other word after a slash is an ordinary message for the agent.
NAMES = frozenset({"link", "new"})

#: ``/name``, ``/name@bot`` as Telegram writes it in groups, and the rest of the message.
_SHAPE = re.compile(r"\s*/([a-z]+)(?:@\w+)?(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)


_PRESS = re.compile(r"pairing:(approve|deny):([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str  # one of NAMES
    argument: str = ""


def parse(text: str) -> Command | None:
    """The command that ``text`` is; None for an ordinary message."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1].lower() not in NAMES:
        return None
    return Command(name=match[1].lower(), argument=(match[2] or "").strip())


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
