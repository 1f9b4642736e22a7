"""A loop's alarm clock: it sleeps until it is woken or the poll interval is over."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes one loop. Being woken several times before the loop looks counts once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let the loop look now. Call it on the event loop."""
        self._event.set()

    async def sleep(self, seconds: float) -> None:
        """Return when woken, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
