"""Columns that several tables share."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django.db import models

from botsrt.core.messages import MAX_ID_CHARS, MAX_NAME_CHARS


def id_field(**options: Any) -> models.CharField[str, str]:
    """An id that a platform gave."""
    return models.CharField(max_length=MAX_ID_CHARS, **options)


def name_field(**options: Any) -> models.CharField[str, str]:
    """A name that a platform shows; never identity."""
    return models.CharField(max_length=MAX_NAME_CHARS, blank=True, default="", **options)


def platform_field() -> models.CharField[str, str]:
    return models.CharField(max_length=30)


def account_field(**options: Any) -> models.CharField[str, str]:
    return models.CharField(max_length=63, **options)


def session_id_field(**options: Any) -> models.CharField[str, str]:
    """A session id or a lane: wide enough for a group chat's account, chat and thread."""
    return models.CharField(max_length=600, **options)


def actor_field(**options: Any) -> models.CharField[str, str]:
    """Who did something: ``core.actors.Actor.name``."""
    return models.CharField(max_length=150, **options)


def state_field(states: type[StrEnum], **options: Any) -> models.CharField[str, str]:
    """One of ``states``; the database refuses anything else only through the services, which know no other words."""
    return models.CharField(max_length=20, choices=[(state.value, state.value) for state in states], **options)
