"""``mirror_to_session``: what a program sent by itself, written into the conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from botsrt.api import loop
from botsrt.api.sessions import BotSessionManager

logger = logging.getLogger(__name__)

#: Mirrors on their way, kept so that they are not collected.
_under_way: set[asyncio.Task[bool]] = set()


def mirror_to_session(
    session_mgr: BotSessionManager,
    user_id: str,
    message_text: str,
    source_label: str = "delivery",
    metadata: Mapping[str, Any] | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> bool:
    """Append what was sent to the conversation of ``user_id``, so that the next answer has its context.

    Called on an event loop it does not wait: the mirror is handed over, and True only means that.

    Args:
        session_mgr: ``bot._session`` of a ``Bot``, or a session manager of one's own.
        user_id: a unified user id, a session id, or the platform's id of a user.
        source_label: where it came from: ``cron``, ``web``, ``cross_platform``.
        lock: held while it is written, by code that is not asynchronous. Nothing here needs it: messages are appended.

    Returns:
        False, with a line in the log, where it could not be: a mirror never breaks a delivery.
    """
    try:
        mirroring = session_mgr.mirror(
            user_id=str(user_id), message_text=message_text, source_label=source_label, metadata=metadata
        )
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            with lock or nullcontext():
                return loop.run(mirroring)
        task = here.create_task(_logged(mirroring, user_id))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
    except Exception as error:  # noqa: BLE001  whatever it is, the message itself was delivered
        logger.warning("a message to %s could not be mirrored: %s", user_id, error)
        return False
    return True


async def _logged(mirroring: Any, user_id: str) -> bool:
    try:
        return await loop.arun(mirroring)
    except Exception as error:  # noqa: BLE001  as above
        logger.warning("a message to %s could not be mirrored: %s", user_id, error)
        return False
