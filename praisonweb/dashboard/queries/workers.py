"""The processes that run bots, and what each holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from botsrt.models import Worker
from praisonweb.dashboard.queries.standing import Standing, Tone

#: Workers on the page: those of the last days are enough, and the living ones always come first.
_MAX_WORKERS = 100

_ALIVE = Standing(word="alive", tone=Tone.GOOD)
_SILENT = Standing(
    word="silent", tone=Tone.BAD, text="It stopped beating without a goodbye; others take its work over."
)
_STOPPED = Standing(word="stopped", tone=Tone.IDLE, text="It said goodbye.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: str
    host: str
    pid: int
    version: str
    accounts: tuple[str, ...]
    running_turns: int
    started_at: datetime
    last_beat_at: datetime
    stopped_at: datetime | None
    standing: Standing

    @property
    def is_alive(self) -> bool:
        return self.standing is _ALIVE


def read(*, now: datetime) -> tuple[list[Row], list[Row]]:
    """The workers that live, and those that ended, the latest beat first."""
    rows = [_row(worker, now) for worker in Worker.objects.order_by("-last_beat_at", "id")[:_MAX_WORKERS]]
    return [row for row in rows if row.is_alive], [row for row in rows if not row.is_alive]


def _row(worker: Worker, now: datetime) -> Row:
    is_silent = worker.last_beat_at + timedelta(seconds=worker.lease_seconds) <= now
    return Row(
        id=worker.pk,
        host=worker.host,
        pid=worker.pid,
        version=worker.version,
        accounts=tuple(str(account) for account in worker.accounts),
        running_turns=worker.running_turns,
        started_at=worker.started_at,
        last_beat_at=worker.last_beat_at,
        stopped_at=worker.stopped_at,
        standing=_STOPPED if worker.stopped_at else _SILENT if is_silent else _ALIVE,
    )
