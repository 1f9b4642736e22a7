"""Summaries of long conversations: in the place of what they sum up, for as long as nothing of that changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from botsrt.core.states import HistoryKind, Proof
from botsrt.models import BotSession, HistoryMessage, Recollection, Turn
from botsrt.services import identity, materials, mirror, sessions, summaries
from botsrt.services.summaries import Draft
from tests.factories import ALICE, NOW, a_bot, a_message, answered, claim_one, finish, received

pytestmark = pytest.mark.django_db

BOB: dict[str, Any] = {"user_id": "bob", "channel_id": "bob"}


@pytest.fixture(autouse=True)
def _shop() -> None:
    a_bot()


def pk_of(session_id: str = "bot_web_user-1") -> int:
    return BotSession.objects.get(session_id=session_id).pk


def talk(*texts: str, **fields: Any) -> None:
    for text in texts:
        answered(a_message(text, **fields), f"re {text}")


def due(after: int = 4, session_id: str = "bot_web_user-1") -> Draft:
    draft = summaries.due(session_pk=pk_of(session_id), after=after)
    assert draft is not None
    return draft


def keep(draft: Draft, text: str = "They want bread.") -> bool:
    return summaries.keep(draft=draft, text=text, agent="helper", usage={"requests": 1}, now=NOW)


def given(**fields: Any) -> list[str]:
    """What the agent is given with the next message, which nobody answers."""
    row = received(a_message("next", **fields))
    turn = claim_one()
    found = materials.gather(turn=turn, max_history=100, refused_for=timedelta(), now=NOW)
    finish(turn, "", dropped={row.pk: "policy_deny"})
    return [item.text for item in found.history]


def summed_up(text: str) -> str:
    return f"[What was said before, summed up: {text}]"


def begin_anew() -> None:
    session = BotSession.objects.select_related("contact").get()
    turn = Turn.objects.earliest("started_at")
    sessions.start_new(session=session, turn_id=turn.pk, now=NOW)


def link(*user_ids: str) -> None:
    for user_id in user_ids:
        identity.link(
            platform="web", user_id=user_id, unified_user_id="ann", proof=Proof.STAFF, actor=ALICE, reason="x", now=NOW
        )


def test_a_short_conversation_is_not_summed_up():
    talk("m1", "m2")
    assert summaries.due(session_pk=pk_of(), after=4) is None


def test_the_older_half_is_given_as_its_summary_and_stays_readable():
    talk("m1", "m2", "m3")
    draft = due()
    assert [item.text for item in draft.items] == ["m1", "re m1", "m2", "re m2"]
    assert keep(draft)
    assert given() == [summed_up("They want bread."), "m3", "re m3"]
    row = HistoryMessage.objects.get(kind=HistoryKind.SUMMARY)
    originals = HistoryMessage.objects.filter(pk__in=row.metadata["originals"]).order_by("pk")
    assert [one.text for one in originals] == ["m1", "re m1", "m2", "re m2"]
    assert (row.source, row.metadata["usage"]) == ("helper", {"requests": 1})


def test_the_next_summary_takes_the_place_of_the_one_before():
    talk("m1", "m2", "m3")
    keep(due(), "one")
    assert summaries.due(session_pk=pk_of(), after=4) is None
    talk("m4", "m5")
    draft = due()
    assert (draft.earlier, [item.text for item in draft.items]) == ("one", ["m3", "re m3", "m4", "re m4"])
    assert keep(draft, "two")
    assert given() == [summed_up("two"), "m5", "re m5"]
    assert HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).count() == 2


def test_a_new_conversation_knows_no_summary():
    talk("m1", "m2", "m3")
    keep(due())
    begin_anew()
    assert given() == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_summary_is_none(text):
    talk("m1", "m2", "m3")
    assert not keep(due(), text)
    assert len(given()) == 6


def test_what_is_said_while_it_is_written_is_not_hidden():
    talk("m1", "m2", "m3")
    draft = due()
    talk("m4")
    mirror.append(user_id="bot_web_user-1", text="By the way.", source_label="cron", now=NOW)
    assert keep(draft)
    assert given() == [summed_up("They want bread."), "m3", "re m3", "m4", "re m4", "By the way."]


def test_a_message_that_came_to_stand_among_those_that_are_summed_up_refuses_it():
    talk("m1", "m2", "m3")
    draft = due()
    gone = draft.ids[1]
    late = Draft(
        **{name: getattr(draft, name) for name in Draft.__slots__} | {"ids": tuple(i for i in draft.ids if i != gone)}
    )
    assert not keep(late)
    assert len(given()) == 6


def test_of_two_that_are_written_at_once_one_is_kept():
    talk("m1", "m2", "m3")
    one, two = due(), due()
    assert keep(one, "one")
    assert not keep(two, "two")
    assert given()[0] == summed_up("one")


def test_a_new_beginning_meanwhile_refuses_it():
    talk("m1", "m2", "m3")
    draft = due()
    begin_anew()
    assert not keep(draft)
    assert given() == []


def test_the_end_of_a_link_restores_what_each_side_had():
    talk("mine")
    talk("theirs", **BOB)
    link("user-1", "bob")
    talk("m1", "m2")
    keep(due())
    assert given()[0] == given(**BOB)[0] == summed_up("They want bread.")
    identity.unlink(platform="web", user_id="bob", actor=ALICE, reason="not the same", now=NOW)
    assert given() == ["mine", "re mine", "m1", "re m1", "m2", "re m2"]
    assert given(**BOB) == ["theirs", "re theirs"]


def test_what_is_linked_later_is_read_beside_the_summary():
    talk("theirs", **BOB)
    talk("m1", "m2", "m3")
    link("user-1")
    keep(due())
    link("bob")
    texts = given()
    assert texts[0] == summed_up("They want bread.")
    assert texts[1:] == ["theirs", "re theirs", "m3", "re m3"]


def test_erasing_one_side_erases_the_summary_of_both():
    talk("mine")
    talk("theirs", **BOB)
    link("user-1", "bob")
    talk("m1", "m2")
    keep(due())
    assert summaries.forget(session_pks=[pk_of("bot_web_bob")], contact_ids=[]) == 1
    assert not HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).exists()
    assert not Recollection.objects.filter(summary__isnull=False).exists()
    assert len(given()) == 8


def test_what_a_summary_is_made_of_is_known_also_of_those_that_it_folded_in():
    talk("theirs", **BOB)
    link("user-1", "bob")
    talk("m1", "m2")
    keep(due(), "one")
    talk("m3", "m4", "m5")
    keep(due(), "two")
    both = sorted([pk_of(), pk_of("bot_web_bob")])
    ids = sorted(HistoryMessage.objects.values_list("entry__contact", flat=True).exclude(entry=None).distinct())
    rows = HistoryMessage.objects.filter(kind=HistoryKind.SUMMARY).order_by("pk")
    assert [(row.metadata["sessions"], row.metadata["contacts"]) for row in rows] == [(both, ids), (both, ids)]
    assert "theirs" not in [row.text for row in HistoryMessage.objects.filter(pk__in=rows[1].metadata["originals"])]


def test_staff_who_see_one_bot_see_no_summary_of_what_was_said_with_another():
    a_bot("other")
    talk("m1", "m2", "m3")
    keep(due())
    mine = HistoryMessage.objects.filter(sessions.said_with(["shop"]), kind=HistoryKind.SUMMARY)
    assert mine.count() == 1
    talk("m4", "m5", account="other")
    keep(due(), "both")
    assert [row.text for row in mine] == ["They want bread."]
    assert not HistoryMessage.objects.filter(sessions.said_with(["other"]), kind=HistoryKind.SUMMARY).exists()
