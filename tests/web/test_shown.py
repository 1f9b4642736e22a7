"""How states, ages, platforms and foreign text look, wherever they stand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.template import Context, Template

from botsrt.core.access import Reason
from botsrt.core.states import AdapterStatus, EntryState, OutboxState
from praisonweb.dashboard.queries import bots, try_it
from praisonweb.dashboard.queries.standing import REASONS, Standing, Tone
from praisonweb.dashboard.templatetags import shown

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def render(source: str, **context: object) -> str:
    return Template("{% load shown %}" + source).render(Context(context)).strip()


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(milliseconds=300), "now"),
        (timedelta(seconds=1), "1 s ago"),
        (timedelta(seconds=119), "119 s ago"),
        (timedelta(minutes=2), "2 min ago"),
        (timedelta(minutes=90), "90 min ago"),
        (timedelta(hours=2), "2 h ago"),
        (timedelta(hours=47), "47 h ago"),
        (timedelta(days=2), "2 d ago"),
        (timedelta(days=400), "400 d ago"),
        (timedelta(seconds=-5), "in a moment"),
        (timedelta(days=-5), "in 5 d"),
    ],
)
def test_an_age_is_said_in_one_unit(passed: timedelta, text: str) -> None:
    assert shown.age_text(passed) == text


def test_an_age_carries_the_moment() -> None:
    with time_machine.travel(NOW, tick=False):
        html = render("{% age at %}", at=NOW - timedelta(seconds=12))
    assert html == (
        '<time class="age" datetime="2026-03-04T05:05:55+00:00" title="2026-03-04 05:05:55 UTC">12 s ago</time>'
    )
    assert render("{% age at %}", at=None) == '<span class="age">never</span>'


def test_a_badge_says_its_word_and_explains_it() -> None:
    standing = Standing(word="failed", tone=Tone.BAD, text='a "reason" <b>')
    assert render("{% badge standing %}", standing=standing) == (
        '<span class="badge tone-bad" title="a &quot;reason&quot; &lt;b&gt;">failed</span>'
    )


@pytest.mark.parametrize(
    ("name", "text"), [("telegram", "Telegram"), ("web", "Web chat"), ("whatsapp", "WhatsApp"), ("<x>", "&lt;x&gt;")]
)
def test_a_platform_has_its_own_name(name: str, text: str) -> None:
    assert render("{{ name|platform }}", name=name) == text


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("plain, caf\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467\n\tline", None),
        ("\u0645\u0631\u062d\u0628\u0627", None),
        ("a\u202eb", "a\u27e6U+202E\u27e7b"),
        ("\u2066x\u2069", "\u27e6U+2066\u27e7x\u27e6U+2069\u27e7"),
        ("a\u200bb\ufeffc", "a\u27e6U+200B\u27e7b\u27e6U+FEFF\u27e7c"),
        ("bell\x07 esc\x1b", "bell\u27e6U+0007\u27e7 esc\u27e6U+001B\u27e7"),
    ],
)
def test_invisible_marks_are_shown(text: str, visible: str | None) -> None:
    assert shown.visible(text) == (text if visible is None else visible)


def test_visible_text_is_still_escaped() -> None:
    assert render("{{ text|visible }}", text="<b>\u202e") == "&lt;b&gt;\u27e6U+202E\u27e7"


def test_every_state_has_a_word() -> None:
    assert set(bots._STANDINGS) == set(AdapterStatus)
    assert set(try_it._SEND_STANDINGS) == set(OutboxState)
    assert len(EntryState) == 6, "Give the new state a word in queries/try_it.py."
    assert {reason.value for reason in Reason} <= set(REASONS)
