"""Going on with an earlier conversation, and closing those in which nobody says anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from botsrt import tasks
from botsrt.core.access import Decision, Reason, Verdict
from botsrt.core.pairing_codes import Terms
from botsrt.core.states import ChatType, Handler, HistoryKind, Proof
from botsrt.models import BotSession, HistoryMessage, OutboxMessage
from botsrt.services import archive, handling, identity, inline, mirror, reception
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.materials import Materials, gather
from tests.factories import ALICE, NOW, a_bot, a_group_message, a_message, answered, claim_one, finish, later, received

pytestmark = pytest.mark.django_db

DECISION = Decision(verdict=Verdict.ALLOW, reason=Reason.POLICY_ALLOW)
TTL = timedelta(days=30)


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def ask(command: str, *, now: datetime = NOW, **fields: Any) -> str:
    """Send a command, and return what is answered."""
    received(a_message(command, **fields), now=now)
    turn = claim_one(now=now)
    bot = materials(turn, now=now).bot
    assert bot is not None
    assert reception.answer(turn=turn, bot=bot, decision=DECISION, terms=Terms(), now=now)
    return OutboxMessage.objects.latest("id").text


def materials(turn: ClaimedTurn, *, max_history: int = 100, now: datetime = NOW) -> Materials:
    return gather(turn=turn, max_history=max_history, refused_for=timedelta(), now=now)


def remembered(*, now: datetime = NOW, max_history: int = 100, **fields: Any) -> list[str]:
    """What the agent is given with the next message, which is answered."""
    received(a_message("next", **fields), now=now)
    turn = claim_one(now=now)
    texts = [item.text for item in materials(turn, max_history=max_history, now=now).history]
    finish(turn, "ok", now=now)
    return texts


def talk(text: str, **fields: Any) -> None:
    answered(a_message(text, **fields), f"re {text}")


# -- /resume ----


def test_there_is_nothing_to_resume_at_first():
    assert ask("/resume") == "There is no earlier conversation of ours."
    talk("bread")
    assert ask("/resume") == "There is no earlier conversation of ours."
    ask("/new")
    ask("/new")
    assert ask("/resume").count("\n") == 1, "a conversation in which nothing was said is none"


def test_earlier_conversations_are_listed_latest_first_and_one_goes_on():
    talk("bread")
    ask("/new")
    talk("cake")
    ask("/new")
    talk("rolls")
    assert ask("/resume") == (
        "Our earlier conversations. Send /resume and a number to go on with one:\n"
        "1. 15 January 2026, 12:00: cake\n2. 15 January 2026, 12:00: bread"
    )
    assert ask("/resume 2") == "We go on with the conversation of 15 January 2026, 12:00: bread"
    assert remembered() == ["bread", "re bread"]
    assert remembered() == ["bread", "re bread", "next", "ok"]


def test_what_went_on_is_listed_once_and_goes_on_again_whole():
    talk("bread")
    ask("/new")
    talk("cake")
    ask("/resume 1")
    talk("more bread")
    assert ask("/resume").splitlines()[1:] == ["1. 15 January 2026, 12:00: cake"]
    ask("/new")
    talk("rolls")
    lines = ask("/resume").splitlines()[1:]
    assert [line.split(": ")[1] for line in lines] == ["bread", "cake"]
    ask("/resume 1")
    assert remembered() == ["bread", "re bread", "more bread", "re more bread"]


def test_a_new_conversation_after_it_begins_with_nothing():
    talk("bread")
    ask("/new")
    ask("/resume 1")
    ask("/new")
    assert remembered() == []


def test_the_newest_messages_come_first_where_there_are_too_many():
    for number in range(3):
        talk(f"m{number}")
    ask("/new")
    ask("/resume 1")
    assert remembered(max_history=3) == ["re m1", "m2", "re m2"]
    assert remembered(max_history=3) == ["re m2", "next", "ok"]
    assert remembered(max_history=3) == ["ok", "next", "ok"]
    assert remembered(max_history=0) == []


@pytest.mark.parametrize("argument", ["9", "0", "two", "1 2", "-1"])
def test_a_number_that_is_none_changes_nothing(argument):
    talk("bread")
    ask("/new")
    talk("cake")
    assert ask(f"/resume {argument}").startswith("I do not know which one you mean.")
    assert remembered() == ["cake", "re cake"]


def test_nobody_sees_or_resumes_what_others_said():
    talk("bread")
    ask("/new")
    bob: dict[str, Any] = {"user_id": "bob", "channel_id": "bob"}
    talk("cake", **bob)
    assert ask("/resume", **bob) == "There is no earlier conversation of ours."
    ask("/resume 1", **bob)
    assert remembered(**bob) == ["cake", "re cake"]


def test_not_in_groups():
    finish(claim_one(now=received(a_group_message("bread")).available_at))
    group: dict[str, Any] = {"channel_id": "group-1", "chat_type": ChatType.GROUP, "is_mentioned": True}
    assert ask("/resume", **group) == "Please send this to me in a direct message."


def link(user_id: str, platform: str = "web") -> None:
    identity.link(
        platform=platform,
        user_id=user_id,
        unified_user_id="ann",
        proof=Proof.STAFF,
        actor=ALICE,
        reason="known",
        now=NOW,
    )


def test_a_new_beginning_on_a_linked_platform_hides_it_while_the_link_lasts():
    talk("bread")
    ask("/new")
    other: dict[str, Any] = {"user_id": "user-2", "channel_id": "chat-2"}
    talk("elsewhere", **other)
    ask("/resume 1")
    link("user-1")
    link("user-2")
    assert remembered(**other)[:2] == ["bread", "re bread"]
    ask("/new", **other)
    assert remembered() == []
    for user_id in ("user-1", "user-2"):
        identity.unlink(platform="web", user_id=user_id, actor=ALICE, reason="not the same", now=NOW)
    assert remembered()[:2] == ["bread", "re bread"]


def test_nothing_of_the_history_is_changed():
    talk("bread")
    ask("/new")
    before = list(HistoryMessage.objects.order_by("id").values_list("id", "text", "created_at"))
    ask("/resume 1")
    assert list(HistoryMessage.objects.order_by("id").values_list("id", "text", "created_at"))[: len(before)] == before


# -- archiving ----


def session(session_id: str = "bot_web_user-1") -> BotSession:
    return BotSession.objects.get(session_id=session_id)


def test_a_silent_conversation_is_archived_and_the_next_message_opens_it_anew():
    talk("bread")
    assert archive.reap(ttl=TTL, now=later(days=29)) == 0
    assert archive.reap(ttl=TTL, now=later(days=30)) == 1
    assert session().is_archived
    assert archive.reap(ttl=TTL, now=later(days=31)) == 0, "once"
    divider = HistoryMessage.objects.get(kind=HistoryKind.DIVIDER)
    assert divider.text == "The conversation was archived after 30 days of silence."
    assert remembered(now=later(days=40)) == []
    assert not session().is_archived
    assert [row.text for row in HistoryMessage.objects.order_by("id")][:2] == ["bread", "re bread"]
    assert archive.reap(ttl=TTL, now=later(days=71)) == 1


def test_an_archived_conversation_can_be_resumed():
    talk("bread")
    archive.reap(ttl=TTL, now=later(days=30))
    assert ask("/resume 1", now=later(days=40)).endswith(": bread")
    assert remembered(now=later(days=40)) == ["bread", "re bread"]


def test_many_are_archived_in_chunks(monkeypatch):
    monkeypatch.setattr(archive, "CHUNK", 3)
    for number in range(8):
        talk("hello", user_id=f"u{number}", channel_id=f"u{number}")
    assert archive.reap(ttl=TTL, now=later(days=30)) == 8
    assert all(row.is_archived for row in BotSession.objects.all())


def test_what_is_active_anywhere_waits_or_is_in_hand_is_left_alone():
    talk("here")
    talk("there", user_id="user-2", channel_id="chat-2")
    link("user-1")
    link("user-2")
    talk("asked", user_id="held", channel_id="held")
    handling.hand_to(session_id="bot_web_held", handler=Handler.HUMAN, actor=ALICE, now=NOW)
    talk("asked", user_id="waits", channel_id="waits")
    received(a_message("still here", user_id="waits", channel_id="waits"), now=later(days=20))
    BotSession.objects.filter(session_id="bot_web_user-2").update(last_activity_at=later(days=25))
    assert archive.reap(ttl=TTL, now=later(days=30)) == 0


def test_sessions_of_programs_are_there_to_be_resumed():
    inline.begin(session_id="session-001", platform="library", account="helper", now=NOW)
    assert archive.reap(ttl=TTL, now=later(days=300)) == 0


def test_a_reminder_wakes_nobody():
    talk("bread")
    mirror.append(user_id="bot_web_user-1", text="Do not forget.", source_label="cron", now=later(days=29))
    assert archive.reap(ttl=TTL, now=later(days=30)) == 1


def test_a_session_in_which_nothing_was_said_has_no_divider():
    received(a_message("never answered"))
    turn = claim_one()
    finish(turn, "", dropped={turn.entry_ids[0]: "policy_deny"})
    assert archive.reap(ttl=TTL, now=later(days=30)) == 1
    assert not HistoryMessage.objects.exists()


def test_an_answer_of_staff_opens_it():
    talk("bread")
    archive.reap(ttl=TTL, now=later(days=30))
    handling.reply(
        session_id="bot_web_user-1",
        text="Hello again.",
        parts=("Hello again.",),
        idempotency_key="f1",
        actor=ALICE,
        now=later(days=31),
    )
    assert not session().is_archived


@pytest.mark.parametrize(("seconds", "archived"), [("", 0), ("3600", 1)])
def test_housekeeping_archives_where_the_setting_says_so(settings, seconds, archived):
    settings.BOTSRT = {"SESSION_TTL_SECONDS": seconds} if seconds else {}
    talk("bread")
    assert tasks.keep_house()["sessions_archived"] == archived
    assert session().is_archived is bool(archived)
