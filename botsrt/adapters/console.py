"""Chat in a terminal: lines of standard input are messages, replies go to standard output.

It works with a pipe too; at the end of the input the bot waits, so that its last replies still come out. Standard input
belongs to the process: with two console bots in one process, each line goes to one of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from datetime import UTC, datetime
from functools import cache

from botsrt.adapters.base import BaseAdapter
from botsrt.core.errors import PlatformUnavailable, StorageUnavailable
from botsrt.core.messages import InboundMessage, OutboundMessage, Sender, SendReceipt
from botsrt.core.ports import Capabilities, Option
from botsrt.core.text import REPLACEMENT

#: The one chat of a console bot.
CHANNEL_ID = "console"

_READ_BYTES = 65_536

#: Pause before a line that was not stored is offered again.
_STORE_AGAIN_SECONDS = 1.0

#: With the line's number, the message id: the same for a line however often the adapter restarts, and never used twice.
_START = secrets.token_hex(6)

logger = logging.getLogger(__name__)


class Adapter(BaseAdapter):
    platform = "console"
    capabilities = Capabilities(max_text=100_000, max_concurrent_sends=1)
    settings = (Option(name="user_id", help="Who types, as the bot's access rules know them.", default="console"),)

    async def run(self) -> None:
        lines = _stdin()
        while True:
            line = await lines.peek()
            if line is None:
                await asyncio.Event().wait()  # the input has ended
            elif line.strip():
                await self._store(self._message(lines.number, line))
            lines.take()

    async def send(self, message: OutboundMessage) -> SendReceipt:
        # In a thread: a terminal that is held, or a full pipe, must not stop the other bots.
        await asyncio.to_thread(_print, message.text)
        return SendReceipt(platform_message_id=str(message.outbox_id))

    def _message(self, number: int, line: str) -> InboundMessage:
        return InboundMessage(
            platform=self.platform,
            account=self.config.account,
            channel_id=CHANNEL_ID,
            message_id=f"{_START}-{number}",
            sender=Sender(user_id=self.setting("user_id")),
            text=line,
            is_mentioned=True,
            sent_at=datetime.now(UTC),
        )

    async def _store(self, message: InboundMessage) -> None:
        while True:
            try:
                await self.sink.receive(message)
            except StorageUnavailable as error:
                logger.warning("a line waits for the database: %s", error)
                await asyncio.sleep(_STORE_AGAIN_SECONDS)
            else:
                return


class Lines:
    """The lines of a file descriptor, read without blocking the event loop.

    A line stays here until it is taken, and so outlives the adapter that was about to store it.
    """

    def __init__(self, descriptor: int) -> None:
        self.number = 1  # of the line that ``peek`` gives
        self._descriptor = descriptor
        self._buffer = b""
        self._has_ended = False

    async def peek(self) -> str | None:
        """The next line, without its line break; None at the end of the input."""
        while b"\n" not in self._buffer and not self._has_ended:
            chunk = await self._read()
            self._buffer += chunk
            self._has_ended = not chunk
        if not self._buffer:
            return None
        return self._buffer.partition(b"\n")[0].rstrip(b"\r").decode(errors="replace")

    def take(self) -> None:
        """The line that ``peek`` gave is dealt with."""
        self.number += 1
        self._buffer = self._buffer.partition(b"\n")[2]

    async def _read(self) -> bytes:
        """What the descriptor has; empty at its end."""
        loop = asyncio.get_running_loop()
        is_readable = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, is_readable.set)
        except PermissionError:  # epoll takes no regular files and no /dev/null; reading those never blocks
            return os.read(self._descriptor, _READ_BYTES)
        try:
            await is_readable.wait()
        finally:
            loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, _READ_BYTES)


@cache
def _stdin() -> Lines:
    return Lines(sys.stdin.fileno())


def _print(text: str) -> None:
    """Write a reply to standard output.

    Raises:
        PlatformUnavailable: nobody reads it.
    """
    harmless = "".join(char if char.isprintable() or char in "\n\t" else REPLACEMENT for char in text)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(harmless.encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201  this is the platform
    except OSError as error:
        raise PlatformUnavailable(f"Standard output cannot be written: {error.strerror}") from error
