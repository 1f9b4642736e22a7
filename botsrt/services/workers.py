"""Workers and the leases they hold on adapters.

Bots are spread evenly without anybody who deals them out: a free bot is taken first by those of the living workers that
hold fewest, and who holds at least two more than another gives one back at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet

from botsrt.core import redact
from botsrt.core.states import AdapterStatus, OutboxState, TurnState
from botsrt.models import AdapterState, Bot, OutboxMessage, Turn, Worker
from botsrt.services import news, nudge

#: How long a free bot is left to those who hold fewer. They look every poll interval; who does not take it by then
#: may hang, and others must not wait for the end of its lease.
LEFT_TO_OTHERS = timedelta(seconds=3)

#: Living workers that are looked at when bots are spread.
_MAX_PEERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedBot:
    """A bot whose adapter this worker may run, until the lease runs out."""

    account: str
    platform: str
    version: int


def register(
    *,
    worker_id: str,
    host: str,
    pid: int,
    version: str,
    lease: timedelta,
    only: Collection[str] | None = None,
    now: datetime,
) -> None:
    """A process starts.

    Args:
        only: the bots that it may run; None: any.
    """
    Worker.objects.create(
        id=worker_id,
        host=host,
        pid=pid,
        version=version,
        only=None if only is None else sorted(only),
        started_at=now,
        last_beat_at=now,
        lease_seconds=lease.total_seconds(),
    )


def beat(
    *, worker_id: str, accounts: Collection[str], running_turns: int, loop_gap_seconds: float = 0.0, now: datetime
) -> None:
    """The process is alive, and this is what it runs.

    Args:
        loop_gap_seconds: longest time that its event loop stood still since the beat before.
    """
    Worker.objects.filter(id=worker_id).update(
        last_beat_at=now, accounts=sorted(accounts), running_turns=running_turns, loop_gap_seconds=loop_gap_seconds
    )


def drain(*, worker_id: str) -> None:
    """The process begins to stop: it takes no more bots, and nobody leaves any to it."""
    Worker.objects.filter(id=worker_id).update(is_draining=True)


def goodbye(*, worker_id: str, now: datetime) -> None:
    """The process ends on purpose: its adapter leases are free at once."""
    with transaction.atomic():
        Worker.objects.filter(id=worker_id).update(stopped_at=now, accounts=[], running_turns=0)
        AdapterState.objects.filter(worker_id=worker_id).update(
            worker_id="", lease_expires_at=None, state=AdapterStatus.STOPPED, state_since=now
        )


def lease_adapters(
    *,
    worker_id: str,
    accounts: Collection[str] | None,
    lease: timedelta,
    running: Collection[str] | None = None,
    is_draining: bool = False,
    now: datetime,
) -> list[LeasedBot]:
    """Renew the leases this worker holds on enabled bots, take its share of those that are free, and return all it has.

    A bot that another worker should have is missing from what is returned, although its lease is held: close its
    adapter, then give it back (``release_adapter``).

    Args:
        accounts: take only these bots; None: any.
        running: the bots whose adapters are open here; others are given back at once. None: all that it holds.
        is_draining: renew what it holds, take nothing.
    """
    with transaction.atomic():
        wanted = Bot.objects.filter(is_enabled=True)
        if accounts is not None:
            wanted = wanted.filter(account__in=accounts)
        states = AdapterState.objects.filter(bot__in=wanted.values("pk"))
        states.filter(worker_id=worker_id).update(lease_expires_at=now + lease)
        free = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=now)
        is_left = False
        if not is_draining and states.filter(free).exists():
            others = _Others.of(worker_id, now)
            for pk, account, expired_at, since in states.filter(free).values_list(
                "pk", "bot__account", "lease_expires_at", "state_since"
            ):
                if others.should_have(account) and now - max(expired_at or since, since) < LEFT_TO_OTHERS:
                    is_left = True
                    continue
                others.mine += states.filter(free, pk=pk).update(worker_id=worker_id, lease_expires_at=now + lease)
        mine = list(
            wanted.filter(adapter__worker_id=worker_id)
            .order_by("account")
            .values_list("account", "platform", "version")
        )
        # One at a time: what is given back and not yet taken comes first.
        is_settled = not is_draining and not is_left and len(mine) > 1
        surplus = _surplus([row[0] for row in mine], worker_id, now) if is_settled else None
        if surplus is not None and running is not None and surplus not in running:
            release_adapter(worker_id=worker_id, account=surplus, now=now)
        return [
            LeasedBot(account=account, platform=platform, version=version)
            for account, platform, version in mine
            if account != surplus
        ]


@dataclass(slots=True, kw_only=True)
class _Others:
    """The workers that live, beside one, with how many bots each holds."""

    mine: int
    held: Mapping[str, int]
    only: Mapping[str, Collection[str] | None]

    @classmethod
    def of(cls, worker_id: str, now: datetime) -> _Others:
        rows = Worker.objects.filter(stopped_at=None, is_draining=False).exclude(id=worker_id)
        living = {
            row[0]: row[1]
            for row in rows.order_by("-last_beat_at").values_list("id", "only", "last_beat_at", "lease_seconds")[
                :_MAX_PEERS
            ]
            if row[2] + timedelta(seconds=row[3]) > now
        }
        leased = AdapterState.objects.filter(bot__is_enabled=True, lease_expires_at__gt=now)
        held = Counter(leased.values_list("worker_id", flat=True))
        return cls(mine=held[worker_id], held={peer: held[peer] for peer in living}, only=living)

    def should_have(self, account: str, *, less_by: int = 1) -> bool:
        """Whether a worker that may run this bot holds at least ``less_by`` fewer bots than ours."""
        return any(
            count + less_by <= self.mine and ((only := self.only[peer]) is None or account in only)
            for peer, count in self.held.items()
        )


def _surplus(accounts: Collection[str], worker_id: str, now: datetime) -> str | None:
    """The bot that this worker should leave to one that holds at least two fewer; None: it holds its share."""
    others = _Others.of(worker_id, now)
    return next((account for account in accounts if others.should_have(account, less_by=2)), None)


def release_adapter(*, worker_id: str, account: str, now: datetime) -> None:
    """This worker no longer runs the bot's adapter; another may take it now."""
    with transaction.atomic():
        _held(account, worker_id).update(
            worker_id="", lease_expires_at=None, state=AdapterStatus.STOPPED, state_since=now
        )
        nudge.control()


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
