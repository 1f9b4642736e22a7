"""The staff site, served by Daphne inside our own event loop.

Importing this module installs Twisted's reactor on ``daphne.server.twisted_loop``: a process that serves the site must
run its main coroutine on that loop (``run_on_site_loop``) and never ``reactor.run()``. Stock Daphne drops requests in
flight on SIGTERM; this one finishes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from daphne.server import Server, twisted_loop  # isort: skip  must come before any other import of Twisted
from channels.routing import get_default_application
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol
from django.urls import get_resolver
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import globalLogBeginner

from botsrt.core.errors import ConfigurationError

#: Time for requests in flight to end when the site stops, in seconds.
DRAIN_SECONDS = 8.0

_MAX_WEBSOCKET_BYTES = 1_048_576


#: Twisted's reactor is a module that implements interfaces at run time; its stubs know less.
reactor: Any = _reactor


class Site(Server):  # type: ignore[misc]
    """Daphne, started and stopped from a coroutine."""

    def __init__(self, *, host: str, port: int) -> None:
        escaped_host = host.replace(":", r"\:")
        super().__init__(
            get_default_application(),
            endpoints=[f"tcp:port={port}:interface={escaped_host}"],
            signal_handlers=False,
            websocket_handshake_timeout=10,
        )
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        _ = get_resolver().url_patterns  # loads the views now, not with the first request
        self.connections: dict[Any, Any] = {}
        self.http_factory = HTTPFactory(self)
        self.ws_factory = WebSocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,  # the application checks origins
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=_MAX_WEBSOCKET_BYTES,
            maxFramePayloadSize=_MAX_WEBSOCKET_BYTES,
        )
        observers: Any = [_discard]
        globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
        reactor.startRunning(installSignalHandlers=False)
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        try:
            self.ports = [await self._listen(endpoint) for endpoint in self.endpoints]
        except CannotListenError as error:
            raise ConfigurationError(f"--web: {self.address} cannot be listened on: {error.socketError}") from error

    async def _listen(self, endpoint: str) -> Any:
        listening: Any = serverFromString(reactor, endpoint)  # type: ignore[no-untyped-call]
        return await listening.listen(self.http_factory).asFuture(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Take no new connections, let requests end, close websockets, cancel what is left."""
        loop = asyncio.get_running_loop()
        for port in self.ports:
            if (stopped := port.stopListening()) is not None:
                await stopped.asFuture(loop)
        deadline = loop.time() + DRAIN_SECONDS
        while self._busy(WebRequest) and loop.time() < deadline:  # noqa: ASYNC110  Daphne tells nobody of an end
            await asyncio.sleep(0.05)
        for protocol in list(self.connections):
            if isinstance(protocol, WebSocketProtocol):
                protocol.sendClose(1000)  # 1001, "going away", is refused by autobahn
        await asyncio.sleep(0.2)
        left = self._busy()
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=2)

    def _busy(self, kind: type = object) -> list[asyncio.Future[Any]]:
        """The application tasks of open connections of this kind."""
        tasks = (
            details.get("application_instance")
            for protocol, details in self.connections.items()
            if isinstance(protocol, kind)
        )
        return [task for task in tasks if task is not None and not task.done()]


def _discard(event: Any) -> None:
    """Twisted's own log; ours is Python's."""


def run_on_site_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main`` to its end on the loop that Twisted's reactor sits on."""
    with asyncio.Runner(loop_factory=lambda: twisted_loop) as runner:
        return runner.run(main)
