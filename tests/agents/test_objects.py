"""Foreign objects: histories go in and out, one conversation at a time, and never into another's."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from botsrt.agents import objects
from botsrt.agents.threads import Gate
from tests.agents.targets import Chatter, Plain
from tests.agents.world import a_request

GATE = Gate(64)


class AsyncChatter:
    """Waits in the middle of a call, as for a model."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = [{"role": "system", "content": "its own"}]
        self.let_go = asyncio.Event()
        self.started = asyncio.Event()

    async def achat(self, text: str) -> str:
        self.chat_history.append({"role": "user", "content": text})
        self.started.set()
        await self.let_go.wait()
        return " ".join(message["content"] for message in self.chat_history)

    def chat(self, text: str) -> str:
        raise AssertionError("achat is there")


class SlowChatter:
    """Blocks in the middle of a call, and writes late."""

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []
        self.let_go = threading.Event()
        self.started = threading.Event()

    def chat(self, text: str) -> str:
        self.started.set()
        assert self.let_go.wait(30)
        self.chat_history.append({"role": "user", "content": text})
        return " ".join(message["content"] for message in self.chat_history)


@dataclass
class Unhashable:
    """Compared by its contents, so it cannot be a key."""

    chat_history: list[dict[str, str]] = field(default_factory=list)

    def chat(self, text: str) -> str:
        return f"{len(self.chat_history)} then {text}"


@dataclass(unsafe_hash=True)
class ChangingHash:
    calls: int = 0

    def chat(self, text: str) -> str:
        return text


class Slotted:
    """Takes neither attributes nor weak references."""

    __slots__ = ("chat_history",)

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []

    def chat(self, text: str) -> str:
        return f"{len(self.chat_history)} then {text}"


async def ask(target: Any, text: str = "hello", earlier: tuple[str, ...] = ()) -> Any:
    return await objects.ask(target, a_request(text, earlier=earlier), gate=GATE)


async def test_the_conversation_is_put_in():
    assert await ask(Chatter(), "three", earlier=("one", "two")) == "['one', 'two'] then three"


async def test_roles_are_words_that_models_know():
    class Recorder(Chatter):
        def chat(self, text: str) -> str:
            return str(self.chat_history)

    assert await ask(Recorder(), earlier=("one", "two")) == str(
        [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    )


async def test_what_was_there_before_comes_back():
    chatter = Chatter()
    before = chatter.chat_history
    await ask(chatter, earlier=("one",))
    assert chatter.chat_history is before
    assert before == []


async def test_it_comes_back_after_a_failure_too():
    class Broken(Chatter):
        def chat(self, text: str) -> str:
            raise LookupError(text)

    broken = Broken()
    before = broken.chat_history
    with pytest.raises(Exception, match="LookupError"):
        await ask(broken)
    assert broken.chat_history is before


async def test_an_object_without_history_serves_many_at_once():
    both = threading.Barrier(2, timeout=30)

    class Stateless:
        def chat(self, text: str) -> str:
            both.wait()
            return text

    target = Stateless()
    one, two = await asyncio.gather(ask(target, "one"), ask(target, "two"))
    assert (one, two) == ("one", "two")


async def test_achat_is_preferred_and_waits_without_a_thread():
    assert await ask(Plain(), "hi") == "plain: hi"


async def test_two_conversations_never_meet_in_one_object():
    chatter = AsyncChatter()
    ann = asyncio.create_task(ask(chatter, "ann's", earlier=("for ann",)))
    await chatter.started.wait()
    bob = asyncio.create_task(ask(chatter, "bob's", earlier=("for bob",)))
    await asyncio.sleep(0.01)
    chatter.let_go.set()
    assert (await ann, await bob) == ("for ann ann's", "for bob bob's")
    assert chatter.chat_history == [{"role": "system", "content": "its own"}]


async def test_twenty_conversations_never_meet_in_a_blocking_object():
    chatter = Chatter()
    answers = await asyncio.gather(*(ask(chatter, f"q{n}", earlier=(f"h{n}",)) for n in range(20)))
    assert answers == [f"['h{n}'] then q{n}" for n in range(20)]


async def test_a_cancelled_achat_gives_the_object_free_with_its_own_history():
    chatter = AsyncChatter()
    ann = asyncio.create_task(ask(chatter, "ann's"))
    await chatter.started.wait()
    ann.cancel()
    await asyncio.wait({ann})
    assert chatter.chat_history == [{"role": "system", "content": "its own"}]
    chatter.let_go.set()
    assert await ask(chatter, "bob's", earlier=("for bob",)) == "for bob bob's"


async def test_late_writes_of_a_cancelled_call_reach_nobody_else():
    chatter = SlowChatter()
    before = chatter.chat_history
    ann = asyncio.create_task(ask(chatter, "ann's", earlier=("for ann",)))
    await asyncio.to_thread(chatter.started.wait)
    ann.cancel()
    await asyncio.wait({ann})
    assert ann.cancelled()
    bob = asyncio.create_task(ask(chatter, "bob's", earlier=("for bob",)))
    await asyncio.sleep(0.05)
    assert [message["content"] for message in chatter.chat_history] == ["for ann"], "bob waits for ann's thread"
    chatter.let_go.set()
    assert await bob == "for bob bob's"
    assert chatter.chat_history is before
    assert before == []


async def test_who_is_cancelled_while_waiting_never_asks():
    chatter = SlowChatter()
    ann = asyncio.create_task(ask(chatter, "ann's"))
    await asyncio.to_thread(chatter.started.wait)
    bob = asyncio.create_task(ask(chatter, "bob's"))
    await asyncio.sleep(0.01)
    bob.cancel()
    await asyncio.wait({bob})
    chatter.started.clear()
    chatter.let_go.set()
    await ann
    await asyncio.sleep(0.05)
    assert not chatter.started.is_set()


@pytest.mark.parametrize("kind", [Unhashable, Slotted, ChangingHash])
async def test_objects_that_cannot_be_weak_keys_have_one_lock_too(kind: type):
    target = kind()
    lock = objects.lock_of(target)
    if isinstance(target, ChangingHash):
        target.calls += 1
    assert objects.lock_of(target) is lock
    assert objects.lock_of(kind()) is not lock


@pytest.mark.parametrize("kind", [Unhashable, Slotted])
async def test_they_get_their_history_too(kind: type):
    assert await ask(kind(), "hello", earlier=("a", "b")) == "2 then hello"


async def test_a_lock_goes_with_its_object():
    chatter = Chatter()
    await ask(chatter)
    lock, gone = weakref.ref(objects.lock_of(chatter)), weakref.ref(chatter)
    del chatter
    gc.collect()
    assert gone() is None
    assert lock() is None


# -- copies ----


class Copyable:
    """Says how it is copied; each call waits for others to run beside it."""

    together: ClassVar[threading.Barrier]

    def __init__(self) -> None:
        self.chat_history: list[dict[str, str]] = []
        self.notes: list[str] = []
        self.lock = threading.Lock()  # which nothing can copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Copyable:
        return type(self)()

    def chat(self, text: str) -> str:
        self.chat_history.append({"role": "user", "content": text})
        self.notes.append(text)
        self.together.wait()
        return f"{self.notes} {[message['content'] for message in self.chat_history]}"


class AsyncCopyable(Copyable):
    started: ClassVar[int] = 0
    all_started: ClassVar[asyncio.Event]

    async def achat(self, text: str) -> str:
        self.chat_history.append({"role": "user", "content": text})
        self.notes.append(text)
        AsyncCopyable.started += 1
        if AsyncCopyable.started == 50:
            self.all_started.set()
        await self.all_started.wait()
        return f"{self.notes} {[message['content'] for message in self.chat_history]}"


@pytest.mark.parametrize("kind", [Copyable, AsyncCopyable])
async def test_fifty_people_at_once_never_meet_in_an_object_that_can_be_copied(kind: type[Copyable]):
    Copyable.together = threading.Barrier(50, timeout=30)
    AsyncCopyable.started, AsyncCopyable.all_started = 0, asyncio.Event()
    target = kind()
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ask(target, f"q{n}", earlier=(f"h{n}",)) for n in range(50)))
    assert answers == [f"['q{n}'] ['h{n}', 'q{n}']" for n in range(50)]
    assert (target.chat_history, target.notes) == ([], []), "nobody asked the object itself"


async def test_what_cannot_be_copied_all_the_same_is_locked():
    tries = []

    class Stubborn(Chatter):
        def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
            tries.append(1)
            raise TypeError("cannot pickle")

    stubborn = Stubborn()
    answers = await asyncio.gather(*(ask(stubborn, f"q{n}", earlier=(f"h{n}",)) for n in range(20)))
    assert answers == [f"['h{n}'] then q{n}" for n in range(20)]
    assert len(tries) == 1


async def test_an_object_that_copies_itself_as_itself_is_locked():
    class Alone(Chatter):
        def __copy__(self) -> Alone:
            return self

    alone = Alone()
    answers = await asyncio.gather(*(ask(alone, f"q{n}", earlier=(f"h{n}",)) for n in range(20)))
    assert answers == [f"['h{n}'] then q{n}" for n in range(20)]
