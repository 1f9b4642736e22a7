"""A message on its way in and out, as every platform's adapter and every service sees it.

Values only, checked when they are made: what is here can be stored as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from botsrt.core.errors import InvalidInput, UnreadableUpdate
from botsrt.core.states import ChatType, EventKind, Fate, Outcome
from botsrt.core.text import one_line, storable

#: Longest id of an account, chat, thread, message or user, in characters; the width of the columns.
MAX_ID_CHARS = 200

#: Longest shown name of a person, chat or file, in characters. Longer names are cut, never refused.
MAX_NAME_CHARS = 300


#: Longest data of a button. Source: Telegram InlineKeyboardButton.callback_data, the shortest of the platforms'.
MAX_BUTTON_DATA_BYTES = 64


#: What ``to_payload`` writes that nothing else looks at when it is read again.
_STORED_TYPES = {"platform": str, "account": str, "is_mentioned": bool}


def _checked_id(name: str, value: str, *, may_be_empty: bool = False) -> str:
    if not value and not may_be_empty:
        raise UnreadableUpdate(f"{name} is empty.")
    if len(value) > MAX_ID_CHARS:
        raise UnreadableUpdate(f"{name} has {len(value)} characters; {MAX_ID_CHARS} are possible.")
    return storable(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file the platform keeps; it is fetched when an agent wants it, never before the access check."""

    kind: str  # photo, document, voice, audio, video, sticker, location, …
    reference: str  # what the adapter needs to fetch it (a file id or a private URL); not a secret
    name: str = ""
    mime_type: str = ""
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("kind", "reference", "mime_type"):
            object.__setattr__(self, name, storable(getattr(self, name)))
        object.__setattr__(self, "name", storable(self.name)[:MAX_NAME_CHARS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The contact who wrote, as the platform names them. Only ``user_id`` is identity."""

    user_id: str
    user_name: str = ""  # the handle, without @
    display_name: str = ""
    aliases: tuple[str, ...] = ()  # other ids of the same human, as the platform says

    def __post_init__(self) -> None:
        if type(self.aliases) not in (tuple, list):  # a list: as it is stored
            raise TypeError(f"aliases is {type(self.aliases).__name__}")
        aliases = tuple(_checked_id("sender.aliases", alias) for alias in self.aliases)
        object.__setattr__(self, "aliases", aliases)
        object.__setattr__(self, "user_id", _checked_id("sender.user_id", self.user_id))
        object.__setattr__(self, "user_name", storable(self.user_name)[:MAX_NAME_CHARS])
        object.__setattr__(self, "display_name", storable(self.display_name)[:MAX_NAME_CHARS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where an answer goes: always copied from the inbound message, never "the last chat"."""

    channel_id: str
    thread_id: str = ""  # empty: the chat itself
    reply_to: str = ""  # message id the answer refers to; empty: none


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """One inbound event, normalised. Raises ``UnreadableUpdate`` when an id is missing or too long."""

    platform: str
    account: str
    channel_id: str
    message_id: str
    sender: Sender
    text: str = ""
    revision: str = ""  # tells edits of one message apart; empty: the original
    thread_id: str = ""
    reply_to: str = ""  # message id the answer should refer to; empty: none
    kind: EventKind = EventKind.MESSAGE
    chat_type: ChatType = ChatType.DIRECT
    chat_name: str = ""
    is_mentioned: bool = False  # the bot was addressed; always true in direct chats
    attachments: tuple[Attachment, ...] = ()
    album: str = ""  # the platform's id of several messages that were sent as one; empty: it was sent alone
    sent_at: datetime | None = None  # the platform's time, aware UTC; None: the platform did not say
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("channel_id", "message_id"):
            object.__setattr__(self, name, _checked_id(name, getattr(self, name)))
        for name in ("revision", "thread_id", "reply_to", "album"):
            object.__setattr__(self, name, _checked_id(name, getattr(self, name), may_be_empty=True))
        object.__setattr__(self, "text", storable(self.text))
        object.__setattr__(self, "chat_name", storable(self.chat_name)[:MAX_NAME_CHARS])

    @property
    def route(self) -> Route:
        return Route(channel_id=self.channel_id, thread_id=self.thread_id, reply_to=self.reply_to)

    def to_payload(self) -> dict[str, Any]:
        """All that a re-run needs, as JSON. The raw update is kept beside it, not in it."""
        payload = {name: getattr(self, name) for name in _PAYLOAD}
        payload["sender"] = {name: getattr(self.sender, name) for name in _SENDER}
        payload["attachments"] = self.attachments_payload()
        payload["sent_at"] = self.sent_at.isoformat() if self.sent_at else None
        return payload

    def attachments_payload(self) -> list[dict[str, Any]]:
        """The attachments as ``to_payload`` has them."""
        return [asdict(attachment) for attachment in self.attachments]

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> InboundMessage:
        """The message that ``to_payload`` stored. What another version wrote beside, or did not write, does not matter.

        Raises:
            UnreadableUpdate: it does not describe a message.
        """
        try:
            values = _known(_PAYLOAD, payload)
            for name, type_ in _STORED_TYPES.items():
                value = values.get(name)
                if value is not None and not isinstance(value, type_):
                    raise TypeError(f"{name} is {type(value).__name__}")
                if isinstance(value, str) and storable(value) != value:
                    raise ValueError(f"{name} cannot be stored")
            values["sender"] = Sender(**_known(_SENDER, payload["sender"]))
            attachments = payload.get("attachments") or ()
            values["attachments"] = tuple(_stored_attachment(item) for item in attachments)
            values["kind"] = EventKind(payload.get("kind", EventKind.MESSAGE))
            values["chat_type"] = ChatType(payload.get("chat_type", ChatType.DIRECT))
            sent_at = payload.get("sent_at")
            values["sent_at"] = _moment(sent_at) if sent_at else None
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UnreadableUpdate(f"The stored message cannot be read: {type(error).__name__}: {error}") from error


_PAYLOAD = tuple(item.name for item in fields(InboundMessage) if item.name != "raw")
_SENDER = tuple(item.name for item in fields(Sender))
_ATTACHMENT = tuple(item.name for item in fields(Attachment))


def _moment(text: str) -> datetime:
    """A stored time; one without a zone is UTC."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _stored_attachment(item: Mapping[str, Any]) -> Attachment:
    size = item.get("size_bytes")
    if size is not None and not isinstance(size, int):
        raise TypeError(f"size_bytes is {type(size).__name__}")
    return Attachment(**_known(_ATTACHMENT, item))


def _known(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def as_line(message: InboundMessage) -> str:
    """The message as an agent reads it; in a group it says who wrote it."""
    if message.chat_type == ChatType.DIRECT:
        return message.text
    name = one_line(message.sender.display_name or message.sender.user_name or message.sender.user_id)
    return f"{name}: {message.text}"


def as_lines(messages: Sequence[InboundMessage]) -> str:
    """The messages as an agent reads them; those that are a file alone add no line to what was said beside them."""
    said = [message for message in messages if message.text] or messages[:1]
    return "\n".join(as_line(message) for message in said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A button below a message. Pressed, it comes back as an inbound event of kind ``callback``, its data as text."""

    label: str
    data: str  # at most MAX_BUTTON_DATA_BYTES in UTF-8

    def __post_init__(self) -> None:
        if not self.label.strip():
            raise InvalidInput("button", "its label is empty.")
        if not 1 <= len(self.data.encode()) <= MAX_BUTTON_DATA_BYTES:
            raise InvalidInput("button", f"data: 1 to {MAX_BUTTON_DATA_BYTES} bytes are possible.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """One part of an outgoing message, as an adapter gets it. It fits the platform's limit already."""

    outbox_id: int  # 0: a preview, which is no row of the outbox
    idempotency_key: str  # the same at every attempt; adapters pass it to platforms that can use it
    account: str
    route: Route
    text: str
    attempt: int  # 1 for the first call
    edits: str = ""  # the platform's id of the message whose text this one replaces; empty: it is a new message
    is_unfinished: bool = False  # a preview: more of its text is still being written
    buttons: tuple[Button, ...] = ()  # shown in one row, where ``capabilities.has_buttons``; elsewhere left out
    heard_at: datetime | None = None  # when the chat last wrote, where ``capabilities.has_reply_window``; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReceipt:
    """What the platform said after it took a message."""

    platform_message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """What a platform says later of a message that it took. Reports may come late, twice, and in any order."""

    idempotency_key: str  # of the message, which the platform gives back
    platform_message_id: str
    fate: Fate
    at: datetime  # aware UTC
    error: str = ""  # why it failed
    is_target_gone: bool = False  # it failed because the chat cannot be written to


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an inbound message so far, for a platform whose caller waits for it."""

    outcome: Outcome | None = None  # None: nothing yet
    texts: tuple[str, ...] = ()  # what was said to it, in order; also where it was not answered: a notice
