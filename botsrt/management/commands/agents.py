"""``manage.py agents``: what answers for the bots."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.management import cli
from botsrt.models import AgentProfile
from botsrt.runtime import platforms
from botsrt.services import bots


class Command(cli.VerbCommand):
    help = "List, add, change and remove agents."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        add("list", "All agents.", prints_data=True)
        for name, help_text in (("add", "Add an agent."), ("set", "Change an agent; the next turn uses it.")):
            verb = add(name, help_text)
            verb.add_argument("name")
            if name == "add":
                verb.add_argument("--kind", required=True, help="echo, python, …")
            verb.add_argument("--target", metavar="MODULE:ATTR", help="for kind python: what answers")
            verb.add_argument("--instructions", help="what the agent is told about its task")
            verb.add_argument("--setting", action="append", metavar="K=V", help='"K=" removes the setting')
        add("remove", "Remove an agent that no bot uses.").add_argument("name")

    def do_list(self, options: dict[str, Any]) -> None:
        agents = AgentProfile.objects.prefetch_related("bots").order_by("name")
        rows = [_row(agent) for agent in agents]
        if not options["json"]:
            for row in rows:
                row["settings"] = ", ".join(f"{name}={value}" for name, value in row["settings"].items())
                row["bots"] = ", ".join(row["bots"])
        self.table(options, rows, empty="No agents.", whole=("name",), only_json=("instructions",))

    def do_add(self, options: dict[str, Any]) -> None:
        settings = _settings(options)
        platforms.check_agent(options["name"], options["kind"], settings)
        bots.add_agent(
            name=options["name"],
            kind=options["kind"],
            options=platforms.agent_options(options["kind"]),
            instructions=options["instructions"] or "",
            settings=settings,
            actor=cli.actor(),
            now=timezone.now(),
        )
        self.say(f"Added {options['name']}. Give it to a bot with: bots set ACCOUNT --agent {options['name']}")

    def do_set(self, options: dict[str, Any]) -> None:
        profile = AgentProfile.objects.filter(name=options["name"]).first()
        if profile is None:
            raise CommandError(f"There is no agent {options['name']}; see: agents list")
        settings = _settings(options)
        if not settings and options["instructions"] is None:
            raise CommandError("Nothing to change; say --target, --instructions or --setting.")
        platforms.check_agent(profile.name, profile.kind, {**profile.settings, **settings})
        version = bots.change_agent(
            name=profile.name,
            options=platforms.agent_options(profile.kind),
            instructions=options["instructions"],
            settings=settings,
            actor=cli.actor(),
            now=timezone.now(),
        )
        self.say(f"{profile.name} has version {version} now; the next turn uses it.")

    def do_remove(self, options: dict[str, Any]) -> None:
        bots.remove_agent(name=options["name"], actor=cli.actor(), now=timezone.now())
        self.say(f"Removed {options['name']}.")


def _row(agent: AgentProfile) -> dict[str, Any]:
    return {
        "name": agent.name,
        "kind": agent.kind,
        "version": agent.version,
        "bots": [bot.account for bot in agent.bots.all()],
        "settings": agent.settings,
        "instructions": agent.instructions,
    }


def _settings(options: dict[str, Any]) -> dict[str, str]:
    settings = cli.pairs(options["setting"], flag="--setting")
    return settings if options["target"] is None else {**settings, "target": options["target"]}
