"""How a journal entry, its person and an outgoing message look, in one line, on every page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from botsrt.core.access import Reason
from botsrt.core.states import DLQState, EntryState, OutboxState, Outcome, TurnState
from botsrt.models import Contact, DLQItem, JournalEntry, OutboxMessage, Turn
from praisonweb.dashboard.queries.standing import REASONS, Standing, Tone

#: Characters of a message that a list shows.
FIRST_WORDS_CHARS = 160


def line(text: str, *, max_chars: int) -> str:
    """Foreign text as one line. Marks that cannot be seen stay: the page shows them as what they are."""
    whole = " ".join(text[: 4 * max_chars].split())
    return whole if len(whole) <= max_chars and len(text) <= 4 * max_chars else whole[: max_chars - 1] + "…"


def standing(entry: JournalEntry) -> Standing:
    """Where an entry stands, in the word that filters and commands use."""
    match EntryState(entry.state):
        case EntryState.PENDING if entry.attempts:
            return Standing(word="pending", tone=Tone.WARN, text="It failed, and is tried again.")
        case EntryState.PENDING:
            return Standing(word="pending", tone=Tone.BUSY, text="It waits for its turn.")
        case EntryState.CLAIMED:
            return Standing(word="claimed", tone=Tone.BUSY, text="Its turn runs.")
        case EntryState.COMPLETED if entry.outcome == Outcome.SILENT:
            reason = REASONS.get(entry.outcome_reason, entry.outcome_reason)
            return Standing(word="silent", tone=Tone.IDLE, text=reason or "The agent chose to say nothing.")
        case EntryState.COMPLETED:
            return Standing(word="answered", tone=Tone.GOOD)
        case EntryState.HELD if entry.outcome_reason == Reason.PAIRING_WAITING:
            return Standing(word="held", tone=Tone.WARN, text="It waits until staff let its sender in.")
        case EntryState.HELD:
            return Standing(word="held", tone=Tone.WARN, text="Its reply waits for staff.")
        case EntryState.DEAD:
            return Standing(word="dead", tone=Tone.BAD, text="It is in the dead letter queue.")
        case EntryState.DISCARDED:
            return Standing(word="discarded", tone=Tone.IDLE, text=entry.outcome_reason)


_ITEMS = {
    DLQState.OPEN: Standing(word="open", tone=Tone.BAD, text="It waits for staff."),
    DLQState.RETRYING: Standing(word="retrying", tone=Tone.BUSY, text="Its entry runs again."),
    DLQState.RESOLVED: Standing(word="resolved", tone=Tone.GOOD),
    DLQState.DISCARDED: Standing(word="discarded", tone=Tone.IDLE),
}

_SENDS = {
    OutboxState.PENDING: Standing(word="pending", tone=Tone.BUSY, text="It waits to be sent."),
    OutboxState.SENDING: Standing(word="sending", tone=Tone.BUSY, text="The call to the platform is under way."),
    OutboxState.SENT: Standing(word="sent", tone=Tone.GOOD, ticks="✓"),
    OutboxState.UNKNOWN: Standing(word="unknown", tone=Tone.BAD, text="Sending was cut: it may have arrived, or not."),
    OutboxState.HELD: Standing(word="held", tone=Tone.WARN, text="It waits for staff; it was not sent."),
    OutboxState.DEAD: Standing(word="dead", tone=Tone.IDLE, text="It was refused, or withdrawn."),
}

_TURNS = {
    TurnState.RUNNING: Standing(word="running", tone=Tone.BUSY),
    TurnState.FINISHED: Standing(word="finished", tone=Tone.GOOD),
    TurnState.FAILED: Standing(word="failed", tone=Tone.BAD),
    TurnState.CANCELLED: Standing(word="cancelled", tone=Tone.IDLE, text="Stopped on purpose."),
    TurnState.TIMED_OUT: Standing(word="timed out", tone=Tone.BAD),
    TurnState.ABANDONED: Standing(word="abandoned", tone=Tone.WARN, text="Its worker died, or lost its lease."),
}


def item_standing(item: DLQItem) -> Standing:
    return _ITEMS[DLQState(item.state)]


def send_standing(row: OutboxMessage) -> Standing:
    """Where a message on its way out stands; what the platform told of it since, where it tells."""
    if row.state == OutboxState.SENT and row.read_at:
        text = f"The person read it, at {row.read_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        return Standing(word="read", tone=Tone.GOOD, text=text, ticks="✓✓")
    if row.state == OutboxState.SENT and row.delivered_at:
        text = f"It is on the person's device, since {row.delivered_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        return Standing(word="delivered", tone=Tone.GOOD, text=text, ticks="✓✓")
    return _SENDS[OutboxState(row.state)]


def turn_standing(turn: Turn) -> Standing:
    return _TURNS[TurnState(turn.state)]


def first_words(payload: Mapping[str, Any], *, max_chars: int = FIRST_WORDS_CHARS) -> str:
    """The beginning of a message as one line; what it is, where it has no text."""
    text = line(str(payload.get("text") or ""), max_chars=max_chars)
    if text:
        return text
    kinds = [str(item.get("kind", "file")) for item in payload.get("attachments") or () if isinstance(item, dict)]
    return f"({', '.join(kinds[:3])})" if kinds else ""


def person(contact: Contact | None) -> str:
    """A contact by the name the platform shows; never identity, only for the eye."""
    if contact is None:
        return ""
    handle = f"@{contact.user_name}" if contact.user_name else ""
    return line(contact.display_name or handle or contact.platform_user_id, max_chars=60)
