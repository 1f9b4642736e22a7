"""Fetch a file from where a platform keeps its files, and from nowhere else.

A message names its files by ids or addresses, and whoever can write a message may have chosen these. So each address,
the first and every one that it leads on to, must be the configured server itself, or one of the platform's own hosts
over HTTPS; and such a host must not be found at a private address, also not between this check and the call. Size and
time have caps. Proxies of the environment are not used: what they connect to could not be checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from botsrt.core.errors import BotsError, FileUnavailable, PlatformUnavailable, RateLimited

#: How long fetching one file may take, redirects included, in seconds.
FETCH_SECONDS = 20.0

MAX_REDIRECTS = 3

_CHUNK_BYTES = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: The wait after a rate limit that names none.
_RETRY_AFTER = timedelta(seconds=30)

_PRIVATE = "The file is at an address that is not public."


async def download(
    url: str, *, server: str, hosts: Sequence[str] = (), headers: Mapping[str, str] | None = None, max_bytes: int
) -> bytes:
    """The content of the file at ``url``.

    Args:
        server: the configured server of the platform, which may be anywhere.
        hosts: the platform's own hosts; those below them count, too.
        headers: sent to these alone. No error names the address: it may hold a token.

    Raises:
        FileUnavailable: it is gone, too large, or elsewhere.
        PlatformUnavailable: it did not come, or not in time.
        RateLimited: the platform asks to wait.
    """
    try:
        at = URL(url)  # read once, by what also makes the call: two readers of an address may differ
        async with asyncio.timeout(FETCH_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                found = await _ask(at, server=URL(server), hosts=hosts, headers=headers or {}, max_bytes=max_bytes)
                if isinstance(found, bytes):
                    return found
                at = at.join(found)
    except TimeoutError as error:
        raise PlatformUnavailable(f"The file did not come within {FETCH_SECONDS:g} s.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise PlatformUnavailable(f"The file did not come: {type(error).__name__}.") from None
    raise FileUnavailable("The file's address leads on and on.")


async def _ask(
    url: URL, *, server: URL, hosts: Sequence[str], headers: Mapping[str, str], max_bytes: int
) -> bytes | URL:
    """The file, or the address that ``url`` leads on to."""
    is_server = (url.scheme, url.host, url.port) == (server.scheme, server.host, server.port)
    if not is_server and not _is_among(url, hosts):
        raise FileUnavailable("The file is not where the platform keeps its files.")
    connector = aiohttp.TCPConnector(resolver=None if is_server else PublicResolver(FileUnavailable(_PRIVATE)))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        if response.status in _REDIRECTS and "Location" in response.headers:
            return URL(response.headers["Location"])
        if response.status == 429:
            seconds = response.headers.get("Retry-After", "")
            raise RateLimited(timedelta(seconds=int(seconds)) if seconds.isdecimal() else _RETRY_AFTER)
        if response.status >= 500:
            raise PlatformUnavailable(f"The platform answered {response.status} instead of the file.")
        if response.status != 200:
            raise FileUnavailable(f"The platform answered {response.status} instead of the file.")
        return await _read(response, max_bytes)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise FileUnavailable(f"The file has more than {max_bytes:,} bytes.")
    return bytes(content)


def _is_among(url: URL, hosts: Sequence[str]) -> bool:
    host = url.host or ""
    is_known = any(host == known or host.endswith(f".{known}") for known in hosts)
    return is_known and url.scheme == "https" and url.port == 443


class PublicResolver(AbstractResolver):
    """Finds hosts on the public internet alone; the connection goes to the very addresses that were checked.

    Args:
        refusal: raised where a host is at another address, too. Hosts that are written as addresses come past here.
    """

    def __init__(self, refusal: BotsError) -> None:
        self._refusal = refusal
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(ipaddress.ip_address(item["host"]).is_global for item in found):
            raise self._refusal
        return found

    async def close(self) -> None:
        await self._resolver.close()
