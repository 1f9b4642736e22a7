"""Bugs that the harness must find. Each takes one of the guarantees out of a process, from outside.

``python -m bench.chaos --plant NAME`` runs with the bug in every process, under the faults that bring it to light.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug, and the kinds of fault under which it shows."""

    install: Callable[[], None]
    faults: tuple[str, ...]


#: How long after the entry is completed its answer is stored, in seconds, with the second bug.
_BETWEEN_SECONDS = 0.3


def no_generation_check() -> None:
    """The result of a turn is taken, though the turn was cancelled, abandoned or overtaken meanwhile."""
    from botsrt.core.states import TurnState
    from botsrt.models import Turn
    from botsrt.services import finishing

    original: Callable[..., list[bool]] = finishing._end_all

    def ends_anything(endings: Sequence[Any]) -> list[bool]:
        for ending, did_end in zip(endings, original(endings), strict=True):
            if not did_end:
                Turn.objects.filter(id=ending.turn.id).update(state=TurnState.FINISHED, finished_at=ending.now)
        return [True] * len(endings)

    finishing._end_all = ends_anything


def completed_before_outbox() -> None:
    """The end of a turn is two commits: the entries are completed in the first, the answer is stored in the second."""
    from django.db import connection, transaction

    from botsrt.models import OutboxMessage
    from botsrt.services import sql

    original = sql.insert

    def store_later(rows: Sequence[Mapping[str, Any]]) -> None:
        time.sleep(_BETWEEN_SECONDS)
        try:
            original(OutboxMessage, rows)
        finally:
            connection.close()

    def insert(model: Any, rows: Sequence[Mapping[str, Any]], **options: Any) -> list[tuple[Any, ...]]:
        if model is not OutboxMessage:
            return original(model, rows, **options)
        transaction.on_commit(lambda: threading.Thread(target=store_later, args=(rows,), daemon=True).start())
        return []

    sql.insert = insert


def no_heartbeat() -> None:
    """The leases of running turns are never renewed."""
    from botsrt.runtime.heartbeat import Heartbeat

    async def renew_turns(self: Heartbeat) -> None:
        return

    Heartbeat.renew_turns = renew_turns  # type: ignore[method-assign]


PLANTS = {
    "no-generation-check": Plant(no_generation_check, ("stop_worker", "platform")),
    "completed-before-outbox": Plant(completed_before_outbox, ("kill_worker", "platform")),
    "no-heartbeat": Plant(no_heartbeat, ("platform",)),
}
