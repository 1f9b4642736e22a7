"""Every state a row can be in. Models mirror these as choices; nothing else spells a state as a string."""

from __future__ import annotations

from enum import StrEnum


class ChatType(StrEnum):
    DIRECT = "direct"
    GROUP = "group"


class EventKind(StrEnum):
    """What an inbound event is."""

    MESSAGE = "message"
    EDIT = "edit"  # a new revision of an earlier message
    CALLBACK = "callback"  # a pressed button; its data is the text
    UNREADABLE = "unreadable"  # the platform sent something the adapter could not read
    ERASED = "erased"  # nothing is left of it but the key by which a redelivery is known


class EntryState(StrEnum):
    """Where a journal entry stands. An entry is in exactly one of these at any time."""

    PENDING = "pending"  # waits for a turn, not before available_at
    CLAIMED = "claimed"  # belongs to its running turn
    COMPLETED = "completed"  # ended: answered or silent
    HELD = "held"  # waits for staff: its reply is kept back, or a human has the conversation
    DEAD = "dead"  # its turns failed: its DLQ item is open
    DISCARDED = "discarded"  # staff gave it up, with a reason


#: What has no message (any more), so that there is nothing to run.
WITHOUT_MESSAGE = (EventKind.UNREADABLE, EventKind.ERASED)


#: States that no turn will change without an act of staff.
ENDED_ENTRY_STATES = (EntryState.COMPLETED, EntryState.HELD, EntryState.DEAD, EntryState.DISCARDED)


class Outcome(StrEnum):
    """How an entry ended."""

    ANSWERED = "answered"
    SILENT = "silent"  # processed; no answer was due (access, or the agent chose to say nothing)
    HELD = "held"
    DEAD = "dead"
    DISCARDED = "discarded"


class RunMode(StrEnum):
    """What a turn does with its reply."""

    SEND = "send"
    HOLD = "hold"  # keep the reply for review


class Trigger(StrEnum):
    """Why a turn ran."""

    MESSAGE = "message"
    RETRY = "retry"  # a DLQ item was retried by staff
    REPLAY = "replay"  # staff replayed the entry


class TurnState(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"  # stopped on purpose: drain, takeover, /stop, a changed link
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"  # its worker died or lost its lease


class DLQState(StrEnum):
    OPEN = "open"
    RETRYING = "retrying"  # its entry is pending or claimed again
    RESOLVED = "resolved"
    DISCARDED = "discarded"


class DLQReason(StrEnum):
    FAILED = "failed"  # a permanent error, or the last of the spaced attempts
    TIMED_OUT = "timed_out"
    POISON = "poison"  # two workers died on it
    UNREADABLE = "unreadable"  # the platform's update could not be read


class BulkVerb(StrEnum):
    """What one bulk operation does to each of its rows."""

    RETRY = "retry"  # DLQ items
    DISCARD = "discard"  # DLQ items
    REPLAY = "replay"  # journal entries
    ARRIVED = "arrived"  # outgoing messages, like the two that follow
    AGAIN = "again"
    DROP = "drop"
    ERASE = "erase"  # contacts


class BulkState(StrEnum):
    RUNNING = "running"  # some of its rows wait
    STOPPED = "stopped"  # by staff, or because a step of a canary failed; the rest is left as it was
    FINISHED = "finished"


class BulkItemState(StrEnum):
    """What a bulk operation did to one row."""

    WAITING = "waiting"
    DONE = "done"
    SKIPPED = "skipped"  # it was not possible (any more); the detail says why


class OutboxState(StrEnum):
    """Where one part of an outgoing message stands."""

    PENDING = "pending"
    SENDING = "sending"  # the call to the platform is under way
    SENT = "sent"
    UNKNOWN = "unknown"  # the call was cut: nobody here knows whether it arrived
    HELD = "held"  # waits for staff: late, or kept for review
    DEAD = "dead"  # refused by the platform or withdrawn; the error says why


class Fate(StrEnum):
    """What a platform says of a message that it took, later on."""

    SENT = "sent"
    DELIVERED = "delivered"  # it is on the person's device
    READ = "read"
    FAILED = "failed"  # it never will be


class OutboxSource(StrEnum):
    """Who speaks in an outgoing message."""

    REPLY = "reply"
    NOTICE = "notice"  # the runtime itself: trouble, overload
    STAFF = "staff"


class AdapterStatus(StrEnum):
    """What the adapter of one bot is doing."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"  # failed; restarts by itself
    PAUSED = "paused"
    CREDENTIAL_ERROR = "credential_error"  # waits for new credentials
    FAILED = "failed"  # its settings are wrong; waits for a change
    STOPPED = "stopped"


class SessionScope(StrEnum):
    PER_USER = "per_user"  # the direct conversation of one contact
    PER_CHAT = "per_chat"  # one group chat (or one thread of it)


class Handler(StrEnum):
    """Who answers in a session."""

    BOT = "bot"
    HUMAN = "human"
    PAUSED = "paused"


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


class HistoryKind(StrEnum):
    CHAT = "chat"
    MIRROR = "mirror"
    STAFF = "staff"
    NOTE = "note"  # internal to staff; never reaches an agent or a platform
    DIVIDER = "divider"
    SUMMARY = "summary"  # of earlier messages, by an agent; it is given to agents in their place
    COMMAND = "command"  # a command of the chat and its answer; no part of what is talked about

    @classmethod
    def for_agents(cls) -> tuple[HistoryKind, ...]:
        """What an agent may see. The rest is for staff."""
        return cls.CHAT, cls.MIRROR, cls.STAFF


class PairingPurpose(StrEnum):
    """What a request asks for."""

    ACCESS = "access"  # may this contact talk to this bot?
    LINK = "link"  # is this contact the same human as another one?


class PairingState(StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    BLOCKED = "blocked"  # denied, and the contact is blocked
    REVOKED = "revoked"  # approved once, and taken back
    EXPIRED = "expired"  # nobody decided while its code was valid


class Proof(StrEnum):
    """What stands behind an approval or a link, strongest first."""

    CODE = "code"  # the human gave back a code that only they had seen
    LINK = "link"  # access of a contact that proved to be the same human as one who had it
    STAFF = "staff"  # somebody of the staff says so
    IMPORT = "import"  # it came from a file, or from a program


class Standing(StrEnum):
    """What staff decided about a contact and a bot, as far as access goes."""

    UNKNOWN = "unknown"  # has never asked, or long ago
    WAITING = "waiting"
    PAIRED = "paired"
    REFUSED = "refused"  # denied or revoked, not long ago


class LinkConfirmation(StrEnum):
    """Who confirms that two contacts are one human, after a code proved it."""

    STAFF = "staff"
    AUTO = "auto"


class BusyMode(StrEnum):
    """What becomes of a message that comes while the turn of its lane runs."""

    QUEUE = "queue"  # it waits; what waits together is the next turn
    INTERRUPT = "interrupt"  # the turn is cancelled; the next one takes its messages and the new one
    STEER = "steer"  # the running agent is asked to take it; where it does not, it waits


class UnknownUserPolicy(StrEnum):
    """What a contact nobody knows may do."""

    DENY = "deny"
    PAIR = "pair"
    ALLOW = "allow"


class UnknownSendPolicy(StrEnum):
    """What happens to a sent message whose fate the platform cannot tell."""

    RESEND = "resend"  # send it again, with a note that says so
    HOLD = "hold"  # leave it for staff


class GroupRespond(StrEnum):
    """What a bot reacts to in a group."""

    ALL = "all"
    MENTION = "mention"
    COMMAND = "command"
    OBSERVE = "observe"  # reads along, never answers


class AlertKind(StrEnum):
    """What staff are told of without asking."""

    NO_WORKER = "no_worker"  # nobody runs bots
    ADAPTER_DOWN = "adapter_down"  # one bot is not connected
    BACKLOG = "backlog"  # the oldest unanswered message waits too long
    JOURNAL_FULL = "journal_full"  # more unfinished entries than are meant to fit
    DLQ_GROWTH = "dlq_growth"  # many failures within an hour
    UNKNOWN_SENDS = "unknown_sends"  # messages that may or may not have arrived
    SILENCE = "silence"  # a bot is quieter than ever at this time


class NoticeKind(StrEnum):
    """What is told about an alert."""

    RAISED = "raised"
    REMINDER = "reminder"
    CLEARED = "cleared"
