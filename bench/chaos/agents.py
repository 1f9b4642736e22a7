"""The agent of the harness: it quotes every message, and writes down when it ran, for whom, and what it was shown.

A message is ``TOKEN WORD``; the word tells the agent what to do. The record is one file of all processes, a line each,
appended in one write.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from pathlib import Path

from botsrt.core.errors import TransientAgentError
from botsrt.core.ports import AgentRequest

#: Who, in which chat, the how manieth: ``p7.tg0.12``.
TOKEN = re.compile(r"\b(\w+)\.(\w+)\.(\d+)\b")

#: What a message may ask for. slow: longer than a lease; flaky: one transient error; broken: fails until the file of
#: its name is in CHAOS_MENDED; hopeless: fails always.
WORDS = ("plain", "slow", "flaky", "broken", "hopeless")

#: Before each quoted message.
QUOTE = "re "


async def answer(request: AgentRequest) -> str:
    """Quote what was said, line by line, after a moment."""
    lines = request.text.split("\n")
    person = lines[0].partition(".")[0]
    strangers = {match[0] for item in request.history for match in TOKEN.finditer(item.text) if match[1] != person}
    _note("begin", request, " ".join(sorted(strangers)))
    try:
        for line in lines:
            _maybe_fail(line, request.attempt)
        is_slow = any(line.endswith(" slow") for line in lines)
        await asyncio.sleep(float(os.environ["CHAOS_SLOW_SECONDS"]) if is_slow else random.uniform(0.02, 0.4))
        return "\n".join(QUOTE + line for line in lines)
    finally:
        _note("end", request, "")


def _maybe_fail(line: str, attempt: int) -> None:
    token, _, word = line.partition(" ")
    if word == "flaky" and attempt == 1:
        raise TransientAgentError("The model is busy.")
    if word == "hopeless" or (word == "broken" and not (Path(os.environ["CHAOS_MENDED"]) / token).exists()):
        raise LookupError("The order service does not answer.")


def _note(what: str, request: AgentRequest, more: str) -> None:
    line = f"{time.monotonic_ns()}\t{what}\t{request.context.unified_user_id}\t{request.turn_id}\t{more}\n"
    descriptor = os.open(os.environ["CHAOS_RECORD"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)
