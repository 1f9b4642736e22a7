"""Signing in, wrong passwords and the pause after too many: what the audit is told, and the page that is shown.

The counting is django-axes'. No password is ever written down, nor a user name that does not exist: people type
passwords into the wrong field.
"""

from __future__ import annotations

import logging
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.signals import user_locked_out
from axes.utils import reset
from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from botsrt.core.actors import Actor
from botsrt.services import audit
from praisonweb.dashboard import client

logger = logging.getLogger(__name__)

#: Who acts while nobody is signed in.
_STRANGER = "anonymous"

_UNKNOWN = "unknown"


def connect() -> None:
    """Let the audit hear of sign-ins. Called once, when the app is ready."""
    user_logged_in.connect(_signed_in, dispatch_uid="audit")
    user_logged_out.connect(_signed_out, dispatch_uid="audit")
    user_login_failed.connect(_failed, dispatch_uid="audit")
    user_locked_out.connect(_locked, dispatch_uid="audit")


def schedule(sender: object, **kwargs: Any) -> None:
    """Have sessions that are over removed every day. Called after every ``migrate``; repeating it changes nothing."""
    from django_q.models import Schedule

    Schedule.objects.update_or_create(
        name="sessions",
        defaults={
            "func": "django.core.management.call_command",
            "args": "'clearsessions'",
            "schedule_type": Schedule.DAILY,
            "repeats": -1,
        },
    )


def is_own_password(request: HttpRequest, password: str) -> bool:
    """Whether ``password`` is that of who is signed in. Wrong ones count as they do at the sign-in."""
    user = authenticate(request, username=request.user.get_username(), password=password)
    return user is not None and user.pk == request.user.pk


def is_locked(request: HttpRequest, user: User) -> bool:
    """Whether ``user`` has to wait at this address."""
    return not AxesProxyHandler.is_allowed(request, {"username": user.get_username()})


def count_wrong_code(request: HttpRequest, user: User) -> None:
    """A wrong code counts like a wrong password: whoever has the password only is locked out in the end."""
    user_login_failed.send(sender=__name__, credentials={"username": user.get_username()}, request=request)


def forget_failures(request: HttpRequest) -> None:
    """Who is signed in has confirmed that it is them: what they mistyped before does not count on."""
    reset(username=request.user.get_username(), ip=client.ip_address(request))


def locked_page(request: HttpRequest, *args: object) -> HttpResponse:
    """The answer to who has to wait."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    context = {"minutes": seconds // 60, "failures": settings.AXES_FAILURE_LIMIT}
    response = render(request, "account/locked.html", context, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response


# -- the audit ----


def _signed_in(sender: object, request: HttpRequest, user: User, **kwargs: Any) -> None:
    _record(request, "account.sign_in", user.get_username(), actor=user.get_username())


def _signed_out(sender: object, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        _record(request, "account.sign_out", user.get_username(), actor=user.get_username())


def _failed(sender: object, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    # During a lock-out axes counts nothing, and neither do we: else anybody could fill the audit.
    if request is None or getattr(request, "axes_failures_since_start", None) is None:
        return
    _record(request, "account.sign_in_failed", _known(credentials.get("username")))


def _locked(sender: object, request: HttpRequest, username: str | None = None, **kwargs: Any) -> None:
    if getattr(request, "axes_failures_since_start", None) is not None:  # now, not an attempt meanwhile
        logger.warning("too many failed sign-ins from %s: locked for a while", client.address(request) or "here")
        _record(request, "account.locked", _known(username))


def _known(name: object) -> str:
    is_known = isinstance(name, str) and get_user_model().objects.filter(username=name).exists()
    return str(name) if is_known else _UNKNOWN


def _record(request: HttpRequest, verb: str, name: str, *, actor: str = _STRANGER) -> None:
    audit.record(
        actor=Actor(name=actor, address=client.address(request)),
        verb=verb,
        object_kind="user",
        object_id=name,
        now=timezone.now(),
    )
