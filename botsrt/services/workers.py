"""Workers and the leases they hold on adapters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet

from botsrt.core import redact
from botsrt.core.states import AdapterStatus, OutboxState, TurnState
from botsrt.models import AdapterState, Bot, OutboxMessage, Turn, Worker
from botsrt.services import news


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedBot:
    """A bot whose adapter this worker may run, until the lease runs out."""

    account: str
    platform: str
    version: int


def register(*, worker_id: str, host: str, pid: int, version: str, lease: timedelta, now: datetime) -> None:
    """A process starts."""
    Worker.objects.create(
        id=worker_id,
        host=host,
        pid=pid,
        version=version,
        started_at=now,
        last_beat_at=now,
        lease_seconds=lease.total_seconds(),
    )


def beat(*, worker_id: str, accounts: Collection[str], running_turns: int, now: datetime) -> None:
    """The process is alive, and this is what it runs."""
    Worker.objects.filter(id=worker_id).update(last_beat_at=now, accounts=sorted(accounts), running_turns=running_turns)


def goodbye(*, worker_id: str, now: datetime) -> None:
    """The process ends on purpose: its adapter leases are free at once."""
    with transaction.atomic():
        Worker.objects.filter(id=worker_id).update(stopped_at=now, accounts=[], running_turns=0)
        AdapterState.objects.filter(worker_id=worker_id).update(
            worker_id="", lease_expires_at=None, state=AdapterStatus.STOPPED, state_since=now
        )


def lease_adapters(
    *, worker_id: str, accounts: Collection[str] | None, lease: timedelta, now: datetime
) -> list[LeasedBot]:
    """Renew the leases this worker holds on enabled bots, take those that are free, and return all it has.

    Args:
        accounts: take only these bots; None: any.
    """
    with transaction.atomic():
        wanted = Bot.objects.filter(is_enabled=True)
        if accounts is not None:
            wanted = wanted.filter(account__in=accounts)
        states = AdapterState.objects.filter(bot__in=wanted.values("pk"))
        free = Q(worker_id=worker_id) | Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
        states.filter(free).update(worker_id=worker_id, lease_expires_at=now + lease)
        mine = wanted.filter(adapter__worker_id=worker_id).order_by("account")
        return [
            LeasedBot(account=account, platform=platform, version=version)
            for account, platform, version in mine.values_list("account", "platform", "version")
        ]


def release_adapter(*, worker_id: str, account: str, now: datetime) -> None:
    """This worker no longer runs the bot's adapter."""
    _held(account, worker_id).update(worker_id="", lease_expires_at=None, state=AdapterStatus.STOPPED, state_since=now)


def report_adapter(
    *,
    worker_id: str,
    account: str,
    state: AdapterStatus,
    error: str = "",
    identity: str | None = None,
    applied_version: int | None = None,
    is_restart: bool = False,
    now: datetime,
) -> None:
    """What the adapter is doing now. Ignored when the worker no longer holds the lease.

    Args:
        applied_version: the bot's settings of this version run; they are kept as the last that worked.
    """
    fields: dict[str, object] = {"state": state, "error": redact.redact(error)[:2_000]}
    if identity is not None:
        fields["identity"] = identity[:300]
    if is_restart:
        fields["restarts"] = F("restarts") + 1
    with transaction.atomic():
        row = _held(account, worker_id)
        if applied_version is not None:
            bot = Bot.objects.filter(account=account, version=applied_version).first()
            if bot is not None:
                fields["applied_version"] = applied_version
                fields["applied_config"] = {"settings": bot.settings, "credentials": bot.credentials}
        row.exclude(state=state).update(state_since=now)
        row.update(**fields)
        news.changed("bots", [account])


def _held(account: str, worker_id: str) -> QuerySet[AdapterState]:
    """The row of the bot, if the worker holds its lease. Without a join: PostgreSQL looks again at the row itself alone
    where somebody else has changed it in the same moment."""
    return AdapterState.objects.filter(bot__in=Bot.objects.filter(account=account).values("pk"), worker_id=worker_id)


def report_traffic(*, account: str, last_inbound_at: datetime | None, last_outbound_at: datetime | None) -> None:
    """When the adapter last received and sent; None leaves the time as it is."""
    fields = {"last_inbound_at": last_inbound_at, "last_outbound_at": last_outbound_at}
    changed = {name: at for name, at in fields.items() if at is not None}
    if changed:
        AdapterState.objects.filter(bot__account=account).update(**changed)


def peers_on(*, host: str, except_worker_id: str) -> dict[str, int]:
    """Workers of this host that have not said goodbye: id → process id."""
    rows = Worker.objects.filter(host=host, stopped_at=None).exclude(id=except_worker_id)
    return dict(rows.values_list("id", "pid"))


def bury(*, worker_ids: Collection[str], now: datetime) -> None:
    """These processes are known to be gone: what they held is free now, not when the leases run out."""
    with transaction.atomic():
        Worker.objects.filter(id__in=worker_ids).update(stopped_at=now, accounts=[], running_turns=0)
        AdapterState.objects.filter(worker_id__in=worker_ids).update(worker_id="", lease_expires_at=None)
        Turn.objects.filter(worker_id__in=worker_ids, state=TurnState.RUNNING).update(lease_expires_at=now)
        OutboxMessage.objects.filter(worker_id__in=worker_ids, state=OutboxState.SENDING).update(lease_expires_at=now)
