"""``SessionRunControl``: what is left of runs whose process is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.api import loop
from botsrt.services import turns


class SessionRunControl:
    """The state of runs. It is in the database, with leases, so workers sweep it by themselves; this is by hand."""

    def __init__(self, path: Any = None) -> None:
        """
        Args:
            path: a database of one's own, as of ``InboundJournal``; None: the project's.
        """
        self._database = loop.database(path)

    def cleanup_stale_sessions(self, max_age_seconds: float = 3_600) -> int:
        """End the runs that nobody has renewed for ``max_age_seconds``; their messages wait again. Returns how many."""
        return loop.run(
            self._database.call(
                turns.abandon_expired,
                max_worker_deaths=conf.load().max_worker_deaths,
                now=timezone.now() - timedelta(seconds=max_age_seconds),
            )
        )
