"""Wake the loops of the runtime after a commit. Losing a nudge costs at most one poll interval.

Three nudges exist: ``journal`` wakes one worker, ``outbox`` and ``control`` wake all (only the worker that holds a
bot's lease can send for it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Literal

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

Kind = Literal["journal", "outbox", "control"]

#: The channel that any one worker reads, and the groups that every worker joins.
JOURNAL_CHANNEL = "bots.journal"
GROUPS: dict[Kind, str] = {"outbox": "bots.outbox", "control": "bots.control"}

logger = logging.getLogger(__name__)

_muted: ContextVar[bool] = ContextVar("botsrt_nudges_muted", default=False)


def journal() -> None:
    """An entry is waiting."""
    transaction.on_commit(partial(_send, "journal"), robust=True)


def outbox() -> None:
    """A message is waiting to be sent."""
    transaction.on_commit(partial(_send, "outbox"), robust=True)


def control() -> None:
    """A bot was changed, or must be started or stopped."""
    transaction.on_commit(partial(_send, "control"), robust=True)


async def deliver(kind: Kind) -> None:
    """Put one nudge on the channel layer. A full or absent layer is no error: the poll finds the work."""
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        if kind == "journal":
            await layer.send(JOURNAL_CHANNEL, {"type": "work.waiting"})
        else:
            await layer.group_send(GROUPS[kind], {"type": "work.waiting"})
    except Exception as error:  # noqa: BLE001  any failure of the layer (full, Redis away) costs a poll interval only
        logger.debug("nudge %s was not delivered (%s); the poll will find the work", kind, type(error).__name__)


def _deliver_from_a_thread(kind: Kind) -> None:
    async_to_sync(deliver)(kind)


_sender: Callable[[Kind], None] = _deliver_from_a_thread


def send_with(sender: Callable[[Kind], None] | None) -> None:
    """Let ``sender`` carry the nudges of this process; None restores the default.

    The runtime sets one that hands them to its event loop: the in-memory layer loses what other threads send.
    """
    global _sender
    _sender = sender or _deliver_from_a_thread


def mute() -> None:
    """This thread's database is not the project's: workers and pages would look for rows that are elsewhere."""
    _muted.set(True)


def is_muted() -> bool:
    return _muted.get()


def _send(kind: Kind) -> None:
    if not is_muted():
        _sender(kind)
