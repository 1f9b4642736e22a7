"""The books after a run: what the platforms show, what the agents wrote down, what the tables say, what is still held.

Every check yields violations: what is wrong, and where. What the database says is used only to know how a message was
meant to end (staff ended it, it is parked, its fate is open); whether people got their answers the platforms say.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.chaos.agents import QUOTE, TOKEN
from bench.chaos.faults import Happened
from bench.chaos.fleet import Fleet
from bench.chaos.ground import Postgres, Sqlite
from bench.chaos.people import PAIRING, Chat, Post, Said
from botsrt.conf import RuntimeConfig

_TROUBLE = RuntimeConfig().trouble_text

#: How the runtime's own answers to commands begin, and what it says by itself.
_COMMAND_ANSWERS = re.compile(
    r"A new conversation begins|Stopped\.|Nothing is running|I have been working|A member of the team has|I am paused"
    r"|\d+ messages? waits?"
)
_SAID_BY_ITSELF = re.compile(r"Hello! This bot answers people it knows|You have access now|Hello! Many people")

#: Faults that keep any worker from renewing what it holds.
_CONCERN_ALL = frozenset({"restart_postgres", "kill_connections", "fill_disk"})

#: Faults that keep a worker itself from it.
_CONCERN_ONE = frozenset({"kill_worker", "stop_worker", "wrong_clock"})

#: Leases that a turn must have outlasted, and the next sweep, to count as kept.
_LONG_LEASES = 1.5

#: Database connections that a process may have, and how many more open files than after its start.
_MOST_CONNECTIONS = {"worker": 4, "site": 16, "cluster": 12}
_MOST_MORE_FILES = 160

#: Tasks of an event loop at rest, at most.
_MOST_TASKS = 120


@dataclass(frozen=True, slots=True)
class Violation:
    what: str
    where: str


@dataclass(kw_only=True)
class Entry:
    """A row of the journal."""

    pk: int
    channel: str
    state: str
    reason: str
    attempts: int
    deaths: int
    turn: str
    replays: int  # by staff


@dataclass(kw_only=True)
class TurnRow:
    state: str
    worker: str
    started: float
    finished: float


@dataclass
class Books:
    """Everything that is looked at."""

    database: Sqlite | Postgres
    chats: list[Chat]
    posts: list[Post]
    replies: dict[str, str]  # what staff said → where
    happened: list[Happened]
    lease_seconds: float
    record: Path
    fleet: Fleet
    summary: Counter[str] = field(default_factory=Counter)
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    turns: dict[str, TurnRow] = field(default_factory=dict)

    def violations(self) -> list[Violation]:
        self._read()
        found: list[Violation] = []
        for check in (
            self._every_message, self._every_post, self._commands, self._staff_replies, self._order,
            self._history, self._lanes, self._abandoned, self._leases, self._connections,
        ):  # fmt: skip
            found.extend(check())
        return found

    # -- read ----

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.database.rows(sql)

    def _read(self) -> None:
        replays = Counter(
            int(pk) for (pk,) in self._rows("SELECT object_id FROM botsrt_auditevent WHERE verb = 'journal.replay'")
        )
        rows = self._rows(
            "SELECT id, channel_id, payload, state, outcome_reason, attempts, deaths, turn_id FROM botsrt_journalentry"
            " WHERE command = '' ORDER BY id"
        )
        for pk, channel, payload, state, reason, attempts, deaths, turn in rows:
            text = (json.loads(payload) if isinstance(payload, str) else payload).get("text", "")
            entry = Entry(
                pk=pk, channel=channel, state=state, reason=reason, attempts=attempts, deaths=deaths,
                turn=_plain_id(turn), replays=replays[pk],
            )  # fmt: skip
            self.entries.setdefault(text.partition(" ")[0], []).append(entry)
        for pk, state, worker, started, finished in self._rows(
            "SELECT id, state, worker_id, started_at, finished_at FROM botsrt_turn"
        ):
            self.turns[_plain_id(pk)] = TurnRow(
                state=state, worker=worker, started=_epoch(started), finished=_epoch(finished)
            )
        self.summary["turns"] = len(self.turns)

    def _said(self) -> Iterator[tuple[Chat, Said]]:
        for chat in self.chats:
            for said in chat.said:
                yield chat, said

    # -- what the platforms show ----

    def _every_message(self) -> Iterator[Violation]:
        """Each message: one answer and no more, or a reason why not."""
        plain: Counter[str] = Counter()
        labelled: Counter[str] = Counter()
        for post in self.posts:
            for match in _quoted(post):
                (labelled if post.is_labelled else plain)[match[0]] += 1
        open_turns = {
            _plain_id(turn)
            for (turn,) in self._rows(
                "SELECT DISTINCT turn_id FROM botsrt_outboxmessage WHERE state IN ('unknown', 'held')"
                " AND turn_id IS NOT NULL"
            )
        }
        for chat, said in self._said():
            self.summary["messages"] += 1
            entries = self.entries.get(said.token, [])
            where = f"{said.token} ({said.word}) in {chat.account}/{chat.channel}"
            if len(entries) != 1:
                yield Violation(f"stored {len(entries)} times", where)
                continue
            entry, once, again = entries[0], plain[said.token], labelled[said.token]
            where += f", entry {entry.pk} {entry.state} {entry.reason} turn {entry.turn}"
            self.summary["answers_labelled"] += again
            if once > 1 + entry.replays:
                yield Violation(f"answered {once} times without a label, replayed {entry.replays} times", where)
            if entry.state == "completed" and not entry.reason:
                if once + again:
                    self.summary["answered"] += 1
                elif entry.turn in open_turns:
                    self.summary["fate_open"] += 1
                else:
                    yield Violation("never answered", where)
            elif entry.state == "completed" and entry.reason in ("answered_by_staff", "stopped"):
                self.summary[entry.reason] += 1
                if once + again and not entry.replays:
                    yield Violation("answered by the agent, though it was ended otherwise", where)
            elif entry.state == "dead":
                self.summary["parked"] += 1
                is_due = said.word in ("broken", "hopeless") or entry.deaths >= 2
                if not is_due or ((once or again) and not entry.replays):
                    yield Violation(f"parked, and answered {once + again} times", where)
            elif entry.state == "held" and chat.account == PAIRING:
                self.summary["not_let_in"] += 1
            else:
                yield Violation("not ended as it should", where)

    def _every_post(self) -> Iterator[Violation]:
        """Nobody gets somebody else's answer, and nothing that nobody said."""
        chats = {(chat.account, chat.channel): chat for chat in self.chats}
        for post in self.posts:
            chat = chats.get((post.account, post.channel))
            where = f"{post.account}/{post.channel}: {post.text[:100]!r}"
            if chat is None:
                yield Violation("sent to a chat that does not exist", where)
                continue
            for match in _quoted(post):
                if (match[1], match[2]) != (chat.person, chat.account):
                    yield Violation("somebody else's answer", where)
            is_known = (
                post.text.startswith(QUOTE)
                or self.replies.get(post.text) == post.channel
                or post.text == _TROUBLE
                or _COMMAND_ANSWERS.match(post.text)
                or _SAID_BY_ITSELF.match(post.text)
            )
            if not is_known:
                yield Violation("something that nobody said", where)

    def _commands(self) -> Iterator[Violation]:
        """Each command is answered once, or again with a label."""
        plain: Counter[tuple[str, str]] = Counter()
        every: Counter[tuple[str, str]] = Counter()
        notices: Counter[tuple[str, str]] = Counter()
        for post in self.posts:
            key = (post.account, post.channel)
            if _COMMAND_ANSWERS.match(post.text):
                every[key] += 1
                plain[key] += not post.is_labelled
            notices[key] += post.text == _TROUBLE and not post.is_labelled
        open_chats = {
            tuple(row)
            for row in self._rows(
                "SELECT DISTINCT account, channel_id FROM botsrt_outboxmessage WHERE state IN ('unknown', 'held')"
            )
        }
        for chat in self.chats:
            key, asked = (chat.account, chat.channel), chat.commands.total()
            self.summary["commands"] += asked
            if plain[key] > asked or (every[key] < asked and key not in open_chats):
                yield Violation(
                    f"{asked} commands were answered {plain[key]} times and {every[key] - plain[key]} times labelled",
                    f"{chat.account}/{chat.channel}",
                )
            troubled = sum(said.word in ("flaky", "broken", "hopeless") for said in chat.said)
            troubled += sum(
                e.deaths >= 2 or e.replays > 0 for said in chat.said for e in self.entries.get(said.token, [])
            )
            if notices[key] > troubled:
                yield Violation(f"told of trouble {notices[key]} times, had it {troubled} times", "/".join(key))

    def _staff_replies(self) -> Iterator[Violation]:
        """What staff said arrives once; a form that was sent twice is one reply."""
        posted = Counter((post.text, post.is_labelled) for post in self.posts if post.text in self.replies)
        rows = self._rows("SELECT text, state FROM botsrt_outboxmessage WHERE source = 'staff'")
        stored = Counter(text for text, _ in rows)
        for text, state in rows:
            once, again = posted[text, False], posted[text, True]
            self.summary["staff_replies"] += 1
            if stored[text] != 1 or once > 1 or (once + again == 0 and state not in ("unknown", "held")):
                yield Violation(f"a reply of staff was stored {stored[text]} times, sent {once} and {again}", text)

    def _order(self) -> Iterator[Violation]:
        """In a chat, what went without trouble is answered in the order in which it was said."""
        answered: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for post in self.posts:
            if not post.is_labelled:
                answered[post.account, post.channel] += [match[0] for match in _quoted(post)]
        for chat in self.chats:
            smooth = {
                said.token
                for said in chat.said
                if said.word in ("plain", "slow")
                and all(e.attempts + e.deaths + e.replays == 0 for e in self.entries.get(said.token, []))
            }
            came = [int(token.rpartition(".")[2]) for token in answered[chat.account, chat.channel] if token in smooth]
            for before, after in pairwise(came):
                if after < before:
                    yield Violation("out of order", f"{chat.account}/{chat.channel}: {after} came after {before}")

    # -- what the tables say ----

    def _history(self) -> Iterator[Violation]:
        """What was said is there once; each answer once; a turn is its messages, then its answer, in one piece."""
        asked: Counter[str] = Counter()
        answered: Counter[str] = Counter()
        rows = self._rows(
            "SELECT session_id, turn_id, role, text FROM botsrt_historymessage WHERE kind = 'chat' ORDER BY id"
        )
        by_session: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for session, turn, role, text in rows:
            if role == "user":
                asked[text.partition(" ")[0]] += 1
            else:
                answered.update(match[0] for line in text.split("\n") if (match := TOKEN.search(line)))
            if turn is not None:
                by_session[session].append((_plain_id(turn), role))
        for session, told in by_session.items():
            yield from self._alternates(session, told)
        for chat, said in self._said():
            for entry in self.entries.get(said.token, []):
                where = f"{said.token} ({said.word}) in {chat.account}/{chat.channel}, entry {entry.pk} {entry.state}"
                if asked[said.token] > 1 or (entry.state == "completed" and not asked[said.token]):
                    yield Violation(f"{asked[said.token]} times in the history", where)
                is_answered = entry.state == "completed" and not entry.reason
                if answered[said.token] > 1 + entry.replays or (is_answered and not answered[said.token]):
                    yield Violation(
                        f"its answer is {answered[said.token]} times in the history, replayed {entry.replays} times",
                        where,
                    )

    def _alternates(self, session: int, told: list[tuple[str, str]]) -> Iterator[Violation]:
        over: set[str] = set()
        before = ("", "")
        for turn, role in told:
            where = f"session {session}, turn {turn}"
            if turn != before[0]:
                if before[0]:
                    over.add(before[0])
                if turn in over:
                    yield Violation("two turns are mixed in the history", where)
            elif before[1] == "assistant":
                yield Violation("something follows the answer of a turn in the history", where)
            if (row := self.turns.get(turn)) is None or row.state != "finished":
                yield Violation(f"the history has words of a turn that is {row.state if row else 'gone'}", where)
            before = (turn, role)

    def _lanes(self) -> Iterator[Violation]:
        """By the agents' own record: no two turns of one person run at once, of which neither had been given up.

        A worker that was stopped goes on, or even begins, with a turn that was taken from it, until it hears of that.
        """
        running: dict[str, str] = {}
        for line in sorted(self.record.read_text().splitlines(), key=lambda line: int(line.partition("\t")[0])):
            _, what, lane, turn, strangers = line.split("\t")
            turn = _plain_id(turn)
            if strangers:
                yield Violation("an agent was shown somebody else's messages", f"turn {turn}: {strangers[:100]}")
            self.summary["runs"] += what == "begin"
            if self._was_given_up(turn):
                continue
            if what == "end":
                running.pop(lane, None)
                continue
            if lane in running:
                yield Violation("a lane ran twice at once", f"{lane}: turns {running[lane]} and {turn}")
            running[lane] = turn

    def _was_given_up(self, turn: str) -> bool:
        row = self.turns.get(turn)
        return row is not None and row.state in ("abandoned", "cancelled")

    def _abandoned(self) -> Iterator[Violation]:
        """A turn is taken only from a worker that something happened to.

        A machine with too much to do may keep a worker from its database for longer than a lease. That is counted; it
        is no violation as long as most of the turns that clearly outlast a lease are kept.
        """
        taken, kept = [], 0
        for pk, turn in self.turns.items():
            slot = self.fleet.slots.get(_pid_of(turn.worker), "?")
            is_long = turn.finished - turn.started > _LONG_LEASES * self.lease_seconds
            if turn.state == "abandoned":
                self.summary["abandoned"] += 1
                if not any(self._explains(fault, slot, turn) for fault in self.happened):
                    taken.append(f"turn {pk} of {turn.worker}, {turn.finished - turn.started:.1f} s after its start")
            elif is_long:
                kept += 1
        self.summary["taken_from_healthy"] = len(taken)
        self.summary["outlasted_a_lease"] = kept
        if len(taken) > kept:
            for where in taken:
                yield Violation("a turn was taken from a healthy worker", where)

    def _explains(self, fault: Happened, slot: str, turn: TurnRow) -> bool:
        concerns_all = fault.kind in _CONCERN_ALL
        if isinstance(self.database, Sqlite):  # whoever is stopped may have the file locked
            concerns_all |= fault.kind == "stop_worker"
        if not (concerns_all or (fault.kind in _CONCERN_ONE and fault.whom == slot)):
            return False
        ended = fault.ended if fault.ended is not None else turn.finished
        return fault.began <= turn.finished + 1 and turn.started - 1 <= ended + self.lease_seconds

    # -- what is still held ----

    def _leases(self) -> Iterator[Violation]:
        counts = {
            "turns run": "botsrt_turn WHERE state = 'running'",
            "entries wait": "botsrt_journalentry WHERE state IN ('pending', 'claimed')",
            "messages are being sent, or wait": "botsrt_outboxmessage WHERE state IN ('pending', 'sending')",
            "previews stand": "botsrt_preview",
            "bulk operations run": "botsrt_bulkoperation WHERE state = 'running'",
            "dead letters are being retried": "botsrt_dlqitem WHERE state = 'retrying'",
        }
        for what, table in counts.items():
            ((count,),) = self._rows(f"SELECT count(*) FROM {table}")
            if count:
                yield Violation(f"{count} {what} at the end", table)
        alive = {member.pid for member in self.fleet.running_workers()}
        for account, worker in self._rows(
            "SELECT b.account, a.worker_id FROM botsrt_adapterstate a JOIN botsrt_bot b ON b.id = a.bot_id"
            " WHERE a.lease_expires_at IS NOT NULL"
        ):
            if _pid_of(worker) not in alive:
                yield Violation("a bot is leased by nobody who lives", f"{account}: {worker!r}")

    def _connections(self) -> Iterator[Violation]:
        if not isinstance(self.database, Postgres):
            return
        alive = {member.name: member for member in self.fleet.members.values() if member.is_up}
        counts: Counter[str] = Counter()
        for name, state, seconds in self.database.rows(
            "SELECT application_name, state, extract(epoch FROM now() - state_change) FROM pg_stat_activity"
            " WHERE datname = 'chaos' AND application_name <> 'harness'"
            " AND backend_start < now() - interval '1 second'"  # a younger one has not said its name yet
        ):
            counts[name] += 1
            if name not in alive:
                yield Violation("a database connection of a dead process", f"{name}: {state}")
            if state == "idle in transaction" and seconds > 2:
                yield Violation("a transaction is left open", f"{name} for {seconds:.0f} s")
        for name, count in counts.items():
            if name in alive and count > _MOST_CONNECTIONS[alive[name].slot.rstrip("0123456789")]:
                yield Violation(f"{count} database connections", name)

    async def of_processes(self) -> list[Violation]:
        """Open files and tasks of the workers that live."""
        found = []
        for member in self.fleet.running_workers():
            more = member.files() - member.files_at_rest
            if more > _MOST_MORE_FILES:
                found.append(Violation(f"{more} more open files than after its start", member.name))
            names = await self.fleet.tasks_of(member)
            left = [name for name in names if name.startswith(("turn ", "send "))]
            if not names or left or len(names) > _MOST_TASKS:
                found.append(Violation(f"{len(names)} tasks at rest, of them {left}", member.name))
            self.summary["most_tasks"] = max(self.summary["most_tasks"], len(names))
        return found


def _quoted(post: Post) -> Iterable[re.Match[str]]:
    """The messages that a post answers."""
    for line in post.text.split("\n"):
        if line.startswith(QUOTE) and (match := TOKEN.search(line)):
            yield match


def _pid_of(worker: str) -> int:
    """The process of a worker, by its id: ``host-1234-abcdef.1``."""
    match = re.search(r"-(\d+)-[0-9a-f]+\.\d+$", worker)
    return int(match[1]) if match else 0


def _plain_id(value: object) -> str:
    return str(value or "").replace("-", "")


def _epoch(value: Any) -> float:
    if value is None:
        return 0.0
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return float((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
