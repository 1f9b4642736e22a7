"""How states, ages, platforms and foreign text look, wherever they stand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.template import Context, Template

from botsrt.core.access import Reason
from botsrt.core.states import AdapterStatus, EntryState, OutboxState
from praisonweb.dashboard.queries import bots, try_it
from praisonweb.dashboard.queries.standing import REASONS, Standing, Tone
from praisonweb.dashboard.templatetags import shown

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def render(source: str, **context: object) -> str:
    user = User(username="alice", is_staff=True, is_superuser=True)
    return Template("{% load shown %}" + source).render(Context({"user": user, **context})).strip()


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


def test_a_named_environment_is_shown_on_every_page_and_a_nameless_one_is_not(settings: Any) -> None:
    assert render("{% environment %}") == ""
    settings.ENVIRONMENT = "<staging>"
    assert render("{% environment %}") == '<p class="environment" role="note">&lt;staging&gt;</p>'


def test_what_is_due_says_how_far_ahead_it_is() -> None:
    assert shown.age_text(timedelta(seconds=-90)) == "in 90 s"
    assert shown.age_text(timedelta(minutes=-5)) == "in 5 min"
    assert shown.age_text(timedelta(hours=-4)) == "in 4 h"


def test_a_moment_carries_its_age() -> None:
    with time_machine.travel(NOW, tick=False):
        html = render("{% moment at %}", at=NOW - timedelta(hours=3))
    assert html == '<time datetime="2026-03-04T02:06:07+00:00" title="3 h ago">2026-03-04 02:06:07 UTC</time>'


def test_a_platform_has_a_mark_for_the_eye_and_a_name_for_the_ear() -> None:
    html = render("{% platform_mark name %}", name="<x>")
    assert 'class="mark mark-other"' in html
    assert '<span class="unseen">&lt;x&gt;</span>' in html


def test_an_act_that_is_not_possible_stays_visible_and_says_why() -> None:
    html = render('{% act_link "Remove" "agent_remove" "echo" danger=True obstacle=why %}', why="It <answers>.")
    assert html.startswith('<button type="button" class="button small quiet-danger" aria-disabled="true"')
    assert "It &lt;answers&gt;.</span>" in html
    assert "href" not in html
    possible = render('{% act_link "Remove" "agent_remove" "echo" key="x" back="/agents/?q=a&b" %}')
    assert 'href="/agents/echo/remove/?back=%2Fagents%2F%3Fq%3Da%26b" data-ask data-key="x"' in possible


@pytest.mark.parametrize(
    ("text", "words", "shown_as"),
    [
        ("Order 4711 <b>", [], "Order 4711 &lt;b&gt;"),
        ("Order <b> reorders", ["order"], "<mark>Order</mark> &lt;b&gt; reorders"),
        (
            "ordering <i>it</i>",
            ["order", "i"],
            "<mark>ordering</mark> &lt;<mark>i</mark>&gt;<mark>it</mark>&lt;/<mark>i</mark>&gt;",
        ),
        ("a.b\u202e", ["a"], "<mark>a</mark>.b\u27e6U+202E\u27e7"),
    ],
)
def test_words_are_marked_and_everything_is_escaped(text: str, words: list[str], shown_as: str) -> None:
    assert shown.marked(text, words) == shown_as
