"""Files come from where a platform keeps them, and from nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.resolver import DefaultResolver

from botsrt.adapters import downloads
from botsrt.core.errors import FileUnavailable, PlatformUnavailable, RateLimited

HOSTS = ("files.example",)


class Server:
    """A web server on loopback: what it was asked for, and what it answers by path."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.answers: dict[str, dict[str, Any]] = {}  # by path: what a response is made of
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if request.path == "/slow":
            await asyncio.sleep(30)
        return web.Response(**self.answers[request.path])


async def _serving(server: Server) -> web.AppRunner:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = await _serving(server)
    yield server
    await runner.cleanup()


@pytest.fixture
async def inside() -> AsyncIterator[Server]:
    """Another server in the private network, which nobody may be led to."""
    server = Server()
    server.answers["/secret"] = {"body": b"secret"}
    runner = await _serving(server)
    yield server
    await runner.cleanup()


async def fetch(server: Server, url: str, *, max_bytes: int = 1_000) -> bytes:
    return await downloads.download(
        url, server=server.url, hosts=HOSTS, headers={"Authorization": "Bearer good"}, max_bytes=max_bytes
    )


async def test_the_configured_server_may_be_private_and_gets_the_token(server: Server) -> None:
    server.answers["/a file"] = {"body": b"content"}
    assert await fetch(server, f"{server.url}/a%20file") == b"content"
    assert server.asked[0].headers["Authorization"] == "Bearer good"


async def test_it_may_lead_on_within_itself(server: Server) -> None:
    server.answers["/a"] = {"status": 302, "headers": {"Location": "/b"}}
    server.answers["/b"] = {"body": b"content"}
    assert await fetch(server, f"{server.url}/a") == b"content"


async def test_nobody_is_led_into_the_private_network(server: Server, inside: Server) -> None:
    server.answers["/a"] = {"status": 302, "headers": {"Location": f"{inside.url}/secret"}}
    with pytest.raises(FileUnavailable, match="not where the platform keeps its files"):
        await fetch(server, f"{server.url}/a")
    with pytest.raises(FileUnavailable):
        await fetch(server, f"{inside.url}/secret")
    assert inside.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example/a",
        "https://files.example:8443/a",
        "https://files.example.evil/a",
        "https://notfiles.example/a",
        "https://files.example@evil.example/a",
        "https://evil.example\\.files.example/a",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://files.example/a",
        "//files.example/a",
        "nonsense",
        "",
    ],
)
async def test_other_addresses_are_not_asked(server: Server, url: str) -> None:
    with pytest.raises((FileUnavailable, PlatformUnavailable)):
        await fetch(server, url)
    assert server.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "0.0.0.0"])
async def test_a_host_of_the_platform_at_a_private_address_is_not_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        assert host == "cdn.files.example"
        public = {"hostname": host, "host": "93.184.216.34", "port": port, "family": 2, "proto": 0, "flags": 0}
        return [public, {**public, "host": address}]

    monkeypatch.setattr(DefaultResolver, "resolve", resolve)
    server.answers["/a"] = {"status": 307, "headers": {"Location": "https://cdn.files.example/a"}}
    with pytest.raises(FileUnavailable, match="not public"):
        await fetch(server, f"{server.url}/a")


async def test_what_leads_on_and_on_is_left(server: Server) -> None:
    server.answers["/a"] = {"status": 302, "headers": {"Location": "/a"}}
    with pytest.raises(FileUnavailable, match="on and on"):
        await fetch(server, f"{server.url}/a")
    assert len(server.asked) == downloads.MAX_REDIRECTS + 1


async def test_size_has_a_cap(server: Server) -> None:
    server.answers["/a"] = {"body": b"x" * 100}
    assert len(await fetch(server, f"{server.url}/a", max_bytes=100)) == 100
    server.answers["/a"] = {"body": b"x" * 101}
    with pytest.raises(FileUnavailable, match="more than 100 bytes"):
        await fetch(server, f"{server.url}/a", max_bytes=100)


async def test_time_has_a_cap(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FETCH_SECONDS", 0.1)
    with pytest.raises(PlatformUnavailable, match="within"):
        await fetch(server, f"{server.url}/slow")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, FileUnavailable), (403, FileUnavailable), (503, PlatformUnavailable), (429, RateLimited)]
)
async def test_refusals_are_told_apart_and_name_no_address(server: Server, status: int, kind: type[Exception]) -> None:
    server.answers["/token-7"] = {"status": status, "headers": {"Retry-After": "7"}}
    with pytest.raises(kind) as caught:
        await fetch(server, f"{server.url}/token-7")
    assert "token" not in str(caught.value)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == timedelta(seconds=7)


async def test_a_server_that_is_away_is_told_without_its_address(server: Server) -> None:
    server.url = "http://127.0.0.1:9"
    with pytest.raises(PlatformUnavailable) as caught:
        await fetch(server, "http://127.0.0.1:9/token-7")
    assert "token" not in repr(caught.value.__cause__) + str(caught.value)
