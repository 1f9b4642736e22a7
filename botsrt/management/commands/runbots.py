"""``manage.py runbots``: run bots, turns and deliveries; with ``--web`` the staff site too, in the same process."""

from __future__ import annotations

import asyncio
import dataclasses
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from botsrt import conf
from botsrt.management import archive, cli
from botsrt.models import Bot
from botsrt.runtime import garbage
from botsrt.runtime.children import TaskCluster
from botsrt.runtime.db import database
from botsrt.runtime.shutdown import on_signal
from botsrt.runtime.worker import Worker

DEFAULT_WEB = "127.0.0.1:8000"


class Command(cli.PlainErrorCommand):
    help = "Run the bots. Stop it with SIGTERM or Ctrl-C: running turns get a grace period, nothing is lost."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", action="append", metavar="A", help="run only this bot (repeatable)")
        parser.add_argument(
            "--web", nargs="?", const=DEFAULT_WEB, metavar="[HOST:]PORT", help=f"serve the site ({DEFAULT_WEB})"
        )
        parser.add_argument("--tasks", action="store_true", help="also run the task cluster, as a child process")
        parser.add_argument("--concurrency", type=int, metavar="N", help="turns that run at a time")

    def handle(self, *args: Any, **options: Any) -> None:
        config = self._config(options["concurrency"])
        archive.check_settled()
        self._check_accounts(options["account"])
        self._check_migrations()
        address = parse_address(options["web"]) if options["web"] else None
        main = self._main(config, accounts=options["account"], address=address, with_tasks=options["tasks"])
        if address is None:
            code = asyncio.run(main)
        else:
            from botsrt.runtime.site import run_on_site_loop  # installs Twisted's reactor, so only with --web

            code = run_on_site_loop(main)
        if code:
            raise SystemExit(code)

    async def _main(
        self,
        config: conf.RuntimeConfig,
        *,
        accounts: list[str] | None,
        address: tuple[str, int] | None,
        with_tasks: bool,
    ) -> int:
        """Start everything, wait for a signal or a failure, stop everything. Returns the exit code.

        Raises:
            BotsError: something cannot be started.
        """
        stop = on_signal(hard_after_seconds=config.drain_seconds + config.send_timeout_seconds + 15)
        worker = Worker(database=database(), config=config, accounts=accounts)
        site = None
        if address is not None:
            from botsrt.runtime.site import Site

            site = Site(host=address[0], port=address[1])
            await site.start()
        await worker.start()
        cluster = asyncio.create_task(TaskCluster(Path(settings.BASE_DIR) / "manage.py").run()) if with_tasks else None
        garbage.spare_what_stays()
        self._say_ready(worker, site.address if site else "")
        stopping = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(worker.wait_broken())
        await asyncio.wait({stopping, broken}, return_when=asyncio.FIRST_COMPLETED)
        is_broken = broken.done()
        for task in (stopping, broken):
            task.cancel()
        await asyncio.gather(worker.stop(), *([site.stop()] if site else []))
        if cluster is not None:
            cluster.cancel()
            await asyncio.wait({cluster})
        await database().close()
        self.stdout.write("runbots: stopped")
        return 1 if is_broken else 0

    def _say_ready(self, worker: Worker, address: str) -> None:
        where = f", site at {address}" if address else ""
        self.stdout.write(f"runbots: ready as {worker.id}{where}")
        self.stdout.flush()

    @staticmethod
    def _config(concurrency: int | None) -> conf.RuntimeConfig:
        config = conf.load()
        if concurrency is None:
            return config
        if concurrency < 1:
            raise CommandError(f"--concurrency: {concurrency} is too small; 1 is the least.")
        return dataclasses.replace(config, concurrency=concurrency)

    @staticmethod
    def _check_accounts(accounts: list[str] | None) -> None:
        known = set(Bot.objects.values_list("account", flat=True)) if accounts else set()
        for account in accounts or []:
            if account not in known:
                raise CommandError(f"--account: there is no bot {account}; there are {', '.join(sorted(known))}.")

    @staticmethod
    def _check_migrations() -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date; run: manage.py migrate")


def parse_address(text: str) -> tuple[str, int]:
    """``[HOST:]PORT`` as host and port.

    Raises:
        CommandError: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise CommandError(f"--web: {text!r} is not [HOST:]PORT; for example 8000 or 0.0.0.0:8000.")
    return host.strip("[]") or "127.0.0.1", int(port)
