"""The runtime's configuration: one frozen object, made once from the environment.

Every field is set by ``BOTSRT_<NAME>`` (``BOTSRT_LEASE_SECONDS=3``). This is the one place where names, units,
defaults and ranges are written down; ``load`` is the one place where they are read.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings

from botsrt.core import alerting, quiet
from botsrt.core.pairing_codes import Terms

#: The largest number of any setting. No limit is meant by it; it keeps times within what a calendar can hold.
_MOST = 1_000_000_000


def _option(default: Any, help: str, *, least: float = 0, most: float = _MOST) -> Any:  # noqa: A002
    """One setting. ``least`` and ``most`` bound a number, the length of a text, or how many names a list has."""
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    # Turns
    concurrency: int = _option(64, "Turns that one worker runs at a time.", least=1, most=10_000)
    run_timeout_seconds: float = _option(300.0, "Longest run of an agent. Less than the claim timeout.", least=0.1)
    claim_timeout_seconds: float = _option(
        360.0,
        "Longest time a turn may keep its entries, however alive its worker is. The documents say 300; it must be "
        "longer than a run, which may take 300.",
        least=0.2,
    )
    max_attempts: int = _option(5, "Failed turns before an entry goes to the dead letter queue.", least=1, most=50)
    max_worker_deaths: int = _option(2, "Workers that may die on an entry before it counts as poison.", least=1)
    max_entries_per_turn: int = _option(50, "Waiting messages of a lane that one turn answers together.", least=1)
    max_history: int = _option(100, "Earlier messages that an agent gets.", least=0, most=10_000)
    late_reply_seconds: float = _option(21_600.0, "Replies to older messages wait for staff (6 h).", least=1)
    notice_after_seconds: float = _option(10.0, "A person hears of trouble if the next try is farther away.", least=0)
    # Liveness
    lease_seconds: float = _option(30.0, "How long a silent worker keeps its turns, sends and bots.", least=0.5)
    poll_seconds: float = _option(1.0, "How often every loop looks at the database without being nudged.", least=0.01)
    drain_seconds: float = _option(20.0, "Grace for running turns when the process is asked to stop.", least=0)
    # Sending
    send_timeout_seconds: float = _option(25.0, "Longest call to a platform for one message.", least=0.1)
    max_restart_seconds: float = _option(60.0, "Longest wait before a failed adapter is started again.", least=0.01)
    # Files
    max_file_bytes: int = _option(10_000_000, "Largest file of a message that an agent is given.", least=1)
    kept_file_seconds: float = _option(
        2_592_000.0,
        "How long a copy of a file that an agent was given is kept for replays (30 days); 0: none is.",
        least=0,
    )
    max_kept_bytes: int = _option(5_000_000_000, "Kept files in all; the oldest go first.", least=0, most=10**15)
    files_folder: str = _option("", "Where files are kept; empty: files in PRAISON_HOME.", most=1_000)
    # Journal and dead letter queue
    max_size: int = _option(50_000, "Journal entries kept; the oldest completed ones go first.", least=1)
    ttl_seconds: float = _option(
        2_592_000.0, "Age at which completed entries are removed (30 days); 0: never.", least=0
    )
    dlq_max_size: int = _option(10_000, "Closed dead letter items kept; open ones are never dropped.", least=1)
    dlq_ttl_seconds: float = _option(
        604_800.0, "Age at which closed dead letter items are removed (7 days); 0: never.", least=0
    )
    max_raw_bytes: int = _option(262_144, "Largest platform update kept in raw beside the message.", least=0)
    max_webhook_bytes: int = _option(1_048_576, "Largest webhook body; larger ones are refused with 413.", least=1024)
    max_batch: int = _option(256, "Calls that share one commit at most.", least=1, most=10_000)
    # How long the rest is kept, in days; 0: for ever
    keep_turns_days: float = _option(30.0, "Ended turns that no journal entry leads to; 0: for ever.")
    keep_outbox_days: float = _option(30.0, "Sent and dead outgoing messages; 0: for ever.")
    keep_history_days: float = _option(0.0, "Messages of conversations; 0: for ever.")
    keep_pairings_days: float = _option(30.0, "Requests for access that came to nothing; 0: for ever.")
    keep_operations_days: float = _option(30.0, "Bulk operations that do not run; 0: for ever.")
    keep_workers_days: float = _option(30.0, "Workers that ended; 0: for ever.")
    keep_audit_days: float = _option(0.0, "The audit; 0: for ever.")
    # Pairing and identity
    pairing_seconds: float = _option(3_600.0, "How long a pairing code is valid (60 min).", least=1)
    pairing_resend_seconds: float = _option(600.0, "The code is not sent again earlier (10 min).", least=0)
    max_waiting_pairings: int = _option(50, "Requests that may wait for one bot; more are turned away.", least=1)
    pairing_refused_seconds: float = _option(86_400.0, "A refused contact cannot ask again earlier (24 h).", least=0)
    max_wrong_codes: int = _option(5, "Wrong codes within a minute that lock who types them.", least=1)
    code_lock_seconds: float = _option(300.0, "How long somebody who guessed is locked out (5 min).", least=1)
    identity_resolver: str = _option(
        "database",
        "Who knows which contacts are one person: database, file, memory, or the dotted path of a class.",
        least=1,
    )
    # Where adapters and agents are found
    adapter_packages: tuple[str, ...] = _option(
        ("botsrt.adapters",), "Packages searched for platforms, comma-separated.", least=1
    )
    agent_packages: tuple[str, ...] = _option(
        ("botsrt.agents",), "Packages searched for agent kinds, comma-separated.", least=1
    )
    # Alerts
    alert_mail_to: tuple[str, ...] = _option((), "Mail addresses that alerts go to, comma-separated.")
    alert_chats: tuple[str, ...] = _option(
        (), "Chats of bots that alerts go to, comma-separated: the bot's name, a slash, the chat's id."
    )
    alert_adapter_down_seconds: float = _option(180.0, "A bot that is not connected for longer is an alert.", least=10)
    alert_backlog_seconds: float = _option(600.0, "An unanswered message that is older is an alert (10 min).", least=10)
    alert_full_percent: float = _option(
        90.0, "Unfinished entries that are an alert, in percent of BOTSRT_MAX_SIZE.", least=1, most=100
    )
    alert_dlq_growth: int = _option(10, "Messages that fail for good within an hour and are an alert.", least=1)
    alert_unknown_sends: int = _option(1, "Messages of unknown fate that are an alert.", least=1)
    alert_silence: str = _option("on", "Whether bots that are quieter than ever are an alert: on or off.", least=2)
    alert_clear_seconds: float = _option(300.0, "An alert is over when all was well for so long (5 min).", least=1)
    alert_remind_seconds: float = _option(
        14_400.0, "Staff are reminded of an alert that nobody acknowledged after each so long (4 h).", least=60
    )
    alert_quiet_hours: str = _option(
        "", "When staff are told only what is urgent: HH:MM-HH:MM; the rest waits for the end.", most=20
    )
    alert_time_zone: str = _option("UTC", "The time zone of the quiet hours, such as Europe/Vienna.", least=1, most=60)
    commands: tuple[str, ...] = _option(
        (), "Commands of the chat of your own, each as package.module:attribute, comma-separated; see commands.md."
    )
    # Sessions
    session_ttl_seconds: float = _option(
        0.0, "Silence after which a conversation is archived: closed, and begun anew by what is said next; 0: never."
    )
    # Words to people
    trouble_text: str = _option(
        "Sorry, something went wrong on our side. Your message is safe and will be answered.",
        "What a person is told once when their message fails.",
        least=1,
        most=1_000,
    )
    unfinished_text: str = _option(
        "(This answer was not finished.)",
        "Put in the place of an answer that was shown while it was written and can neither be finished nor removed.",
        least=1,
        most=1_000,
    )
    resend_label: str = _option(
        "(sent again: you may have received this already)\n",
        "Put before a message whose first sending is unsure.",
        most=200,
    )

    @property
    def alert_policy(self) -> alerting.Policy:
        return alerting.Policy(
            targets=(*([alerting.MAIL] if self.alert_mail_to else []), *self.alert_chats),
            adapter_down_after=timedelta(seconds=self.alert_adapter_down_seconds),
            backlog_age=timedelta(seconds=self.alert_backlog_seconds),
            full_entries=max(math.floor(self.max_size * self.alert_full_percent / 100), 1),
            dlq_growth=self.alert_dlq_growth,
            unknown_sends=self.alert_unknown_sends,
            watches_silence=self.alert_silence == "on",
            clear_after=timedelta(seconds=self.alert_clear_seconds),
            remind_after=timedelta(seconds=self.alert_remind_seconds),
            quiet=quiet.parse(self.alert_quiet_hours, self.alert_time_zone),
        )

    @property
    def pairing_terms(self) -> Terms:
        return Terms(
            valid_for=timedelta(seconds=self.pairing_seconds),
            resend_after=timedelta(seconds=self.pairing_resend_seconds),
            max_waiting=self.max_waiting_pairings,
            refused_for=timedelta(seconds=self.pairing_refused_seconds),
            max_wrong_codes=self.max_wrong_codes,
            locked_for=timedelta(seconds=self.code_lock_seconds),
        )


def period(seconds: float) -> timedelta | None:
    """How long something is kept, of a setting where 0 means for ever: None."""
    return timedelta(seconds=seconds) if seconds else None


class ConfigError(ValueError):
    """A ``BOTSRT_`` variable cannot be used. Names the variable and says what to write."""


@cache
def load() -> RuntimeConfig:
    """The configuration of this process.

    Raises:
        ConfigError: a variable is unknown, malformed or out of range; the first one is named.
    """
    return from_mapping(settings.BOTSRT)


def from_mapping(values: Mapping[str, str]) -> RuntimeConfig:
    """The configuration that ``values`` (name without prefix, any case → text) describe; defaults for the rest."""
    known = {item.name: item for item in fields(RuntimeConfig)}
    parsed: dict[str, Any] = {}
    for raw_name, text in values.items():
        name = raw_name.lower()
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean BOTSRT_{close[0].upper()}?" if close else ""
            raise ConfigError(f"BOTSRT_{name.upper()}: there is no such setting.{hint}")
        parsed[name] = _parse(name, text, known[name].default, known[name].metadata)
    config = RuntimeConfig(**parsed)
    _check_together(config)
    return config


def _parse(name: str, text: str, default: Any, metadata: Mapping[str, Any]) -> Any:
    variable = f"BOTSRT_{name.upper()}"
    least, most = metadata["least"], metadata["most"]
    if isinstance(default, str):
        if not least <= len(text.strip()) <= most:
            raise ConfigError(f"{variable}: write {least} to {most} characters; the default is {default!r}.")
        return text
    if isinstance(default, tuple):
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if len(names) < least:
            raise ConfigError(f"{variable}: name at least {least}; the default is {', '.join(default)}.")
        return names
    try:
        value = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ConfigError(f"{variable}: {text!r} is not {kind}; the default is {default}.") from None
    if not least <= value <= most:  # also refuses nan
        raise ConfigError(f"{variable}: {text} is out of range ({least:g} to {most:,}); the default is {default}.")
    return value


def _check_together(config: RuntimeConfig) -> None:
    if config.run_timeout_seconds >= config.claim_timeout_seconds:
        raise ConfigError(
            f"BOTSRT_RUN_TIMEOUT_SECONDS ({config.run_timeout_seconds:g}) must be less than "
            f"BOTSRT_CLAIM_TIMEOUT_SECONDS ({config.claim_timeout_seconds:g}), or a live run would be taken for lost."
        )
    if config.send_timeout_seconds >= config.claim_timeout_seconds:
        raise ConfigError("BOTSRT_SEND_TIMEOUT_SECONDS must be less than BOTSRT_CLAIM_TIMEOUT_SECONDS.")
    if config.alert_silence not in ("on", "off"):
        raise ConfigError(f"BOTSRT_ALERT_SILENCE: {config.alert_silence!r} is not on or off.")
    for target in config.alert_chats:
        try:
            alerting.chat(target)
        except ValueError as error:
            raise ConfigError(f"BOTSRT_ALERT_CHATS: {error}") from None
    try:
        quiet.parse(config.alert_quiet_hours, config.alert_time_zone)
    except ValueError as error:
        raise ConfigError(f"BOTSRT_ALERT_QUIET_HOURS, BOTSRT_ALERT_TIME_ZONE: {error}") from None
