"""What agents keep of a session from turn to turn: ``{runtime_id: {turn_id: state}}``, oldest turn first.

Kept only where the bot mirrors it. Source: features, "Sessions and history".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botsrt.core.errors import AgentError

#: Largest state of one session, in bytes of JSON.
MAX_BYTES = 10_240

#: Deepest nesting. What is deeper passes JSON's own check, and breaks whoever walks through it.
MAX_DEPTH = 100

#: Runtime (the agent's kind) → turn → what it kept.
RuntimeState = Mapping[str, Mapping[str, Any]]


def check(state: Mapping[str, Any]) -> None:
    """Refuse what cannot be kept.

    Raises:
        AgentError: it is no JSON, larger than a session may keep, or nested deeper than ``MAX_DEPTH``.
    """
    if _is_deeper(state, MAX_DEPTH):
        raise AgentError(f"runtime_state: what the agent wants to keep is nested deeper than {MAX_DEPTH} levels.")
    try:
        size = _size({"": {"": state}})
    except (TypeError, ValueError, RecursionError) as error:
        raise AgentError(f"runtime_state: what the agent wants to keep is no JSON ({error}).") from error
    if size > MAX_BYTES:
        raise AgentError(
            f"runtime_state: what the agent wants to keep of this turn has {size:,} bytes; a session can keep "
            f"{MAX_BYTES:,}. Keep references instead of contents."
        )


def with_turn(
    current: RuntimeState, *, runtime_id: str, turn_id: str, state: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """``current`` with the state of one more turn. Turns of long ago give way where all would be too large."""
    turns = [(runtime, turn, kept) for runtime, kept_of in current.items() for turn, kept in kept_of.items()]
    turns.sort(key=lambda item: item[1])  # the ids of turns grow with time
    turns.append((runtime_id, turn_id, state))
    while _size(_nested(turns)) > MAX_BYTES and len(turns) > 1:
        del turns[0]
    return _nested(turns)


def _nested(turns: list[tuple[str, str, Any]]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for runtime, turn, state in turns:
        nested.setdefault(runtime, {})[turn] = state
    return nested


def _is_deeper(value: object, most: int) -> bool:
    """Whether ``value`` has more than ``most`` levels. Looked at level by level: a circle is merely very deep."""
    level: list[object] = [value]
    for _ in range(most):
        level = [item for container in level for item in _inside(container)]
        if not level:
            return False
    return True


def _inside(container: object) -> list[object]:
    items = container.values() if isinstance(container, Mapping) else container
    if not isinstance(container, Mapping | list | tuple):
        return []
    return [item for item in items if isinstance(item, Mapping | list | tuple)]  # type: ignore[attr-defined]


def _size(state: RuntimeState) -> int:
    return len(json.dumps(state, allow_nan=False).encode())
