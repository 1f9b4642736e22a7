"""Random schedules of messages, links, commands, crashes and replays, against a model in plain Python.

The model knows contacts, links and what was said; it shares no code with the services. After each step, and when all
work is done, the services must agree with it:

- every message is answered exactly once (and once more for each replay), by the turn of one lane at a time, or stopped;
- commands beside a lane are answered once, whatever runs in it; ``/stop`` ends what was said before it, nothing else;
- an agent is shown exactly what the model says: what the person's contacts said, where the links stand now;
- an answer counts only if all that its turn had read still belongs to the person who gets it;
- what a contact said reads, after the end of a link, as if the link had never been.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from botsrt.core.access import Decision, Reason, Verdict
from botsrt.core.errors import BotsError
from botsrt.core.pairing_codes import Terms
from botsrt.core.states import ChatType, EntryState, Proof, RunMode, Trigger, TurnState
from botsrt.models import BotSession, JournalEntry, Turn
from botsrt.services import bots, identity, journal, ledger, materials, persons, reception, sessions, turns
from botsrt.services.claimed import ClaimedTurn
from tests.factories import (
    ALICE,
    LEASE,
    NOW,
    a_bot,
    a_message,
    abandon,
    claim,
    fail,
    finish,
)

#: (platform, user id): two contacts on each of two platforms.
CONTACTS = [("web", "a"), ("web", "b"), ("slack", "c"), ("slack", "d")]
PERSONS = ["pia", "quin"]
ACCOUNTS = {"web": "shop", "slack": "desk"}

contacts = st.sampled_from(range(len(CONTACTS)))
numbers = st.integers(0, 1_000)


@dataclass
class Row:
    """Something that is part of a conversation."""

    session: str
    text: str


@dataclass
class Running:
    turn: ClaimedTurn
    readers: frozenset[str] = frozenset()  # sessions that were read together when the turn read them
    has_read: bool = False


@dataclass
class Merge:
    id: int
    at: int  # what had been said by then
    before: dict[int, tuple[str, int]] = field(default_factory=dict)  # contact → person and start of the link


def session_of(contact: int) -> str:
    platform, user_id = CONTACTS[contact]
    return f"bot_{platform}_{user_id}"


class Schedules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.undo = transaction.atomic()
        self.undo.__enter__()
        for platform, account in ACCOUNTS.items():
            a_bot(account, platform=platform)
        self.now = NOW
        self.said: list[Row] = []
        self.linked: dict[int, str] = {}
        self.alias_of: dict[int, int] = {}
        self.link_start: defaultdict[tuple[int, str], int] = defaultdict(int)
        self.start: defaultdict[str, int] = defaultdict(int)
        self.begun: list[tuple[int, str]] = []  # each /new: where, and in which session
        self.merge: Merge | None = None
        self.running: dict[str, Running] = {}
        self.ghosts: list[ClaimedTurn] = []
        self.texts: dict[int, str] = {}  # entry → its text
        self.wanted: Counter[int] = Counter()  # entry → answers that are due
        self.answered: Counter[int] = Counter()
        self.in_history: set[int] = set()
        self.count = 0

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            transaction.set_rollback(True)
            self.undo.__exit__(None, None, None)

    # -- the model ----

    def root(self, contact: int) -> int:
        return self.alias_of.get(contact, contact)

    def person(self, contact: int) -> str | None:
        return self.linked.get(self.root(contact))

    def together(self, contact: int) -> list[int]:
        """The contacts whose conversation is one with this contact's."""
        person = self.person(contact)
        if person is not None:
            return [other for other in range(len(CONTACTS)) if self.person(other) == person]
        return [other for other in range(len(CONTACTS)) if self.root(other) == self.root(contact)]

    def lane(self, session: str) -> str:
        if session.startswith("bot_"):
            contact = next(other for other in range(len(CONTACTS)) if session_of(other) == session)
            return "+".join(map(str, self.together(contact)))
        return session

    def readable(self, session: str) -> tuple[frozenset[str], list[str]]:
        """The sessions that are read together with this one, and what an agent is shown."""
        if not session.startswith("bot_"):
            return frozenset([session]), [
                row.text for row in self.said[self.start[session] :] if row.session == session
            ]
        contact = next(other for other in range(len(CONTACTS)) if session_of(other) == session)
        starts = {}
        for other in self.together(contact):
            person = self.person(other)
            since = self.link_start[self.root(other), person] if person else 0
            starts[session_of(other)] = max(self.start[session_of(other)], since)
        shown = [
            row.text for place, row in enumerate(self.said) if row.session in starts and place >= starts[row.session]
        ]
        return frozenset(starts), shown

    def begin_anew(self, session: str) -> None:
        here = len(self.said)
        self.begun.append((here, session))
        self.start[session] = here
        if not session.startswith("bot_"):
            return
        contact = next(other for other in range(len(CONTACTS)) if session_of(other) == session)
        for other in range(len(CONTACTS)):
            if self.root(other) == self.root(contact):
                self.start[session_of(other)] = here
        person = self.person(contact)
        if person is not None:
            for other in self.together(contact):
                if BotSession.objects.filter(session_id=session_of(self.root(other))).exists():
                    self.link_start[self.root(other), person] = here

    # -- how it begins ----

    @initialize(are_known=st.booleans())
    def meet(self, are_known: bool) -> None:
        """Half of the schedules begin where everybody has written and two are linked: more happens in them."""
        if not are_known:
            return
        for contact in range(len(CONTACTS)):
            self.write(contact, is_group=False, text="hi")
        self.link(0, "pia")
        self.link(2, "quin")

    # -- people write ----

    @rule(
        contact=contacts,
        is_group=st.sampled_from([False, False, True]),
        text=st.sampled_from(["hi", "hi", "hi", "/new", "/status", "/stop"]),
    )
    def write(self, contact: int, is_group: bool, text: str) -> None:
        platform, user_id = CONTACTS[contact]
        self.count += 1
        words = text if text.startswith("/") else f"m{self.count}"
        fields: dict[str, Any] = {"channel_id": f"dm-{user_id}"}
        if is_group:
            fields = {"channel_id": "group", "chat_type": ChatType.GROUP, "is_mentioned": True}
        message = a_message(words, platform=platform, account=ACCOUNTS[platform], user_id=user_id, **fields)
        entry_id = journal.receive(message=message, now=self.tick(), max_raw_bytes=0)
        assert entry_id is not None
        assert journal.receive(message=message, now=self.now, max_raw_bytes=0) is None
        self.texts[entry_id] = words
        self.wanted[entry_id] += 1

    @rule(contact=contacts)
    def change_their_mind(self, contact: int) -> None:
        """Three messages that wait together, the one in the middle a command."""
        for text in ("hi", "/new", "hi"):
            self.write(contact, is_group=False, text=text)

    # -- workers work ----

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        now = self.tick()
        waiting = JournalEntry.objects.filter(state=EntryState.PENDING, available_at__lte=now, command="new")
        commands = [(self.lane(session_id), pk) for pk, session_id in waiting.values_list("pk", "session__session_id")]
        for turn in claim(limit=limit, now=now):
            self.running[str(turn.id)] = Running(turn=turn)
            assert turn.runs_aside is (turn.entries[0].command in ("status", "stop"))
            if turn.runs_aside:
                continue
            lane = self.lane(turn.session_id)
            barrier = min((pk for other, pk in commands if other == lane), default=max(turn.entry_ids))
            assert max(turn.entry_ids) <= barrier, "something said after /new ran before it"

    @precondition(lambda self: self.running)
    @rule(pick=numbers)
    def read(self, pick: int) -> None:
        """What the worker reads after it claimed: it must be what the model says, if the turn is still its own."""
        run = self.pick(pick)
        found = materials.gather(turn=run.turn, max_history=1_000, refused_for=timedelta(days=1), now=self.tick())
        if not self.is_live(run.turn):
            return
        readers, shown = self.readable(run.turn.session_id)
        assert [item.text for item in found.history] == shown
        run.readers, run.has_read = readers, True

    @precondition(lambda self: any(run.has_read for run in self.running.values()))
    @rule(pick=numbers)
    def finish(self, pick: int) -> None:
        run = self.pick(pick)
        turn = run.turn
        if not run.has_read:
            return
        was_live = self.is_live(turn)
        if command := turn.entries[0].command:
            assert len(turn.entries) == 1
            stopped = self.stoppable(turn) if command == "stop" else []
            bot = bots.views(accounts=[turn.account])[turn.account]
            decision = Decision(verdict=Verdict.ALLOW, reason=Reason.POLICY_ALLOW)
            did_end = reception.answer(turn=turn, bot=bot, decision=decision, terms=Terms(), now=self.tick())
            if did_end and command == "new":
                self.begin_anew(turn.session_id)
            if did_end:
                self.stop(stopped)
        else:
            did_end = finish(turn, f"re:{turn.id}", now=self.tick())
            if did_end:
                readers, _ = self.readable(turn.session_id)
                assert run.readers <= readers, "an answer was made of what is another person's now"
                self.say(turn)
        assert did_end <= was_live, "a turn that was taken away ended all the same"
        if did_end:
            self.answered.update(turn.entry_ids)
            self.in_history.update(turn.entry_ids)
        self.over(turn)

    def stoppable(self, turn: ClaimedTurn) -> list[JournalEntry]:
        """What was said in the lane before ``/stop`` and runs or waits; replays of staff only if they run."""
        open_entries = JournalEntry.objects.filter(
            state__in=(EntryState.PENDING, EntryState.CLAIMED), command="", pk__lt=turn.entries[0].id
        )
        return [
            entry
            for entry in open_entries.select_related("session").order_by("pk")
            if entry.session
            and self.lane(entry.session.session_id) == self.lane(turn.session_id)
            and (entry.state == EntryState.CLAIMED or entry.trigger == Trigger.MESSAGE)
        ]

    def stop(self, entries: list[JournalEntry]) -> None:
        """They stay said, and no answer is due."""
        for entry in entries:
            self.wanted[entry.pk] -= 1
            if entry.pk not in self.in_history:
                assert entry.session
                self.said.append(Row(entry.session.session_id, self.texts[entry.pk]))
                self.in_history.add(entry.pk)

    def say(self, turn: ClaimedTurn) -> None:
        for entry in turn.entries:
            if entry.id not in self.in_history:
                self.said.append(Row(turn.session_id, entry.message.text))
        self.said.append(Row(turn.session_id, f"re:{turn.id}"))

    @precondition(lambda self: self.running)
    @rule(pick=numbers)
    def fail(self, pick: int) -> None:
        run = self.pick(pick)
        fail(run.turn, is_transient=True, max_attempts=1_000, now=self.tick())
        self.over(run.turn)

    @precondition(lambda self: self.running)
    @rule(pick=numbers)
    def hand_back(self, pick: int) -> None:
        run = self.pick(pick)
        now = self.tick()
        turns.release(turn_id=run.turn.id, available_at=now, now=now)
        self.over(run.turn)

    @precondition(lambda self: self.running)
    @rule()
    def crash(self) -> None:
        """All workers die, and somebody notices."""
        self.now += LEASE * 2
        abandon(max_worker_deaths=1_000, now=self.now)
        for run in list(self.running.values()):
            self.over(run.turn)

    @precondition(lambda self: self.ghosts)
    @rule(pick=numbers)
    def come_late(self, pick: int) -> None:
        """A worker that was given up finishes after all."""
        assert not finish(self.ghosts[pick % len(self.ghosts)], "late", now=self.tick())

    @precondition(lambda self: self.answered)
    @rule(pick=numbers)
    def replay(self, pick: int) -> None:
        entry_id = sorted(self.answered)[pick % len(self.answered)]
        if self.texts[entry_id].startswith("/") or self.wanted[entry_id] > self.answered[entry_id]:
            return
        journal.replay(entry_id=entry_id, mode=RunMode.SEND, actor=ALICE, reason="again", now=self.tick())
        self.wanted[entry_id] += 1

    # -- staff say who is who ----

    @rule(contact=contacts, person=st.sampled_from(["pia", "pia", "quin"]))
    def link(self, contact: int, person: str) -> None:
        platform, user_id = CONTACTS[contact]
        is_possible = self.person(contact) is None and not self.is_merged_away(person)
        try:
            identity.link(
                platform=platform,
                user_id=user_id,
                unified_user_id=person,
                proof=Proof.STAFF,
                actor=ALICE,
                reason="one human",
                now=self.tick(),
            )
        except BotsError:
            assert not is_possible
            return
        assert is_possible
        self.linked[self.root(contact)] = person

    @rule(contact=contacts)
    def unlink(self, contact: int) -> None:
        platform, user_id = CONTACTS[contact]
        try:
            person = identity.unlink(platform=platform, user_id=user_id, actor=ALICE, now=self.tick())
        except BotsError:
            assert self.person(contact) is None
            return
        assert self.linked.pop(self.root(contact)) == person
        if self.merge:
            self.merge.before.pop(self.root(contact), None)

    @precondition(lambda self: len(set(self.linked.values())) == 2 and not self.merge)
    @rule()
    def merge_persons(self) -> None:
        merge_id = persons.merge(loser="quin", winner="pia", actor=ALICE, reason="one human", now=self.tick())
        before = {contact: (person, self.link_start[contact, person]) for contact, person in self.linked.items()}
        for contact in self.linked:
            self.link_start[contact, "pia"] = before[contact][1]
            self.linked[contact] = "pia"
        self.merge = Merge(id=merge_id, at=len(self.begun), before=before)

    @precondition(lambda self: self.merge)
    @rule()
    def undo_merge(self) -> None:
        assert self.merge is not None
        persons.undo_merge(merge_id=self.merge.id, actor=ALICE, now=self.tick())
        for side in PERSONS:
            mine = [contact for contact, (person, _) in self.merge.before.items() if person == side]
            since = [place for place, session in self.begun[self.merge.at :] if session in map(session_of, mine)]
            for contact in mine:
                self.linked[contact] = side
                self.link_start[contact, side] = max([self.merge.before[contact][1], *since])
        self.merge = None

    def is_merged_away(self, person: str) -> bool:
        return self.merge is not None and person == "quin"

    @rule(contact=contacts, same_as=contacts)
    def declare_alias(self, contact: int, same_as: int) -> None:
        (platform, user_id), (other_platform, other) = CONTACTS[contact], CONTACTS[same_as]
        if platform != other_platform or contact == same_as:
            return
        try:
            identity.declare_alias(
                platform=platform, user_id=user_id, same_as=other, actor=ALICE, reason="renamed", now=self.tick()
            )
        except BotsError:
            return
        assert contact not in self.linked
        self.alias_of[contact] = same_as

    @rule(contact=contacts)
    def end_alias(self, contact: int) -> None:
        platform, user_id = CONTACTS[contact]
        try:
            identity.end_alias(platform=platform, user_id=user_id, actor=ALICE, now=self.tick())
        except BotsError:
            assert contact not in self.alias_of
            return
        del self.alias_of[contact]

    # -- what always holds ----

    @invariant()
    def one_turn_for_each_lane(self) -> None:
        live = Turn.objects.filter(state=TurnState.RUNNING).select_related("session")
        lanes = Counter((self.lane(turn.session.session_id), turn.runs_aside) for turn in live)
        assert not [lane for lane, count in lanes.items() if count > 1], "one person's turns overlap"
        assert all(turn.lane == turn.session.lane for turn in live)

    @invariant()
    def the_lanes_are_those_of_the_model(self) -> None:
        stored = dict(BotSession.objects.values_list("session_id", "lane"))
        by_lane: defaultdict[str, set[str]] = defaultdict(set)
        for session, lane in stored.items():
            by_lane[lane].add(self.lane(session))
        assert all(len(lanes) == 1 for lanes in by_lane.values())
        assert len({next(iter(lanes)) for lanes in by_lane.values()}) == len(by_lane)
        for session, lane in stored.items():
            if session.startswith("bot_") and len(self.lane(session)) == 1 and not lane.startswith("person:"):
                assert lane == session

    def drain(self) -> None:
        """Let a healthy worker do all that is left; then everything is answered as often as it was asked."""
        for run in list(self.running.values()):
            if self.is_live(run.turn):
                turns.release(turn_id=run.turn.id, available_at=self.now, now=self.now)
            self.over(run.turn)
        for _ in range(500):
            self.now += timedelta(hours=1)
            found = claim(limit=10, now=self.now)
            if not found and not JournalEntry.objects.filter(state=EntryState.PENDING).exists():
                break
            for turn in found:
                self.running[str(turn.id)] = Running(turn=turn)
                self.read(0)
                self.finish(0)
        assert self.answered == +self.wanted
        report = ledger.check(since=None, lease=LEASE, now=self.now)
        assert report.is_balanced, report
        for contact in range(len(CONTACTS)):
            self.check_history(session_of(contact))

    def check_history(self, session: str) -> None:
        row = BotSession.objects.filter(session_id=session).first()
        if row is not None:
            shown = [item.text for item in sessions.history(session_pk=row.pk, max_messages=1_000)]
            assert shown == self.readable(session)[1]

    # -- small things ----

    def tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def pick(self, number: int) -> Running:
        return list(self.running.values())[number % len(self.running)]

    def over(self, turn: ClaimedTurn) -> None:
        del self.running[str(turn.id)]
        self.ghosts.append(turn)

    @staticmethod
    def is_live(turn: ClaimedTurn) -> bool:
        return Turn.objects.filter(pk=turn.id, state=TurnState.RUNNING, session__epoch=turn.generation).exists()
