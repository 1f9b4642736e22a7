"""What the platforms of the tests have in common: a server on loopback whose network can be lost and restored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar

from aiohttp import web


class LoopbackServer:
    """Listens from ``restore_network`` to ``lose_network``, always on the same port; nothing is forgotten meanwhile."""

    #: Largest body that is taken, in bytes.
    max_body_bytes: ClassVar[int] = 1024**2

    #: Whether a call of somebody who hung up is left at once, as by a poller whose successor would be in conflict.
    leaves_calls: ClassVar[bool] = True

    def __init__(self, *, port: int = 0) -> None:
        """
        Args:
            port: 0: any that is free, the same one ever after.
        """
        self.port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What goes into the bot's setting ``api_base_url``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_reachable(self) -> bool:
        return self._runner is not None

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Say what is where."""
        raise NotImplementedError

    def so_far(self) -> str:
        """What has happened, for whoever waited for something else."""
        raise NotImplementedError

    async def restore_network(self) -> None:
        app = web.Application(client_max_size=self.max_body_bytes)
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=self.leaves_calls, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def lose_network(self) -> None:
        """Break all connections and stop listening."""
        if self._runner is None:
            return
        assert self._runner.server is not None
        for site in list(self._runner.sites):
            await site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        self._runner = None

    async def until(self, condition: Callable[[], object], *, seconds: float = 10.0) -> None:
        """Wait until ``condition`` holds; TimeoutError when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {seconds} s; {self.so_far()}")
            await asyncio.sleep(0.005)
