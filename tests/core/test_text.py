"""Text from outside can be stored anywhere, and shown on one line without tricks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.text import one_line, storable, storable_json

everything = st.text(st.characters())


@given(everything)
def test_storable_text_can_be_encoded_and_has_no_nul(text):
    stored = storable(text)
    stored.encode()
    assert "\x00" not in stored
    assert len(stored) == len(text)


def test_ordinary_text_is_left_as_it_was_written():
    text = "Line one\n\tline two 👨‍👩‍👧 \u202eabc \u200b é"
    assert storable(text) == text


@given(
    st.recursive(
        everything | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(everything, inner)
    )
)
def test_every_string_of_a_json_value_is_made_storable_keys_included(value):
    encoded = json.dumps(storable_json(value), ensure_ascii=False)
    encoded.encode()
    assert "\\u0000" not in encoded


@pytest.mark.parametrize(
    "mark", ["\n", "\r", "\x00", "\x1b[31m", "\x85", "\u2028", "\u202e", "\u2066", "\u200f", "\ufeff"]
)
def test_a_name_cannot_break_the_line_nor_turn_the_reading_direction(mark):
    line = one_line(f"Ann{mark}Smith")
    assert line.startswith("Ann ")
    assert line.endswith("Smith")
    assert line.isprintable()


def test_a_long_name_is_cut_and_says_so():
    assert one_line("x" * 300) == "x" * 239 + "…"
    assert one_line("x" * 240) == "x" * 240
    assert one_line("abc", max_chars=2) == "a…"


def test_white_space_is_one_space():
    assert one_line("  Ann \t\n  Smith ") == "Ann Smith"
    assert one_line(" \n ") == ""


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"cost": float("nan")}, {"cost": "nan"}),
        ([float("inf"), 1.5, True, None], ["inf", 1.5, True, None]),
        ({1: {2}}, {"1": "{2}"}),
        ((b"x",), ["b'x'"]),
    ],
)
def test_what_json_cannot_say_is_written_as_text(value, stored):
    assert storable_json(value) == stored
    json.dumps(storable_json(value), allow_nan=False)


@pytest.mark.parametrize("mark", ["\u061c", "\U000e0041", "\u180e", "\ufff9"])
def test_letters_that_nobody_sees_are_no_part_of_a_name(mark):
    assert one_line(f"Ann{mark}") == "Ann"
