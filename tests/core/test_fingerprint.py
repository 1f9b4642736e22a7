"""Failures with one cause are one group; failures with another are not."""

from __future__ import annotations

import json

import pytest

from botsrt.core.fingerprint import fingerprint, top_frame


def group(text: str = "broke", **changes: str) -> str:
    fields = {"account": "shop", "error_class": "KeyError", "frame": "agent.py:run"} | changes
    return fingerprint(error_text=text, **fields)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user 12 not found", "user 34567 not found"),
        ("no order 'A-17'", "no order 'a completely different one'"),
        ('no order "A-17"', 'no order "B"'),
        ("object at 0x7f00a1", "object at 0xdeadbeef00"),
        ("request 550e8400-e29b-41d4-a716-446655440000 failed", "request 00000000-e29b-41d4-a716-446655440001 failed"),
    ],
)
def test_numbers_ids_and_quoted_values_do_not_split_a_group(one, other):
    assert group(one) == group(other)


@pytest.mark.parametrize(
    "changes", [{"account": "help"}, {"error_class": "ValueError"}, {"frame": "agent.py:other"}, {"text": "gave up"}]
)
def test_another_bot_class_place_or_text_is_another_group(changes):
    assert group(**changes) != group()


def test_parts_cannot_be_shifted_into_each_other():
    assert group(account="a", error_class="bc") != group(account="ab", error_class="c")


def test_sixteen_digits_whatever_the_text():
    for text in ("", "x" * 100_000, "\x00\ud800", "'" * 999):
        assert len(group(text.encode("utf-8", "replace").decode())) == 16


def caught(call) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError


def in_a_library() -> None:
    json.loads("{")


def test_the_frame_is_the_innermost_that_is_no_library():
    assert top_frame(caught(in_a_library)) == "test_fingerprint.py:in_a_library"


def test_an_error_that_was_never_raised_has_no_frame():
    assert top_frame(ValueError()) == ""
