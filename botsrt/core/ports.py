"""What the runtime expects of adapters and agents, and what it gives them.

An adapter is one file ``botsrt/adapters/<platform>.py`` with a class ``Adapter``; an agent kind is one file
``botsrt/agents/<kind>.py`` with a class ``Agent``. Both import from ``core`` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from botsrt.core.context import SessionContext
from botsrt.core.errors import FileUnavailable, UnreadableUpdate
from botsrt.core.messages import (
    Answer,
    Attachment,
    DeliveryReport,
    InboundMessage,
    OutboundMessage,
    Route,
    SendReceipt,
)
from botsrt.core.runtime_state import RuntimeState
from botsrt.core.states import Role

# -- adapters ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a platform can do, as numbers and yes or no."""

    max_text: int  # longest text of one message, in ``text_unit``
    text_unit: Literal["chars", "utf16"] = "chars"
    can_reconcile: bool = False  # can be asked whether a message arrived
    repeat_seconds: float = 0.0  # so long after it was made, a message sent again with its key is not a second one
    tells_fate: bool = False  # reports what became of each message it took: ``Sink.reported``
    has_typing: bool = False
    has_webhook: bool = False
    has_groups: bool = False
    has_buttons: bool = False  # shows ``OutboundMessage.buttons``, and sends a press as an event of kind ``callback``
    max_concurrent_sends: int = 8  # calls at a time for one bot
    has_reply_window: bool = False  # what may be written depends on when the person last wrote: ``heard_at`` says it
    has_files: bool = False  # what comes with messages can be fetched
    can_edit: bool = False  # its own messages, and delete them: answers are shown while they are written
    edit_seconds: float = 1.0  # between two edits of a preview in a direct chat
    group_edit_seconds: float = 3.0  # the same in a group
    bot_edit_seconds: float = 0.0  # between any two edits of previews of one bot


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting or credential that a bot of this platform takes."""

    name: str
    help: str
    default: str = ""
    choices: tuple[str, ...] = ()
    max_number: int | None = None  # it is a whole number from 0 to this; None: any text
    is_required: bool = False
    is_guarded: bool = False  # a setting that decides who receives the credentials: who changes it needs the same right


@dataclass(frozen=True, slots=True, kw_only=True)
class BotConfig:
    """One bot as its adapter sees it. Credentials are resolved and never shown."""

    account: str
    platform: str
    version: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """An HTTP request of a platform, raw: signatures are checked on ``body`` before anything is parsed."""

    method: str
    headers: Mapping[str, str]  # names in lower case
    query: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResponse:
    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The platform's answer to "who am I": proof that the credentials work."""

    identity: str  # the bot's public name or address, e.g. "@shop_bot"


class Sink(Protocol):
    """Where an adapter hands inbound events. A call returns when the event is committed, and only then may the
    adapter acknowledge it; if the call raises ``StorageUnavailable`` the adapter must not acknowledge."""

    async def receive(self, message: InboundMessage) -> bool:
        """Store one event. True: it is new; False: a redelivery that was already stored."""

    async def receive_unreadable(self, *, event_id: str, raw: Mapping[str, Any], error: UnreadableUpdate) -> None:
        """Keep an update that could not be read, for staff. ``event_id`` makes a redelivery recognisable."""

    async def chat_migrated(self, *, old_channel_id: str, new_channel_id: str) -> None:
        """A chat goes on under another id: its session and what waits to be sent follow."""

    async def newest(self, *, limit: int) -> Sequence[InboundMessage]:
        """The latest events of this bot that are stored, newest first, with ``raw`` where it is still kept.

        For platforms that keep nothing for a bot that is away: it has to say itself where it stopped.
        """

    async def reported(self, reports: Sequence[DeliveryReport]) -> None:
        """What became of messages that the platform took. Reports of messages that are not known are counted only."""

    async def answer_to(self, message: InboundMessage, *, within: timedelta) -> Answer:
        """What became of a message that was received; waits ``within`` for its outcome. It may be asked any time."""


class Adapter(Protocol):
    """One bot on one platform.

    Life cycle: ``start`` → ``run`` (until cancelled, or raises and is restarted with a new object) → ``close``.
    ``run`` may be cancelled long before ``close``: a draining bot no longer reads but still sends.
    ``webhook``, ``parse`` and ``probe`` work on an object that was never started.
    """

    platform: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    settings: ClassVar[tuple[Option, ...]]
    credentials: ClassVar[tuple[Option, ...]]

    def __init__(self, config: BotConfig, sink: Sink) -> None:
        """Check the configuration; raises ``ConfigurationError``. No I/O."""

    def parse(self, raw: Mapping[str, Any]) -> InboundMessage | None:
        """The normalised message; None for events that are none of our business. Pure.

        Raises:
            UnreadableUpdate: the event should be a message but cannot be read.
        """

    async def start(self) -> None:
        """Connect and prove the credentials.

        Raises:
            CredentialError: refused; the bot waits for new ones.
            ConfigurationError: cannot work as configured; the bot waits for a change.
            Exception: anything else is retried with backoff.
        """

    async def run(self) -> None:
        """Receive until cancelled. Returning or raising counts as a failure and is restarted with backoff."""

    async def send(self, message: OutboundMessage) -> SendReceipt:
        """Send one part. Raises one of the ``SendError`` family or ``CredentialError``; never anything else."""

    async def edit(self, message: OutboundMessage) -> SendReceipt:
        """Give the message ``message.edits`` another text. Done twice it is as done once, so a cut call is repeated.

        Called only where ``capabilities.can_edit``. Raises ``MessageGone`` where that message cannot be edited (any
        more), ``PlatformUnavailable`` where it is not known whether it was, and else like ``send``.
        """

    async def delete(self, route: Route, platform_message_id: str) -> None:
        """Remove a message of the bot; one that is gone is fine.

        Called only where ``capabilities.can_edit``. Raises ``MessageRefused`` where it can no longer be removed, and
        else like ``edit``.
        """

    async def reconcile(self, message: OutboundMessage) -> SendReceipt | None:
        """Whether a message of unknown outcome arrived: its receipt, or None for certainly not.

        Called only where ``capabilities.can_reconcile``. Raises ``PlatformUnavailable`` when it cannot be told now.
        """

    async def fetch(self, attachment: Attachment, *, max_bytes: int) -> bytes:
        """The content of a file, from the platform's own hosts alone. Works on an object that was never started.

        Called only where ``capabilities.has_files``. Raises ``FileUnavailable`` where it cannot be had,
        ``PlatformUnavailable`` or ``RateLimited`` where it may be later, ``CredentialError``.
        """

    async def show_typing(self, route: Route) -> None:
        """Show that an answer is on its way. Called only where ``capabilities.has_typing``; errors do not matter."""

    async def probe(self) -> Probe:
        """Ask the platform who we are. Raises like ``start``."""

    async def webhook(self, request: WebhookRequest) -> WebhookResponse:
        """Answer a webhook call: verify, parse, store, then 200. Called only where ``capabilities.has_webhook``.

        Raises:
            ForgedRequest: the proof is missing or wrong.
            UnreadableUpdate: the body is not what the platform sends.
            StorageUnavailable: not stored; the platform must deliver again.
        """

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without ``start``."""


# -- agents ----


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """One agent profile as its agent object sees it."""

    name: str
    kind: str
    version: int = 1
    instructions: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem:
    """One earlier message of the conversation, oldest first in a request."""

    role: Role
    text: str
    sender_name: str = ""  # one line, neutralised; empty for the bot itself
    platform: str = ""


def unseen(text: str) -> None:
    """Show a text to nobody."""


async def no_files(attachment: Attachment) -> bytes:
    """Fetch nothing."""
    raise FileUnavailable("Files cannot be fetched here.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """What an agent gets: everything, as arguments. It holds no state of its own between runs.

    ``show`` shows the person the answer so far, whole each time, while it is written; it may be called on any thread,
    as often as one likes. What is kept is the ``AgentReply`` alone. ``fetch`` gives the content of an attachment; it
    raises ``FileUnavailable``, or ``TransientAgentError`` where it may be had later.
    """

    text: str  # all messages of the turn, in order; in groups each line says who wrote it
    history: tuple[HistoryItem, ...]
    attachments: tuple[Attachment, ...]
    context: SessionContext
    session_id: str
    turn_id: str  # unique for this run: an idempotency key for tools that act on the outside world
    entry_ids: tuple[int, ...]  # the journal entries answered here: the same at every attempt
    attempt: int  # 1 for the first run over these entries
    runtime_state: RuntimeState = field(default_factory=dict)  # what agents kept of this session; core.runtime_state
    show: Callable[[str], None] = field(default=unseen, compare=False, repr=False)
    fetch: Callable[[Attachment], Awaitable[bytes]] = field(default=no_files, compare=False, repr=False)

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees what is shown; if not, an agent need not ask its model to stream."""
        return self.show is not unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReply:
    """What an agent says. Empty text: it chose to say nothing."""

    text: str
    usage: Mapping[str, Any] = field(default_factory=dict)  # tokens and cost, as the agent counts them
    metadata: Mapping[str, Any] = field(default_factory=dict)
    runtime_state: Mapping[str, Any] = field(default_factory=dict)  # to keep of this turn, where the bot mirrors it


class Agent(Protocol):
    """Answers requests. One object serves many turns at once."""

    settings: ClassVar[tuple[Option, ...]]

    def __init__(self, config: AgentConfig) -> None:
        """Check the configuration; raises ``ConfigurationError``. No I/O."""

    def obstacle(self) -> str:
        """What keeps it from running here and now, such as a missing key, as a sentence; empty: nothing. No I/O."""

    async def run(self, request: AgentRequest) -> AgentReply:
        """Answer one turn.

        Raises:
            TransientAgentError: may work later.
            AgentUnavailable: cannot run at present; the message waits and loses no attempt.
            AgentError: will not work; the message goes to the dead letter queue.
        """

    async def close(self) -> None:
        """Release everything."""


@runtime_checkable
class Steerable(Protocol):
    """What an agent may be, too: able to take text while it runs. For bots whose ``busy`` is steer."""

    async def steer(self, turn_id: str, text: str) -> bool:
        """Put ``text`` where the run of this turn looks, without waiting for it.

        Returns:
            True: the answer of the run will be to that, too. False: it does not take it; it is a turn of its own.
        """


@runtime_checkable
class Summarizing(Protocol):
    """What an agent may be, too: able to sum up what was said, so that long conversations stay within its reach."""

    @property
    def compact_after(self) -> int:
        """Messages of a conversation after which the older half is summed up; 0: never."""

    async def summarize(self, items: Sequence[HistoryItem], *, earlier: str) -> AgentReply:
        """A summary of ``earlier``, which is one of what came before (empty: nothing did), and of ``items``.

        Whatever it raises, the conversation goes on without a summary.
        """


#: How long a typing indicator lasts on the platforms that have one. Source: Telegram sendChatAction.
TYPING_LASTS = timedelta(seconds=5)
