"""Where a request comes from, as far as that can be known."""

from __future__ import annotations

from ipaddress import ip_address as parsed
from ipaddress import ip_network

from django.conf import settings
from django.http import HttpRequest

#: What providers give to one customer, at least.
_IPV6_NETWORK_BITS = 64


def address(request: HttpRequest) -> str:
    """The client's network address; empty where there is none (a socket file, a test).

    Each proxy adds the address that called it to the end of X-Forwarded-For. What stands before the entries of the
    ``PROXIES`` in front of this site was written by the client, and proves nothing.
    """
    direct = _clean(request.META.get("REMOTE_ADDR", ""))
    if settings.PROXIES < 1:
        return direct
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    if len(hops) < settings.PROXIES:
        return direct
    return _clean(hops[-settings.PROXIES]) or direct


def ip_address(request: HttpRequest) -> str | None:
    """``address`` as failed sign-ins are counted by: of IPv6 the network, for one client has all of its addresses."""
    known = address(request)
    if ":" not in known:
        return known or None
    return str(ip_network((known, _IPV6_NETWORK_BITS), strict=False).network_address)


def _clean(text: str) -> str:
    """The address in ``text`` without brackets and port; empty where there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(parsed(text.partition("%")[0]))
    except ValueError:
        return ""
