"""How this process is doing, for whoever asks it: does its event loop turn, and does its worker beat?

Nothing is stored here: the worker's beat takes the longest standstill with it into its row (``services.workers.beat``).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

#: How often the loop is felt, in seconds: a standstill is measured to within this.
_INTERVAL_SECONDS = 0.1


@dataclass(slots=True, kw_only=True)
class Pulse:
    """One worker's signs of life. Times are of ``time.monotonic``."""

    lease_seconds: float
    beat_at: float = field(default_factory=time.monotonic)  # the last beat that the database took
    _gap_seconds: float = 0.0

    async def feel(self) -> None:
        """Measure how late the loop wakes a sleeper, until cancelled."""
        while True:
            due_at = time.monotonic() + _INTERVAL_SECONDS
            await asyncio.sleep(_INTERVAL_SECONDS)
            self._gap_seconds = max(self._gap_seconds, time.monotonic() - due_at)

    def take_gap(self) -> float:
        """The longest standstill since this was asked last, in seconds."""
        gap, self._gap_seconds = self._gap_seconds, 0.0
        return gap

    def beats(self) -> None:
        """The database took a beat."""
        self.beat_at = time.monotonic()

    @property
    def beat_age_seconds(self) -> float:
        return time.monotonic() - self.beat_at

    @property
    def is_fresh(self) -> bool:
        """Whether others count this worker as alive: past its lease they take its work over."""
        return self.beat_age_seconds < self.lease_seconds


#: The pulse of each worker that runs in this process, by the worker's id.
running: dict[str, Pulse] = {}
