"""Many people who write without end; takes the answers, and writes down how the process does meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

from botsrt.adapters.base import BaseAdapter
from botsrt.agents import objects
from botsrt.core.messages import InboundMessage, OutboundMessage, Sender, SendReceipt
from botsrt.core.ports import Capabilities, Option

#: Messages that may wait for their answer: enough to keep the worker busy, few enough to end together.
_OUTSTANDING = 400

#: Messages that come together, as a platform hands them over when there are many.
_AT_ONCE = 50

#: Messages between two samples.
_SAMPLE = 1_000

_QUIET_SECONDS = 3.0


class Adapter(BaseAdapter):
    platform = "soak"
    capabilities = Capabilities(max_text=4_000, max_concurrent_sends=100)
    settings = (
        Option(name="file", help="Where the samples go, a line each.", is_required=True),
        Option(name="messages", help="How many are written.", is_required=True),
        Option(name="contacts", help="How many people write, in turn.", is_required=True),
        Option(name="warm", help="After how many of them the process is warm.", is_required=True),
    )

    _answered = 0

    async def run(self) -> None:
        messages, contacts = int(self.setting("messages")), int(self.setting("contacts"))
        warm = int(self.setting("warm"))
        for number in range(0, messages, _AT_ONCE):
            if warm in range(number, number + _AT_ONCE):
                await self._rest(number)
                self._sample("idle before")
            while number - self._answered >= _OUTSTANDING:
                await asyncio.sleep(0.01)
            together = range(number, min(number + _AT_ONCE, messages))
            await asyncio.gather(*(self.sink.receive(self._message(one, one % contacts)) for one in together))
            if number and number % _SAMPLE == 0:
                self._sample("busy")
        await self._rest(messages)
        self._sample("idle after")
        await asyncio.Event().wait()

    async def send(self, message: OutboundMessage) -> SendReceipt:
        self._answered += 1
        return SendReceipt(platform_message_id=str(self._answered))

    async def _rest(self, messages: int) -> None:
        """Wait until so many are answered and nothing moves."""
        while self._answered < messages:
            await asyncio.sleep(0.1)
        await asyncio.sleep(_QUIET_SECONDS)

    def _message(self, number: int, contact: int) -> InboundMessage:
        return InboundMessage(
            platform="soak",
            account=self.config.account,
            channel_id=f"u{contact}",
            message_id=f"m{number}",
            sender=Sender(user_id=f"u{contact}"),
            text=f"message {number}",
        )

    def _sample(self, when: str) -> None:
        sample = {
            "when": when,
            "answered": self._answered,
            "resident_kib": _resident_kib(),
            "files": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "agent_locks": len(objects._locks),
        }
        with Path(self.setting("file")).open("a") as file:
            file.write(json.dumps(sample) + "\n")


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
