"""Every part of a reply fits its platform, and code stays code in each of them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from botsrt.core.chunking import Unit, chunk, length

UNITS: tuple[Unit, ...] = ("chars", "utf16")

#: Pieces that texts of agents are made of.
_PIECES = st.one_of(
    st.sampled_from(
        ["\n", "\n\n", " ", ". ", "\n```py\n", "\n```\n", "\n~~~\n", "```", "\n````\n", "😀", "\t", "``", "\r\n", "   "]
    ),
    st.text(alphabet="abcdefgh😀é", min_size=1, max_size=90),
    st.integers(1, 300).map(lambda count: "\n" * count),
    st.integers(1, 30).map(lambda count: "`" * count),
)
texts = st.lists(_PIECES, max_size=40).map("".join)


_FENCE = r"^ {0,3}(`{3,16}|~{3,16})(?![`~])([^`\n]*)$"


def open_fence(part: str) -> str:
    """The marker of the code block that is still open at the end of ``part``; the plainest reading of CommonMark."""
    marker = ""
    for line in part.split("\n"):
        match = re.match(_FENCE, line)
        if match and not marker:
            marker = match[1]
        elif match and match[1].startswith(marker) and not match[2].strip():
            marker = ""
    return marker


def visible(text: str) -> str:
    """What people read: without whitespace and the marks of fences."""
    return re.sub(r"[\s`~]", "", text)


def has_all(longer: str, shorter: str) -> bool:
    """Whether ``longer`` is ``shorter`` with something put in between: the language of a fence that is opened again."""
    rest = iter(longer)
    return all(character in rest for character in shorter)


@given(text=texts, limit=st.integers(64, 200), unit=st.sampled_from(UNITS))
@example(text="😀" * 64, limit=64, unit="utf16")
@example(text="`" * 60 + "\n" + "a " * 100, limit=64, unit="chars")
@example(text="```" + "h" * 50 + "\n" + "a " * 100 + "\n```", limit=64, unit="chars")
@example(text="```" + "😀" * 16 + "\n" + "a " * 100 + "\n```", limit=64, unit="utf16")
@example(text="a" * 30 + "\n" + "`" * 50 + "\n" + "b" * 50, limit=64, unit="chars")
def test_parts_fit_are_never_empty_keep_code_closed_and_lose_nothing(text, limit, unit):
    parts = chunk(text, limit=limit, unit=unit)

    assert all(length(part, unit) <= limit for part in parts)
    assert all(part.strip() for part in parts)
    assert not [part for part in parts if open_fence(part)]
    assert has_all(visible("".join(parts)), visible(re.sub(rf"(?m){_FENCE}", "", text)))
    if not set(text) & {"`", "~"}:
        assert visible("".join(parts)) == visible(text)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", ["", " ", "\n\n", " \n\t\n "])
def test_a_blank_text_has_no_parts(text, unit):
    assert chunk(text, limit=100, unit=unit) == []


@pytest.mark.parametrize("unit", UNITS)
def test_a_text_of_exactly_the_limit_is_one_part(unit):
    assert chunk("a" * 100, limit=100, unit=unit) == ["a" * 100]
    assert chunk("a" * 101, limit=100, unit=unit)[0] != "a" * 101


def test_an_emoji_counts_twice_on_telegram():
    assert length("a😀", "utf16") == 3
    assert length("a😀", "chars") == 2
    assert chunk("😀" * 2049, limit=4096, unit="utf16") != ["😀" * 2049]
    assert chunk("😀" * 2048, limit=4096, unit="utf16") == ["😀" * 2048]


def test_an_emoji_is_never_cut_in_two():
    for part in chunk("a" + "😀" * 500, limit=64, unit="utf16"):
        part.encode("utf-16-le")  # fails on half a pair


def test_a_text_is_cut_between_paragraphs_before_lines_before_sentences_before_words():
    assert chunk("a" * 40 + "\n\n" + "b" * 10 + "\nc d. e" + "f" * 30, limit=80)[0] == "a" * 40
    assert chunk("a" * 40 + "\n" + "b" * 10 + ". c" + "f" * 40, limit=80)[0] == "a" * 40
    assert chunk("a" * 40 + ". " + "b c " + "f" * 40, limit=80)[0] == "a" * 40 + "."
    assert chunk("a" * 40 + " " + "f" * 60, limit=80)[0] == "a" * 40


def test_a_word_longer_than_the_limit_is_cut():
    parts = chunk("a" * 1000, limit=100)
    assert "".join(parts) == "a" * 1000
    assert len(parts) <= 13


def test_a_fence_with_a_blank_line_is_closed_and_opened_again_with_its_language():
    code = "\n\n".join(f"line_{number} = {number}" for number in range(20))
    parts = chunk(f"Look:\n\n```python\n{code}\n```\nThat is all.", limit=100)

    assert len(parts) > 3
    assert all(part.startswith("```python\n") and part.endswith("\n```") for part in parts[1:-1])
    assert "That is all." in parts[-1]
    assert not [part for part in parts if open_fence(part)]


def test_a_fence_longer_than_the_limit_stays_within_the_limit():
    parts = chunk("```\n" + "x" * 500 + "\n```", limit=64)
    assert max(map(len, parts)) <= 64
    assert all(part.startswith("```\n") and part.endswith("\n```") for part in parts)


def test_a_fence_that_nobody_closed_is_closed():
    assert chunk("```\ncode", limit=64) == ["```\ncode\n```"]


def test_closing_an_open_fence_never_exceeds_the_limit():
    parts = chunk("```\n" + "x" * 60, limit=64)
    assert max(map(len, parts)) <= 64
    assert not [part for part in parts if open_fence(part)]


def test_a_longer_fence_is_not_closed_by_a_shorter_one_in_it():
    inner = "````\n```py\n" + "a b c d\n" * 20 + "```\n````"
    parts = chunk(inner, limit=100)
    assert all(part.startswith("````\n") and part.endswith("\n````") for part in parts)


def test_the_language_of_a_fence_may_be_long():
    parts = chunk(
        '```python title="a very long title, longer than forty characters" linenos\n' + "x\n" * 100, limit=100
    )
    assert not [part for part in parts if open_fence(part)]
    assert len(parts) > 2


def test_no_part_holds_an_empty_code_block():
    for lead in range(90):
        parts = chunk("a" * lead + "\n```py\n" + "code\n" * 30 + "```\n" + "b " * 60, limit=80)
        assert not [part for part in parts if re.search(r"```(py)?\n```", part)], lead


def test_indentation_survives_a_cut():
    parts = chunk("```\n" + "    indented()\n" * 20 + "```", limit=80)
    assert all(line.startswith("    ") for part in parts for line in part.split("\n")[1:-1])


def test_a_limit_without_room_for_a_fence_is_refused():
    with pytest.raises(ValueError, match="64"):
        chunk("a", limit=63)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "Some words. " * 83_000, "😀" * 1_000_000, "```\n" + "x = 1\n" * 160_000 + "```"]
)
def test_a_million_characters_are_cut_in_linear_time(text, unit):
    seconds = {}
    for size in (len(text) // 8, len(text)):
        started_at = time.process_time()
        chunk(text[:size], limit=64, unit=unit)
        seconds[size] = time.process_time() - started_at

    small, large = seconds.values()
    assert large < 25 * max(small, 0.01)  # linear: 8 times; quadratic: 64 times


@pytest.mark.parametrize("glue", [" ", "", "  "])
def test_backticks_within_a_line_do_not_become_a_fence_by_a_cut(glue):
    for lead in range(30, 60):
        parts = chunk("a" * 20 + " " + "b" * lead + glue + "```py\n" + "c " * 60, limit=64)
        assert not [part for part in parts if re.match(_FENCE, part.split("\n")[0])], lead
