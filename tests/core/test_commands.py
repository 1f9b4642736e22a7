"""Commands of the chat, and presses of the runtime's own buttons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.commands import BUTTON, KINDS, Command, Press, parse, parse_press, runs_aside


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/new", Command(name="new")),
        ("/NEW", Command(name="new")),
        ("  /new@shop_bot ", Command(name="new")),
        ("/link", Command(name="link")),
        ("/link ABCD2345", Command(name="link", argument="ABCD2345")),
        ("/link\nABCD 2345 ", Command(name="link", argument="ABCD 2345")),
        ("/stop now", Command(name="stop", argument="now")),
        ("/whoami", Command(name="whoami")),
        ("/newer", None),
        ("/start", None),
        ("new", None),
        ("please /new", None),
        ("/", None),
        ("", None),
    ],
)
def test_what_is_a_command(text, command):
    assert parse(text) == command


def test_only_what_changes_the_conversation_waits_for_what_was_said_before():
    assert [kind.name for kind in KINDS if not runs_aside(kind.name)] == ["new", "resume"]
    assert runs_aside(BUTTON)
    assert not runs_aside("")


@given(st.text())
def test_no_text_breaks_the_parser(text):
    parse(text)
    parse_press(text)


def test_a_press_reads_as_it_was_written():
    press = Press(act="approve", request_id=12)
    assert parse_press(press.data) == press
    assert len(press.data.encode()) <= 64


@pytest.mark.parametrize("data", ["pairing:approve:", "pairing:own:1", "pairing:deny:1x", "pairing:deny:-1", "vote:1"])
def test_other_buttons_belong_to_agents(data):
    assert parse_press(data) is None
