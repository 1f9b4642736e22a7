"""Bots and agents: add, change, remove; and what the runtime needs to know of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from django.conf import settings as django_settings
from django.db import IntegrityError, transaction
from django.db.models import F

from botsrt.core import access, keys, resets
from botsrt.core.actors import Actor
from botsrt.core.credentials import Vault
from botsrt.core.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from botsrt.core.ports import AgentConfig, BotConfig, Option
from botsrt.core.states import (
    AdapterStatus,
    BusyMode,
    GroupRespond,
    LinkConfirmation,
    UnknownSendPolicy,
    UnknownUserPolicy,
)
from botsrt.models import AdapterState, AgentProfile, Bot, JournalEntry
from botsrt.services import audit, news, nudge, sql

#: The highest rate that can be named: so many messages of a contact are looked at when another one comes.
MOST_PER_MINUTE = 600

#: Settings that every bot has, whatever its platform.
COMMON_SETTINGS = (
    Option(name="allowed_users", help="Platform user ids that may always write, comma-separated."),
    Option(
        name="owners",
        help="Platform user ids of the bot's owners, comma-separated: they may write, and decide about pairings.",
    ),
    Option(
        name="link",
        help="Who confirms that two contacts are one person, after a code proved it.",
        default=LinkConfirmation.STAFF,
        choices=tuple(LinkConfirmation),
    ),
    Option(
        name="group_respond",
        help="What the bot answers in groups.",
        default=GroupRespond.MENTION,
        choices=tuple(GroupRespond),
    ),
    Option(name="edits", help="What happens to edited messages.", default="answer", choices=("answer", "ignore")),
    Option(
        name="busy",
        help="What becomes of a message that comes while the bot works on an answer: it waits, the bot begins anew "
        "with both, or the agent takes it along if it can.",
        default=BusyMode.QUEUE,
        choices=tuple(BusyMode),
    ),
    Option(name="busy_ack", help="What people are told, once, when they write while the bot works on an answer."),
    Option(
        name="debounce_ms",
        help="How long the bot waits for more before it answers, in milliseconds: what comes meanwhile is answered "
        "together.",
        default="0",
        max_number=60_000,
    ),
    Option(
        name="max_per_minute",
        help="How many messages of one person, and how many commands, the bot answers in a minute; 0: all. Owners are "
        "never limited.",
        default="60",
        max_number=MOST_PER_MINUTE,
    ),
    Option(
        name="streaming",
        help="Whether answers are shown while they are written, where the platform can.",
        default="on",
        choices=("on", "off"),
    ),
    Option(
        name="mirror_runtime_state",
        help="Whether what the agent keeps from turn to turn (tool calls, for one) is stored with the session.",
        default="off",
        choices=("off", "on"),
    ),
    Option(
        name="unknown_sends",
        help="What happens to a message whose sending was cut.",
        default=UnknownSendPolicy.RESEND,
        choices=tuple(UnknownSendPolicy),
    ),
    *resets.OPTIONS,
)

_DEFAULTS = {option.name: option.default for option in COMMON_SETTINGS}

#: What answers for a bot unless another agent is named; every database starts with it.
DEFAULT_AGENT = "echo"

_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a platform's bots can be given; comes from its adapter."""

    settings: tuple[Option, ...] = ()
    credentials: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BotView:
    """One bot as the runtime needs it for a turn or a delivery."""

    account: str
    platform: str
    version: int
    rules: access.Rules
    owners: frozenset[str]  # user ids on the bot's platform
    link: LinkConfirmation
    mirrors_runtime_state: bool
    unknown_sends: UnknownSendPolicy
    resets: resets.Policy
    busy: BusyMode
    is_streaming: bool  # answers are shown while they are written, where the platform can
    agent: AgentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change of a bot; None or an empty mapping leaves things as they are. A value of "" removes a setting."""

    agent: str | None = None
    policy: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_enabled: bool | None = None


def vault() -> Vault:
    """Seals and opens credentials with the site's key; earlier keys still open."""
    return Vault([django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS])


# -- acts of staff: bots ----


def add(*, account: str, platform: str, shape: Shape, changes: Changes, actor: Actor, now: datetime) -> None:
    """Add a bot. It is started by the next worker that looks.

    Raises:
        InvalidInput: a field cannot be used; says which and what to write.
        AlreadyExists: the account is taken.
        NotFound: there is no such agent.
    """
    if not keys.ACCOUNT_NAME.fullmatch(account):
        raise InvalidInput("account", f"{account!r}: use letters, digits, '-', '_' and '.', at most 63.")
    with transaction.atomic():
        if Bot.objects.filter(account=account).exists():
            raise AlreadyExists(f"There is a bot {account} already; change it with: bots set {account}")
        if JournalEntry.objects.filter(account=account).exclude(platform=platform).exists():
            raise InvalidInput("account", f"{account} has journal entries of another platform; choose another name.")
        agent = _agent(changes.agent or DEFAULT_AGENT)
        bot = Bot(account=account, platform=platform, created_at=now, updated_at=now, agent=agent)
        _apply(bot, shape=shape, changes=changes)
        try:
            with transaction.atomic():
                bot.save()
        except IntegrityError as error:  # somebody added it in this moment
            raise AlreadyExists(f"There is a bot {account} already; change it with: bots set {account}") from error
        AdapterState.objects.create(bot=bot, state_since=now)
        audit.record(actor=actor, verb="bots.add", object_kind="bot", object_id=account, after=_shown(bot), now=now)
        nudge.control()
        news.changed("bots")


def change(*, account: str, shape: Shape, changes: Changes, actor: Actor, reason: str = "", now: datetime) -> int:
    """Change a bot; its adapter alone is restarted. Returns the new version.

    Raises:
        NotFound, InvalidInput: as ``add``.
    """
    with transaction.atomic():
        bot = _bot(account)
        before = _shown(bot)
        _apply(bot, shape=shape, changes=changes)
        bot.version += 1
        bot.updated_at = now
        bot.save()
        audit.record(
            actor=actor,
            verb="bots.change",
            object_kind="bot",
            object_id=account,
            reason=reason,
            before=before,
            after=_shown(bot),
            now=now,
        )
        nudge.control()
        news.changed("bots")
        nudge.journal()
        return bot.version


def remove(*, account: str, actor: Actor, reason: str = "", now: datetime) -> None:
    """Remove a bot. Its journal, sessions and history stay.

    Raises:
        NotFound: there is no such bot.
        Conflict: messages to it still wait for an answer.
    """
    with transaction.atomic():
        bot = _bot(account)
        waiting = JournalEntry.objects.filter(account=account, state__in=("pending", "claimed")).count()
        if waiting:
            raise Conflict(
                f"{waiting} messages to {account} still wait for an answer; disable it, or answer them first."
            )
        audit.record(
            actor=actor,
            verb="bots.remove",
            object_kind="bot",
            object_id=account,
            reason=reason,
            before=_shown(bot),
            now=now,
        )
        bot.delete()
        nudge.control()
        news.changed("bots")


def adopt(*, account: str, platform: str, shape: Shape, changes: Changes, actor: Actor, now: datetime) -> None:
    """Make sure that there is such a bot: it is added, or changed where it differs. Other settings stay as they are.

    Raises:
        NotFound, InvalidInput: as ``add``; also for a bot of this name on another platform.
    """
    with transaction.atomic():
        bot = Bot.objects.select_related("agent").filter(account=account).first()
        if bot is None:
            add(account=account, platform=platform, shape=shape, changes=changes, actor=actor, now=now)
            return
        if bot.platform != platform:
            raise InvalidInput("account", f"{account} is a bot on {bot.platform}; choose another name.")
        before = _shown(bot)
        _apply(bot, shape=shape, changes=changes)
        if _shown(bot) != before:
            change(account=account, shape=shape, changes=changes, actor=actor, now=now)


def _apply(bot: Bot, *, shape: Shape, changes: Changes) -> None:
    if changes.agent is not None:
        bot.agent = _agent(changes.agent)
    if changes.policy is not None:
        bot.policy = _one_of("policy", changes.policy, [policy.value for policy in UnknownUserPolicy])
    if changes.is_enabled is not None:
        bot.is_enabled = changes.is_enabled
    bot.settings = _merged("setting", bot.settings, changes.settings, [*COMMON_SETTINGS, *shape.settings])
    resets.policy(bot.settings)
    sealed = {
        name: vault().seal(_checked_credential(name, value)) if value else ""
        for name, value in changes.credentials.items()
    }
    bot.credentials = _merged("credential", bot.credentials, sealed, shape.credentials)


def _merged(
    kind: str, current: Mapping[str, str], changes: Mapping[str, str], options: Collection[Option]
) -> dict[str, str]:
    """``current`` with ``changes``, each checked against the declared options; "" removes."""
    known = {option.name: option for option in options}
    merged = dict(current)
    for name, value in changes.items():
        if name not in known:
            there_are = ", ".join(sorted(known)) or "none"
            raise InvalidInput(kind, f"{name!r} is not known for this platform; there are: {there_are}.")
        if value and known[name].choices:
            _one_of(name, value, known[name].choices)
        if value and (most := known[name].max_number) is not None and not _is_up_to(value, most):
            raise InvalidInput(name, f"{value[:40]!r} is not a whole number from 0 to {most:,}.")
        if value:
            merged[name] = value
        else:
            merged.pop(name, None)
    return merged


def _checked_credential(name: str, value: str) -> str:
    if value.startswith("env:") and not _VARIABLE.fullmatch(value):
        raise InvalidInput("credential", f"{name}: {value!r} does not name an environment variable; write env:NAME.")
    return value


def _is_up_to(text: str, most: int) -> bool:
    """Whether it is a whole number from 0 to ``most``; Python refuses to read one of thousands of digits."""
    return text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most


def _one_of(name: str, value: str, choices: Collection[str]) -> str:
    if value not in choices:
        raise InvalidInput(name, f"{value!r} is not one of {', '.join(choices)}.")
    return value


def _shown(bot: Bot) -> dict[str, Any]:
    """The bot without its secrets, for the audit."""
    return {
        "platform": bot.platform,
        "agent": bot.agent.name,
        "policy": bot.policy,
        "settings": bot.settings,
        "credentials": {name: vault().hint(name, stored) for name, stored in bot.credentials.items()},
        "is_enabled": bot.is_enabled,
        "version": bot.version,
    }


# -- acts of staff: agents ----


def add_agent(
    *,
    name: str,
    kind: str,
    options: tuple[Option, ...],
    instructions: str = "",
    settings: Mapping[str, str],
    actor: Actor,
    now: datetime,
) -> None:
    """Add an agent profile.

    Raises:
        InvalidInput: a field cannot be used.
        AlreadyExists: the name is taken.
    """
    if not keys.ACCOUNT_NAME.fullmatch(name):
        raise InvalidInput("name", f"{name!r}: use letters, digits, '-', '_' and '.', at most 63.")
    with transaction.atomic():
        if AgentProfile.objects.filter(name=name).exists():
            raise AlreadyExists(f"There is an agent {name} already; change it with: agents set {name}")
        profile = AgentProfile(name=name, kind=kind, instructions=instructions, created_at=now, updated_at=now)
        profile.settings = _merged("setting", {}, settings, options)
        profile.save()
        audit.record(
            actor=actor, verb="agents.add", object_kind="agent", object_id=name, after=_agent_shown(profile), now=now
        )


def change_agent(
    *,
    name: str,
    options: tuple[Option, ...],
    instructions: str | None = None,
    settings: Mapping[str, str],
    actor: Actor,
    now: datetime,
) -> int:
    """Change an agent profile; the next turn uses it. Returns the new version.

    Raises:
        NotFound: there is no such agent.
        InvalidInput: a field cannot be used.
    """
    with transaction.atomic():
        profile = _agent(name)
        before = _agent_shown(profile)
        if instructions is not None:
            profile.instructions = instructions
        profile.settings = _merged("setting", profile.settings, settings, options)
        profile.version = profile.version + 1
        profile.updated_at = now
        profile.save()
        audit.record(
            actor=actor,
            verb="agents.change",
            object_kind="agent",
            object_id=name,
            before=before,
            after=_agent_shown(profile),
            now=now,
        )
        return profile.version


def remove_agent(*, name: str, actor: Actor, now: datetime) -> None:
    """Remove an agent profile.

    Raises:
        NotFound: there is no such agent.
        Conflict: bots use it.
    """
    with transaction.atomic():
        profile = _agent(name)
        users = list(profile.bots.values_list("account", flat=True))
        if users:
            raise Conflict(f"The agent {name} answers for {', '.join(users)}; give them another agent first.")
        audit.record(
            actor=actor,
            verb="agents.remove",
            object_kind="agent",
            object_id=name,
            before=_agent_shown(profile),
            now=now,
        )
        profile.delete()


def adopt_agent(*, profile: AgentConfig, options: tuple[Option, ...], actor: Actor, now: datetime) -> AgentConfig:
    """Make the profile that a program brings along the one of its name. Returns it as it is stored.

    Raises:
        InvalidInput: a field cannot be used.
    """
    settings = _merged("setting", {}, profile.settings, options)
    wanted = {"kind": profile.kind, "instructions": profile.instructions, "settings": settings}
    with transaction.atomic():
        row, is_new = AgentProfile.objects.get_or_create(
            name=profile.name, defaults={**wanted, "created_at": now, "updated_at": now}
        )
        before = {} if is_new else _agent_shown(row)
        if is_new or any(getattr(row, name) != value for name, value in wanted.items()):
            if not is_new:
                AgentProfile.objects.filter(pk=row.pk).update(**wanted, version=F("version") + 1, updated_at=now)
                row.refresh_from_db()
            audit.record(
                actor=actor,
                verb="agents.add" if is_new else "agents.change",
                object_kind="agent",
                object_id=profile.name,
                before=before,
                after=_agent_shown(row),
                now=now,
            )
        return _config_of(row)


def agent_config(*, name: str) -> AgentConfig:
    """An agent profile.

    Raises:
        NotFound: there is no such agent.
    """
    return _config_of(_agent(name))


def _config_of(profile: AgentProfile) -> AgentConfig:
    return AgentConfig(
        name=profile.name,
        kind=profile.kind,
        version=profile.version,
        instructions=profile.instructions,
        settings=dict(profile.settings),
    )


def _agent_shown(profile: AgentProfile) -> dict[str, Any]:
    return {"kind": profile.kind, "settings": profile.settings, "version": profile.version}


# -- what the runtime asks ----


def views(*, accounts: Collection[str]) -> dict[str, BotView]:
    """The bots of these accounts that exist, by account."""
    names = list(accounts)
    if not names:
        return {}
    return {row[0]: _view(*row) for row in sql.fetch(_VIEWS.format(accounts=sql.marks(names)), names)}


#: In the order of ``_view``.
_VIEWS = """SELECT bot.account, bot.platform, bot.version, bot.policy, bot.settings,
        agent.name, agent.kind, agent.version, agent.instructions, agent.settings
    FROM botsrt_bot AS bot JOIN botsrt_agentprofile AS agent ON agent.id = bot.agent_id
    WHERE bot.account IN ({accounts})"""


@lru_cache(maxsize=1_000)  # of what the row says: every turn asks, and it hardly ever changes
def _view(
    account: str,
    platform: str,
    version: int,
    policy: str,
    settings_json: str,
    agent: str,
    agent_kind: str,
    agent_version: int,
    instructions: str,
    agent_settings_json: str,
) -> BotView:
    settings: Mapping[str, str] = json.loads(settings_json)
    owners = _names(setting(settings, "owners"))
    return BotView(
        account=account,
        platform=platform,
        version=version,
        rules=access.Rules(
            policy=UnknownUserPolicy(policy),
            allowed_user_ids=_names(setting(settings, "allowed_users")) | owners,
            owners=owners,
            group_respond=GroupRespond(setting(settings, "group_respond")),
            answers_edits=setting(settings, "edits") == "answer",
        ),
        owners=owners,
        link=LinkConfirmation(setting(settings, "link")),
        unknown_sends=UnknownSendPolicy(setting(settings, "unknown_sends")),
        busy=BusyMode(setting(settings, "busy")),
        resets=resets.policy(settings),
        is_streaming=setting(settings, "streaming") == "on",
        mirrors_runtime_state=setting(settings, "mirror_runtime_state") == "on",
        agent=AgentConfig(
            name=agent,
            kind=agent_kind,
            version=agent_version,
            instructions=instructions,
            settings=MappingProxyType(json.loads(agent_settings_json)),
        ),
    )


def setting(settings: Mapping[str, str], name: str) -> str:
    """The value of a setting that every bot has, or its default."""
    return settings.get(name) or _DEFAULTS[name]


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def adapter_config(*, account: str) -> BotConfig:
    """The configuration of a bot's adapter, credentials opened.

    Raises:
        NotFound: there is no such bot.
        CredentialError: a credential cannot be opened.
    """
    bot = _bot(account)
    return _config(bot, version=bot.version, settings=bot.settings, credentials=bot.credentials)


def webhook_version(*, account: str, platform: str) -> int:
    """The version of an enabled bot.

    Raises:
        NotFound: there is none of this account and platform.
    """
    version = Bot.objects.filter(account=account, platform=platform, is_enabled=True).values_list("version", flat=True)
    found = version.first()
    if found is None:
        raise NotFound(f"There is no bot {account} on {platform}.")
    return found


def last_good_config(*, account: str) -> BotConfig | None:
    """The configuration that last worked, if it is another than the present one.

    Raises:
        NotFound: there is no such bot.
        CredentialError: a credential cannot be opened.
    """
    bot = Bot.objects.select_related("adapter").filter(account=account).first()
    if bot is None:
        raise NotFound(f"There is no bot {account}.")
    applied = bot.adapter.applied_version
    if not applied or applied == bot.version:
        return None
    return _config(bot, version=applied, **bot.adapter.applied_config)


def _config(bot: Bot, *, version: int, settings: Mapping[str, str], credentials: Mapping[str, str]) -> BotConfig:
    keyring = vault()
    common = {option.name for option in COMMON_SETTINGS}
    return BotConfig(
        account=bot.account,
        platform=bot.platform,
        version=version,
        settings={name: value for name, value in settings.items() if name not in common},
        credentials={name: keyring.open(name, stored) for name, stored in credentials.items()},
    )


def reconnect(*, account: str, actor: Actor, now: datetime) -> None:
    """Let the adapter start again as it is: its version grows.

    Raises:
        NotFound: there is no such bot.
    """
    with transaction.atomic():
        bot = _bot(account)
        Bot.objects.filter(pk=bot.pk).update(version=F("version") + 1, updated_at=now)
        audit.record(actor=actor, verb="bots.reconnect", object_kind="bot", object_id=account, now=now)
        nudge.control()
        news.changed("bots")


def state_of(*, account: str) -> AdapterStatus:
    """What the bot's adapter is doing, as last reported."""
    return AdapterStatus(AdapterState.objects.values_list("state", flat=True).get(bot__account=account))


def _bot(account: str) -> Bot:
    bot = Bot.objects.select_related("agent").filter(account=account).first()
    if bot is None:
        raise NotFound(f"There is no bot {account}; see: bots list")
    return bot


def _agent(name: str) -> AgentProfile:
    profile = AgentProfile.objects.filter(name=name).first()
    if profile is None:
        raise NotFound(f"There is no agent {name}; see: agents list")
    return profile
