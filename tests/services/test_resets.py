"""Conversations that begin anew by themselves: from stored times, in the commit of the turn that begins them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from botsrt.core.errors import InvalidInput
from botsrt.core.states import HistoryKind
from botsrt.models import BotSession, HistoryMessage
from botsrt.services import bots, materials, mirror
from botsrt.services.bots import Changes
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.materials import Materials
from tests.factories import ALICE, NOW, SHAPE, a_bot, abandon, claim_one, fail, finish, later, received

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot(settings={"reset": "idle", "reset_idle_seconds": "3600"})


def shown(turn: ClaimedTurn, *, now: datetime) -> Materials:
    return materials.gather(turn=turn, max_history=10, refused_for=timedelta(days=1), now=now)


def talk(text: str, *, now: datetime) -> list[str]:
    """One message and its answer, "re: …". Returns what the agent was shown of before."""
    received(text, now=now)
    turn = claim_one(now=now)
    found = shown(turn, now=now)
    assert finish(turn, f"re: {text}", begins_anew=found.begins_anew, now=now)
    return [item.text for item in found.history]


def kinds() -> list[str]:
    return list(HistoryMessage.objects.order_by("created_at", "id").values_list("kind", flat=True))


def test_the_message_that_ends_the_silence_is_answered_in_the_new_conversation() -> None:
    assert talk("one", now=NOW) == []
    assert talk("two", now=later(minutes=59)) == ["one", "re: one"]
    assert talk("three", now=later(minutes=119)) == []
    assert talk("four", now=later(minutes=120)) == ["three", "re: three"]
    chat = HistoryKind.CHAT
    assert kinds() == [chat] * 4 + [HistoryKind.DIVIDER] + [chat] * 4, "The divider stands before what began it."


def test_what_was_said_before_stays_readable() -> None:
    talk("one", now=NOW)
    talk("two", now=later(hours=5))
    assert [row.text for row in HistoryMessage.objects.filter(kind=HistoryKind.CHAT).order_by("id")] == [
        "one",
        "re: one",
        "two",
        "re: two",
    ]
    assert HistoryMessage.objects.get(kind=HistoryKind.DIVIDER).text == (
        "A new conversation begins after 1 hour of silence."
    )


def test_a_mirror_wakes_no_conversation() -> None:
    talk("one", now=NOW)
    session = BotSession.objects.get()
    at = later(minutes=50)
    assert mirror.append(user_id=session.session_id, text="Your parcel is there.", source_label="cron", now=at)
    assert talk("two", now=later(minutes=70)) == []


def test_a_message_that_waited_is_seen_from_when_it_came() -> None:
    talk("one", now=NOW)
    received("two", now=later(minutes=30))
    turn = claim_one(now=later(hours=9))
    assert [item.text for item in shown(turn, now=later(hours=9)).history] == ["one", "re: one"]


def test_a_turn_that_fails_or_dies_begins_nothing() -> None:
    talk("one", now=NOW)
    received("two", now=later(hours=2))
    dying = claim_one(now=later(hours=2))
    assert shown(dying, now=later(hours=2)).begins_anew
    abandon(now=later(hours=3))
    failing = claim_one(now=later(hours=3))
    assert shown(failing, now=later(hours=3)).begins_anew
    fail(failing, is_transient=True, now=later(hours=3))
    assert HistoryKind.DIVIDER not in kinds()
    at_last = claim_one(now=later(hours=4))
    assert finish(at_last, "re: two", begins_anew=shown(at_last, now=later(hours=4)).begins_anew, now=later(hours=4))
    assert kinds().count(HistoryKind.DIVIDER) == 1


def test_without_a_policy_a_conversation_goes_on() -> None:
    bots.change(account="shop", shape=SHAPE, changes=Changes(settings={"reset": ""}), actor=ALICE, now=NOW)
    talk("one", now=NOW)
    assert talk("two", now=later(days=400)) == ["one", "re: one"]


@pytest.mark.parametrize("setting", ["reset_idle_seconds", "reset_at", "time_zone"])
def test_what_cannot_be_read_is_refused_and_changes_nothing(setting: str) -> None:
    before = bots.views(accounts=["shop"])["shop"]
    with pytest.raises(InvalidInput, match=setting):
        bots.change(account="shop", shape=SHAPE, changes=Changes(settings={setting: "soon"}), actor=ALICE, now=NOW)
    assert bots.views(accounts=["shop"])["shop"] == before
