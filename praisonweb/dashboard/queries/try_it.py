"""Web bots, and the conversation of one member of staff with one of them, from the rows of the real path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from botsrt import conf
from botsrt.core import keys
from botsrt.core.access import Verdict
from botsrt.core.states import EntryState, OutboxSource, OutboxState, Outcome
from botsrt.models import Bot, DLQItem, JournalEntry, OutboxMessage
from botsrt.services import codes, pairing
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.queries import bots
from praisonweb.dashboard.queries.bots import BotRow
from praisonweb.dashboard.queries.standing import REASONS, Standing, Tone

PLATFORM = "web"

#: Messages of the person on one page; the bot's replies to them come on top.
PAGE_SIZE = 50

#: Replies on one page at most, so that a talkative agent cannot make a page endless.
_MAX_REPLIES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as a bubble shows it."""

    key: str  # stable: a page that knows it changes the bubble instead of adding one
    author: str  # empty: the person who looks at the page
    text: str
    at: datetime
    standing: Standing

    @property
    def is_own(self) -> bool:
        return not self.author

    @property
    def is_open(self) -> bool:
        """It will change by itself."""
        return self.standing.tone is Tone.BUSY


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    bot: BotRow
    obstacle: str  # why the bot will not answer now; empty: it will
    messages: Sequence[Message]
    earlier_before: int | None  # the entry before which the next page ends; None: this is the beginning
    is_newest: bool

    @property
    def is_waiting(self) -> bool:
        return any(message.is_open for message in self.messages)


def web_bots(*, scope: Scope, now: datetime) -> list[BotRow]:
    """The bots that can be tried in the browser."""
    return bots.rows(scope=scope, now=now, platform=PLATFORM)


def takes_messages(*, account: str, scope: Scope) -> bool:
    """Whether there is an enabled web bot of this name."""
    return scope.rows(Bot.objects.filter(account=account, platform=PLATFORM, is_enabled=True)).exists()


def chat(*, account: str, user_id: str, before: int | None, scope: Scope, now: datetime) -> Chat | None:
    """The newest page of a conversation, or the one that ends before an entry. None: there is no such web bot."""
    row = next(iter(bots.rows(scope=scope, now=now, platform=PLATFORM, account=account)), None)
    if row is None:
        return None
    entries, has_earlier = _entries(account, user_id, before)
    replies = _replies(account, user_id, entries, has_earlier=has_earlier, is_newest=before is None)
    return Chat(
        bot=row,
        obstacle=_obstacle(row, user_id),
        messages=sorted(
            [*map(_own, entries), *map(_reply, replies)], key=lambda message: (message.at, not message.is_own)
        ),
        earlier_before=entries[0].pk if has_earlier else None,
        is_newest=before is None,
    )


def _entries(account: str, user_id: str, before: int | None) -> tuple[list[JournalEntry], bool]:
    """A page of what the person wrote, oldest first, and whether there is more before it."""
    found = JournalEntry.objects.filter(platform=PLATFORM, account=account, channel_id=user_id)
    if before is not None:
        found = found.filter(pk__lt=before)
    page = list(found.select_related("dlq_item").defer("raw").order_by("-pk")[: PAGE_SIZE + 1])
    return page[PAGE_SIZE - 1 :: -1] if len(page) > PAGE_SIZE else page[::-1], len(page) > PAGE_SIZE


def _replies(
    account: str, user_id: str, entries: Sequence[JournalEntry], *, has_earlier: bool, is_newest: bool
) -> list[OutboxMessage]:
    """What went out beside ``entries``, newest first."""
    session_id = keys.direct_session_id(PLATFORM, user_id)
    found = OutboxMessage.objects.filter(session__session_id=session_id, account=account)
    if has_earlier:
        found = found.filter(created_at__gte=entries[0].received_at)
    if not is_newest:
        found = found.filter(entry__in=[entry.pk for entry in entries])
    return list(found.select_related("pairing").order_by("-pk")[:_MAX_REPLIES])


def _obstacle(row: BotRow, user_id: str) -> str:
    """Why a message written now would get no answer."""
    if not row.is_enabled:
        return "The bot is paused: it takes no messages."
    if row.standing.tone is not Tone.GOOD:
        return f"The bot is {row.standing.word}. What you write is kept, and answered when it runs."
    terms = conf.load().pairing_terms
    decision = pairing.explain(account=row.account, user_id=user_id, terms=terms, now=timezone.now())
    if decision.is_allowed:
        return ""
    if decision.verdict is Verdict.PAIR:
        return decision.meaning
    return f"It will not answer you. {decision.meaning} Set its policy to allow, or add {user_id} to its allowed_users."


# -- bubbles ----


def _own(entry: JournalEntry) -> Message:
    return Message(
        key=f"in-{entry.message_id}",
        author="",
        text=str(entry.payload.get("text", "")),
        at=entry.received_at,
        standing=_entry_standing(entry),
    )


def _entry_standing(entry: JournalEntry) -> Standing:
    match EntryState(entry.state):
        case EntryState.PENDING if entry.attempts:
            times = "once" if entry.attempts == 1 else f"{entry.attempts} times"
            again = f"It failed {times}; the next try is due at {entry.available_at:%H:%M:%S} UTC."
            return Standing(word="tried again soon", tone=Tone.BUSY, text=again)
        case EntryState.PENDING:
            return Standing(word="received", tone=Tone.BUSY, text="It is stored, and waits for its turn.")
        case EntryState.CLAIMED:
            return Standing(word="being answered", tone=Tone.BUSY)
        case EntryState.COMPLETED if entry.outcome == Outcome.SILENT:
            reason = REASONS.get(entry.outcome_reason, entry.outcome_reason)
            return Standing(word="no answer", tone=Tone.IDLE, text=reason or "The agent chose to say nothing.")
        case EntryState.COMPLETED:
            return Standing(word="answered", tone=Tone.GOOD)
        case EntryState.HELD:
            return Standing(word="held", tone=Tone.WARN, text="Its reply waits for staff.")
        case EntryState.DEAD:
            return Standing(word="failed", tone=Tone.BAD, text=_failure(entry))
        case EntryState.DISCARDED:
            return Standing(word="discarded", tone=Tone.IDLE, text=entry.outcome_reason)


def _failure(entry: JournalEntry) -> str:
    try:
        item = entry.dlq_item
    except DLQItem.DoesNotExist:
        return "It is in the dead letter queue."
    return f"It is in the dead letter queue. {item.error_class}: {item.error_text}"


_SEND_STANDINGS = {
    OutboxState.PENDING: Standing(word="waits to be sent", tone=Tone.BUSY),
    OutboxState.SENDING: Standing(word="sending", tone=Tone.BUSY),
    OutboxState.SENT: Standing(word="sent", tone=Tone.GOOD),
    OutboxState.UNKNOWN: Standing(word="unknown", tone=Tone.WARN, text="Sending was cut: it may have arrived, or not."),
    OutboxState.HELD: Standing(word="held", tone=Tone.WARN, text="It waits for staff; it was not sent."),
    OutboxState.DEAD: Standing(word="not sent", tone=Tone.BAD),
}


def _reply(row: OutboxMessage) -> Message:
    standing = _SEND_STANDINGS[OutboxState(row.state)]
    if row.error and row.state != OutboxState.SENT:
        standing = Standing(word=standing.word, tone=standing.tone, text=row.error)
    return Message(
        key=f"out-{row.pk}",
        author=_author(row),
        text=codes.written_in(row.text, row.pairing) if row.pairing else row.text,  # whoever looks is who asked
        at=row.created_at,
        standing=standing,
    )


def _author(row: OutboxMessage) -> str:
    match OutboxSource(row.source):
        case OutboxSource.REPLY:
            return row.account
        case OutboxSource.NOTICE:
            return "notice"
        case OutboxSource.STAFF:
            return row.requested_by or "staff"
