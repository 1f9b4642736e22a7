from __future__ import annotations

import json
import math
from typing import Any

import pytest

from botsrt.core.errors import AgentError
from botsrt.core.runtime_state import MAX_BYTES, check, with_turn


def test_each_runtime_has_its_turns() -> None:
    state = with_turn({}, runtime_id="llm", turn_id="1", state={"a": 1})
    state = with_turn(state, runtime_id="llm", turn_id="2", state={"b": 2})
    state = with_turn(state, runtime_id="python", turn_id="3", state={"c": 3})
    assert state == {"llm": {"1": {"a": 1}, "2": {"b": 2}}, "python": {"3": {"c": 3}}}


def test_the_oldest_turns_give_way_whatever_their_runtime() -> None:
    state: dict[str, dict[str, Any]] = {}
    for number in range(10, 40):
        state = with_turn(state, runtime_id=f"r{number % 2}", turn_id=str(number), state={"text": "x" * 1_000})
        assert len(json.dumps(state)) <= MAX_BYTES
    kept = sorted(turn for turns in state.values() for turn in turns)
    assert kept == [str(number) for number in range(40 - len(kept), 40)]
    assert len(kept) > 5


def test_a_turn_that_is_kept_again_is_kept_once() -> None:
    state = with_turn({}, runtime_id="llm", turn_id="1", state={"a": 1})
    assert with_turn(state, runtime_id="llm", turn_id="1", state={"a": 2}) == {"llm": {"1": {"a": 2}}}


@pytest.mark.parametrize("state", [{"a": object()}, {"a": math.nan}, {"a": {1, 2}}])
def test_what_is_no_json_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match="is no JSON"):
        check(state)


def test_what_is_too_large_is_refused_with_its_size() -> None:
    check({"text": "x" * 10_000})
    with pytest.raises(AgentError, match=r"has 20,\d\d\d bytes; a session can keep 10,240"):
        check({"text": "x" * 20_000})
