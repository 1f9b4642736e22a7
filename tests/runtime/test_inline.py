"""Turns that a program runs itself, beside a worker and beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.actors import Actor
from botsrt.core.errors import AgentError, Conflict
from botsrt.core.ports import AgentConfig, AgentReply, AgentRequest
from botsrt.core.states import EntryState, Handler, RunMode, TurnState
from botsrt.models import BotSession, HistoryMessage, JournalEntry, Turn
from botsrt.runtime.db import Database
from botsrt.runtime.inline import Answering, Inline
from botsrt.services import claims, handling, inline
from botsrt.services.materials import Materials
from tests.factories import ALICE, a_bot, answered, claim, claim_one, finish, received

pytestmark = pytest.mark.django_db(transaction=True)

SESSION = "bot_web_user-1"
CALLER = Actor(name="caller")


class Slow:
    """An agent that answers when it is let go."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()
        self.texts: list[str] = []
        self.histories: list[int] = []

    async def run(self, request: AgentRequest) -> AgentReply:
        self.texts.append(request.text)
        self.histories.append(len(request.history))
        self.started.set()
        await self.let_go.wait()
        return AgentReply(text=f"re: {request.text}")

    async def choose(self, materials: Materials) -> Answering:
        return Answering(agent=self, profile=AgentConfig(name="slow", kind="echo"))  # type: ignore[arg-type]


@pytest.fixture
async def bridge(transactional_db: None) -> AsyncIterator[Database]:
    database = Database(max_batch=64)
    yield database
    await database.close()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def program(bridge: Database, config: RuntimeConfig) -> Inline:
    return Inline(database=bridge, config=config)


@pytest.fixture(autouse=True)
def _talk(transactional_db: None) -> None:
    a_bot()
    answered("hello", "Hi")


def asking(program: Inline, slow: Slow, text: str) -> asyncio.Task[AgentReply]:
    return asyncio.create_task(program.say(session_id=SESSION, text=text, actor=CALLER, choose=slow.choose))


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await sync_to_async(condition)():
            await asyncio.sleep(0.02)


async def test_it_waits_for_the_turn_of_a_worker(program: Inline, slow: Slow) -> None:
    def a_worker_claims():
        now = timezone.now()
        received("from the platform", now=now)
        return claim_one(now=now)

    turn = await sync_to_async(a_worker_claims)()
    task = asking(program, slow, "from the program")
    await until(lambda: JournalEntry.objects.filter(state=EntryState.PENDING).exists())
    assert not slow.texts
    slow.let_go.set()
    await sync_to_async(finish)(turn, "answer of the worker")
    assert (await task).text == "re: from the program"
    assert slow.histories == [4]


async def test_a_worker_leaves_it_alone_and_would_not_send_it(program: Inline, slow: Slow) -> None:
    task = asking(program, slow, "mine")
    await slow.started.wait()
    assert await sync_to_async(claim)(now=timezone.now()) == []
    entry = await sync_to_async(JournalEntry.objects.latest)("id")
    assert (entry.run_mode, entry.runs_alone) == (RunMode.HOLD, True)
    slow.let_go.set()
    await task


async def test_callers_of_a_process_are_answered_in_the_order_of_asking(program: Inline, slow: Slow) -> None:
    slow.let_go.set()
    texts = [f"number {number}" for number in range(20)]
    replies = await asyncio.gather(*(asking(program, slow, text) for text in texts))
    assert slow.texts == texts
    assert [reply.text for reply in replies] == [f"re: {text}" for text in texts]
    assert slow.histories == list(range(2, 42, 2))


async def test_two_programs_never_run_at_once(bridge: Database, config: RuntimeConfig, slow: Slow) -> None:
    first, second = (Inline(database=bridge, config=config) for _ in range(2))
    one = asking(first, slow, "one")
    await slow.started.wait()
    two = asking(second, slow, "two")
    await until(lambda: JournalEntry.objects.filter(state=EntryState.PENDING).exists())
    assert slow.texts == ["one"]
    slow.let_go.set()
    await asyncio.gather(one, two)
    assert slow.histories == [2, 4]


async def test_a_takeover_stops_the_run_and_the_caller_is_told(program: Inline, slow: Slow) -> None:
    task = asking(program, slow, "hello?")
    await slow.started.wait()
    await sync_to_async(handling.hand_to)(session_id=SESSION, handler=Handler.HUMAN, actor=ALICE, now=timezone.now())
    with pytest.raises(Conflict, match="was stopped"):
        await task
    assert await sync_to_async(HistoryMessage.objects.filter(kind="chat").count)() == 2


async def test_a_caller_that_goes_away_leaves_nothing_running(program: Inline, slow: Slow) -> None:
    task = asking(program, slow, "never mind")
    await slow.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    entry = await sync_to_async(JournalEntry.objects.latest)("id")
    assert entry.state == EntryState.DISCARDED
    assert not await sync_to_async(Turn.objects.filter(state=TurnState.RUNNING).exists)()


async def test_a_caller_that_stops_waiting_for_the_lane_leaves_nothing_behind(program: Inline, slow: Slow) -> None:
    one = asking(program, slow, "one")
    await slow.started.wait()
    two = asyncio.create_task(
        Inline(database=program.database, config=program._config).say(
            session_id=SESSION, text="two", actor=CALLER, choose=slow.choose
        )
    )
    await until(lambda: JournalEntry.objects.filter(state=EntryState.PENDING).exists())
    two.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two
    entry = await sync_to_async(JournalEntry.objects.latest)("id")
    assert (entry.payload["text"], entry.state) == ("two", EntryState.DISCARDED)
    slow.let_go.set()
    await one


async def test_a_run_that_takes_too_long_is_cut_off(program: Inline, slow: Slow, config: RuntimeConfig) -> None:
    with pytest.raises(AgentError, match=f"did not answer within {config.run_timeout_seconds:g} s"):
        await asking(program, slow, "hello")
    turn = await sync_to_async(Turn.objects.latest)("started_at")
    assert turn.state == TurnState.TIMED_OUT


async def test_the_lane_of_a_dead_program_is_freed_by_the_next_one(program: Inline, slow: Slow) -> None:
    def a_program_dies() -> int:
        then = timezone.now() - timedelta(hours=2)
        entry_id = inline.say(session_id=SESSION, text="lost", actor=CALLER, now=then)
        inline_claim(entry_id, then)
        return entry_id

    lost = await sync_to_async(a_program_dies)()
    slow.let_go.set()
    assert (await asking(program, slow, "next")).text == "re: next"
    assert (await asking(program, slow, "after that")).text == "re: after that"
    entry = await sync_to_async(JournalEntry.objects.get)(pk=lost)
    assert (entry.state, entry.outcome_reason) == (
        EntryState.DISCARDED,
        "Whoever said this went away before the answer.",
    )


def inline_claim(entry_id: int, now) -> None:

    lease = timedelta(seconds=30)
    assert claims.claim_entry(entry_id=entry_id, worker_id="gone", lease=lease, claim_timeout=lease, now=now)


async def test_a_session_is_made_once(bridge: Database) -> None:
    made = await asyncio.gather(
        *(
            bridge.call(inline.begin, session_id="mine", platform="library", account="helper", now=timezone.now())
            for _ in range(5)
        )
    )
    assert sorted(made) == [False] * 4 + [True]
    session = await sync_to_async(BotSession.objects.get)(session_id="mine")
    assert (session.lane, session.account) == ("bot_library_mine", "helper")
