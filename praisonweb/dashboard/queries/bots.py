"""Bots with what their adapters are doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from botsrt.core.states import AdapterStatus
from botsrt.models import AdapterState, AgentProfile, AuditEvent, Bot
from botsrt.services import bots as service
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.queries.standing import Standing, Tone

_STANDINGS = {
    AdapterStatus.STARTING: Standing(word="starting", tone=Tone.BUSY),
    AdapterStatus.RUNNING: Standing(word="running", tone=Tone.GOOD),
    AdapterStatus.BACKOFF: Standing(word="trying again", tone=Tone.WARN, text="It failed, and restarts by itself."),
    AdapterStatus.PAUSED: Standing(word="paused", tone=Tone.IDLE),
    AdapterStatus.CREDENTIAL_ERROR: Standing(
        word="credentials refused", tone=Tone.BAD, text="It waits for new credentials."
    ),
    AdapterStatus.FAILED: Standing(word="settings wrong", tone=Tone.BAD, text="It waits for a change of its settings."),
    AdapterStatus.STOPPED: Standing(word="starting", tone=Tone.BUSY, text="A worker has just taken it."),
}
_DISABLED = Standing(word="paused", tone=Tone.IDLE, text="Staff paused it: it is disabled until somebody resumes it.")
_NOT_RUNNING = Standing(word="not running", tone=Tone.BAD, text="No worker runs it.")
_UNKNOWN = Standing(word="unknown", tone=Tone.BAD, text="Nothing has been heard of the worker that ran it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BotRow:
    """One bot as lists and cards show it."""

    account: str
    platform: str
    identity: str  # who the platform says it is
    agent: str
    standing: Standing
    since: datetime
    error: str
    is_enabled: bool
    is_current: bool  # what runs are the newest settings
    version: int
    applied_version: int  # 0: it never ran
    restarts: int
    worker: str
    last_inbound_at: datetime | None
    last_outbound_at: datetime | None

    @property
    def is_web(self) -> bool:
        return self.platform == "web"

    @property
    def is_well(self) -> bool:
        return self.standing.tone in (Tone.GOOD, Tone.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BotPage:
    """One bot with its settings; of its credentials no more than a hint."""

    row: BotRow
    policy: str
    settings: Mapping[str, str]
    credentials: Mapping[str, str]  # name → what may be shown
    hook: str  # the path under which the platform may call, where it can
    acts: tuple[AuditEvent, ...]


#: Latest acts that the page of a bot shows.
_MAX_ACTS = 10

#: Platforms that never call us.
_WITHOUT_HOOK = {"web", "console"}


def one(*, account: str, scope: Scope, now: datetime) -> BotPage | None:
    """One bot; None: there is none (any more)."""
    bot = scope.rows(Bot.objects.select_related("agent", "adapter")).filter(account=account).first()
    if bot is None:
        return None
    keyring = service.vault()
    return BotPage(
        row=_row(bot, now),
        policy=bot.policy,
        settings=bot.settings,
        credentials={name: keyring.hint(name, stored) for name, stored in bot.credentials.items()},
        hook="" if bot.platform in _WITHOUT_HOOK else f"/hooks/{bot.platform}/{bot.account}/",
        acts=tuple(AuditEvent.objects.filter(object_kind="bot", object_id=account).order_by("-id")[:_MAX_ACTS]),
    )


def agent_names() -> list[str]:
    return list(AgentProfile.objects.order_by("name").values_list("name", flat=True))


def rows(*, scope: Scope, now: datetime, **only: str) -> list[BotRow]:
    """The bots by name; ``only`` filters, as ``account`` or ``platform``."""
    found = scope.rows(Bot.objects.select_related("agent", "adapter")).filter(**only).order_by("account")
    return [_row(bot, now) for bot in found]


def _row(bot: Bot, now: datetime) -> BotRow:
    adapter = bot.adapter
    return BotRow(
        account=bot.account,
        platform=bot.platform,
        identity=adapter.identity,
        agent=bot.agent.name,
        standing=_standing(bot, adapter, now),
        since=adapter.state_since,
        error=adapter.error if bot.is_enabled else "",
        is_enabled=bot.is_enabled,
        is_current=adapter.applied_version in (0, bot.version),
        version=bot.version,
        applied_version=adapter.applied_version,
        restarts=adapter.restarts,
        worker=adapter.worker_id,
        last_inbound_at=adapter.last_inbound_at,
        last_outbound_at=adapter.last_outbound_at,
    )


def _standing(bot: Bot, adapter: AdapterState, now: datetime) -> Standing:
    """What the adapter said last counts only while its worker is heard of."""
    if not bot.is_enabled:
        return _DISABLED
    if adapter.lease_expires_at is None:
        return _NOT_RUNNING
    if adapter.lease_expires_at <= now:
        return _UNKNOWN
    return _STANDINGS[AdapterStatus(adapter.state)]
