"""``manage.py serve``: the staff site and the webhooks alone, for hosts that run no bots."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from typing import Any

from botsrt.management import cli
from botsrt.management.commands.runbots import DEFAULT_WEB, parse_address
from botsrt.runtime import garbage
from botsrt.runtime.db import database
from botsrt.runtime.shutdown import on_signal


class Command(cli.PlainErrorCommand):
    help = "Serve the site and the webhooks. Stop it with SIGTERM: requests in flight are finished."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", nargs="?", default=DEFAULT_WEB, metavar="[HOST:]PORT")

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = parse_address(options["address"])
        from botsrt.runtime.site import run_on_site_loop  # installs Twisted's reactor, so not before it is needed

        if code := run_on_site_loop(self._main(host, port)):
            raise SystemExit(code)

    async def _main(self, host: str, port: int) -> int:
        from botsrt.runtime.site import DRAIN_SECONDS, Site

        stop = on_signal(hard_after_seconds=DRAIN_SECONDS + 10)
        site = Site(host=host, port=port)
        await site.start()
        garbage.spare_what_stays()
        self.stdout.write(f"serve: ready at {site.address}")
        self.stdout.flush()
        await stop.wait()
        await site.stop()
        await asyncio.shield(database().close())
        self.stdout.write("serve: stopped")
        return 0
