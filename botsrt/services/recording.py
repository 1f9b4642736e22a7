"""What was said, as rows of the history."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

from botsrt.core.messages import Route
from botsrt.core.states import HistoryKind, Role
from botsrt.core.text import one_line
from botsrt.models import HistoryMessage
from botsrt.services import claimed, sql
from botsrt.services.claimed import ClaimedEntry


def said(
    entry: ClaimedEntry,
    *,
    session_pk: int,
    platform: str,
    account: str,
    turn_id: uuid.UUID | None = None,
    ordinal: int = 0,
    kind: HistoryKind = HistoryKind.CHAT,
) -> dict[str, Any]:
    """What a person wrote, as a row of the history."""
    message = entry.message
    return {
        "session_id": session_pk,
        "turn_id": turn_id,
        "ordinal": ordinal,
        "entry_id": entry.id,
        "role": Role.USER,
        "kind": kind,
        "sender_name": one_line(message.sender.display_name or message.sender.user_name),
        "text": message.text,
        "attachments": message.attachments_payload(),
        "route": route_json(platform, account, message.route),
        "source": "",
        "metadata": {},
        "created_at": message.sent_at or entry.received_at,
    }


def write_down_said(entry_ids: Collection[int]) -> None:
    """Make the messages of entries that no turn will answer part of their conversations, unless they are already."""
    known = in_history(entry_ids)
    sql.insert(
        HistoryMessage,
        [
            said(claimed.entry_of(row), session_pk=row.session_pk, platform=row.platform, account=row.account)
            for row in claimed.rows(entry_ids)
            if row.id not in known
        ],
    )


def in_history(entry_ids: Collection[int]) -> set[int]:
    """Those of the entries whose messages are in the history."""
    found = HistoryMessage.objects.filter(entry__in=entry_ids, role=Role.USER).values_list("entry", flat=True)
    return {pk for pk in found if pk is not None}


def route_json(platform: str, account: str, route: Route) -> dict[str, str]:
    return {
        "platform": platform,
        "account": account,
        "channel_id": route.channel_id,
        "thread_id": route.thread_id,
    }
