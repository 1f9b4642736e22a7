"""Mirrors, for programs: never in the way of the delivery they belong to, and never in the way of the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from botsrt.runtime.db import Database, database
from botsrt.services import mirror

logger = logging.getLogger(__name__)

#: Mirrors on their way, kept so that they are not collected.
_under_way: set[asyncio.Task[bool]] = set()


async def amirror_to_session(
    *,
    user_id: str,
    message_text: str,
    source_label: str,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
    bridge: Database | None = None,
) -> bool:
    """Append a mirror; see ``services.mirror.append``. False, with a line in the log, where it could not be: a mirror
    never breaks a delivery."""
    try:
        return await (bridge or database()).call(
            mirror.append,
            user_id=user_id,
            text=message_text,
            source_label=source_label,
            metadata=metadata,
            idempotency_key=idempotency_key,
            now=timezone.now(),
        )
    except Exception as error:  # noqa: BLE001  whatever it is, the message itself was delivered
        logger.warning("a message to %s could not be mirrored: %s", user_id, error)
        return False


def mirror_to_session(
    *,
    user_id: str,
    message_text: str,
    source_label: str,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str = "",
) -> bool:
    """As ``amirror_to_session``, from code that is not asynchronous.

    Called on an event loop it does not wait: the mirror is handed over, and True only means that.
    """
    arguments: dict[str, Any] = {
        "user_id": user_id,
        "message_text": message_text,
        "source_label": source_label,
        "metadata": metadata,
        "idempotency_key": idempotency_key,
    }
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_mirror_alone(arguments))
    task = loop.create_task(amirror_to_session(**arguments))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return True


async def _mirror_alone(arguments: Mapping[str, Any]) -> bool:
    """With a bridge of its own: that of the process belongs to its event loop."""
    bridge = Database(max_batch=1)
    try:
        return await amirror_to_session(**arguments, bridge=bridge)
    finally:
        await bridge.close()
