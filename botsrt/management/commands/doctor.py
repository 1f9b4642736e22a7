"""``manage.py doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Literal

from channels.layers import get_channel_layer
from django.conf import settings
from django.core import checks
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.utils import timezone

import botsrt
from botsrt import conf
from botsrt.core.errors import BotsError
from botsrt.core.states import AdapterStatus, EntryState
from botsrt.models import AgentProfile, Bot, JournalEntry, Worker
from botsrt.runtime import platforms
from botsrt.services import bots

#: Free space below which a database will soon fail to store, in bytes.
_LEAST_FREE_BYTES = 500_000_000

#: Leases compare times of several hosts: a difference beyond this makes them unreliable.
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Finding:
    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    advice: str = ""


class Command(BaseCommand):
    help = "Check settings, database, channel layer, bots, clocks and versions. Exit code 1 when something fails."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = list(_examine())
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                self.stdout.write(f"{finding.level:5} {finding.subject}: {finding.text}")
                if finding.advice:
                    self.stdout.write(f"      → {finding.advice}")
        if any(finding.level == "fail" for finding in findings):
            raise SystemExit(1)


def _examine() -> Iterator[Finding]:
    """All findings. What needs the database is left out when there is none."""
    yield Finding("ok", "versions", _versions())
    yield from _settings()
    database = list(_database())
    yield from database
    if all(finding.level != "fail" for finding in database):
        for examine in (_clock, _journal, _workers, _agents, _bots):
            yield from examine()
    yield _layer()


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("django", "channels", "daphne", "django-q2"))
    return f"praisonweb {botsrt.__version__}, Python {platform.python_version()}, {packages}"


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks()
    for message in messages:
        level: Literal["warn", "fail"] = "fail" if message.level >= checks.ERROR else "warn"
        yield Finding(level, f"settings {message.id}", str(message.msg), str(message.hint or ""))
    if not messages:
        yield Finding("ok", "settings", f"data folder {settings.PRAISON_HOME}")


def _database() -> Iterator[Finding]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield Finding("fail", "database", f"cannot be reached: {error}", "Check DATABASE_URL and that the server runs.")
        return
    if missing:
        yield Finding("fail", "database", f"{len(missing)} migrations are missing.", "Run: manage.py migrate")
        return
    yield Finding("ok", "database", connection.vendor)
    free = shutil.disk_usage(settings.PRAISON_HOME).free
    if free < _LEAST_FREE_BYTES:
        yield Finding(
            "warn", "disk", f"{free // 1_000_000} MB are free.", "Make room before messages cannot be stored."
        )


def _clock() -> Iterator[Finding]:
    before = timezone.now()
    at = AgentProfile.objects.annotate(now=Now()).values_list("now", flat=True).first()
    difference = abs(at - before) if at else timedelta()
    if difference > _MAX_CLOCK_DIFFERENCE:
        yield Finding(
            "fail",
            "clock",
            f"this machine and the database differ by {difference.total_seconds():.0f} s.",
            "Synchronise both clocks (NTP); leases depend on them.",
        )
    else:
        yield Finding("ok", "clock", f"agrees with the database within {_MAX_CLOCK_DIFFERENCE.total_seconds():g} s")


def _journal() -> Iterator[Finding]:
    unfinished = JournalEntry.objects.exclude(state__in=(EntryState.COMPLETED, EntryState.DISCARDED)).count()
    limit = conf.load().max_size
    if unfinished > limit:
        yield Finding("fail", "journal", f"{unfinished} unfinished entries; {limit} should fit.", "See: journal stats")
    else:
        yield Finding("ok", "journal", f"{unfinished} unfinished entries")


def _workers() -> Iterator[Finding]:
    now = timezone.now()
    alive = [
        worker
        for worker in Worker.objects.filter(stopped_at=None)
        if now - worker.last_beat_at < timedelta(seconds=worker.lease_seconds)
    ]
    if alive:
        yield Finding("ok", "workers", f"{len(alive)} alive: {', '.join(worker.id for worker in alive)}")
    else:
        yield Finding("warn", "workers", "none is alive; messages wait.", "Start one with: manage.py runbots")


def _agents() -> Iterator[Finding]:
    for agent in AgentProfile.objects.order_by("name"):
        try:
            platforms.check_agent(agent.name, agent.kind, agent.settings)
        except BotsError as error:
            yield Finding("fail", f"agent {agent.name}", str(error), f"Correct it with: agents set {agent.name} …")


def _bots() -> Iterator[Finding]:
    for bot in Bot.objects.select_related("adapter").filter(is_enabled=True).order_by("account"):
        subject = f"bot {bot.account}"
        try:
            platforms.check(bots.adapter_config(account=bot.account))
        except BotsError as error:
            yield Finding("fail", subject, str(error), f"Correct it with: bots set {bot.account} …")
            continue
        if bot.adapter.error:
            yield Finding("warn", subject, f"{bot.adapter.state}: {bot.adapter.error}")
        elif bot.adapter.state == AdapterStatus.RUNNING:
            yield Finding("ok", subject, f"running as {bot.adapter.identity}")
        else:
            yield Finding("warn", subject, bot.adapter.state, "It starts when a worker runs.")


def _layer() -> Finding:
    try:
        asyncio.run(_round_trip())
    except Exception as error:  # noqa: BLE001  whatever the layer's client raises is the finding
        return Finding(
            "fail", "channel layer", f"{type(error).__name__}: {error}", "Check REDIS_URL; until then it polls."
        )
    return Finding("ok", "channel layer", "Redis" if settings.REDIS_URL else "in memory: for one process")


async def _round_trip() -> None:
    layer = get_channel_layer()
    assert layer is not None
    channel = await layer.new_channel()
    receive: Callable[[str], Any] = layer.receive
    async with asyncio.timeout(5):
        await layer.send(channel, {"type": "doctor"})
        await receive(channel)
