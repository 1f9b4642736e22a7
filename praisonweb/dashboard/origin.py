"""Websockets are for the site's own pages: browsers let any page open one, and send the cookies along."""

from __future__ import annotations

from typing import Any

from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.utils.http import is_same_domain


class SameOrigin:
    """Refuses a handshake whose ``Origin`` is neither the address it was sent to nor one of ``CSRF_TRUSTED_ORIGINS``.

    Stricter than a check against ``ALLOWED_HOSTS``: that one knows no ports, and ``*`` would open it to everybody.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        headers = dict(scope["headers"])
        origin, host = (headers.get(name, b"").decode("latin-1").lower() for name in (b"origin", b"host"))
        application = self._application if _is_own(origin, host) else WebsocketDenier.as_asgi()
        return await application(scope, receive, send)


def _is_own(origin: str, host: str) -> bool:
    is_same = bool(host) and origin in (f"http://{host}", f"https://{host}")
    return is_same or any(_matches(origin, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS)


def _matches(origin: str, trusted: str) -> bool:
    """Whether ``origin`` is ``trusted``, which may be ``https://*.example.org`` as everywhere in Django."""
    scheme, _, host = origin.partition("://")
    trusted_scheme, _, pattern = trusted.lower().partition("://")
    return scheme == trusted_scheme and is_same_domain(host, pattern.removeprefix("*"))
