"""A little of what ``python -m bench.fuzz`` does, the same in every run, and what that once found."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz
from botsrt.core import resets, runtime_state
from botsrt.core.errors import AgentError, InvalidInput, UnreadableUpdate
from botsrt.core.messages import InboundMessage

#: Made once: the adapters have loops and clients of their own.
PARSERS = fuzz.parsers()

_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

STORED: dict[str, Any] = {
    "platform": "web",
    "account": "shop",
    "channel_id": "c",
    "message_id": "m",
    "sender": {"user_id": "u"},
}


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_broken_input_is_read_or_refused(name: str) -> None:
    score = fuzz.run(PARSERS[name], inputs=150, seed=20_260_115)
    assert score.inputs == 150
    assert {finding.what: finding.value for finding in score.findings.values()} == {}


@pytest.mark.parametrize(
    "name",
    [
        "telegram.update",
        "slack.payload",
        "slack.envelope",
        "discord.event",
        "whatsapp.event",
        "webhook.call",
        "message.stored",
    ],
)
@settings(max_examples=40, derandomize=True)
@given(value=_ANY_JSON, data=st.data())
def test_any_json_is_read_or_refused(name: str, value: Any, data: st.DataObject) -> None:
    """Anything at all, and anything at all in the place of a part of something real."""
    seed = data.draw(st.integers(min_value=0, max_value=10_000))
    real = PARSERS[name].make(random.Random(seed))
    if isinstance(real, dict) and real:
        real[data.draw(st.sampled_from(sorted(real)))] = value
    for one in (value, real):
        assert fuzz.problem(PARSERS[name], one)[0] == ""


@pytest.mark.parametrize(
    "name", ["chat.words", "site.filter", "shell.words", "identity.file", "web.frame", "webhook.mapping", "reply.text"]
)
@settings(max_examples=40, derandomize=True)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    assert fuzz.problem(PARSERS[name], text)[0] == ""


# -- the tool itself ----


def test_a_planted_error_is_found_and_made_small() -> None:
    def feed(value: Any) -> object:
        if isinstance(value, dict) and not isinstance(value.get("message", {}), dict):
            raise ZeroDivisionError
        return None

    planted = fuzz.Parser(name="planted", make=PARSERS["telegram.update"].make, feed=feed)
    score = fuzz.run(planted, inputs=3_000, seed=1)
    (finding,) = score.findings.values()
    assert finding.what.startswith("ZeroDivisionError")
    assert list(finding.value) == ["message"]


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "BOUND_SECONDS", 0.0)
    assert fuzz.problem(PARSERS["chat.words"], "/stop")[0] == "too slow"


def test_a_run_can_be_had_again() -> None:
    one, two = (PARSERS["slack.payload"].make(random.Random("7:x")) for _ in range(2))
    assert repr(one) == repr(two)


# -- what it found ----


def test_state_that_is_nested_too_deep_is_refused_before_the_turn_ends() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    with pytest.raises(AgentError, match="nested deeper"):
        runtime_state.check({"kept": deep})
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(AgentError):
        runtime_state.check(circle)
    runtime_state.check({"kept": [[[{"a": ["fine"]}]]]})


@pytest.mark.parametrize(
    "broken",
    [
        {"platform": {"a": 1}},
        {"platform": "\ud800"},
        {"account": ["shop"]},
        {"is_mentioned": [[]]},
        {"attachments": [{"kind": "photo", "reference": "r", "size_bytes": float("-inf")}]},
        {"kind": json.loads("[" * 900 + "]" * 900)},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_a_stored_message_of_other_types_is_unreadable(broken: dict[str, Any]) -> None:
    assert InboundMessage.from_payload(STORED).text == ""
    with pytest.raises(UnreadableUpdate):
        InboundMessage.from_payload(STORED | broken)


def test_a_stored_time_without_a_zone_is_utc() -> None:
    message = InboundMessage.from_payload(STORED | {"sent_at": "2026-01-15T12:00:00"})
    assert message.sent_at == datetime(2026, 1, 15, 12, tzinfo=UTC)


def test_what_lies_beside_a_stored_message_is_not_read() -> None:
    assert InboundMessage.from_payload(STORED | {"raw": {"a": 1}}).raw == {}


def test_a_time_zone_of_many_parts_is_none() -> None:
    with pytest.raises(InvalidInput, match="is not a time zone"):
        resets.policy({"time_zone": "Europe/" + "a/" * 2_000})


def test_an_unknown_reset_is_named() -> None:
    with pytest.raises(InvalidInput, match="'never' is not one of none, idle"):
        resets.policy({"reset": "never"})


@pytest.mark.parametrize("envelope", [{"type": {}}, {"type": "events_api", "envelope_id": [[]]}, {"type": None}])
def test_an_envelope_without_a_type_or_an_id_is_none(envelope: dict[str, Any]) -> None:
    assert fuzz.problem(PARSERS["slack.envelope"], envelope)[0] == ""
