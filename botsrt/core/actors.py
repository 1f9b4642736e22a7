"""Who did something: recorded with every act of staff."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A person of the staff, or a process. ``name``: the site's user name, ``os:<user>`` in a shell, or ``system``."""

    name: str
    address: str = ""  # the client's network address; empty in a shell


SYSTEM = Actor(name="system")
