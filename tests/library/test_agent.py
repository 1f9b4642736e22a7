"""``Agent``: a conversation that is stored, in any number of processes."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt import Agent
from botsrt.agents import library, python
from botsrt.api import loop
from botsrt.api.agent import described, dotted_name, slug
from botsrt.core.errors import AgentError, AgentUnavailable, ConfigurationError, InvalidInput
from botsrt.core.ports import AgentConfig
from botsrt.models import AgentProfile, AuditEvent, BotSession, HistoryMessage, JournalEntry
from botsrt.services import inline, ledger
from tests.agents.world import a_request
from tests.fakes.openai import OpenAIServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _model(openai: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-only-for-tests")


def an_agent(file: Path, session_id: str = "one", **options: Any) -> Agent:
    return Agent(name="Helper", memory={"db": file, "session_id": session_id}, **options)


def stored(agent: Agent, read: Any) -> Any:
    return loop.run(agent._inline.database.call(read))


def prompts(request: dict[str, Any]) -> list[str]:
    return [message["content"] for message in request["messages"] if message["role"] != "system"]


async def test_the_same_session_goes_on(file: Path, openai: OpenAIServer) -> None:
    first = an_agent(file, instructions="Be brief.")
    assert await first.achat("one") == "one"
    assert await an_agent(file).achat("two") == "two"
    assert await an_agent(file, "other").achat("three") == "three"
    assert prompts(openai.requests[1]) == ["one", "one", "two"]
    assert prompts(openai.requests[2]) == ["three"]
    assert openai.requests[0]["messages"][0]["content"].startswith("Be brief.")


async def test_it_also_blocks_for_code_that_is_not_asynchronous(file: Path) -> None:
    agent = an_agent(file)
    assert await asyncio.to_thread(agent.start, "one") == "one"
    assert await asyncio.to_thread(agent.chat, "two") == "two"


async def test_everything_is_journaled_and_adds_up(file: Path) -> None:
    agent = an_agent(file)
    await agent.achat("one")

    def look() -> tuple[str, bool, str]:
        from datetime import timedelta

        from django.utils import timezone

        entry = JournalEntry.objects.get()
        balance = ledger.check(since=None, lease=timedelta(seconds=30), now=timezone.now())
        return entry.outcome, balance.is_balanced, AgentProfile.objects.get(name="library.helper").kind

    assert stored(agent, look) == ("answered", True, "llm")


async def test_calls_at_once_are_answered_one_after_the_other(file: Path, openai: OpenAIServer) -> None:
    agents = [an_agent(file) for _ in range(4)]
    await asyncio.gather(*(agent.achat(f"{number}") for number in range(5) for agent in agents))
    lengths = sorted(len(prompts(request)) for request in openai.requests)
    assert lengths == list(range(1, 40, 2))
    roles = stored(agents[0], lambda: list(HistoryMessage.objects.order_by("id").values_list("role", flat=True)))
    assert roles == ["user", "assistant"] * 20


async def test_threads_may_call_it(file: Path) -> None:
    agent = an_agent(file)

    def talk() -> list[str]:
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(agent.start, map(str, range(16))))

    assert await asyncio.to_thread(talk) == [str(number) for number in range(16)]


async def test_a_failure_is_told_and_is_no_part_of_the_conversation(file: Path, openai: OpenAIServer) -> None:
    agent = an_agent(file)
    openai.fail(500)
    with pytest.raises(AgentError):
        await agent.achat("lost")
    assert await agent.achat("found") == "found"
    assert prompts(openai.requests[1]) == ["found"]


async def test_without_a_key_it_says_which(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AgentUnavailable, match="OPENAI_API_KEY is not set"):
        await an_agent(file).achat("hello")


async def test_a_session_id_is_made_where_none_is_given(file: Path) -> None:
    one, two = (Agent(name="Support Bot", memory={"db": file}) for _ in range(2))
    assert one.session_id.startswith("support-bot-")
    assert one.session_id != two.session_id
    await one.achat("hello")
    assert stored(one, lambda: BotSession.objects.get().session_id) == one.session_id


async def test_without_a_database_it_is_the_projects(openai: OpenAIServer) -> None:
    agent = Agent(name="Helper", memory={"session_id": "here"})
    await agent.achat("hello")
    session = await sync_to_async(BotSession.objects.get)()
    assert (session.session_id, session.platform, session.account) == ("here", "library", "helper")


async def test_another_kind_answers_too(file: Path) -> None:
    assert await an_agent(file, kind="echo", settings={"prefix": "> "}).achat("hello") == "> hello"


async def test_tools_are_called(file: Path, openai: OpenAIServer) -> None:
    threads = []

    def price_of(bread: str) -> str:
        """What a bread costs."""
        threads.append(threading.current_thread().name)
        return f"{bread}: 3"

    openai.call("price_of", bread="rye")
    openai.say("Three.")
    assert await an_agent(file, tools=[price_of]).achat("how much?") == "Three."
    assert openai.requests[1]["messages"][-1]["content"] == "rye: 3"


async def test_an_asynchronous_tool_cannot_wait_for_itself(file: Path, openai: OpenAIServer) -> None:
    other = an_agent(file, "other")
    seen: list[Exception] = []

    async def ask() -> str:
        """Ask somebody else."""
        try:
            return other.start("well?")
        except ConfigurationError as error:
            seen.append(error)
            return await other.achat("well?")

    openai.call("ask")
    openai.say("of another")
    openai.say("of this")
    assert await an_agent(file, tools=[ask]).achat("go") == "of this"
    assert "achat" in str(seen[0])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"memory": {"database": "x"}}, "memory: database"),
        ({"kind": "echo", "tools": [print]}, "tools: agents of kind echo"),
        ({"kind": "wizard"}, "wizard"),
        ({"memory": {"db": "http://x"}}, "not the URL of a database|only SQLite"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises((InvalidInput, ConfigurationError), match=complaint):
        Agent(name="x", **options)


async def test_a_session_id_that_is_too_long_is_refused(file: Path) -> None:
    with pytest.raises(InvalidInput, match="session_id"):
        await an_agent(file, "x" * 201).achat("hello")


async def test_what_it_keeps_is_stored_and_restored_only_where_that_is_wanted(file: Path, openai: OpenAIServer) -> None:
    async def asked(*, mirror: bool) -> Any:
        memory = {"db": file, "session_id": "one", "mirror_runtime_state": mirror}
        agent = Agent(name="Helper", memory=memory, tools=[module_tool])
        openai.call("module_tool")
        openai.say("Three.")
        await agent.achat("how much?")
        return stored(agent, lambda: BotSession.objects.get().runtime_state)

    assert await asked(mirror=False) == {}
    (turn_id,) = (await asked(mirror=True))["llm"]
    kept = (await asked(mirror=True))["llm"]
    assert list(kept) == sorted(kept)
    assert (turn_id in kept, len(kept)) == (True, 2)
    assert {call["name"] for state in kept.values() for call in state["tool_calls"]} == {"module_tool"}


# -- profiles ----


def module_tool() -> str:
    """At the top of a module: any process can find it."""
    return "found"


def test_a_profile_holds_what_any_process_can_find() -> None:
    profile = Agent(name="Helper", instructions="Help.", tools=[module_tool]).profile()
    assert (profile.name, profile.kind, profile.instructions) == ("library.helper", "llm", "Help.")
    assert profile.settings["tools"] == "tests.library.test_agent:module_tool"
    assert Agent(name="Helper", tools=[lambda: "here"]).profile().kind == "library"
    assert described(module_tool).kind == "library"
    assert dotted_name(lambda: 0) == ""


def test_names_become_accounts() -> None:
    assert [slug(name) for name in ("Support Bot", "  Ünïcode! ", "…")] == ["support-bot", "n-code", "agent"]


async def test_an_agent_of_another_program_waits() -> None:
    made = library.Agent(AgentConfig(name="library.elsewhere", kind="library"))
    assert "made by a program" in made.obstacle()
    with pytest.raises(AgentUnavailable):
        await made.run(a_request("hello"))


async def test_as_a_target_it_keeps_conversations_apart(openai: OpenAIServer) -> None:
    made = python.Agent(AgentConfig(name="x", kind="python", settings={"target": "tests.library.test_agent:TARGET"}))
    assert (await made.run(a_request("one"))).text == "one"
    assert (await made.run(a_request("two"))).text == "two"
    assert prompts(openai.requests[1]) == ["two"]
    await made.close()


TARGET = Agent(name="target", memory={"db": "/nowhere/at/all.db", "session_id": "of nobody"})


async def test_another_session_is_no_change_of_the_agent(file: Path) -> None:
    for session_id in ("one", "two"):
        agent = an_agent(file, session_id, tools=[lambda: "only here"])
        await agent.achat("hello")
    profile = stored(agent, lambda: AgentProfile.objects.get(name="library.helper"))
    assert (profile.kind, profile.version) == ("library", 1)


async def test_what_an_agent_holds_open_is_closed_when_it_is_gone(file: Path) -> None:
    agent = an_agent(file)
    await agent.achat("hello")
    client = agent._agent._client  # type: ignore[union-attr]
    assert not client.is_closed()
    del agent
    async with asyncio.timeout(10):
        while not client.is_closed():
            gc.collect()
            await asyncio.sleep(0.01)


async def test_a_changed_agent_changes_its_profile_once(file: Path) -> None:
    for instructions in ("a", "a", "b"):
        agent = an_agent(file, instructions=instructions)
        await agent.achat("hello")
    read = stored(agent, lambda: AgentProfile.objects.get(name="library.helper"))
    assert (read.instructions, read.version) == ("b", 2)
    assert stored(agent, lambda: AuditEvent.objects.filter(object_kind="agent").count()) == 2
    profile = stored(agent, lambda: inline.library_profile(session_id="one"))
    assert (profile.name, profile.version) == ("library.helper", 2)
