"""What many callers do together is what each would have done alone, and one bad call hurts nobody else."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from botsrt.core.messages import Attachment, InboundMessage, SendReceipt
from botsrt.core.states import Outcome, RunMode, UnknownUserPolicy
from botsrt.models import Contact, HistoryMessage, JournalEntry, OutboxMessage, Turn
from botsrt.services import finishing, journal, materials, news, outbox, sql, turns
from botsrt.services.batches import together
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.finishing import Result
from tests.factories import (
    LATE_AFTER,
    NOW,
    WORKER,
    a_bot,
    a_group_message,
    a_message,
    asks,
    claim,
    claim_sends,
    code_of,
    entry,
    later,
    received,
)

pytestmark = pytest.mark.django_db


def many(service: Callable[..., Any], calls: list[dict[str, Any]]) -> list[Any]:
    """Make the calls together, as the bridge does."""
    make = together(service)
    assert make is not None
    return list(make(calls))


def receive_all(messages: list[InboundMessage]) -> list[Any]:
    return many(journal.receive, [{"message": one, "now": NOW, "max_raw_bytes": 262_144} for one in messages])


# -- receive ----


def some_messages(seed: int) -> list[InboundMessage]:
    """Messages of few people in few chats, some of them sent twice, some edited, some with commands or files."""
    draw = random.Random(seed)
    found = []
    for number in range(60):
        make = draw.choice((a_message, a_message, a_group_message))
        account = draw.choice(("shop", "desk", "nobody"))
        message = make(
            draw.choice(("Hello", "/stop", "/new", "/link ABCDEFGH", "100 % 'quoted' \N{SNOWMAN}", "")),
            account=account,
            channel_id=f"chat-{draw.randrange(2)}",
            message_id=f"{draw.randrange(8)}",
            user_id=f"user-{draw.randrange(4)}",
            display_name=draw.choice(("", "Ann", "Ann B.")) if account == "shop" else "",
            revision=draw.choice(("", "", "2")),
            attachments=draw.choice(((), (Attachment(kind="photo", reference="p1", size_bytes=3),))),
            raw={"update": number, "text": "a %s in it"},
            album=draw.choice(("", "", "", "a1")),
        )
        found.append(message)
    return found


def all_that_is_stored() -> list[list[tuple[Any, ...]]]:
    """The journal, with names in the place of ids and in the order of each lane, which is all that counts; who wrote;
    and what they are told."""
    columns = [field.attname for field in JournalEntry._meta.fields if field.attname not in ("id", "session_id")]
    entries = JournalEntry.objects.order_by("lane", "id").values_list(*columns, "session__session_id", "session__lane")
    people = Contact.objects.values_list("platform_user_id", "display_name", "is_reachable")
    names = dict(Contact.objects.values_list("pk", "platform_user_id"))
    named = [
        tuple(names[value] if name == "contact_id" else value for name, value in zip(columns, row, strict=False))
        + row[-2:]
        for row in entries
    ]
    return [named, sorted(people), sorted(OutboxMessage.objects.values_list("account", "channel_id", "text"))]


@pytest.mark.parametrize("seed", range(8))
def test_events_received_together_are_stored_as_one_by_one(seed: int) -> None:
    a_bot("shop", settings={"max_per_minute": "12"})
    a_bot("desk", settings={"debounce_ms": "2000", "busy": "interrupt", "busy_ack": "Wait.", "max_per_minute": "7"})
    messages = some_messages(seed)

    def stored(receive: Callable[[list[InboundMessage]], list[Any]]) -> Any:
        try:
            with transaction.atomic():
                new = [entry_id is not None for entry_id in receive(messages)]
                found = new, all_that_is_stored()
                raise LookupError
        except LookupError:
            return found

    alone = stored(lambda all_of_them: [receive_all([one])[0] for one in all_of_them])
    assert any(alone[0])
    assert not all(alone[0])
    assert alone == stored(receive_all)


def test_a_redelivery_among_new_messages_is_counted_and_changes_nothing() -> None:
    a_bot()
    first = received(a_message(message_id="1", display_name="Ann"))
    assert receive_all(
        [
            a_message(message_id="2"),
            a_message(message_id="1", display_name="Somebody else"),
            a_message(message_id="2"),
            a_message(message_id="2"),
        ]
    ) == [first.pk + 1, None, None, None]
    assert entry(first.pk).duplicates == 1
    assert entry(first.pk + 1).duplicates == 2
    assert Contact.objects.get().display_name == "Ann"


def test_messages_received_together_keep_their_order() -> None:
    a_bot()
    ids = receive_all([a_message(str(number), channel_id=f"chat-{number % 3}") for number in range(30)])
    assert ids == sorted(ids)
    assert [row.payload["text"] for row in JournalEntry.objects.order_by("id")] == [str(number) for number in range(30)]


def test_a_code_is_taken_out_of_one_message_among_many() -> None:
    a_bot(policy=UnknownUserPolicy.PAIR)
    request = asks("stranger")
    code = code_of(request)
    receive_all(
        [
            a_message(f"it is {code}", user_id="stranger", channel_id="dm-stranger"),
            a_message(f"it is {code}", user_id="somebody", channel_id="dm-somebody"),
        ]
    )
    own, others = JournalEntry.objects.order_by("-id")[:2][::-1]
    assert code not in str(own.payload)
    assert code in str(others.payload)


def test_fifty_events_cost_as_many_queries_as_one(django_assert_max_num_queries: Any) -> None:
    a_bot()
    receive_all([a_message(user_id=f"u{number}", channel_id=f"c{number}") for number in range(50)])
    with django_assert_max_num_queries(7):
        receive_all([a_message(user_id=f"u{number}", channel_id=f"c{number}") for number in range(50)])
    with django_assert_max_num_queries(8):
        claimed = claim(limit=50)
    assert len(claimed) == 50
    needs = [{"turn": turn, "max_history": 100, "refused_for": timedelta(days=1), "now": NOW} for turn in claimed]
    with django_assert_max_num_queries(5):
        many(materials.gather, needs)
    with django_assert_max_num_queries(5):
        assert all(many(finishing.finish, [ending(turn) for turn in claimed]))
    with django_assert_max_num_queries(4):
        sends = claim_sends(limit=50)
    assert len(sends) == 50
    with django_assert_max_num_queries(1):
        assert all(many(outbox.mark_sent, [sent(send) for send in sends]))


# -- finish, and out ----


def ending(turn: ClaimedTurn, reply: str = "Hi", **fields: Any) -> dict[str, Any]:
    parts = (reply,) if reply else ()
    result = Result(parts=parts, text=reply, agent="echo", agent_version=1, **fields)
    return {"turn": turn, "result": result, "late_after": LATE_AFTER, "now": NOW}


def sent(send: outbox.ClaimedSend) -> dict[str, Any]:
    number = send.message.outbox_id
    return {
        "outbox_id": number,
        "worker_id": WORKER,
        "receipt": SendReceipt(platform_message_id=f"p{number}"),
        "now": NOW,
    }


def lanes(count: int) -> dict[str, ClaimedTurn]:
    """Running turns of so many people, by user id."""
    receive_all([a_message(f"of {number}", user_id=f"u{number}", channel_id=f"c{number}") for number in range(count)])
    return {turn.entries[0].message.sender.user_id: turn for turn in claim(limit=count)}


def test_turns_that_end_together_each_end_in_their_own_way() -> None:
    a_bot()
    running = lanes(6)
    JournalEntry.objects.filter(turn=running["u3"].id).update(run_mode=RunMode.HOLD)
    turns.release(turn_id=running["u1"].id, available_at=later(hours=1), now=NOW)
    only_entry = running["u2"].entry_ids[0]
    calls = [
        ending(running["u0"], "for u0", usage={"tokens": 7}, metadata={"model": "m"}),
        ending(running["u1"], "for u1"),  # no longer running
        ending(running["u2"], "", dropped={only_entry: "policy_deny"}),
        ending(running["u3"], "for u3") | {"now": later(hours=7)},  # too late to be sent unseen
        ending(running["u4"], ""),
        ending(running["u5"], "for u5"),
    ]
    assert many(finishing.finish, calls) == [True, False, True, True, True, True]
    outcomes = {
        row.contact.platform_user_id: row.outcome
        for row in JournalEntry.objects.select_related("contact")
        if row.contact
    }
    assert outcomes == {
        "u0": Outcome.ANSWERED,
        "u1": "",
        "u2": Outcome.SILENT,
        "u3": Outcome.HELD,
        "u4": Outcome.SILENT,
        "u5": Outcome.ANSWERED,
    }
    said = {(row.session.session_id, row.role): row.text for row in HistoryMessage.objects.select_related("session")}
    assert ("bot_web_u1", "assistant") not in said
    assert ("bot_web_u2", "user") not in said
    assert all(said[f"bot_web_u{n}", "assistant"] == f"for u{n}" for n in (0, 3, 5))
    assert {row.channel_id: row.state for row in OutboxMessage.objects.all()} == {
        "c0": "pending",
        "c3": "held",
        "c5": "pending",
    }
    turn = Turn.objects.get(pk=running["u0"].id)
    assert (turn.usage, turn.agent, turn.agent_version) == ({"tokens": 7}, "echo", 1)
    assert HistoryMessage.objects.get(turn=turn, role="assistant").metadata == {"model": "m"}


def test_a_turn_whose_conversation_moved_on_is_refused_among_others() -> None:
    a_bot()
    running = lanes(3)
    row = Turn.objects.select_related("session").get(pk=running["u1"].id)
    row.session.epoch += 1
    row.session.save()
    assert many(finishing.finish, [ending(turn) for turn in running.values()]) == [True, False, True]
    assert not OutboxMessage.objects.filter(channel_id="c1").exists()


def test_each_person_gets_their_own_materials() -> None:
    a_bot()
    for turn in lanes(5).values():
        many(finishing.finish, [ending(turn, f"hello {turn.session_id}")])
    running = list(lanes(5).values())
    needs = [
        {"turn": turn, "max_history": most, "refused_for": timedelta(days=1), "now": NOW}
        for most, turn in enumerate(running)
    ]
    for most, (turn, found) in enumerate(zip(running, many(materials.gather, needs), strict=True)):
        whole = [f"of {turn.session_id.removeprefix('bot_web_u')}", f"hello {turn.session_id}"]
        assert [item.text for item in found.history] == (whole[-most:] if most else [])


def test_a_stored_message_that_cannot_be_read_keeps_nobody_else_waiting() -> None:
    a_bot()
    broken = received(a_message("broken"))
    behind = received(a_message("behind it"))
    other = received(a_message("somebody else's", user_id="other", channel_id="other"))
    JournalEntry.objects.filter(pk=broken.pk).update(payload={"text": "no sender"})
    assert [turn.entry_ids for turn in claim()] == [[other.pk]]
    claimed = claim()
    assert claimed == []
    assert entry(broken.pk).dlq_item.reason == "unreadable"
    assert entry(broken.pk).state == "dead"
    assert [turn.entry_ids for turn in claim()] == [[behind.pk]]


def test_a_command_beside_a_conversation_that_begins_anew_brings_nothing_old_back() -> None:
    a_bot(settings={"reset": "idle", "reset_idle_seconds": "1800"})
    (first,) = lanes(1).values()
    many(finishing.finish, [ending(first)])
    said = {"user_id": "u0", "channel_id": "c0"}
    received(a_message("/status", **said), now=later(minutes=29))
    received(a_message("hello again", **said), now=later(minutes=31))
    both = claim(now=later(minutes=31))
    assert len(both) == 2
    now = later(minutes=31)
    needs = [{"turn": turn, "max_history": 100, "refused_for": timedelta(days=1), "now": now} for turn in both]
    by_command = dict(zip([turn.runs_aside for turn in both], many(materials.gather, needs), strict=True))
    assert by_command[False].begins_anew
    assert by_command[False].history == ()
    assert by_command[True].history


def test_nobody_is_told_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a_bot()
    told: list[object] = []
    monkeypatch.setattr(news, "changed", lambda *what: told.append(what))
    assert claim() == []
    assert told == []


def test_one_impossible_receipt_among_many_changes_nothing_of_the_others() -> None:
    a_bot()
    many(finishing.finish, [ending(turn) for turn in lanes(3).values()])
    sends = claim_sends()
    calls = [sent(send) for send in sends]
    calls[1]["worker_id"] = "somebody-else"
    assert many(outbox.mark_sent, calls) == [True, False, True]
    states = [OutboxMessage.objects.get(pk=send.message.outbox_id).state for send in sends]
    assert states == ["sent", "sending", "sent"]


# -- the statements ----


def test_an_insert_writes_what_the_orm_would_write() -> None:
    a_bot()
    whole = received(a_message("100 % 'quoted'", raw={"a": [1, None, "\N{SNOWMAN}"]}))
    row = {field.attname: getattr(whole, field.attname) for field in JournalEntry._meta.fields if field.attname != "id"}
    ((copied,),) = sql.insert(JournalEntry, [row | {"message_id": "copied"}], returning=("id",))
    assert {**row, "message_id": "copied"} == {
        field.attname: getattr(entry(copied), field.attname)
        for field in JournalEntry._meta.fields
        if field.attname != "id"
    }


def test_what_is_not_given_has_the_models_default() -> None:
    a_bot()
    whole = received()
    given = ("platform", "account", "channel_id", "lane", "chat_type", "kind", "payload", "available_at", "received_at")
    row = {name: getattr(whole, name) for name in given}
    ((pk,),) = sql.insert(JournalEntry, [row | {"message_id": "bare"}], returning=("id",))
    bare, by_orm = entry(pk), JournalEntry(**row, message_id="bare")
    names = [field.attname for field in JournalEntry._meta.fields if field.attname != "id"]
    assert [getattr(bare, name) for name in names] == [getattr(by_orm, name) for name in names]


def test_more_values_than_a_statement_takes_are_written_in_several() -> None:
    rows = [
        {"platform": "web", "platform_user_id": f"u{number}", "first_seen_at": NOW, "last_seen_at": NOW}
        for number in range(9_000)
    ]
    assert len(sql.insert(Contact, rows, returning=("id",))) == 9_000
    assert sql.insert(Contact, rows[:3], ignore_conflicts=True, returning=("id",)) == []
    assert sql.insert(Contact, [], returning=("id",)) == []
    with pytest.raises(IntegrityError), transaction.atomic():
        sql.insert(Contact, rows[:1])


def test_a_column_without_a_default_must_be_given() -> None:
    with pytest.raises(TypeError, match="give it"):
        sql.insert(Contact, [{"platform": "web", "platform_user_id": "u"}])
