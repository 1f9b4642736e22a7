"""``manage.py bots``: the bots of this installation."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import Min
from django.utils import timezone

from botsrt.core.errors import NotFound
from botsrt.core.states import EntryState, UnknownUserPolicy
from botsrt.management import cli
from botsrt.models import Bot, JournalEntry, Worker
from botsrt.runtime import platforms
from botsrt.services import bots
from botsrt.services.bots import Changes, Shape


class Command(cli.VerbCommand):
    help = "List, add, change, test and remove bots."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        add("list", "All bots and what their adapters are doing.", prints_data=True)
        for name, help_text in (("add", "Add a bot."), ("set", "Change a bot; its adapter alone restarts.")):
            verb = add(name, help_text)
            verb.add_argument("account", help="the bot's stable name")
            if name == "add":
                verb.add_argument(
                    "--platform", required=True, help="telegram, slack, discord, whatsapp, webhook, web, console, …"
                )
            verb.add_argument("--agent", help="which agent answers (echo)")
            verb.add_argument(
                "--credential", action="append", metavar="K=V", help="K=env:NAME is read from the environment"
            )
            verb.add_argument("--setting", action="append", metavar="K=V", help='"K=" removes the setting')
            verb.add_argument("--policy", choices=list(UnknownUserPolicy), help="what strangers may do (deny)")
            if name == "set":
                _add_reason(verb)
        for name, help_text in (
            ("enable", "Let a bot run."),
            ("disable", "Stop a bot; its messages wait."),
            ("remove", "Remove a bot; its journal and sessions stay."),
        ):
            verb = add(name, help_text)
            verb.add_argument("account")
            _add_reason(verb)
        add("probe", "Ask the platform who the bot is.", prints_data=True).add_argument("account")

    def do_list(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        rows = Bot.objects.select_related("agent", "adapter").order_by("account")
        alive, waiting = alive_workers(now), _waiting_since()
        shown = [_row(bot, alive=alive, waiting_since=waiting.get(bot.account), now=now) for bot in rows]
        self.table(
            options,
            shown,
            empty="No bots yet; add one with: manage.py bots add",
            whole=("account",),
            only_json=("lag_seconds", "version", "applied_version", "restarts", "error"),
        )
        for row in shown:
            if row["error"] and not options["json"]:
                self.say(cli.harmless(f"{row['account']}: {row['error']}"))

    def do_add(self, options: dict[str, Any]) -> None:
        account, platform = options["account"], options["platform"]
        shape = platforms.shape(platform)
        with transaction.atomic():
            bots.add(
                account=account,
                platform=platform,
                shape=shape,
                changes=_changes(options),
                actor=cli.actor(),
                now=timezone.now(),
            )
            self._check(account)
        self.say(f"Added {account}. A running runbots starts it now.")

    def do_set(self, options: dict[str, Any]) -> None:
        account, changes = options["account"], _changes(options)
        shape = platforms.shape(_bot(account).platform)
        if changes == Changes():
            raise CommandError("Nothing to change; say --agent, --credential, --setting or --policy.")
        with transaction.atomic():
            version = bots.change(
                account=account,
                shape=shape,
                changes=changes,
                actor=cli.actor(),
                reason=options["reason"],
                now=timezone.now(),
            )
            self._check(account)
        self.say(f"{account} has version {version} now; its adapter restarts.")

    def do_enable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=True)

    def do_disable(self, options: dict[str, Any]) -> None:
        self._switch(options, is_enabled=False)

    def do_remove(self, options: dict[str, Any]) -> None:
        bots.remove(account=options["account"], actor=cli.actor(), reason=options["reason"], now=timezone.now())
        self.say(f"Removed {options['account']}; its journal and sessions stay.")

    def do_probe(self, options: dict[str, Any]) -> None:
        account = options["account"]
        identity = asyncio.run(platforms.identity(bots.adapter_config(account=account)))
        if options["json"]:
            self.print_json({"account": account, "identity": identity})
        else:
            self.say(cli.harmless(f"{account} is {identity}."))

    def _switch(self, options: dict[str, Any], *, is_enabled: bool) -> None:
        account, word = options["account"], "enabled" if is_enabled else "disabled"
        if _bot(account).is_enabled == is_enabled:
            self.say(f"{account} is {word} already.")
            return
        bots.change(
            account=account,
            shape=Shape(),  # nothing of the platform is touched: this works when the platform is gone, too
            changes=Changes(is_enabled=is_enabled),
            actor=cli.actor(),
            reason=options["reason"],
            now=timezone.now(),
        )
        self.say(f"{account} is {word}{'' if is_enabled else '; its messages wait'}.")

    def _check(self, account: str) -> None:
        """Say now what the adapter would say when it starts.

        Raises:
            ConfigurationError: the bot could not start; what was stored in this transaction is undone.
        """
        warning = platforms.check_stored(account)
        if warning:
            self.stderr.write(f"Warning: {warning} See: manage.py bots probe {account}")


def alive_workers(now: datetime) -> set[str]:
    """The ids of the workers that were heard of within their lease."""
    rows = Worker.objects.filter(stopped_at=None).values_list("id", "last_beat_at", "lease_seconds")
    return {worker_id for worker_id, beat, lease in rows if (now - beat).total_seconds() < lease}


def state_of(bot: Bot, *, alive: Collection[str], now: datetime) -> str:
    """What the adapter is doing. When the worker that said so is silent, nobody knows."""
    adapter = bot.adapter
    if not bot.is_enabled:
        return "disabled"
    if not adapter.worker_id:
        return "stopped"
    is_fresh = adapter.lease_expires_at is not None and adapter.lease_expires_at > now and adapter.worker_id in alive
    return adapter.state if is_fresh else "unknown"


def _add_reason(verb: ArgumentParser) -> None:
    verb.add_argument("--reason", default="", help="why; kept in the audit")


def _changes(options: dict[str, Any]) -> Changes:
    return Changes(
        agent=options["agent"],
        policy=options["policy"],
        settings=cli.pairs(options["setting"], flag="--setting"),
        credentials=cli.pairs(options["credential"], flag="--credential"),
    )


def _bot(account: str) -> Bot:
    bot = Bot.objects.filter(account=account).first()
    if bot is None:
        raise NotFound(f"There is no bot {account}; see: bots list")
    return bot


def _waiting_since() -> dict[str, datetime]:
    """For each account, since when its oldest message waits that could run now."""
    due = JournalEntry.objects.filter(state=EntryState.PENDING, available_at__lte=timezone.now())
    return dict(due.order_by().values_list("account").annotate(Min("available_at")))


def _row(bot: Bot, *, alive: Collection[str], waiting_since: datetime | None, now: datetime) -> dict[str, Any]:
    adapter = bot.adapter
    lag_seconds = int((now - waiting_since).total_seconds()) if waiting_since else 0
    return {
        "account": bot.account,
        "platform": bot.platform,
        "state": state_of(bot, alive=alive, now=now),
        "identity": adapter.identity,
        "agent": bot.agent.name,
        "policy": bot.policy,
        "last_in": adapter.last_inbound_at,
        "last_out": adapter.last_outbound_at,
        "lag": cli.span(lag_seconds) if lag_seconds else "",
        "lag_seconds": lag_seconds,
        "version": bot.version,
        "applied_version": adapter.applied_version,
        "restarts": adapter.restarts,
        "error": adapter.error,
    }
