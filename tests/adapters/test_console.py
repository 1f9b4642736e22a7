"""The console: lines in, replies out."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import pytest

from botsrt.adapters import console
from botsrt.adapters.console import Adapter, Lines
from botsrt.core.errors import PlatformUnavailable
from botsrt.core.messages import Route
from botsrt.core.ports import BotConfig
from tests.adapters.contract import RecordingSink, check_message, outbound, until

CONFIG = BotConfig(account="terminal", platform="console")
ROUTE = Route(channel_id="console")


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """The other end of a pipe that stands in for standard input."""
    read_end, write_end = os.pipe()
    lines = Lines(read_end)
    monkeypatch.setattr(console, "_stdin", lambda: lines)
    with os.fdopen(write_end, "wb", buffering=0) as keys:
        yield keys
    os.close(read_end)


@asynccontextmanager
async def running(sink: RecordingSink, config: BotConfig = CONFIG) -> AsyncIterator[Adapter]:
    adapter = Adapter(config, sink)
    await adapter.start()
    run = asyncio.create_task(adapter.run())
    yield adapter
    assert not run.done(), f"run() ended by itself: {run!r}"
    run.cancel()
    await asyncio.wait([run])
    await adapter.close()


async def test_each_line_is_a_message(keyboard: IO[bytes], sink: RecordingSink) -> None:
    async with running(sink):
        keyboard.write("first\nsecond: caf\u00e9 \U0001f4e6\r\n".encode())
        await until(lambda: len(sink.messages) == 2, "two messages")
        keyboard.write(b"thi")
        keyboard.write(b"rd\n")
        await until(lambda: len(sink.messages) == 3, "three messages")
    assert sink.texts() == ["first", "second: caf\u00e9 \U0001f4e6", "third"]
    assert len({message.message_id for message in sink.messages}) == 3
    for message in sink.messages:
        check_message(message, CONFIG)
        assert (message.channel_id, message.sender.user_id) == ("console", "console")


async def test_blank_lines_say_nothing(keyboard: IO[bytes], sink: RecordingSink) -> None:
    async with running(sink):
        keyboard.write(b"\n  \n\t\nhello\n")
        await until(lambda: bool(sink.messages), "the message")
    assert sink.texts() == ["hello"]


async def test_it_waits_quietly_at_the_end_of_a_pipe(keyboard: IO[bytes], sink: RecordingSink) -> None:
    async with running(sink) as adapter:
        keyboard.write(b"one\ntwo\nthree, without a line break")
        keyboard.close()
        await until(lambda: len(sink.messages) == 3, "three messages")
        before = time.process_time()
        await asyncio.sleep(0.2)  # not to wait for something: nothing may happen in it
        assert time.process_time() - before < 0.15, "It spins."
        assert (await adapter.send(outbound(ROUTE))).platform_message_id == "1"
    assert sink.texts() == ["one", "two", "three, without a line break"]


async def test_a_line_that_was_not_stored_is_stored_later(
    keyboard: IO[bytes], sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_STORE_AGAIN_SECONDS", 0.01)
    sink.refusals = 2
    async with running(sink):
        keyboard.write(b"hello\nagain\n")
        await until(lambda: len(sink.messages) == 2, "both messages")
    assert sink.texts() == ["hello", "again"]


async def test_a_restart_neither_loses_nor_repeats_a_line(keyboard: IO[bytes], sink: RecordingSink) -> None:
    sink.gate.clear()
    async with running(sink):
        keyboard.write(b"first\nsecond\nthi")
        await until(lambda: sink.held == 1, "the first line reaches the sink")
    sink.gate.set()
    async with running(sink):
        keyboard.write(b"rd\n")
        await until(lambda: len(sink.messages) == 3, "three messages")
    assert sink.texts() == ["first", "second", "third"]


async def test_a_line_offered_again_after_a_restart_is_the_same_message(
    keyboard: IO[bytes], sink: RecordingSink
) -> None:
    class StoresAndNeverReturns(RecordingSink):
        async def receive(self, message: object) -> bool:
            await sink.receive(message)  # type: ignore[arg-type]
            return await asyncio.Event().wait()

    async with running(StoresAndNeverReturns()):
        keyboard.write(b"hello\n")
        await until(lambda: len(sink.deliveries) == 1, "it is stored")
    async with running(sink):
        await until(lambda: len(sink.deliveries) == 2, "it is offered again")
    assert sink.texts() == ["hello"]


async def test_a_regular_file_can_be_the_input(
    tmp_path: Path, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "input").write_text("one\ntwo\n")
    with (tmp_path / "input").open("rb") as file:
        lines = Lines(file.fileno())
        monkeypatch.setattr(console, "_stdin", lambda: lines)
        async with running(sink):
            await until(lambda: len(sink.messages) == 2, "two messages")
    assert sink.texts() == ["one", "two"]


async def test_bytes_that_are_no_text_are_survived(keyboard: IO[bytes], sink: RecordingSink) -> None:
    async with running(sink):
        keyboard.write(b"\xff\xfe\x00\n")
        await until(lambda: bool(sink.messages), "a message")
    check_message(sink.messages[0], CONFIG)


async def test_who_types_is_a_setting(keyboard: IO[bytes], sink: RecordingSink) -> None:
    config = BotConfig(account="terminal", platform="console", settings={"user_id": "ops"})
    async with running(sink, config):
        keyboard.write(b"hello\n")
        await until(lambda: bool(sink.messages), "a message")
    assert sink.messages[0].sender.user_id == "ops"


async def test_a_reply_is_printed(sink: RecordingSink, capsys: pytest.CaptureFixture[str]) -> None:
    receipt = await Adapter(CONFIG, sink).send(outbound(ROUTE, "All good.\n\tReally \u2714", number=9))
    assert receipt.platform_message_id == "9"
    assert capsys.readouterr().out == "All good.\n\tReally \u2714\n"


async def test_a_reply_cannot_steer_the_terminal(sink: RecordingSink, capsys: pytest.CaptureFixture[str]) -> None:
    await Adapter(CONFIG, sink).send(outbound(ROUTE, "\x1b]0;owned\x07\x1b[2J\u202eabc\ud800"))
    assert capsys.readouterr().out == "\ufffd]0;owned\ufffd\ufffd[2J\ufffdabc\ufffd\n"


async def test_a_closed_output_is_no_delivery(sink: RecordingSink, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(PlatformUnavailable):
            await Adapter(CONFIG, sink).send(outbound(ROUTE))
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            output.close()


def test_two_starts_never_share_a_message_id() -> None:
    command = [sys.executable, "-c", "from botsrt.adapters import console; print(console._START)"]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first != second
