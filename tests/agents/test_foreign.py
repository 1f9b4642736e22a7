"""A real package of somebody else's: ``praisonaiagents``; see ``tests.agents.foreign``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents.foreign import PEOPLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_its_agents_answer_with_the_history_they_are_given_and_mix_nobody(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "PRAISONAI_TELEMETRY_DISABLED": "true", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.agents.foreign"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    assert found["answer"] == "Blue."
    assert found["asked"] == ["My favourite colour is blue.", "Noted.", "What is it?"]
    assert found["kept"] == [], "It keeps nothing of it."

    assert found["answers"] == [f"Who am I? {person:02}" for person in range(PEOPLE)]
    assert len(found["talks"]) == PEOPLE
    for talk in found["talks"]:
        person = talk[-1][-2:]
        assert talk == [f"I am person {person}.", f"Hello, person {person}!", f"Who am I? {person}"]

    assert found["away"] == "TransientAgentError", "Without its model the message is tried again later."
