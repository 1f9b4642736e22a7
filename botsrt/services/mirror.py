"""Mirrors: what the bot said outside a turn, written into the history so that the next answer has its context."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from botsrt.core import keys
from botsrt.core.errors import InvalidInput, NotFound
from botsrt.core.states import HistoryKind, Role, SessionScope
from botsrt.core.text import storable, storable_json
from botsrt.models import BotSession, HistoryMessage
from botsrt.services import news

#: Widest label and key, in characters; the widths of the columns.
_MAX_LABEL_CHARS = 60
_MAX_KEY_CHARS = 200


def append(
    *,
    user_id: str,
    text: str,
    source_label: str,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
    now: datetime,
) -> bool:
    """Append what the bot said outside a turn to the conversation of ``user_id``. It does not count as activity.

    A turn that runs meanwhile loses nothing: both are appended.

    Args:
        user_id: a unified user id or a session id. A person's mirror goes to the session that was active last.
        source_label: where it came from: ``cron``, ``staff``, ``web``, ``cross_platform``.
        idempotency_key: of two mirrors with the same key one is kept; empty: each counts.

    Returns:
        False when a mirror with this key was there already.

    Raises:
        NotFound: there is no such conversation.
        InvalidInput: the text is empty, or label or key are too long.

    Source: the cross-platform document, "Mirror for Outbound Deliveries".
    """
    if not text.strip():
        raise InvalidInput("message_text", "it is empty.")
    if len(source_label) > _MAX_LABEL_CHARS or len(idempotency_key) > _MAX_KEY_CHARS:
        raise InvalidInput(
            "source_label", f"at most {_MAX_LABEL_CHARS} characters are possible, and {_MAX_KEY_CHARS} for the key."
        )
    session_pk = _session_of(user_id)
    details = storable_json(dict(metadata or {}))
    try:
        with transaction.atomic():
            HistoryMessage.objects.create(
                session_id=session_pk,
                role=Role.ASSISTANT,
                kind=HistoryKind.MIRROR,
                text=storable(text),
                source=storable(source_label),
                metadata=details,
                mirror_key=storable(idempotency_key) or str(uuid.uuid4()),
                created_at=now,
            )
            news.changed("people", [session_pk])
    except IntegrityError:
        return False
    return True


def has_conversation(*, user_id: str) -> bool:
    """Whether a mirror to ``user_id`` would find a conversation."""
    try:
        _session_of(user_id)
    except NotFound:
        return False
    return True


def _session_of(user_id: str) -> int:
    exact = BotSession.objects.filter(session_id=user_id).values_list("pk", flat=True).first()
    if exact is not None:
        return exact
    together = BotSession.objects.filter(lane=keys.person_lane(user_id), scope=SessionScope.PER_USER)
    latest = together.order_by("-last_activity_at", "-pk").values_list("pk", flat=True).first()
    if latest is None:
        raise NotFound(f"There is no conversation of {user_id}.")
    return latest
