"""Two processes that go on with one session: every turn once, question and answer by turns. ``python -m bench --kind
resume`` does the same with 1,000 turns each, by the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.library.scripts import Scripts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TURNS = 60

PROGRAM = """
from botsrt import Agent

agent = Agent(name="Helper", memory={{"db": {database!r}, "session_id": "shared"}}, kind="echo")
for number in range({turns}):
    text = f"{name}: {{number}}"
    assert agent.start(text) == text
"""


async def talk(scripts: Scripts, database: str) -> None:
    programs = (PROGRAM.format(database=database, turns=TURNS, name=name) for name in ("one", "two"))
    await asyncio.gather(*(scripts.run(program) for program in programs))
    code, shown = await scripts.manage(
        "sessions", "resume", "--session-id", "shared", "--database", database, "--show-history", "--json",
        BOTSRT_MAX_HISTORY="1000",
    )  # fmt: skip
    assert code == 0
    messages = json.loads(shown)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * (2 * TURNS)
    said = [message["text"] for message in messages]
    assert said[::2] == said[1::2]
    for name in ("one", "two"):
        own = [text for text in said[::2] if text.startswith(name)]
        assert own == [f"{name}: {number}" for number in range(TURNS)]


async def test_they_lose_nothing_on_a_file(scripts: Scripts) -> None:
    """The tables are made by whoever is first."""
    await talk(scripts, "shared.db")


@pytest.mark.postgres
async def test_they_lose_nothing_on_postgresql(scripts: Scripts, postgres_url: str) -> None:
    await talk(scripts, postgres_url)


async def test_a_killed_program_holds_nobody_up_for_long(scripts: Scripts, file: Path) -> None:
    """Its turn is taken over when its lease has run out; what it asked is nobody's any more."""
    hanging = f"""
import os, time
from botsrt import Agent
import botsrt.agents.echo as echo

async def run(self, request):
    os._exit(9)

echo.Agent.run = run
Agent(name="Helper", memory={{"db": {str(file)!r}, "session_id": "shared"}}, kind="echo").start("lost")
"""
    await scripts.fail(hanging)
    program = PROGRAM.format(database=str(file), turns=2, name="next")
    await scripts.run(program)
    code, shown = await scripts.manage(
        "sessions", "resume", "--session-id", "shared", "--database", str(file), "--show-history", "--json"
    )
    assert code == 0
    said = [message["text"] for message in json.loads(shown)["messages"]]
    assert said == ["next: 0", "next: 0", "next: 1", "next: 1"]
