"""Asking for the password again before what cannot be taken back, or gives power: credentials, exports, purges, users.

A confirmation holds for ten minutes in its session. It never carries a form along: what was typed stays in the page
that asked, and is sent again by the person.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode, urlsplit

from asgiref.sync import iscoroutinefunction
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRedirect

#: How long one confirmation holds.
LIFETIME_SECONDS = 600

_KEY = "sudo_until"
_SAFE = ("GET", "HEAD", "OPTIONS")


def sudo_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a view, synchronous or not: sends people to the page that asks for the password, and back.

    A form that comes without a confirmation is not acted on: its sender confirms, and sends it again. Put it below
    ``requires``, so that nobody is asked for a password in vain.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if _holds(await request.session.aget(_KEY, 0)):
                return await view(request, *args, **kwargs)
            return ask(request)

    else:

        @wraps(view)
        def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return view(request, *args, **kwargs) if is_on(request) else ask(request)

    return asking


def is_on(request: HttpRequest) -> bool:
    """Whether this session confirmed its password within the last ten minutes."""
    return _holds(request.session.get(_KEY, 0))


def ask(request: HttpRequest) -> HttpResponse:
    """Send the person to the page that asks for the password, and back. For one branch of a view; see ``is_on``."""
    if request.method in _SAFE and "HX-Request" not in request.headers:
        back = request.get_full_path()
    else:
        page = request.headers.get("HX-Current-URL") or request.headers.get("Referer") or ""
        back = safe_target(request, page) or reverse("home")
        if request.method not in _SAFE:
            messages.warning(request, "Nothing was changed yet: confirm that it is you, then send the form again.")
    url = f"{reverse('sudo')}?{urlencode({'next': back})}"
    return HttpResponseClientRedirect(url) if "HX-Request" in request.headers else redirect(url)


def start(request: HttpRequest) -> None:
    """The person has just confirmed. The session gets another key, so that a stolen one does not gain the power."""
    request.session.cycle_key()
    request.session[_KEY] = int(time.time()) + LIFETIME_SECONDS


def safe_target(request: HttpRequest, url: str) -> str:
    """``url`` as a path of this site; empty where it leads elsewhere."""
    is_ours = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    if not is_ours:
        return ""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return path if url_has_allowed_host_and_scheme(path, None) else ""


def _holds(until: int) -> bool:
    return time.time() < until
