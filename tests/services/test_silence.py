"""``session_ttl``: after long silence a conversation begins anew."""

from __future__ import annotations

from datetime import timedelta

import pytest

from botsrt.core.errors import InvalidInput
from botsrt.core.states import HistoryKind, Proof
from botsrt.models import BotSession, HistoryMessage
from botsrt.services import identity, mirror, turns
from tests.factories import ALICE, NOW, a_bot, a_message, answered, claim_one, finish, later, received

pytestmark = pytest.mark.django_db


def seen(*, at: float, text: str = "next", **fields: object) -> list[str]:
    """What the agent is shown for a message that comes ``at`` seconds after the first."""
    now = later(seconds=at)
    received(a_message(text, **fields), now=now)  # type: ignore[arg-type]
    turn = claim_one(now=now)
    found = turns.materials(turn=turn, max_history=50, refused_for=timedelta(), now=now)
    finish(turn, f"re: {text}", now=now)
    return [item.text for item in found.history]


def test_it_begins_anew_only_after_the_time() -> None:
    a_bot(settings={"session_ttl": "100"})
    answered("first", "re: first")
    assert seen(at=100) == ["first", "re: first"]
    assert seen(at=201, text="late") == []
    assert seen(at=202) == ["late", "re: late"]


def test_everything_stays_readable_and_the_cut_is_marked_once() -> None:
    a_bot(settings={"session_ttl": "100"})
    answered("first", "re: first")
    seen(at=500)
    kinds = list(HistoryMessage.objects.order_by("id").values_list("kind", flat=True))
    assert kinds.count(HistoryKind.DIVIDER) == 1
    assert HistoryMessage.objects.filter(text="first").exists()


def test_without_the_setting_it_never_does() -> None:
    a_bot()
    answered("first", "re: first")
    assert seen(at=10_000_000) == ["first", "re: first"]


def test_a_mirror_is_no_activity() -> None:
    a_bot(settings={"session_ttl": "100"})
    answered("first", "re: first")
    mirror.append(user_id="bot_web_user-1", text="news", source_label="cron", now=later(seconds=90))
    assert seen(at=150) == []


def test_activity_on_another_platform_of_the_same_person_counts() -> None:
    a_bot(settings={"session_ttl": "100"})
    answered("first", "re: first")
    answered(a_message("there", user_id="user-2", channel_id="chat-2"), "re: there", now=later(seconds=80))
    for user_id in ("user-1", "user-2"):
        identity.link(
            platform="web",
            user_id=user_id,
            unified_user_id="alice",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="met her",
            now=NOW,
        )
    assert seen(at=150) == ["first", "re: first", "there", "re: there"]
    assert seen(at=300) == []


def test_a_rehearsal_changes_nothing() -> None:
    a_bot(settings={"session_ttl": "100"})
    entry = answered("first", "re: first")
    turn = turns.rehearsal(entry_id=entry.pk)
    found = turns.materials(turn=turn, max_history=50, refused_for=timedelta(), now=later(seconds=500))
    assert len(found.history) == 2
    assert BotSession.objects.get().context_start == 0


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "9" * 30])
def test_what_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="session_ttl"):
        a_bot(settings={"session_ttl": value})
