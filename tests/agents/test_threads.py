"""Blocking calls: a limited number, in the order of asking, and honest about those that hang."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from botsrt.agents import threads
from botsrt.agents.threads import Gate
from botsrt.core.errors import AgentError, AgentUnavailable

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """Blocks the calls of a test until it is set; set at the end, so that no thread outlives the test for long."""
    event = threading.Event()
    yield event
    event.set()


def waiting_for(event: threading.Event, answer: str = "done") -> Callable[[], str]:
    def call() -> str:
        assert event.wait(30)
        return answer

    return call


async def test_the_call_sees_the_callers_context():
    variable.set("ours")
    assert await threads.run(variable.get, gate=Gate(1)) == "ours"


async def test_the_loop_goes_on_meanwhile(let_go: threading.Event):
    call = asyncio.create_task(threads.run(waiting_for(let_go), gate=Gate(1)))
    await asyncio.sleep(0.01)
    assert not call.done()
    let_go.set()
    assert await call == "done"


async def test_no_more_calls_run_than_there_are_places():
    running: list[int] = []
    most: list[int] = []
    mutex = threading.Lock()

    def call() -> None:
        with mutex:
            running.append(1)
            most.append(len(running))
        threading.Event().wait(0.01)
        with mutex:
            running.pop()

    gate = Gate(3)
    await asyncio.gather(*(threads.run(call, gate=gate) for _ in range(20)))
    assert max(most) == 3


async def test_places_go_to_those_who_waited_longest(let_go: threading.Event):
    gate, order = Gate(1), list[int]()
    first = asyncio.create_task(threads.run(waiting_for(let_go), gate=gate))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(threads.run(partial(order.append, number), gate=gate)) for number in range(5)]
    await asyncio.sleep(0.01)
    let_go.set()
    await asyncio.gather(first, *others)
    assert order == [0, 1, 2, 3, 4]


async def test_who_is_cancelled_while_waiting_never_runs(let_go: threading.Event):
    gate, ran = Gate(1), []
    first = asyncio.create_task(threads.run(waiting_for(let_go), gate=gate))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(threads.run(lambda: ran.append("second"), gate=gate))
    third = asyncio.create_task(threads.run(lambda: ran.append("third"), gate=gate))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.wait({second})
    let_go.set()
    await asyncio.gather(first, third)
    assert ran == ["third"]


async def test_a_cancelled_call_keeps_its_place_until_its_thread_ends(let_go: threading.Event):
    gate = Gate(1)
    first = asyncio.create_task(threads.run(waiting_for(let_go), gate=gate))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait({first}, timeout=5)
    assert first.cancelled(), "the caller goes on at once"
    second = asyncio.create_task(threads.run(lambda: "second", gate=gate))
    await asyncio.sleep(0.05)
    assert not second.done()
    let_go.set()
    assert await second == "second"


async def test_a_place_that_comes_in_the_moment_of_cancelling_is_passed_on():
    gate = Gate(1)
    await gate.enter()
    second = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave()
    second.cancel()
    await asyncio.wait({second})
    await asyncio.wait_for(gate.enter(), timeout=5)


async def test_an_agent_that_hangs_in_all_places_says_so(let_go: threading.Event, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "_PATIENCE_SECONDS", 0.05)
    gate = Gate(2)
    calls = [asyncio.create_task(threads.run(waiting_for(let_go), gate=gate)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    with pytest.raises(AgentUnavailable, match="given up"):
        await threads.run(lambda: "never", gate=gate)
    let_go.set()
    assert await threads.run(lambda: "again", gate=gate) == "again"


async def test_one_that_is_only_busy_is_waited_for(let_go: threading.Event, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "_PATIENCE_SECONDS", 0.01)
    gate = Gate(1)
    first = asyncio.create_task(threads.run(waiting_for(let_go), gate=gate))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(threads.run(lambda: "second", gate=gate))
    await asyncio.sleep(0.1)
    assert not second.done()
    let_go.set()
    assert (await first, await second) == ("done", "second")


@pytest.mark.parametrize("error", [LookupError("x"), StopIteration(), SystemExit(1), KeyboardInterrupt()])
async def test_whatever_is_raised_is_an_agents_error(error: BaseException):
    def call() -> None:
        raise error

    gate = Gate(1)
    with pytest.raises(AgentError) as caught:
        await asyncio.wait_for(threads.run(call, gate=gate), timeout=5)
    assert caught.value.__cause__ is error
    assert await threads.run(lambda: "free", gate=gate) == "free"


async def test_no_thread_to_be_had_is_no_failure_of_the_message(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    gate = Gate(1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(AgentUnavailable, match="can't start new thread"):
            await threads.run(lambda: None, gate=gate)
    assert await threads.run(lambda: "free", gate=gate) == "free"


def test_a_thread_may_outlive_its_loop():
    event, gate = threading.Event(), Gate(1)

    async def give_up() -> None:
        call = asyncio.create_task(threads.run(waiting_for(event), gate=gate))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait({call})

    asyncio.run(give_up())
    event.set()
    assert asyncio.run(threads.run(lambda: "in another loop", gate=gate)) == "in another loop"
