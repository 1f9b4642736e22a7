"""Pairing: asked for once, decided once, told in plain words, and its codes are nowhere to be found."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from botsrt.core.commands import Press
from botsrt.core.errors import BotsError, Conflict, InvalidInput, NotFound, TooManyAttempts
from botsrt.core.pairing_codes import Terms
from botsrt.core.states import (
    ChatType,
    EntryState,
    EventKind,
    OutboxState,
    Outcome,
    PairingState,
    Proof,
    TurnState,
    UnknownUserPolicy,
)
from botsrt.models import BotSession, Contact, JournalEntry, OutboxMessage, Pairing, Turn
from botsrt.runtime.turn import gate
from botsrt.services import codes, identity, ledger, materials, pairing, reception
from botsrt.services.claimed import ClaimedTurn
from tests.factories import (
    ACCOUNT,
    ALICE,
    BOB,
    LEASE,
    NOW,
    a_bot,
    a_message,
    asks,
    claim,
    code_of,
    entry,
    finish,
    later,
    receive,
    send_all,
)
from tests.services.races import at_once

pytestmark = pytest.mark.django_db(transaction=True)

TERMS = Terms()


@pytest.fixture(autouse=True)
def _bots() -> None:
    a_bot(policy=UnknownUserPolicy.PAIR, settings={"owners": "boss"})
    a_bot("desk", platform="slack", policy=UnknownUserPolicy.PAIR)


def work(*, now: datetime = NOW, reply: str = "Hi") -> list[ClaimedTurn]:
    """Run all due turns as the runtime does, with an agent that says ``reply``."""
    done = []
    while claimed := claim(now=now):
        for turn in claimed:
            run(turn, now=now, reply=reply)
            done.append(turn)
    return done


def run(turn: ClaimedTurn, *, now: datetime, reply: str = "Hi") -> bool:
    found = materials.gather(turn=turn, max_history=100, refused_for=TERMS.refused_for, now=now)
    assert found.bot is not None
    decisions = gate(turn, found, found.bot)
    first = turn.entries[0]
    decision = decisions[first.id]
    is_open = decision.verdict == "pair" and reception.is_open_to_strangers(first)
    if first.command and (decision.is_allowed or is_open):
        return reception.answer(turn=turn, bot=found.bot, decision=decision, terms=TERMS, now=now)
    reasons = {pk: one.reason.value for pk, one in decisions.items()}
    if any(one.verdict == "pair" for one in decisions.values()):
        return reception.ask(turn=turn, bot=found.bot, reasons=reasons, terms=TERMS, now=now)
    dropped = {pk: reasons[pk] for pk, one in decisions.items() if not one.is_allowed}
    if len(dropped) == len(turn.entries):
        return finish(turn, "", dropped=dropped, now=now)
    return finish(turn, reply, dropped=dropped, now=now)


def says(text: str, user: str = "ann", *, account: str = ACCOUNT, now: datetime = NOW, **fields: Any) -> int:
    """A user writes directly, and whatever that starts is done."""
    platform = "web" if account == ACCOUNT else "slack"
    message = a_message(text, platform=platform, account=account, user_id=user, channel_id=f"dm-{user}", **fields)
    entry_id = receive(message, now=now)
    assert entry_id is not None
    work(now=now)
    return entry_id


def told(user: str = "ann") -> list[str]:
    """What the user was sent, oldest first, as it leaves."""
    rows = OutboxMessage.objects.filter(channel_id=f"dm-{user}").select_related("pairing").order_by("id")
    return [codes.written_in(row.text, row.pairing) if row.pairing else row.text for row in rows]


def approve(request: Pairing, **fields: Any) -> Pairing:
    return pairing.approve(request_id=request.pk, **{"actor": ALICE, "reason": "I know them", "now": NOW, **fields})


def verify(code: str, **fields: Any) -> Pairing:
    return pairing.verify(**{"account": ACCOUNT, "code": code, "actor": ALICE, "terms": TERMS, "now": NOW, **fields})


def request_of(user: str = "ann") -> Pairing:
    return Pairing.objects.filter(contact__platform_user_id=user).latest("id")


def assert_nowhere(code: str) -> None:
    """No column of any table has the code, in any case."""
    for model in apps.get_app_config("botsrt").get_models():
        for row in model._default_manager.values():
            assert code.lower() not in json.dumps(row, default=str).lower(), model


# -- asking ----


def test_thirty_messages_are_one_request_one_code_and_no_answer():
    first = says("message 0")
    for number in range(1, 30):
        says(f"message {number}", now=later(seconds=number))
    request = Pairing.objects.get()
    assert request.asked_count == 30
    assert request.first_words == "message 0"
    assert len(told()) == 1
    assert code_of(request) in told()[0]
    assert entry(first).state == EntryState.HELD
    assert set(JournalEntry.objects.exclude(pk=first).values_list("outcome", flat=True)) == {Outcome.SILENT}
    assert_nowhere(code_of(request))
    assert ledger.check(since=None, lease=LEASE, now=later(minutes=1)).is_balanced


def test_the_code_is_sent_again_after_ten_minutes_and_is_the_same():
    says("hello")
    says("hello?", now=later(minutes=9))
    assert len(told()) == 1
    says("hello??", now=later(minutes=11))
    assert len(told()) == 2
    assert told()[0] == told()[1]


def test_after_an_hour_a_request_is_over_and_the_next_message_begins_another():
    says("hello")
    old = code_of(request_of())
    assert pairing.expire(now=later(minutes=59)) == 0
    assert pairing.expire(now=later(minutes=60)) == 1
    assert entry(JournalEntry.objects.get().pk).outcome_reason == "pairing_expired"
    says("hello again", now=later(minutes=61))
    assert Pairing.objects.filter(state=PairingState.WAITING).count() == 1
    assert code_of(request_of()) != old


def test_a_request_that_nobody_swept_up_is_closed_when_its_contact_writes():
    says("hello")
    says("hello again", now=later(minutes=61))
    states = list(Pairing.objects.order_by("id").values_list("state", flat=True))
    assert states == [PairingState.EXPIRED, PairingState.WAITING]


def test_the_fifty_first_is_told_politely_and_counted():
    for number in range(52):
        says("hello", f"user-{number}")
    assert Pairing.objects.count() == 50
    assert "try again later" in told("user-51")[0]
    says("hello?", "user-51", now=later(seconds=5))
    assert len(told("user-51")) == 1
    assert pairing.turned_away(accounts=[ACCOUNT], since=NOW) == 3
    approve(request_of("user-7"))
    says("hello", "user-51", now=later(seconds=6))
    assert Pairing.objects.count() == 51


def test_a_group_is_no_place_to_ask():
    receive(a_message("hello", channel_id="room", chat_type=ChatType.GROUP, is_mentioned=True, user_id="ann"))
    work()
    assert not Pairing.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_what_was_decided_while_the_turn_looked_is_not_asked_again():
    says("hello")
    receive(a_message("more", user_id="ann", channel_id="dm-ann"))
    (turn,) = claim()
    found = materials.gather(turn=turn, max_history=1, refused_for=TERMS.refused_for, now=NOW)
    assert found.bot is not None
    reasons = {pk: one.reason.value for pk, one in gate(turn, found, found.bot).items()}
    approve(request_of())
    assert reception.ask(turn=turn, bot=found.bot, reasons=reasons, terms=TERMS, now=NOW)
    assert Turn.objects.get(pk=turn.id).state == TurnState.CANCELLED
    assert Pairing.objects.count() == 1


# -- deciding ----


def test_the_code_lets_in_and_the_first_message_is_answered():
    first = says("may I?")
    code = code_of(request_of())
    request = verify(f" {code[:4].lower()}-{code[4:]} ")
    assert (request.state, request.proof, request.decided_by) == (PairingState.APPROVED, Proof.CODE, "alice")
    work()
    assert entry(first).outcome == Outcome.ANSWERED
    says("and now?")
    assert told()[1:] == ["You have access now. Your message is being answered.", "Hi", "Hi"]
    assert_nowhere(code)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("expired", "it was valid until 13:00:00 UTC"),
        ("used", "it was used already: Request .* was approved already, by alice"),
        ("denied", "it was used already: Request .* was denied already, by bob"),
        ("other bot", "it belongs to a request for another bot, shop"),
        ("unknown", "no request for shop has this code"),
        ("malformed", "8 letters and digits"),
        ("contact", "no request for shop has this code"),
        ("hash", "no request for shop has this code"),
    ],
)
def test_a_code_that_is_not_good_is_refused_with_the_true_reason(spoil, why):
    says("may I?")
    says("me too", "zoe")
    request = request_of()
    code = code_of(request)
    fields: dict[str, Any] = {}
    match spoil:
        case "expired":
            fields["now"] = later(minutes=61)
        case "used":
            verify(code)
        case "denied":
            pairing.deny(request_id=request.pk, actor=BOB, now=NOW)
        case "other bot":
            fields["account"] = "desk"
        case "unknown":
            code = "AAAAAAAA"
        case "malformed":
            code = "0000"
        case "contact":
            Pairing.objects.filter(pk=request_of("zoe").pk).delete()
            Pairing.objects.filter(pk=request.pk).update(contact=Contact.objects.get(platform_user_id="zoe"))
        case "hash":
            Pairing.objects.filter(pk=request.pk).update(code_hash="0" * 64)
    with pytest.raises(InvalidInput, match=why) as caught:
        verify(code, **fields)
    assert code not in str(caught.value) or spoil in ("unknown", "malformed")


def test_a_code_of_an_expired_row_says_so_too():
    says("may I?")
    pairing.expire(now=later(minutes=60))
    with pytest.raises(InvalidInput, match="valid until"):
        verify(code_of(request_of()), now=later(minutes=62))


def test_wrong_codes_lock_the_guesser_alone():
    says("may I?")
    code = code_of(request_of())
    for second in range(5):
        with pytest.raises(InvalidInput):
            verify("AAAAAAAA", now=later(seconds=second))
    with pytest.raises(TooManyAttempts, match="again in"):
        verify(code, now=later(seconds=5))
    assert verify(code, actor=BOB, now=later(seconds=5)).state == PairingState.APPROVED


def test_the_lock_ends_and_slow_mistakes_never_lock():
    for number in range(20):
        with pytest.raises(InvalidInput):
            verify("AAAAAAAA", now=later(seconds=number * 16))
    for _ in range(5):
        with pytest.raises(BotsError):
            verify("AAAAAAAA", now=later(hours=1))
    with pytest.raises(TooManyAttempts):
        verify("AAAAAAAA", now=later(hours=1, seconds=299))
    with pytest.raises(InvalidInput):
        verify("AAAAAAAA", now=later(hours=1, seconds=301))


def test_a_window_that_slides_has_no_gap():
    """Four at the end of one minute and one at the beginning of the next are five within a minute."""
    for second in (57, 58, 59, 60, 61):
        with pytest.raises(InvalidInput):
            verify("AAAAAAAA", now=later(seconds=second))
    with pytest.raises(TooManyAttempts):
        verify("AAAAAAAA", now=later(seconds=62))


def test_without_the_code_a_reason_is_needed_and_the_record_says_so():
    says("may I?")
    with pytest.raises(InvalidInput, match="reason"):
        approve(request_of(), reason=" ")
    assert approve(request_of()).proof == Proof.STAFF


def test_a_request_that_expired_unread_can_be_approved_and_is_answered():
    first = says("may I?")
    pairing.expire(now=later(hours=1))
    approve(request_of(), now=later(hours=2))
    work(now=later(hours=2))
    assert entry(first).outcome == Outcome.ANSWERED


def test_who_was_denied_is_told_and_cannot_ask_for_a_day():
    first = says("may I?")
    pairing.deny(request_id=request_of().pk, actor=ALICE, now=NOW)
    assert told()[-1] == "Your request was not approved."
    assert entry(first).outcome_reason == "pairing_denied"
    says("please", now=later(hours=23))
    assert entry(JournalEntry.objects.latest("id").pk).outcome_reason == "pairing_refused"
    says("please?", now=later(hours=25))
    assert Pairing.objects.count() == 2


def test_who_is_blocked_is_dropped_by_every_bot_and_hears_nothing():
    says("buy")
    says("buy", account="desk", user="ann")
    pairing.block(request_id=request_of().pk, actor=ALICE, reason="spam", now=NOW)
    count = OutboxMessage.objects.count()
    blocked = request_of().contact
    says("buy!", account="desk" if blocked.platform == "slack" else ACCOUNT)
    assert entry(JournalEntry.objects.latest("id").pk).outcome_reason == "blocked"
    assert OutboxMessage.objects.count() == count
    approve(request_of(), again=True)
    assert not Contact.objects.get(pk=blocked.pk).is_blocked


def test_a_block_ends_what_the_contact_asked_of_other_bots():
    a_bot("second", policy=UnknownUserPolicy.PAIR)
    says("buy")
    receive(a_message("buy", account="second", user_id="ann", channel_id="dm-ann"))
    work()
    pairing.block(request_id=Pairing.objects.earliest("id").pk, actor=ALICE, now=NOW)
    assert set(Pairing.objects.values_list("state", flat=True)) == {PairingState.BLOCKED}


def test_access_taken_back_stops_the_turn_the_queue_and_the_next_message():
    says("may I?")
    approve(request_of())
    work()
    send_all()
    receive(a_message("one", user_id="ann", channel_id="dm-ann"))
    work(reply="queued")
    receive(a_message("two", user_id="ann", channel_id="dm-ann"))
    (running,) = claim()
    pairing.revoke(request_id=request_of().pk, actor=ALICE, now=NOW)
    assert not finish(running, "too late")
    assert OutboxMessage.objects.get(text="queued").state == OutboxState.DEAD
    work()
    assert send_all() == ["Your access has been withdrawn."]
    assert JournalEntry.objects.latest("id").outcome_reason == "pairing_refused"


@pytest.mark.parametrize("acts", [("approve", "deny"), ("approve", "approve"), ("deny", "block"), ("verify", "deny")])
def test_of_two_that_decide_at_once_one_wins_and_the_other_is_told(acts):
    says("may I?")
    request = request_of()
    code = code_of(request)

    def act(name: str, actor: Any) -> str:
        try:
            match name:
                case "approve":
                    approve(request, actor=actor)
                case "verify":
                    verify(code, actor=actor)
                case "deny":
                    pairing.deny(request_id=request.pk, actor=actor, now=NOW)
                case _:
                    pairing.block(request_id=request.pk, actor=actor, now=NOW)
        except (Conflict, InvalidInput) as error:
            return str(error)
        return "won"

    outcomes = at_once(lambda: act(acts[0], ALICE), lambda: act(acts[1], BOB))
    if acts == ("deny", "block"):  # whoever is denied can still be blocked
        assert "won" in outcomes
        return
    assert sorted(outcome == "won" for outcome in outcomes) == [False, True]
    (lost,) = [outcome for outcome in outcomes if outcome != "won"]
    assert "already, by " in lost
    assert " UTC." in lost


def test_what_there_is_not_cannot_be_decided():
    with pytest.raises(NotFound):
        pairing.deny(request_id=4711, actor=ALICE, now=NOW)


# -- owners ----


def press(data: str, user: str) -> str:
    says(data, user, kind=EventKind.CALLBACK)
    return told(user)[-1]


def test_an_owner_hears_of_each_request_once_and_decides_by_button():
    says("hello, I own this", "boss")
    says("may I?")
    says("please", now=later(seconds=1))
    notices = OutboxMessage.objects.filter(idempotency_key__startswith="pairing-owner:")
    (notice,) = notices
    assert notice.channel_id == "dm-boss"
    assert "may I?" in notice.text
    assert code_of(request_of()) not in notice.text
    assert [button["label"] for button in notice.buttons] == ["Approve", "Deny"]
    assert press(notice.buttons[0]["data"], "boss").startswith("Approved")
    assert request_of().decided_by == "owner:web:boss"
    assert "was approved already, by owner:web:boss" in press(notice.buttons[1]["data"], "boss")


def test_nobody_else_decides_by_button():
    says("may I?")
    request = request_of()
    says("me too", "zoe")
    approve(request_of("zoe"))
    work()
    data = Press(act="approve", request_id=request.pk).data
    assert press(data, "zoe") == "Only an owner of this bot can decide about that."
    says("hi", account="desk", user="eve")
    other = Press(act="approve", request_id=request_of("eve").pk).data
    assert press(other, "boss") == "Only an owner of this bot can decide about that."
    assert set(Pairing.objects.exclude(contact__platform_user_id="zoe").values_list("state", flat=True)) == {"waiting"}


def test_a_stranger_who_presses_something_only_asks():
    says("may I?")
    says(Press(act="approve", request_id=request_of().pk).data, "eve", kind=EventKind.CALLBACK)
    assert request_of().state == PairingState.WAITING


# -- codes in messages ----


def test_a_code_that_its_owner_repeats_is_not_kept():
    says("may I?")
    code = code_of(request_of())
    message = a_message(
        f"my code is {code.lower()}!", user_id="ann", channel_id="dm-ann", raw={"text": f"my code is {code.lower()}!"}
    )
    receive(message)
    work()
    assert JournalEntry.objects.latest("id").payload["text"] == "my code is ⟨code⟩!"
    assert_nowhere(code)


# -- links ----


def paired(user: str, account: str) -> None:
    says("may I?", user, account=account)
    approve(request_of(user))
    work()


def link_code(user: str = "ann") -> str:
    says("/link", user)
    return code_of(request_of(user))


def test_a_link_proved_by_code_waits_for_staff_and_then_holds():
    paired("ann", ACCOUNT)
    paired("U1", "desk")
    code = link_code()
    assert code in told()[-1]
    says(f"/link {code}", "U1", account="desk", raw={"text": f"/link {code}"})
    assert "confirmed" in told("U1")[-1]
    request = request_of()
    assert str(request.other) == "slack:U1"
    approve(request, person="ann")
    lanes = dict(BotSession.objects.values_list("session_id", "lane"))
    assert lanes == {"bot_web_ann": "person:ann", "bot_slack_U1": "person:ann"}
    assert told()[-1].endswith("here and on slack are one from now on.")
    assert told("U1")[-1].endswith("here and on web are one from now on.")
    assert_nowhere(code)


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("own", "You asked for this code from here"),
        ("wrong", "This code is not valid."),
        ("expired", "no longer valid"),
        ("used", "we have this already"),
        ("group", "direct message"),
    ],
)
def test_a_link_code_that_is_not_good_is_refused(case, answer):
    paired("ann", ACCOUNT)
    paired("U1", "desk")
    code = link_code()
    user, account = "U1", "desk"
    fields: dict[str, Any] = {}
    match case:
        case "own":
            user, account = "ann", ACCOUNT
        case "wrong":
            code = "AAAAAAAA"
        case "expired":
            fields = {"now": later(minutes=61)}
        case "used":
            says(f"/link {code}", "U1", account="desk")
        case "group":
            fields = {"chat_type": ChatType.GROUP, "is_mentioned": True}
    says(f"/link {code}", user, account=account, **fields)
    assert answer in told(user)[-1]
    assert not identity.all_links()


def test_a_stranger_who_guesses_locks_himself_alone():
    paired("ann", ACCOUNT)
    code = link_code()
    for second in range(5):
        says("/link AAAAAAAA", "eve", account="desk", now=later(seconds=second))
    says(f"/link {code}", "eve", account="desk", now=later(seconds=6))
    assert "Too many wrong codes" in told("eve")[-1]
    says(f"/link {code}", "U1", account="desk", now=later(seconds=7))
    assert "confirmed" in told("U1")[-1]


def test_a_stranger_with_a_code_gets_access_when_staff_confirm():
    paired("ann", ACCOUNT)
    says("may I?", "U1", account="desk")
    says(f"/link {link_code()}", "U1", account="desk")
    request = Pairing.objects.get(purpose="link")
    assert request.other_needs_access
    approve(request)
    work()
    own = request_of("U1")
    assert (own.state, own.proof) == (PairingState.APPROVED, Proof.LINK)
    assert told("U1")[-1] == "Hi"


def test_a_link_that_nobody_proved_cannot_be_confirmed():
    paired("ann", ACCOUNT)
    link_code()
    with pytest.raises(Conflict, match="Nobody has sent its code"):
        approve(request_of())
    with pytest.raises(InvalidInput, match="connects two accounts"):
        verify(code_of(request_of()))


def test_two_different_persons_are_not_joined_by_a_code():
    paired("ann", ACCOUNT)
    paired("U1", "desk")
    for platform, user, person in (("web", "ann", "ann"), ("slack", "U1", "bob")):
        identity.link(
            platform=platform,
            user_id=user,
            unified_user_id=person,
            proof=Proof.STAFF,
            actor=ALICE,
            reason="so I was told",
            now=NOW,
        )
    says(f"/link {link_code()}", "U1", account="desk")
    with pytest.raises(Conflict, match="ann and bob"):
        approve(request_of())
    assert request_of().state == PairingState.WAITING


def test_bots_that_confirm_links_alone_need_no_staff(transactional_db):
    a_bot("one", policy=UnknownUserPolicy.ALLOW, settings={"link": "auto"})
    a_bot("two", platform="slack", policy=UnknownUserPolicy.ALLOW, settings={"link": "auto"})
    receive(a_message("/link", account="one", user_id="kim", channel_id="dm-kim"))
    work()
    code = code_of(request_of("kim"))
    receive(a_message(f"/link {code}", platform="slack", account="two", user_id="U9", channel_id="dm-U9"))
    work()
    assert set(identity.all_links()) == {("web", "kim"), ("slack", "U9")}
    assert ledger.check(since=None, lease=LEASE, now=NOW).is_balanced


# -- aliases ----


def test_an_alias_has_the_access_of_the_contact_that_it_is():
    paired("ann", ACCOUNT)
    identity.declare_alias(platform="web", user_id="ann2", same_as="ann", actor=ALICE, reason="renamed", now=NOW)
    says("it is me", "ann2")
    assert told("ann2") == ["Hi"]
    pairing.revoke(request_id=request_of().pk, actor=ALICE, now=later(seconds=1))
    says("still me", "ann2", now=later(seconds=2))
    assert told("ann2") == ["Hi"]


def test_a_request_that_the_factories_make_is_that_of_the_runtime():
    request = asks(now=timezone.now() - timedelta(seconds=1))
    assert request.entry is not None
    assert request.entry.state == EntryState.HELD
