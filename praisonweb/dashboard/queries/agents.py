"""The agents that answer for bots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from botsrt.models import AgentProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    kind: str
    version: int
    instructions: str
    settings: Mapping[str, str]
    bots: tuple[str, ...]
    updated_at: datetime

    @property
    def remove_obstacle(self) -> str:
        return f"It answers for {', '.join(self.bots)}; give them another agent first." if self.bots else ""


def rows(**only: str) -> list[Row]:
    """The agents by name."""
    found = AgentProfile.objects.filter(**only).prefetch_related("bots").order_by("name")
    return [_row(profile) for profile in found]


def one(*, name: str) -> Row | None:
    """One agent; None: there is none (any more)."""
    return next(iter(rows(name=name)), None)


def _row(profile: AgentProfile) -> Row:
    return Row(
        name=profile.name,
        kind=profile.kind,
        version=profile.version,
        instructions=profile.instructions,
        settings={str(name): str(value) for name, value in profile.settings.items()},
        bots=tuple(sorted(bot.account for bot in profile.bots.all())),
        updated_at=profile.updated_at,
    )
