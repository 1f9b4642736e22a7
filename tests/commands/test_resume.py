"""``sessions resume``: what was said, and what its agent answers now."""

from __future__ import annotations

import getpass

import pytest

from botsrt.core.states import EntryState, Handler, Outcome, Role, TurnState
from botsrt.models import Bot, BotSession, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import handling
from botsrt.services.finishing import RETURNED
from tests.factories import ALICE, NOW, a_bot, a_group_message, an_agent, answered

pytestmark = pytest.mark.django_db(transaction=True)

SESSION = "bot_web_user-1"
ME = f"os:{getpass.getuser()}"


@pytest.fixture(autouse=True)
def _talk() -> None:
    a_bot()
    answered("My favourite colour is blue", "Noted")


def test_an_unknown_session_is_an_error(manage) -> None:
    for options in ((), ("--show-history",), ("--continue", "hello")):
        ran = manage("sessions", "resume", "--session-id", "nobody", *options)
        assert (ran.code, ran.err.strip()) == (
            1,
            "CommandError: There is no session nobody; see: sessions list",
        )
    assert BotSession.objects.count() == 1


def test_history_is_shown_oldest_first_and_nothing_changes(manage) -> None:
    ran = manage("sessions", "resume", "--session-id", SESSION, "--show-history")
    assert ran.code == 0
    assert ran.out.index("My favourite colour is blue") < ran.out.index("Noted")
    shown = manage("sessions", "resume", "--session-id", SESSION, "--show-history", "--json").json
    assert [message["text"] for message in shown["messages"]] == ["My favourite colour is blue", "Noted"]
    assert (shown["session"], shown["answers"]) == (SESSION, [])
    assert JournalEntry.objects.count() == 1


def test_the_answer_is_printed_and_stored_and_not_sent(manage) -> None:
    sent_before = OutboxMessage.objects.count()
    ran = manage("sessions", "resume", "--session-id", SESSION, "--continue", "What is it?")
    assert (ran.code, ran.out) == (0, "What is it?\n")
    said = HistoryMessage.objects.order_by("id").values_list("role", "sender_name", "text")
    assert list(said)[2:] == [(Role.USER, ME, "What is it?"), (Role.ASSISTANT, "", "What is it?")]
    entry = JournalEntry.objects.latest("id")
    assert (entry.state, entry.outcome, entry.outcome_reason) == (EntryState.COMPLETED, Outcome.ANSWERED, RETURNED)
    assert (entry.requested_by, entry.account, entry.channel_id) == (ME, "shop", "chat-1")
    assert OutboxMessage.objects.count() == sent_before
    assert manage("ledger").code == 0


def test_the_agent_gets_the_history_and_knows_whose_session_it_is(manage) -> None:
    Bot.objects.update(agent=an_agent("telling", kind="python", settings={"target": "tests.acceptance.agents:telling"}))
    done = manage("sessions", "resume", "--session-id", SESSION, "--continue", "And?", "--continue", "Well?", "--json")
    assert [row["answer"] for row in done.json["answers"]] == [
        f"And? <web>My favourite colour is blue> as {SESSION}",
        f"Well? <web>My favourite colour is blue | web>And?> as {SESSION}",
    ]


def test_a_group_is_continued_too(manage) -> None:
    answered(a_group_message("Anybody?"), "Me")
    session = BotSession.objects.get(scope="per_chat")
    ran = manage("sessions", "resume", "--session-id", session.session_id, "--continue", "Who?")
    assert (ran.code, ran.out) == (0, f"{ME}: Who?\n")
    assert JournalEntry.objects.latest("id").channel_id == "group-1"


def test_a_command_of_the_chat_is_a_text_like_any_other(manage) -> None:
    assert manage("sessions", "resume", "--session-id", SESSION, "--continue", "/new").out == "/new\n"
    assert BotSession.objects.get().context_start == 0


def test_what_fails_is_an_error_and_no_part_of_the_conversation(manage) -> None:
    Bot.objects.update(agent=an_agent("broken", kind="python", settings={"target": "tests.toys.agents:raises"}))
    ran = manage("sessions", "resume", "--session-id", SESSION, "--continue", "one", "--continue", "two")
    assert ran.code == 1
    assert "KeyError" in ran.err
    entry = JournalEntry.objects.latest("id")
    assert (entry.payload["text"], entry.state, entry.outcome) == ("one", EntryState.DISCARDED, Outcome.DISCARDED)
    assert "KeyError" in entry.outcome_reason
    assert Turn.objects.latest("started_at").state == TurnState.FAILED
    assert HistoryMessage.objects.count() == 2
    assert manage("dlq", "list", "--json").json == []
    assert manage("ledger").code == 0


def test_a_conversation_that_a_human_has_is_not_continued(manage) -> None:
    handling.hand_to(session_id=SESSION, handler=Handler.HUMAN, actor=ALICE, now=NOW)
    ran = manage("sessions", "resume", "--session-id", SESSION, "--continue", "hello")
    assert ran.code == 1
    assert "alice took it over" in ran.err
    assert JournalEntry.objects.latest("id").state == EntryState.DISCARDED


def test_a_session_whose_bot_is_gone_can_be_read_and_not_continued(manage) -> None:
    manage("bots", "remove", "shop")
    assert manage("sessions", "resume", "--session-id", SESSION, "--show-history").code == 0
    ran = manage("sessions", "resume", "--session-id", SESSION, "--continue", "hello")
    assert ran.code == 1
    assert f"The bot of the session {SESSION} is gone" in ran.err


def test_nothing_to_say_is_an_error(manage) -> None:
    ran = manage("sessions", "resume", "--session-id", SESSION, "--continue", " ")
    assert (ran.code, "write something to say" in ran.err) == (1, True)
