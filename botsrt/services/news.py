"""Tell open pages of the staff site which rows changed, after the commit: ids alone, pages fetch what they show.

Losing some costs a page one beat (``static/js/live.js``). Like a nudge, news never waits and never fails an act.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from botsrt.services import nudge

Topic = Literal["journal", "dlq", "outbox", "bots", "pairings", "people", "operations", "alerts"]
TOPICS: tuple[Topic, ...] = ("journal", "dlq", "outbox", "bots", "pairings", "people", "operations", "alerts")

#: Ids in one event; a page that is told of so many fetches everything anyway.
MAX_IDS = 100

logger = logging.getLogger(__name__)

#: Events carry who sent them and a number, so that a page notices when one is missing.
_SENDER = uuid.uuid4().hex[:12]
_numbers: dict[Topic, itertools.count[int]] = {topic: itertools.count(1) for topic in TOPICS}


def group(topic: Topic) -> str:
    """The group of the channel layer that pages about ``topic`` join."""
    return f"site.{topic}"


def changed(topic: Topic, ids: Iterable[object] = ()) -> None:
    """These rows of ``topic`` changed in the transaction that is open; no ids: nobody knows which."""
    transaction.on_commit(partial(_send, topic, tuple(ids)), robust=True)


async def deliver(topic: Topic, ids: Iterable[object]) -> None:
    """Put one event on the channel layer. A full or absent layer is no error: pages look by themselves, too."""
    layer = get_channel_layer()
    if layer is None:
        return
    event = {
        "type": "rows.changed",
        "topic": topic,
        "ids": [str(row_id) for row_id in itertools.islice(ids, MAX_IDS)],
        "from": f"{_SENDER}.{topic}",
        "number": next(_numbers[topic]),
    }
    try:
        await layer.group_send(group(topic), event)
    except Exception as error:  # noqa: BLE001  any failure of the layer (full, Redis away) costs a page one beat only
        logger.debug("news of %s was not delivered: %s", topic, type(error).__name__)


def _deliver_from_a_thread(topic: Topic, ids: tuple[object, ...]) -> None:
    async_to_sync(deliver)(topic, ids)


_sender: Callable[[Topic, tuple[object, ...]], None] = _deliver_from_a_thread


def send_with(sender: Callable[[Topic, tuple[object, ...]], None] | None) -> None:
    """Let ``sender`` carry the news of this process; None restores the default. As ``nudge.send_with``."""
    global _sender
    _sender = sender or _deliver_from_a_thread


def _send(topic: Topic, ids: tuple[object, ...]) -> None:
    if not nudge.is_muted():
        _sender(topic, ids)
