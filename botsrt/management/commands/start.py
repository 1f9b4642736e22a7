"""``manage.py start``: what ``make run`` calls. Makes what is missing, says how to sign in, and runs everything."""

from __future__ import annotations

import secrets
import socket
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from botsrt.core.actors import SYSTEM
from botsrt.core.states import UnknownUserPolicy
from botsrt.management import cli
from botsrt.models import Bot
from botsrt.runtime import platforms
from botsrt.services import bots

#: The first login and the first bot.
ADMIN = "admin"
WEB_BOT = "web"


class Command(cli.PlainErrorCommand):
    help = "Prepare the database, make a staff login and a web-chat bot on the first run, and run everything."
    requires_system_checks = "__all__"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        port = options["port"]
        _check_port(port)
        call_command("migrate", verbosity=0)
        self._make_login()
        self._make_bot()
        self.stdout.write(f"Open http://127.0.0.1:{port}/try/{WEB_BOT}/ and write to the bot. Stop with Ctrl-C.\n")
        self.stdout.flush()
        call_command("runbots", web=f"127.0.0.1:{port}", tasks=True)

    def _make_login(self) -> None:
        users = get_user_model().objects
        known = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if known is not None:
            name = known.get_username()
            self.stdout.write(f"Sign in with your login. Forgotten? manage.py changepassword {name}")
            return
        if users.filter(username=ADMIN).exists():
            self.stdout.write(f"No superuser is left, and {ADMIN} is somebody else. Run: manage.py createsuperuser")
            return
        password = secrets.token_urlsafe(12)
        users.create_superuser(ADMIN, password=password)
        self.stdout.write(
            f"Sign in as {ADMIN} with the password {password} (shown this once; change it in the account menu, or with "
            f"manage.py changepassword {ADMIN})."
        )

    def _make_bot(self) -> None:
        if Bot.objects.exists():
            return
        bots.add(
            account=WEB_BOT,
            platform="web",
            shape=platforms.shape("web"),
            changes=bots.Changes(policy=UnknownUserPolicy.ALLOW),
            actor=SYSTEM,
            now=timezone.now(),
        )


def _check_port(port: int) -> None:
    if not 0 < port < 65_536:
        raise CommandError(f"--port: {port} is not a port; use 1 to 65535.")
    try:
        # As the server will: an address that a stopped server has just left is free.
        socket.create_server(("127.0.0.1", port), reuse_port=False).close()
    except PermissionError as error:
        raise CommandError(f"Port {port} is for root alone; use another: make run PORT=8000") from error
    except OSError as error:
        other = port + 1 if port < 65_535 else 8_000
        raise CommandError(f"Port {port} is taken; use another: make run PORT={other}") from error
