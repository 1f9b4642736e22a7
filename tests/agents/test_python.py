"""Functions and objects of one's own: what they may be, what they may return, and what is said when they cannot be."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from botsrt.core.context import SessionContext, clear_session_context, set_session_context
from botsrt.core.errors import AgentError, AgentUnavailable, ConfigurationError, TransientAgentError
from tests.agents import targets
from tests.agents.world import a_request, python_agent


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shout", "HELLO"),
        ("whisper", "hello"),
        ("wrapped", "hello"),
        ("reply", "Hello"),
        ("partial", "small"),
        ("shop", "shop: Hello"),
        ("shop.ask", "asked: Hello"),
        ("Shop", "shop: Hello"),
        ("AsyncShop", "async shop: Hello"),
        ("Plain", "plain: Hello"),
        ("Chatter", "[] then Hello"),
    ],
)
async def test_what_can_answer(target: str, said: str):
    assert (await python_agent(target).run(a_request("Hello"))).text == said


async def test_nothing_is_silence():
    assert (await python_agent("nothing").run(a_request())).text == ""


async def test_usage_and_metadata_are_kept():
    assert (await python_agent("reply").run(a_request())).usage == {"tokens": 3}


async def test_what_a_generator_yields_is_shown_and_becomes_the_answer():
    shown: list[str] = []
    reply = await python_agent("dictates").run(a_request("Ann", show=shown.append))
    assert reply.text == "Hello, Ann"
    assert shown == ["Hello", "Hello, ", "Hello, Ann"]


async def test_a_thread_may_show_what_it_has():
    shown: list[str] = []
    reply = await python_agent("shows").run(a_request(show=shown.append))
    assert (reply.text, shown) == ("done", ["thinking"])


@pytest.mark.parametrize(("target", "says"), [("dictates_a_number", "yielded int"), ("breaks_off", "LookupError")])
async def test_a_generator_that_fails_has_no_answer(target: str, says: str):
    with pytest.raises(AgentError, match=says):
        await python_agent(target).run(a_request())


async def test_a_class_is_made_once():
    before = targets.Shop.opened
    agent = python_agent("Shop")
    for _ in range(3):
        await agent.run(a_request())
    assert targets.Shop.opened == before + 1


async def test_blocking_code_has_the_session_and_a_thread_of_its_own():
    token = set_session_context(SessionContext(user_id="ann"))
    try:
        said = (await python_agent("who").run(a_request())).text
    finally:
        clear_session_context(token)
    assert said == "ann in agent"
    assert threading.current_thread().name != "agent"


async def test_sixty_four_waiting_calls_wait_together(monkeypatch: pytest.MonkeyPatch):
    all_here = threading.Barrier(64, timeout=30)
    monkeypatch.setattr(targets, "together", lambda request: str(all_here.wait() >= 0), raising=False)
    agent = python_agent("together")
    assert {reply.text for reply in await asyncio.gather(*(agent.run(a_request()) for _ in range(64)))} == {"True"}


async def test_no_more_threads_than_allowed(monkeypatch: pytest.MonkeyPatch):
    running: list[int] = []

    def count(request: object) -> str:
        running.append(1)
        threading.Event().wait(0.01)
        return str(len([running.pop()]) + len(running))

    monkeypatch.setattr(targets, "count", count, raising=False)
    agent = python_agent("count", max_threads="2")
    replies = await asyncio.gather(*(agent.run(a_request()) for _ in range(12)))
    assert max(int(reply.text) for reply in replies) <= 2


# -- answers that are none ----


@pytest.mark.parametrize(
    ("target", "kind"), [("number", "int"), ("streams", "generator"), ("half_a_reply", r"AgentReply\(text=NoneType\)")]
)
async def test_a_wrong_answer_is_named_by_its_type(target: str, kind: str):
    with pytest.raises(AgentError, match=f"returned {kind};"):
        await python_agent(target).run(a_request())


@pytest.mark.parametrize("target", ["Mute", "empty"])
async def test_an_object_that_gives_no_reply_is_asked_again_later(target: str):
    with pytest.raises(TransientAgentError, match="no reply"):
        await python_agent(target).run(a_request())


async def test_an_object_whose_chat_is_no_text_is_told_so(monkeypatch: pytest.MonkeyPatch):
    class Sneaky:
        def chat(self, text: str) -> object:
            return targets.Plain().achat(text)

    monkeypatch.setattr(targets, "sneaky", Sneaky(), raising=False)
    with pytest.raises(AgentError, match="returned coroutine;"):
        await python_agent("sneaky").run(a_request())


# -- failures ----


async def test_what_it_raises_comes_out_with_its_cause():
    with pytest.raises(AgentError, match="LookupError: order 17") as caught:
        await python_agent("raises").run(a_request("order 17"))
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("target", ["exits", "exits_async"])
async def test_an_agent_cannot_end_the_process(target: str):
    with pytest.raises(AgentError, match="SystemExit: enough"):
        await python_agent(target).run(a_request())


async def test_an_agent_cannot_hang_its_turn_with_stop_iteration():
    with pytest.raises(AgentError, match="StopIteration"):
        await asyncio.wait_for(python_agent("stops").run(a_request()), timeout=5)


async def test_errors_of_ours_that_are_no_agents_errors_are_made_one():
    with pytest.raises(AgentError, match="no model is named"):
        await python_agent("misconfigured").run(a_request())


async def test_an_agent_may_say_that_it_cannot_run():
    with pytest.raises(AgentUnavailable, match="no key"):
        await python_agent("unavailable").run(a_request())


async def test_a_cancelled_run_ends_at_once_though_its_thread_does_not(monkeypatch: pytest.MonkeyPatch):
    started, let_go = threading.Event(), threading.Event()

    def hang(request: object) -> str:
        started.set()
        let_go.wait(30)
        return "too late"

    monkeypatch.setattr(targets, "hang", hang, raising=False)
    run = asyncio.create_task(python_agent("hang").run(a_request()))
    await asyncio.to_thread(started.wait)
    run.cancel()
    await asyncio.wait({run}, timeout=5)
    assert run.cancelled()
    let_go.set()


# -- settings ----


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("", "target: missing; write what answers as package.module:attribute"),
        ("shout", "not of the form package.module:attribute"),
        ("a:b:c", "not of the form"),
        (".relative:answer", "not of the form"),
        ("os; rm:x", "not of the form"),
        (":x", "not of the form"),
        ("tests.agents.targets:", "not of the form"),
        ("no_such_module:answer", "there is no module no_such_module; put it beside manage.py"),
        ("tests.agents.nowhere:answer", "there is no module tests.agents.nowhere"),
        ("tests.agents.targets:shoot", "tests.agents.targets has no shoot. Did you mean shout?"),
        ("tests.agents.targets:shop.missing", "has no shop.missing"),
        ("tests.agents.targets:NUMBER", "is a int: neither callable nor an object with chat or achat"),
        ("tests.agents.targets:takes_nothing", "must take one argument, the request"),
        ("tests.agents.targets:takes_two", "must take one argument, the request"),
        ("tests.agents.targets:NeedsArguments", "a class that cannot be made without arguments"),
    ],
)
def test_a_bad_target_is_explained(target: str, problem: str):
    from botsrt.agents.python import Agent
    from tests.agents.world import a_config

    with pytest.raises(ConfigurationError) as caught:
        Agent(a_config(target=target))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_library", "needs the module no_such_library, which is not installed"),
        ("1 / 0", "importing broken_agent failed: ZeroDivisionError"),
        ("def answer(:", "importing broken_agent failed: SyntaxError"),
        ("import sys; sys.exit(2)", "importing broken_agent failed: SystemExit"),
    ],
)
def test_a_module_that_breaks_keeps_its_cause(
    source: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "broken_agent.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(ConfigurationError) as caught:
            python_agent("broken_agent:answer")
    finally:
        sys.modules.pop("broken_agent", None)
    assert problem in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", "1001", "9" * 5_000, "²"])
def test_a_number_of_threads_that_is_none_is_refused(number: str):
    with pytest.raises(ConfigurationError, match="max_threads"):
        python_agent("shout", max_threads=number)
