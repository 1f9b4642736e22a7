"""Who may see what. Signing in is asked for by the middleware; this says who is staff."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from channels.auth import get_user
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied


def is_staff(user: AbstractBaseUser | AnonymousUser | None) -> bool:
    return isinstance(user, User) and user.is_active and user.is_staff


def _must_be_staff(user: AbstractBaseUser | AnonymousUser) -> bool:
    if is_staff(user):
        return True
    raise PermissionDenied("Your account is not staff. Ask an administrator to change that, or use another account.")


#: A view for staff; anybody else who is signed in gets the page for 403.
staff_only = user_passes_test(_must_be_staff)


async def staff_behind(scope: Mapping[str, Any]) -> User | None:
    """The staff member behind a websocket as the database says now; None after sign-out or loss of the right.

    The socket's own scope remembers how things were when it was opened.
    """
    key = scope["session"].session_key
    as_stored: Any = {"session": import_module(settings.SESSION_ENGINE).SessionStore(key)}
    user = await get_user(as_stored)
    return user if isinstance(user, User) and is_staff(user) else None
