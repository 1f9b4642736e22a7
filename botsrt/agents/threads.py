"""Blocking calls, each in a daemon thread of its own, a limited number at a time.

A thread cannot be stopped. A caller that is cancelled goes on at once; its thread runs on, unheard, and keeps its place
until it has really ended. No ``ThreadPoolExecutor``: while an agent hangs, its threads keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from botsrt.agents import failures
from botsrt.core.errors import AgentUnavailable

T = TypeVar("T")

#: How long a call waits behind calls that nobody waits for any more before it says that the agent hangs.
_PATIENCE_SECONDS = 5.0


class Gate:
    """A number of places, given out in the order of asking. With one place it is a lock.

    It belongs to no event loop, and a place is given back from whichever thread is done with it.
    """

    def __init__(self, places: int) -> None:
        self._mutex = threading.Lock()  # held for moments only
        self._places = places
        self._free = places
        self._given_up = 0  # places held by threads that nobody waits for any more
        self._waiting: deque[Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            AgentUnavailable: all places are held by calls that were given up and do not end.
        """
        with self._mutex:
            if self._free:
                self._free -= 1
                return
            turn: Future[None] = Future()
            self._waiting.append(turn)
        try:
            place = asyncio.wrap_future(turn)
            while not (await asyncio.wait({place}, timeout=_PATIENCE_SECONDS))[0]:
                self._check()
        except BaseException:
            if not turn.cancel():  # the place came in this very moment
                self.leave()
            raise

    def _check(self) -> None:
        with self._mutex:
            if self._given_up < self._places:
                return
        raise AgentUnavailable(
            f"Earlier calls of this agent ({self._places}) were given up and still run; it answers again when they "
            "end, or when the worker is restarted."
        )

    def leave(self) -> None:
        """Give a place back: to the one who has waited longest, if anybody waits."""
        with self._mutex:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    break
            else:
                self._free += 1
                return
        turn.set_result(None)

    def give_up(self, call: Future[T]) -> None:
        """Nobody waits for ``call`` any more; its place counts as given up until it ends."""
        with self._mutex:
            self._given_up += 1
        call.add_done_callback(self._ended)  # at once, when it has ended already

    def _ended(self, _: Future[T]) -> None:
        with self._mutex:
            self._given_up -= 1


async def run(call: Callable[[], T], *, gate: Gate) -> T:
    """``call()`` in a thread, with the caller's context variables. What it raises comes out as an ``AgentError``.

    Raises:
        AgentUnavailable: no thread can be had.
    """
    await gate.enter()
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # from here on it cannot be cancelled, as a thread cannot
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001  even SystemExit is only an answer that did not come
            outcome.set_exception(failures.explained(error))
        else:
            outcome.set_result(result)
        finally:
            gate.leave()

    try:
        threading.Thread(target=work, name="agent", daemon=True).start()
    except RuntimeError as error:
        gate.leave()
        raise AgentUnavailable(f"No thread can be started: {error}.") from error
    try:
        return await asyncio.wrap_future(outcome)
    except asyncio.CancelledError:
        gate.give_up(outcome)
        raise
