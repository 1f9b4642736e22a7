"""Write down an act, in the transaction of the act."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from botsrt.core.actors import Actor
from botsrt.models import AuditEvent


def record(
    *,
    actor: Actor,
    verb: str,
    object_kind: str,
    object_id: object,
    now: datetime,
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Append one event. Never give it a secret: ``before`` and ``after`` are shown."""
    AuditEvent.objects.create(
        at=now,
        actor=actor.name,
        address=actor.address,
        verb=verb,
        object_kind=object_kind,
        object_id=str(object_id),
        reason=reason,
        before=dict(before or {}),
        after=dict(after or {}),
    )
