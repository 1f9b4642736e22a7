"""What every adapter must do, as tests that each platform's test file subclasses.

How to use it for a new platform: write a fake server in ``tests/fakes/``, describe it as a ``World``, and subclass
``AdapterContract`` (the adapter reads in ``run``) or ``WebhookContract`` (the platform calls us) with a fixture
``world``; add ``ReconcileContract`` where the platform can be asked about a message, ``ButtonsContract`` where messages
have buttons, and ``EditContract`` where the bot can change its own messages. Recorded events lie as JSON files in
``tests/adapters/payloads/<platform>/``: ``ignored_*.json`` are none of our business, ``unreadable_*.json`` should be
messages but are broken, all others are messages.

Nothing here sleeps to wait: events, or ``until`` with a deadline.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botsrt.core.chunking import length
from botsrt.core.errors import (
    ConfigurationError,
    CredentialError,
    ForgedRequest,
    MessageGone,
    MessageRefused,
    OutcomeUnknown,
    PlatformUnavailable,
    RateLimited,
    StorageUnavailable,
    TargetGone,
    UnreadableUpdate,
)
from botsrt.core.messages import Answer, Button, DeliveryReport, InboundMessage, OutboundMessage, Route
from botsrt.core.ports import Adapter, BotConfig, WebhookRequest
from botsrt.core.states import ChatType, EventKind

PAYLOADS = Path(__file__).parent / "payloads"

#: How long a test waits for something that should happen at once, in seconds.
PATIENCE_SECONDS = 15.0

#: The wait that the fake platform asks for when it limits the rate, in seconds.
RETRY_AFTER_SECONDS = 7


async def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return as soon as ``condition()`` holds; fail when it does not within ``seconds``."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"Not within {seconds:.0f} s: {what}.")
        await asyncio.sleep(0.005)


# -- the runtime's side ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """One update that the adapter could not read and handed to the sink."""

    event_id: str
    raw: Mapping[str, Any]
    error: UnreadableUpdate


@dataclass
class RecordingSink:
    """A sink in memory with the journal's key. It can refuse and it can dawdle."""

    messages: list[InboundMessage] = field(default_factory=list)  # new events, in the order of their commits
    deliveries: list[InboundMessage] = field(default_factory=list)  # every successful call, duplicates included
    unreadable: list[Unreadable] = field(default_factory=list)
    migrations: list[tuple[str, str]] = field(default_factory=list)
    reports: list[DeliveryReport] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)  # what became of every message
    waits: list[timedelta] = field(default_factory=list)  # how long each caller would have waited for it
    refusals: int = 0  # how many more calls end in StorageUnavailable
    refused: int = 0  # how many did
    held: int = 0  # how many calls wait for ``gate`` now
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def receive(self, message: InboundMessage) -> bool:
        await self._pass()
        known = {_key(other) for other in self.messages}
        self.deliveries.append(message)
        if _key(message) in known:
            return False
        self.messages.append(message)
        return True

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: UnreadableUpdate) -> None:
        await self._pass()
        self.unreadable.append(Unreadable(event_id=event_id, raw=raw, error=error))

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        await self._pass()
        self.migrations.append((old_channel_id, new_channel_id))

    async def newest(self, *, limit: int) -> Sequence[InboundMessage]:
        return self.messages[::-1][:limit]

    async def reported(self, reports: Sequence[DeliveryReport]) -> None:
        await self._pass()
        self.reports += reports

    async def answer_to(self, message: InboundMessage, *, within: timedelta) -> Answer:
        self.waits.append(within)
        return self.answer

    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    async def _pass(self) -> None:
        if self.refusals:
            self.refusals -= 1
            self.refused += 1
            raise StorageUnavailable
        self.held += 1
        try:
            await self.gate.wait()
        finally:
            self.held -= 1


def _is_of_platform(task: asyncio.Task[Any]) -> bool:
    """A task of a fake, or of a connection to its server; these may outlive an adapter."""
    path = Path(task.get_coro().cr_code.co_filename)  # type: ignore[union-attr]  # tasks are made of coroutines
    return path.parent.name == "fakes" or path.name == "web_protocol.py"


def _key(message: InboundMessage) -> tuple[str, str, str]:
    return (message.channel_id, message.message_id, message.revision)


class WebhookReceiver:
    """The part of the site that takes webhooks, with its error table: one URL, one adapter."""

    def __init__(self) -> None:
        self.adapter: Adapter | None = None  # None: nobody is there yet, 503
        self.statuses: list[int] = []  # what was answered, in order
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[WebhookReceiver]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        response = await self._answer(request)
        self.statuses.append(response.status)
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        if self.adapter is None:
            return web.Response(status=503)
        raw = WebhookRequest(
            method=request.method,
            headers={name.lower(): value for name, value in request.headers.items()},
            query=request.query_string,
            body=await request.read(),
        )
        try:
            answer = await self.adapter.webhook(raw)
        except ForgedRequest:
            return web.Response(status=403)
        except UnreadableUpdate:
            return web.Response(status=400)
        except StorageUnavailable:
            return web.Response(status=503)
        return web.Response(
            status=answer.status, body=answer.body.encode(), headers={"Content-Type": answer.content_type}
        )


# -- the platform's side ----


class SendFault(StrEnum):
    """What may go wrong in one call of ``send``."""

    RATE_LIMITED = "rate_limited"  # with RETRY_AFTER_SECONDS
    TARGET_GONE = "target_gone"  # the person blocked the bot
    REFUSED = "refused"  # the platform will never take this message
    PLATFORM_FAILED = "platform_failed"  # 5xx with the platform's own error body
    UNREACHABLE = "unreachable"  # nobody listens
    CUT_AFTER = "cut_after"  # the platform took the message, and the connection broke before it said so
    NO_ANSWER = "no_answer"  # the platform took the message and never answers
    CREDENTIALS = "credentials"  # the token was withdrawn


ERROR_OF_FAULT: dict[SendFault, type[Exception]] = {
    SendFault.RATE_LIMITED: RateLimited,
    SendFault.TARGET_GONE: TargetGone,
    SendFault.REFUSED: MessageRefused,
    SendFault.PLATFORM_FAILED: PlatformUnavailable,
    SendFault.UNREACHABLE: PlatformUnavailable,
    SendFault.CUT_AFTER: OutcomeUnknown,
    SendFault.NO_ANSWER: OutcomeUnknown,
    SendFault.CREDENTIALS: CredentialError,
}

#: After these the message stands at the platform although the call failed.
TAKEN_FAULTS = {SendFault.CUT_AFTER, SendFault.NO_ANSWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a person wrote at the fake platform, and how it must arrive."""

    channel_id: str
    message_id: str
    user_id: str
    text: str
    event: Any = None  # what the world needs to edit it, or to deliver it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message of the bot as it stands at the fake platform."""

    channel_id: str
    message_id: str
    text: str
    thread_id: str = ""
    reply_to: str = ""
    buttons: tuple[Button, ...] = ()


class World(ABC):
    """One platform on loopback with one bot, one person in a direct chat, and one group with a thread.

    Its adapters have short timeouts where ``SendFault.NO_ANSWER`` would otherwise make a test wait.
    """

    adapter_class: type[Adapter]
    config: BotConfig  # works against this platform
    wrong_credentials: Mapping[str, str]  # well formed, and refused by the platform
    identity: str  # what ``probe`` answers
    direct: Route  # the person's chat
    threaded: Route  # a thread of the group; the direct chat where the platform has no groups
    replying: Route  # the direct chat, with ``reply_to`` a message that the person wrote
    receiver: WebhookReceiver | None = None  # set where the platform calls us

    def adapter(self, sink: RecordingSink, **changes: Any) -> Adapter:
        """A new adapter of this world's bot; ``changes`` replace fields of its configuration."""
        return self.adapter_class(replace(self.config, **changes), sink)

    @abstractmethod
    async def say(self, text: str) -> Said:
        """The person writes to the bot in the direct chat. Returns at once, not when it is delivered."""

    @abstractmethod
    async def edit(self, said: Said, text: str) -> None:
        """The person changes what they wrote."""

    @abstractmethod
    async def deliver_again(self, said: Said) -> None:
        """The platform delivers the same event a second time."""

    async def press(self, sent: Sent, data: str) -> Said:
        """Somebody presses a button of the bot's message: the person of the direct chat, or in the group another one.

        Needed for ``ButtonsContract`` alone; the answer's ``text`` is the button's data.
        """
        raise NotImplementedError

    @abstractmethod
    async def do_something_else(self) -> None:
        """An event that is none of our business: a reaction, a join, …"""

    @abstractmethod
    def is_acknowledged(self, said: Said) -> bool:
        """Whether the platform regards the event as delivered and will not deliver it again."""

    @abstractmethod
    async def break_next_send(self, fault: SendFault) -> None:
        """Order a fault. UNREACHABLE and CREDENTIALS may last; the others hit one call."""

    async def break_next_edit(self, fault: SendFault) -> None:
        """As ``break_next_send``, for a call of ``edit``. Needed for ``EditContract`` alone, like ``remove``."""
        raise NotImplementedError

    async def remove(self, sent: Sent) -> None:
        """Somebody removes a message of the bot."""
        raise NotImplementedError

    @abstractmethod
    def sent(self) -> list[Sent]:
        """The bot's messages at the platform, oldest first."""

    @abstractmethod
    async def lose_network(self) -> None:
        """From now on nobody can be reached, and open connections are dead."""

    @abstractmethod
    async def restore_network(self) -> None:
        """The platform can be reached again, at the same address."""


@asynccontextmanager
async def running(world: World, sink: RecordingSink, **changes: Any) -> AsyncIterator[Adapter]:
    """A started adapter that receives. Fails if ``run`` ended by itself."""
    adapter = world.adapter(sink, **changes)
    await adapter.start()
    run = asyncio.create_task(adapter.run())
    if world.receiver is not None:
        world.receiver.adapter = adapter
    try:
        yield adapter
        assert not run.done(), f"run() ended by itself: {run!r}"
    finally:
        run.cancel()
        await asyncio.wait([run])
        await adapter.close()


@asynccontextmanager
async def supervised(world: World, sink: RecordingSink) -> AsyncIterator[None]:
    """An adapter that is started again, as a new object, whenever it fails: what the runtime's supervisor does."""

    async def supervise() -> None:
        while True:
            adapter = world.adapter(sink)
            try:
                await adapter.start()
                if world.receiver is not None:
                    world.receiver.adapter = adapter
                await adapter.run()
            except Exception:
                logging.getLogger(__name__).debug("restarting", exc_info=True)
            finally:
                await adapter.close()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(supervise())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def outbound(
    route: Route,
    text: str = "All good.",
    *,
    account: str = "shop",
    number: int = 1,
    buttons: tuple[Button, ...] = (),
    edits: str = "",
) -> OutboundMessage:
    return OutboundMessage(
        outbox_id=number,
        idempotency_key=f"entry-{number}:1",
        account=account,
        route=route,
        text=text,
        attempt=1,
        edits=edits,
        buttons=buttons,
    )


# -- recorded and damaged events ----


@cache
def recorded(platform: str) -> dict[str, Mapping[str, Any]]:
    """The recorded events of a platform by file name."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted((PAYLOADS / platform).glob("*.json"))}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _keys(value: Any) -> set[str]:
    return {step for path in _paths(value) for step in path if isinstance(step, str)}


_REMOVED = object()


def damaged(payload: Mapping[str, Any], damages: Sequence[tuple[int, Any]]) -> Any:
    """A copy of ``payload`` with values replaced or removed; each damage is a place (any number) and a value."""
    changed = copy.deepcopy(dict(payload))
    for place, value in damages:
        paths = list(_paths(changed))
        if not paths:
            break
        *parents, last = paths[place % len(paths)]
        target: Any = changed
        for step in parents:
            target = target[step]
        if value is _REMOVED:
            del target[last]
        else:
            target[last] = value
    return changed


_any_text = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates and NUL included
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _any_text
    | st.sampled_from([0, -1, 2**31, 2**53, 2**63, 2**64, 10**30, "", "0", "x" * 100_000, "\x00", "1e400"])
)


def _json(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(sorted(keys)) | _any_text if keys else _any_text
    return st.recursive(
        _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6), max_leaves=25
    )


def _nested(depth: int) -> Any:
    value: Any = {}
    for level in range(depth):
        value = {"message": value, "text": "x"} if level % 2 else [value]
    return value


_fuzz = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors, HealthCheck.data_too_large],
)


def check_message(message: InboundMessage, config: BotConfig) -> None:
    """What holds for every message an adapter makes."""
    assert (message.platform, message.account) == (config.platform, config.account)
    assert message.channel_id
    assert message.message_id
    assert message.sender.user_id
    assert message.sent_at is None or message.sent_at.utcoffset() == timedelta(0)
    assert message.chat_type is ChatType.GROUP or message.is_mentioned, "Whoever writes directly means the bot."
    assert (message.kind is EventKind.EDIT) == bool(message.revision)
    stored = json.loads(json.dumps(message.to_payload(), allow_nan=False).encode())
    assert InboundMessage.from_payload(stored) == replace(message, raw={})


class DeliveryContract:
    """What holds for every adapter, however events reach it. Subclass one of the two classes below instead."""

    #: A configuration that needs no server, for ``parse``.
    offline_config: ClassVar[BotConfig]
    offline_class: ClassVar[type[Adapter]]

    @pytest.fixture
    def world(self) -> Any:
        raise NotImplementedError("Override the fixture with this platform's World.")

    @pytest.fixture
    def sink(self) -> RecordingSink:
        return RecordingSink()

    def parser(self) -> Adapter:
        """An adapter that was never started; its identity may be unknown."""
        return self.offline_class(self.offline_config, RecordingSink())

    # configuration

    def test_a_missing_credential_is_named(self) -> None:
        for option in self.offline_class.credentials:
            if not option.is_required:
                continue
            rest = {name: value for name, value in self.offline_config.credentials.items() if name != option.name}
            with pytest.raises(ConfigurationError, match=option.name):
                self.offline_class(replace(self.offline_config, credentials=rest), RecordingSink())

    def test_an_unknown_choice_is_refused(self) -> None:
        for option in self.offline_class.settings:
            if not option.choices:
                continue
            wrong = {**self.offline_config.settings, option.name: "no-such-choice"}
            with pytest.raises(ConfigurationError, match=option.name):
                self.offline_class(replace(self.offline_config, settings=wrong), RecordingSink())

    async def test_probe_tells_who_the_bot_is(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        probe = await adapter.probe()
        await adapter.close()
        assert probe.identity == world.identity

    async def test_refused_credentials_stop_probe_and_start(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink, credentials={**world.config.credentials, **world.wrong_credentials})
        with pytest.raises(CredentialError) as probed:
            await adapter.probe()
        with pytest.raises(CredentialError) as started:
            await adapter.start()
        await adapter.close()
        for secret in world.wrong_credentials.values():
            assert secret not in f"{probed.value}{started.value}"

    # inbound

    async def test_a_message_arrives_normalised(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink):
            said = await world.say("Where is my parcel? 📦")
            await until(lambda: bool(sink.messages), "the message arrives")
        message = sink.messages[0]
        check_message(message, world.config)
        assert message.channel_id == said.channel_id
        assert message.message_id == said.message_id
        assert message.sender.user_id == said.user_id
        assert message.text == said.text
        assert message.revision == ""
        assert message.kind is EventKind.MESSAGE
        assert message.chat_type is ChatType.DIRECT
        assert message.is_mentioned
        assert message.sent_at is not None
        assert abs(message.sent_at - datetime.now(UTC)) < timedelta(minutes=5)

    async def test_messages_of_one_chat_keep_their_order(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink):
            for number in range(30):
                await world.say(f"message {number}")
            await until(lambda: len(sink.messages) == 30, "all messages arrive")
        assert sink.texts() == [f"message {number}" for number in range(30)]

    async def test_it_acknowledges_only_what_is_stored(self, world: World, sink: RecordingSink) -> None:
        sink.gate.clear()
        async with running(world, sink):
            said = await world.say("hello")
            await until(lambda: sink.held == 1, "the message reaches the sink")
            assert not world.is_acknowledged(said)
            sink.gate.set()
            await until(lambda: world.is_acknowledged(said), "it is acknowledged")
        assert sink.texts() == ["hello"]

    async def test_a_message_that_was_not_stored_is_delivered_again(self, world: World, sink: RecordingSink) -> None:
        sink.refusals = 1
        async with running(world, sink):
            said = await world.say("hello")
            await until(lambda: sink.refused == 1, "the sink refuses")
            await until(lambda: sink.texts() == ["hello"], "the message comes again")
            await until(lambda: world.is_acknowledged(said), "it is acknowledged")

    async def test_a_redelivery_is_recognisable(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink):
            said = await world.say("hello")
            await until(lambda: len(sink.deliveries) == 1, "the message arrives")
            await world.deliver_again(said)
            await until(lambda: len(sink.deliveries) == 2, "the second delivery arrives")
        assert len(sink.messages) == 1

    async def test_an_edit_is_another_revision_of_the_same_message(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink):
            said = await world.say("hello")
            await until(lambda: len(sink.messages) == 1, "the message arrives")
            await world.edit(said, "hello, world")
            await until(lambda: len(sink.messages) == 2, "the edit arrives")
        edit = sink.messages[1]
        check_message(edit, world.config)
        assert edit.kind is EventKind.EDIT
        assert (edit.channel_id, edit.message_id) == (said.channel_id, said.message_id)
        assert edit.text == "hello, world"

    async def test_other_events_pass_by(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink):
            await world.do_something_else()
            await world.say("hello")
            await until(lambda: bool(sink.messages), "the message behind it arrives")
        assert sink.texts() == ["hello"]
        assert sink.unreadable == []

    async def test_it_hears_again_after_the_network_was_lost(self, world: World, sink: RecordingSink) -> None:
        async with supervised(world, sink):
            await world.say("before")
            await until(lambda: sink.texts() == ["before"], "the first message arrives")
            await world.lose_network()
            await asyncio.sleep(0.3)  # not to wait for something: the outage lasts this long
            await world.restore_network()
            await world.say("after")
            await until(lambda: "after" in sink.texts(), "the message after the outage arrives", seconds=30)

    # outbound

    async def test_a_sent_message_stands_at_the_platform(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            receipt = await adapter.send(outbound(world.direct, "Your parcel arrives today."))
        (sent,) = world.sent()
        assert receipt.platform_message_id == sent.message_id
        assert (sent.channel_id, sent.thread_id, sent.reply_to) == (world.direct.channel_id, "", "")
        assert sent.text == "Your parcel arrives today."

    async def test_an_answer_goes_to_its_thread(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.threaded))
        (sent,) = world.sent()
        assert (sent.channel_id, sent.thread_id) == (world.threaded.channel_id, world.threaded.thread_id)

    async def test_an_answer_refers_to_its_message(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.replying))
        (sent,) = world.sent()
        assert (sent.channel_id, sent.reply_to) == (world.replying.channel_id, world.replying.reply_to)

    async def test_text_is_sent_as_it_is(self, world: World, sink: RecordingSink) -> None:
        text = "*not* <b>markup</b> & _no_ `formatting` [x](y) <@U1> :smile: \\ 1 < 2 > 0 👩‍👩‍👧‍👦"
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct, text))
        assert [sent.text for sent in world.sent()] == [text]

    async def test_a_text_as_long_as_the_limit_is_taken(self, world: World, sink: RecordingSink) -> None:
        capabilities = world.adapter_class.capabilities
        text = ("😀" * capabilities.max_text)[: capabilities.max_text // length("😀", capabilities.text_unit)]
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct, text))
        assert [sent.text for sent in world.sent()] == [text]

    async def test_it_sends_at_the_same_time_as_declared(self, world: World, sink: RecordingSink) -> None:
        count = world.adapter_class.capabilities.max_concurrent_sends
        async with running(world, sink) as adapter:
            receipts = await asyncio.gather(
                *(adapter.send(outbound(world.direct, f"part {number}", number=number)) for number in range(count))
            )
        assert len({receipt.platform_message_id for receipt in receipts}) == count
        assert len(world.sent()) == count

    @pytest.mark.parametrize("fault", SendFault)
    async def test_a_failed_send_says_what_became_of_the_message(
        self, fault: SendFault, world: World, sink: RecordingSink, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        adapter = world.adapter(sink)
        await adapter.start()
        await world.break_next_send(fault)
        with pytest.raises(ERROR_OF_FAULT[fault]) as failure:
            await adapter.send(outbound(world.direct))
        await adapter.close()
        assert type(failure.value) is ERROR_OF_FAULT[fault]
        if isinstance(failure.value, RateLimited):
            assert failure.value.retry_after == timedelta(seconds=RETRY_AFTER_SECONDS)
        assert len(world.sent()) == (1 if fault in TAKEN_FAULTS else 0)
        for secret in world.config.credentials.values():
            assert secret not in str(failure.value)
            assert secret not in caplog.text

    @pytest.mark.parametrize(
        "fault", [SendFault.RATE_LIMITED, SendFault.TARGET_GONE, SendFault.PLATFORM_FAILED, SendFault.CUT_AFTER]
    )
    async def test_the_send_after_a_failed_one_works(self, fault: SendFault, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await world.break_next_send(fault)
            with pytest.raises(ERROR_OF_FAULT[fault]):
                await adapter.send(outbound(world.direct, "first"))
            await adapter.send(outbound(world.direct, "second", number=2))
        assert world.sent()[-1].text == "second"

    async def test_a_message_without_buttons_has_none(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct))
        assert world.sent()[0].buttons == ()

    def test_buttons_are_tried_where_the_platform_has_them(self) -> None:
        assert isinstance(self, ButtonsContract) == self.offline_class.capabilities.has_buttons

    async def test_typing_does_no_harm(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await adapter.show_typing(world.direct)
            await adapter.show_typing(world.threaded)
        assert world.sent() == []

    # life cycle

    async def test_close_works_twice_and_without_start(self, world: World, sink: RecordingSink) -> None:
        before = asyncio.all_tasks()
        adapter = world.adapter(sink)
        await adapter.close()
        await adapter.close()
        assert asyncio.all_tasks() == before

    async def test_close_leaves_no_task_behind(self, world: World, sink: RecordingSink) -> None:
        before = asyncio.all_tasks()
        async with running(world, sink) as adapter:
            await world.say("hello")
            await until(lambda: bool(sink.messages), "the message arrives")
            await adapter.send(outbound(world.direct))
        await adapter.close()
        left = [task for task in asyncio.all_tasks() - before if not _is_of_platform(task)]
        assert not left, left

    async def test_a_send_after_close_is_refused_in_our_words(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            pass
        with pytest.raises(PlatformUnavailable):
            await adapter.send(outbound(world.direct))

    # parse

    def test_recorded_events_are_read(self) -> None:
        events = recorded(self.offline_class.platform)
        assert events, "Record some."
        for name, raw in events.items():
            before = copy.deepcopy(raw)
            if name.startswith("unreadable_"):
                with pytest.raises(UnreadableUpdate):
                    self.parser().parse(raw)
                continue
            message = self.parser().parse(raw)
            assert raw == before, f"{name}: parse changed the event."
            if name.startswith("ignored_"):
                assert message is None, name
            else:
                assert message is not None, name
                check_message(message, self.offline_config)

    def test_parse_is_pure(self) -> None:
        parser = self.parser()
        for name, raw in recorded(self.offline_class.platform).items():
            if not name.startswith("unreadable_"):
                assert parser.parse(raw) == parser.parse(copy.deepcopy(raw)), name

    def check_any(self, raw: Any) -> None:
        """``parse`` gives a sound message, None, or ``UnreadableUpdate``; never anything else."""
        try:
            message = self.parser().parse(raw)
        except UnreadableUpdate:
            return
        if message is not None:
            check_message(message, self.offline_config)

    @_fuzz
    @given(data=st.data())
    def test_any_json_is_survived(self, data: st.DataObject) -> None:
        keys = {key for raw in recorded(self.offline_class.platform).values() for key in _keys(raw)}
        self.check_any(data.draw(st.dictionaries(st.sampled_from(sorted(keys)), _json(sorted(keys)), max_size=8)))

    @_fuzz
    @given(data=st.data())
    def test_damaged_events_are_survived(self, data: st.DataObject) -> None:
        events = recorded(self.offline_class.platform)
        name = data.draw(st.sampled_from(sorted(events)))
        values = _json(sorted(_keys(events[name]))) | st.just(_REMOVED)
        damages = data.draw(st.lists(st.tuples(st.integers(0, 500), values), min_size=1, max_size=3))
        self.check_any(damaged(events[name], damages))

    def test_every_missing_field_is_survived(self) -> None:
        for raw in recorded(self.offline_class.platform).values():
            for place in range(len(list(_paths(raw)))):
                self.check_any(damaged(raw, [(place, _REMOVED)]))

    def test_deep_and_huge_events_are_survived(self) -> None:
        values = (_nested(20_000), "x" * 300_000, ["x"] * 20_000, 2**62, 10**4_000, -(2**70), float("nan"))
        for raw in recorded(self.offline_class.platform).values():
            for place in range(len(list(_paths(raw)))):
                for value in values:
                    self.check_any(damaged(raw, [(place, value)]))


class AdapterContract(DeliveryContract):
    """An adapter that reads in ``run``: by polling, or over a socket."""

    async def test_a_drained_bot_stops_reading_and_still_sends(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        await adapter.start()
        run = asyncio.create_task(adapter.run())
        await world.say("first")
        await until(lambda: sink.texts() == ["first"], "the first message arrives")
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
        said = await world.say("second")
        await adapter.send(outbound(world.direct, "still here"))
        await adapter.close()
        assert not world.is_acknowledged(said)
        assert sink.texts() == ["first"]
        async with running(world, sink):
            await until(lambda: sink.texts() == ["first", "second"], "the next run gets the message")
        assert [sent.text for sent in world.sent()] == ["still here"]


class WebhookContract(DeliveryContract):
    """An adapter that the platform calls. ``world.receiver`` stands in for the site."""

    def forged(self) -> list[WebhookRequest]:
        """Requests without proof, or with a wrong one. Override."""
        raise NotImplementedError

    def genuine(self, body: bytes) -> WebhookRequest:
        """A request with ``body`` and valid proof for ``offline_config``. Override."""
        raise NotImplementedError

    async def test_a_forged_request_is_refused_before_it_is_read(self, sink: RecordingSink) -> None:
        adapter = self.offline_class(self.offline_config, sink)
        assert self.forged()
        for request in self.forged():
            with pytest.raises(ForgedRequest):
                await adapter.webhook(request)
        await adapter.close()
        assert sink.deliveries == []
        assert sink.unreadable == []

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"', b"[" * 100_000, b"1" * 10_000])
    async def test_a_body_that_is_no_event_is_unreadable(self, body: bytes, sink: RecordingSink) -> None:
        adapter = self.offline_class(self.offline_config, sink)
        with pytest.raises(UnreadableUpdate):
            await adapter.webhook(self.genuine(body))
        await adapter.close()
        assert sink.deliveries == []

    async def test_storage_trouble_asks_for_another_delivery(self, world: World, sink: RecordingSink) -> None:
        assert world.receiver is not None
        sink.refusals = 1
        async with running(world, sink):
            await world.say("hello")
            await until(lambda: sink.texts() == ["hello"], "the message comes again")
        assert world.receiver.statuses[0] >= 500


class ReconcileContract:
    """A platform that can be asked whether a message arrived. Use beside one of the classes above."""

    async def test_a_message_that_arrived_is_found(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await world.break_next_send(SendFault.CUT_AFTER)
            with pytest.raises(OutcomeUnknown):
                await adapter.send(outbound(world.direct))
            receipt = await adapter.reconcile(outbound(world.direct))
        assert receipt is not None
        assert receipt.platform_message_id == world.sent()[0].message_id

    async def test_a_message_that_never_arrived_is_not_found(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct, number=1))
            assert await adapter.reconcile(outbound(world.direct, number=2)) is None

    async def test_reconcile_says_when_it_cannot_tell(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        await adapter.start()
        await world.lose_network()
        with pytest.raises(PlatformUnavailable):
            await adapter.reconcile(outbound(world.direct))
        await adapter.close()


BUTTONS = (Button(label="Ship it ✅", data="order:17:yes"), Button(label="<Never> & done", data="ж" * 32))


class EditContract:
    """For adapters with ``capabilities.can_edit``."""

    async def test_an_edited_message_has_another_text_and_its_old_place(
        self, world: World, sink: RecordingSink
    ) -> None:
        for route in (world.direct, world.threaded):
            adapter = world.adapter(sink)
            receipt = await adapter.send(outbound(route, "Your parcel …"))
            await adapter.send(outbound(route, "Something else.", number=2))
            edited = await adapter.edit(
                outbound(route, "Your parcel < 2 kg & arrives today.", number=3, edits=receipt.platform_message_id)
            )
            await adapter.close()
            assert edited == receipt
            first, second = [sent for sent in world.sent() if sent.channel_id == route.channel_id]
            assert (first.text, second.text) == ("Your parcel < 2 kg & arrives today.", "Something else.")
            assert first.message_id == receipt.platform_message_id

    async def test_an_edit_may_be_made_twice(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        receipt = await adapter.send(outbound(world.direct, "one"))
        for _ in range(2):
            await adapter.edit(outbound(world.direct, "two", edits=receipt.platform_message_id))
        await adapter.close()
        assert [sent.text for sent in world.sent()] == ["two"]

    async def test_a_text_as_long_as_the_limit_can_be_put_in(self, world: World, sink: RecordingSink) -> None:
        for letter in ("x", "&"):
            adapter = world.adapter(sink)
            receipt = await adapter.send(outbound(world.direct, "short"))
            text = letter * adapter.capabilities.max_text
            await adapter.edit(outbound(world.direct, text, edits=receipt.platform_message_id))
            await adapter.close()
            assert world.sent()[-1].text == text

    async def test_a_message_that_is_gone_cannot_be_edited(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        receipt = await adapter.send(outbound(world.direct, "one"))
        await world.remove(world.sent()[0])
        with pytest.raises(MessageGone):
            await adapter.edit(outbound(world.direct, "two", edits=receipt.platform_message_id))
        await adapter.delete(world.direct, receipt.platform_message_id)
        await adapter.close()
        assert world.sent() == []

    async def test_a_deleted_message_is_gone(self, world: World, sink: RecordingSink) -> None:
        adapter = world.adapter(sink)
        receipt = await adapter.send(outbound(world.direct, "one"))
        await adapter.send(outbound(world.direct, "two", number=2))
        for _ in range(2):
            await adapter.delete(world.direct, receipt.platform_message_id)
        await adapter.close()
        assert [sent.text for sent in world.sent()] == ["two"]

    @pytest.mark.parametrize("fault", SendFault)
    async def test_a_failed_edit_says_what_it_means(self, fault: SendFault, world: World, sink: RecordingSink) -> None:
        """A cut is never an unknown outcome: an edit can simply be made again."""
        adapter = world.adapter(sink)
        receipt = await adapter.send(outbound(world.direct, "one"))
        await world.break_next_edit(fault)
        expected = PlatformUnavailable if fault in TAKEN_FAULTS else ERROR_OF_FAULT[fault]
        with pytest.raises(expected) as caught:
            await adapter.edit(outbound(world.direct, "two", edits=receipt.platform_message_id))
        await adapter.close()
        if isinstance(caught.value, RateLimited):
            assert caught.value.retry_after == timedelta(seconds=RETRY_AFTER_SECONDS)


class ButtonsContract:
    """A platform that shows buttons below a message. Use beside one of the classes above."""

    async def _sent_with_buttons(self, world: World, adapter: Adapter, route: Route) -> Sent:
        receipt = await adapter.send(outbound(route, "Order 17 < 18 & paid?", buttons=BUTTONS))
        (sent,) = world.sent()
        assert sent.message_id == receipt.platform_message_id
        return sent

    @pytest.mark.parametrize("place", ["direct", "threaded"])
    async def test_a_message_with_buttons_arrives_with_them(
        self, place: str, world: World, sink: RecordingSink
    ) -> None:
        route: Route = getattr(world, place)
        async with running(world, sink) as adapter:
            sent = await self._sent_with_buttons(world, adapter, route)
        assert (sent.text, sent.buttons) == ("Order 17 < 18 & paid?", BUTTONS)
        assert (sent.channel_id, sent.thread_id) == (route.channel_id, route.thread_id)

    async def test_the_longest_text_may_have_buttons(self, world: World, sink: RecordingSink) -> None:
        capabilities = world.adapter_class.capabilities
        text = "&" * capabilities.max_text
        async with running(world, sink) as adapter:
            await adapter.send(outbound(world.direct, text, buttons=BUTTONS))
        assert [(sent.text, sent.buttons) for sent in world.sent()] == [(text, BUTTONS)]

    @pytest.mark.parametrize("place", ["direct", "threaded"])
    async def test_a_pressed_button_is_an_event_of_who_pressed_it(
        self, place: str, world: World, sink: RecordingSink
    ) -> None:
        route: Route = getattr(world, place)
        async with running(world, sink) as adapter:
            sent = await self._sent_with_buttons(world, adapter, route)
            pressed = await world.press(sent, BUTTONS[1].data)
            await until(lambda: bool(sink.messages), "the press arrives")
            await until(lambda: world.is_acknowledged(pressed), "it is acknowledged")
        (message,) = sink.messages
        check_message(message, world.config)
        assert (message.kind, message.text) == (EventKind.CALLBACK, BUTTONS[1].data)
        assert message.sender.user_id == pressed.user_id
        assert message.message_id == pressed.message_id
        assert (message.channel_id, message.thread_id) == (route.channel_id, route.thread_id)
        is_direct = place == "direct" or not world.adapter_class.capabilities.has_groups
        assert message.chat_type is (ChatType.DIRECT if is_direct else ChatType.GROUP)
        assert message.is_mentioned

    async def test_a_redelivered_press_is_one_event(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            sent = await self._sent_with_buttons(world, adapter, world.direct)
            pressed = await world.press(sent, BUTTONS[0].data)
            await until(lambda: len(sink.deliveries) == 1, "the press arrives")
            await world.deliver_again(pressed)
            await until(lambda: len(sink.deliveries) == 2, "the second delivery arrives")
        assert len(sink.messages) == 1

    async def test_two_presses_are_two_events(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            sent = await self._sent_with_buttons(world, adapter, world.threaded)
            for _ in range(2):
                await world.press(sent, BUTTONS[0].data)
            await until(lambda: len(sink.messages) == 2, "both arrive")
        assert sink.texts() == [BUTTONS[0].data] * 2

    async def test_a_press_is_acknowledged_only_when_it_is_stored(self, world: World, sink: RecordingSink) -> None:
        async with running(world, sink) as adapter:
            sent = await self._sent_with_buttons(world, adapter, world.direct)
            sink.gate.clear()
            pressed = await world.press(sent, BUTTONS[0].data)
            await until(lambda: sink.held == 1, "the press reaches the sink")
            assert not world.is_acknowledged(pressed)
            sink.gate.set()
            await until(lambda: world.is_acknowledged(pressed), "it is acknowledged")
        assert sink.texts() == [BUTTONS[0].data]
