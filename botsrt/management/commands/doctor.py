"""``manage.py doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import asyncio
import platform
import shutil
import stat
from argparse import ArgumentParser
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from channels.layers import get_channel_layer
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Min
from django.db.models.functions import Now
from django.utils import timezone

import botsrt
from botsrt import conf
from botsrt.core.errors import BotsError, CredentialError
from botsrt.core.redact import redact
from botsrt.core.states import AdapterStatus, DLQState, EntryState, OutboxState
from botsrt.management import cli
from botsrt.management.commands.bots import alive_workers, state_of
from botsrt.models import AgentProfile, Bot, DLQItem, JournalEntry, OutboxMessage, Worker
from botsrt.runtime import platforms
from botsrt.services import alerts, bots, figures

#: Free space below which a database will soon fail to store, and below which it may fail at any moment, in bytes.
_LITTLE_BYTES = 500_000_000
_LEAST_BYTES = 100_000_000

#: Leases compare times of several hosts: a difference beyond this makes them unreliable.
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=2)

#: A message that could run, and waits longer than this, waits too long.
_MAX_WAIT = timedelta(minutes=1)

#: The journal counts as nearly full from this part of its size on.
_NEARLY_FULL = 0.8

#: Workers that died longer ago than this are history.
_RECENTLY = timedelta(days=1)

#: The task cluster looks after counts and alerts every minute; beyond this it does not run.
_MAX_UNWATCHED = timedelta(minutes=10)

#: Longest round trip through the channel layer, in seconds.
_LAYER_SECONDS = 5.0

#: States in which a bot's adapter does its work, or will by itself.
_WELL = (AdapterStatus.RUNNING, AdapterStatus.STARTING)

_PACKAGES = (
    "django",
    "channels",
    "channels-redis",
    "daphne",
    "django-q2",
    "psycopg",
    "python-telegram-bot",
    "slack-bolt",
    "discord.py",
)

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    subject: str
    text: str
    advice: str = ""


class Command(cli.PlainErrorCommand):
    help = "Check settings, database, channel layer, bots, clocks and versions. Exit code 1 when something fails."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = list(_examine())
        if options["json"]:
            self.print_json([asdict(finding) for finding in findings])
        else:
            for finding in findings:
                self.stdout.write(cli.harmless(redact(f"{finding.level:5} {finding.subject}: {finding.text}")))
                if finding.advice:
                    self.stdout.write(cli.harmless(redact(f"      → {finding.advice}")))
        if any(finding.level == "fail" for finding in findings):
            raise SystemExit(1)


def _examine() -> Iterator[Finding]:
    """All findings. What needs the settings or the database is left out when they are unusable."""
    yield _versions()
    yield from _settings()
    yield from _files()
    database = list(_database())
    yield from database
    yield _layer()
    try:
        conf.load()
    except conf.ConfigError:
        return  # one of the settings' findings
    if all(finding.level != "fail" for finding in database):
        for examine in (_clock, _workers, _journal, _decisions, _agents, _bots, _alerts):
            yield from examine()


# -- this installation ----


def _versions() -> Finding:
    known = []
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            known.append(f"{package} {version(package)}")
    python = f"Python {platform.python_version()}"
    return Finding("ok", "versions", f"praisonweb {botsrt.__version__}, {python}, {', '.join(known)}")


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks()
    for message in messages:
        level: Level = "fail" if message.level >= checks.ERROR else "warn"
        yield Finding(level, f"settings {message.id}", str(message.msg), str(message.hint or ""))
    if not messages:
        yield Finding("ok", "settings", f"data folder {settings.PRAISON_HOME}")


def _files() -> Iterator[Finding]:
    key = Path(settings.PRAISON_HOME) / "secret_key"
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding(
            "warn", "secret key", f"{key} can be read by others; it seals the credentials.", f"Run: chmod 600 {key}"
        )
    folder = _data_folder()
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_BYTES:
        level: Level = "fail" if free < _LEAST_BYTES else "warn"
        yield Finding(
            level, "disk", f"{free // 1_000_000} MB are free in {folder}.", "Make room: a full disk stores no messages."
        )


def _data_folder() -> Path:
    """Where the database is, if it is a file here; else the data folder."""
    if connection.vendor == "sqlite":
        folder = Path(str(connection.settings_dict["NAME"])).parent
        if folder.is_dir():
            return folder
    return Path(settings.PRAISON_HOME)


# -- database and channel layer ----


def _database() -> Iterator[Finding]:
    try:
        with transaction.atomic(), connection.cursor() as cursor:  # on SQLite this takes the write lock
            cursor.execute("SELECT 1")
        missing = _missing_migrations()
        unsafe = list(_sqlite() if connection.vendor == "sqlite" else _postgresql())
    except DatabaseError as error:
        advice = "Check DATABASE_URL, that the server runs, and that the file and its folder can be written."
        yield Finding("fail", "database", f"cannot be used: {error}", advice)
        return
    if missing:
        yield Finding("fail", "database", f"{missing} migrations are missing.", "Run: manage.py migrate")
        return
    yield from unsafe or [Finding("ok", "database", connection.vendor)]


def _missing_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _sqlite() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        advice = "Put the database on a local disk: network file systems have no write-ahead log."
        yield Finding("fail", "database", f"SQLite keeps its journal as {mode!r}, not as 'wal'.", advice)


def _postgresql() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone()[0] == "on":
            yield Finding("fail", "database", "can only be read.", "Connect to the primary server, not to a replica.")


def _layer() -> Finding:
    try:
        asyncio.run(_round_trip())
    except Exception as error:  # noqa: BLE001  whatever the layer's client raises is the finding
        advice = "Check REDIS_URL and that Redis runs. Messages are not lost: until then each process polls."
        return Finding("fail", "channel layer", f"{type(error).__name__}: {error}", advice)
    return Finding("ok", "channel layer", "Redis" if settings.REDIS_URL else "in memory: for one process")


async def _round_trip() -> None:
    layer = get_channel_layer()
    assert layer is not None
    channel = await layer.new_channel()
    try:
        async with asyncio.timeout(_LAYER_SECONDS):
            await layer.send(channel, {"type": "doctor"})
            await layer.receive(channel)
    finally:
        if settings.REDIS_URL:
            await layer.flush()  # closes this process's connections


def _clock() -> Iterator[Finding]:
    before = timezone.now()
    at = AgentProfile.objects.annotate(now=Now()).values_list("now", flat=True).first()
    difference = abs(at - before) if at else timedelta()
    advice = "Synchronise the clocks (NTP); leases depend on them."
    ahead = Worker.objects.filter(stopped_at=None, last_beat_at__gt=before + _MAX_CLOCK_DIFFERENCE).first()
    if difference > _MAX_CLOCK_DIFFERENCE:
        seconds = f"{difference.total_seconds():.0f} s"
        yield Finding("fail", "clock", f"this machine and the database differ by {seconds}.", advice)
    elif ahead is not None:
        yield Finding("fail", "clock", f"the clock of {ahead.host} is ahead of this machine's.", advice)
    else:
        yield Finding("ok", "clock", f"agrees with the database within {_MAX_CLOCK_DIFFERENCE.total_seconds():g} s")


# -- what runs, and what waits ----


def _workers() -> Iterator[Finding]:
    now = timezone.now()
    alive = alive_workers(now)
    open_rows = Worker.objects.filter(stopped_at=None)
    if alive:
        yield Finding("ok", "workers", f"{len(alive)} alive: {', '.join(sorted(alive))}")
    else:
        yield Finding("warn", "workers", "none is alive; messages wait.", "Start one with: manage.py runbots")
    for worker in open_rows.filter(id__in=alive).exclude(version=botsrt.__version__):
        text = f"runs version {worker.version}, this is {botsrt.__version__}."
        yield Finding("warn", f"worker {worker.id}", text, "Restart it.")
    for worker in open_rows.filter(last_beat_at__gt=now - _RECENTLY).exclude(id__in=alive):
        text = f"fell silent {cli.age(worker.last_beat_at)}, without a goodbye."
        yield Finding(
            "warn", f"worker {worker.id}", text, f"Look into the log of process {worker.pid} on {worker.host}."
        )


def _journal() -> Iterator[Finding]:
    unfinished = JournalEntry.objects.exclude(state__in=(EntryState.COMPLETED, EntryState.DISCARDED)).count()
    limit = conf.load().max_size
    text = f"{unfinished} unfinished entries; {limit} should fit."
    if unfinished > _NEARLY_FULL * limit:
        level: Level = "fail" if unfinished > limit else "warn"
        yield Finding(level, "journal", text, "See: journal stats, dlq list, outbox list --state held")
    else:
        yield Finding("ok", "journal", text)
    yield from _waiting()


def _waiting() -> Iterator[Finding]:
    """Messages that could run, and do not."""
    now = timezone.now()
    enabled = Bot.objects.filter(is_enabled=True).values("account")
    due = JournalEntry.objects.filter(state=EntryState.PENDING, available_at__lte=now, account__in=enabled)
    oldest = due.aggregate(oldest=Min("available_at"))["oldest"]
    if oldest is not None and now - oldest > _MAX_WAIT:
        level: Level = "warn" if alive_workers(now) else "fail"
        text = f"the oldest message waits since {cli.age(oldest)}."
        yield Finding(level, "waiting", text, "Start a worker with manage.py runbots, or add one.")


def _decisions() -> Iterator[Finding]:
    """What only staff can move on."""
    for text, count, command in (
        ("failed messages wait for a decision.", DLQItem.objects.filter(state=DLQState.OPEN), "dlq list"),
        (
            "sent messages may have arrived, or not.",
            OutboxMessage.objects.filter(state=OutboxState.UNKNOWN),
            "outbox list --state unknown",
        ),
        (
            "replies are held back.",
            OutboxMessage.objects.filter(state=OutboxState.HELD),
            "outbox list --state held",
        ),
    ):
        if number := count.count():
            yield Finding("warn", "decisions", f"{number} {text}", f"See: {command}")


def _agents() -> Iterator[Finding]:
    for agent in AgentProfile.objects.order_by("name"):
        try:
            obstacle = platforms.check_agent(agent.name, agent.kind, agent.settings)
        except BotsError as error:
            yield Finding("fail", f"agent {agent.name}", str(error), f"Correct it with: agents set {agent.name} …")
        else:
            if obstacle:  # a variable that is set where the agent runs need not be set in this shell
                yield Finding(
                    "warn", f"agent {agent.name}", obstacle, "Messages wait and lose no attempt until it can run."
                )


def _bots() -> Iterator[Finding]:
    now = timezone.now()
    alive = alive_workers(now)
    rows = list(Bot.objects.select_related("adapter").filter(is_enabled=True).order_by("account"))
    if not rows:
        yield Finding("warn", "bots", "there is none that is enabled.", "Add one with: manage.py bots add")
    for bot in rows:
        yield _bot(bot, alive=alive, state=state_of(bot, alive=alive, now=now))


def _bot(bot: Bot, *, alive: Collection[str], state: str) -> Finding:
    subject = f"bot {bot.account}"
    try:
        platforms.check(bots.adapter_config(account=bot.account))
    except CredentialError as error:
        # A variable that is set where the bot runs need not be set in this shell.
        level: Level = "warn" if state == AdapterStatus.RUNNING else "fail"
        return Finding(level, subject, str(error), f"Or set another: bots set {bot.account} --credential …")
    except BotsError as error:
        return Finding("fail", subject, str(error), f"Correct it with: bots set {bot.account} …")
    if state in (AdapterStatus.CREDENTIAL_ERROR, AdapterStatus.FAILED):
        return Finding("fail", subject, f"{state}: {bot.adapter.error}", f"Correct it with: bots set {bot.account} …")
    if state in _WELL and not bot.adapter.error:
        return Finding("ok", subject, f"{state} as {bot.adapter.identity or bot.account}")
    if state in _WELL or state == AdapterStatus.BACKOFF:
        return Finding("warn", subject, f"{state}: {bot.adapter.error}", f"Try: manage.py bots probe {bot.account}")
    advice = "A worker is alive: see its log." if alive else "It starts when a worker runs."
    return Finding("warn", subject, state, advice)


def _alerts() -> Iterator[Finding]:
    """Whether alerts would be raised, and reach somebody. Where neither was ever set up, nothing is said."""
    counted_at = figures.counted_at()
    if counted_at is not None and timezone.now() - counted_at > _MAX_UNWATCHED:
        text = f"nobody has looked after counts and alerts since {counted_at:%Y-%m-%d %H:%M} UTC"
        yield Finding("warn", "alerts", text, "Run: manage.py qcluster")
    for target in alerts.missing_chats(conf.load().alert_policy.targets):
        yield Finding("warn", "alerts", f"{target}: there is no such bot", "Correct BOTSRT_ALERT_CHATS.")
