"""Carries news for open pages of the site (``services.news``) from any thread of a worker to its event loop."""

from __future__ import annotations

import asyncio
import logging
import threading

from botsrt.services import news
from botsrt.services.news import Topic

#: News of this span are told together: a page cannot show more.
_TOGETHER_SECONDS = 0.25

#: Between two events of a topic, so that a flood costs no more than this, however many pages are open. No page fetches
#: more often (``static/js/live.js``).
_APART_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Newsroom:
    """Belongs to the running event loop: the in-memory channel layer loses what other threads send."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Topic, dict[object, None]] = {}
        self._told_at: dict[Topic, float] = {}
        self._guard = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, topic: Topic, ids: tuple[object, ...]) -> None:
        """Tell this soon. May be called on any thread."""
        with self._guard:
            is_first = topic not in self._waiting
            known = self._waiting.setdefault(topic, {})
            if len(known) < news.MAX_IDS:
                known.update(dict.fromkeys(ids))
        if is_first:
            try:
                self._loop.call_soon_threadsafe(self._tell_soon, topic)
            except RuntimeError:  # the loop has ended; pages look by themselves
                logger.debug("news of %s came after the end", topic)

    def _tell_soon(self, topic: Topic) -> None:
        earliest = self._told_at.get(topic, 0.0) + _APART_SECONDS
        self._loop.call_at(max(self._loop.time() + _TOGETHER_SECONDS, earliest), self._tell, topic)

    def _tell(self, topic: Topic) -> None:
        self._told_at[topic] = self._loop.time()
        with self._guard:
            ids = self._waiting.pop(topic)
        task = self._loop.create_task(news.deliver(topic, ids))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
