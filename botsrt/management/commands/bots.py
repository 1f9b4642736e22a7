"""``manage.py bots``: the bots of this installation."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.core.errors import CredentialError
from botsrt.core.ports import BotConfig
from botsrt.core.states import UnknownUserPolicy
from botsrt.management import cli
from botsrt.models import AdapterState, Bot
from botsrt.runtime import platforms
from botsrt.services import bots
from botsrt.services.bots import Changes


class Command(cli.VerbCommand):
    help = "List, add, change, test and remove bots."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        add("list", "All bots and what their adapters are doing.", prints_data=True)
        for name, help_text in (("add", "Add a bot."), ("set", "Change a bot; its adapter alone restarts.")):
            verb = add(name, help_text)
            verb.add_argument("account", help="the bot's stable name")
            if name == "add":
                verb.add_argument("--platform", required=True, help="telegram, slack, web, console, …")
            verb.add_argument("--agent", help="which agent answers (echo)")
            verb.add_argument(
                "--credential", action="append", metavar="K=V", help="K=env:NAME is read from the environment"
            )
            verb.add_argument("--setting", action="append", metavar="K=V", help='"K=" removes the setting')
            verb.add_argument("--policy", choices=list(UnknownUserPolicy), help="what strangers may do (deny)")
        for name, help_text in (
            ("enable", "Let a bot run."),
            ("disable", "Stop a bot; its messages wait."),
            ("remove", "Remove a bot; its journal and sessions stay."),
            ("probe", "Ask the platform who the bot is."),
        ):
            add(name, help_text).add_argument("account")

    def do_list(self, options: dict[str, Any]) -> None:
        rows = Bot.objects.select_related("agent", "adapter").order_by("account")
        self.table(options, [_row(bot) for bot in rows], empty="No bots yet; add one with: manage.py bots add")

    def do_add(self, options: dict[str, Any]) -> None:
        platform = options["platform"]
        shape = platforms.shape(platform)
        changes = _changes(options)
        self._check(options["account"], platform, changes)
        bots.add(
            account=options["account"],
            platform=platform,
            shape=shape,
            changes=changes,
            actor=cli.actor(),
            now=timezone.now(),
        )
        self.say(f"Added {options['account']}. A running runbots starts it now.")

    def do_set(self, options: dict[str, Any]) -> None:
        version = bots.change(
            account=options["account"],
            shape=platforms.shape(_platform(options["account"])),
            changes=_changes(options),
            actor=cli.actor(),
            now=timezone.now(),
        )
        self.say(f"{options['account']} has version {version} now; its adapter restarts.")

    def do_enable(self, options: dict[str, Any]) -> None:
        self._switch(options["account"], is_enabled=True)

    def do_disable(self, options: dict[str, Any]) -> None:
        self._switch(options["account"], is_enabled=False)

    def do_remove(self, options: dict[str, Any]) -> None:
        bots.remove(account=options["account"], actor=cli.actor(), now=timezone.now())
        self.say(f"Removed {options['account']}; its journal and sessions stay.")

    def do_probe(self, options: dict[str, Any]) -> None:
        config = bots.adapter_config(account=options["account"])
        self.say(f"{options['account']} is {asyncio.run(platforms.probe(config)).identity}.")

    def _switch(self, account: str, *, is_enabled: bool) -> None:
        bots.change(
            account=account,
            shape=platforms.shape(_platform(account)),
            changes=Changes(is_enabled=is_enabled),
            actor=cli.actor(),
            now=timezone.now(),
        )
        self.say(f"{account} is {'enabled' if is_enabled else 'disabled; its messages wait'}.")

    def _check(self, account: str, platform: str, changes: Changes) -> None:
        """Say now what the adapter would say when it starts. A variable that is not set yet is only a warning."""
        keyring = bots.vault()
        try:
            credentials = {name: keyring.open(name, keyring.seal(value)) for name, value in changes.credentials.items()}
        except CredentialError as error:
            self.stderr.write(f"Warning: {error}")
            return
        common = {option.name for option in bots.COMMON_SETTINGS}
        settings = {name: value for name, value in changes.settings.items() if name not in common}
        platforms.check(BotConfig(account=account, platform=platform, settings=settings, credentials=credentials))


def _changes(options: dict[str, Any]) -> Changes:
    return Changes(
        agent=options["agent"],
        policy=options["policy"],
        settings=cli.pairs(options["setting"], flag="--setting"),
        credentials=cli.pairs(options["credential"], flag="--credential"),
    )


def _platform(account: str) -> str:
    platform = Bot.objects.filter(account=account).values_list("platform", flat=True).first()
    if platform is None:
        raise CommandError(f"There is no bot {account}; see: bots list")
    return platform


def _row(bot: Bot) -> dict[str, Any]:
    adapter = bot.adapter
    return {
        "account": bot.account,
        "platform": bot.platform,
        "state": _state(bot, adapter),
        "identity": adapter.identity or "-",
        "agent": bot.agent.name,
        "policy": bot.policy,
        "last in": cli.age(adapter.last_inbound_at),
        "last out": cli.age(adapter.last_outbound_at),
        "version": f"{adapter.applied_version}/{bot.version}",
        "error": adapter.error,
    }


def _state(bot: Bot, adapter: AdapterState) -> str:
    """What the adapter is doing; a lease that ran out means that nobody knows."""
    if not bot.is_enabled:
        return "disabled"
    is_stale = adapter.lease_expires_at is None or adapter.lease_expires_at < timezone.now()
    return "unknown" if is_stale and adapter.worker_id else adapter.state
