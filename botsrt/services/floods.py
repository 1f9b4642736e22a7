"""Who writes faster than the bot answers: counted when a message is stored, turned away at once, told once.

What is turned away is in the journal, ended without an answer, and staff can replay it. It needs no turn and no agent,
so one person's flood keeps nobody else waiting. Messages and commands are counted apart: who is too fast can still say
/stop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import QuerySet

from botsrt.core.access import Reason
from botsrt.core.states import EntryState, Outcome, RunMode, Trigger
from botsrt.models import JournalEntry
from botsrt.services import bots, entrance, news, notices, sql

#: How far back is looked: the rate is named per minute.
_WINDOW = timedelta(minutes=1)

_NOTICE = (
    "You write faster than I can answer. I have not read your last message; please wait a minute, then send it again."
)


#: A contact, a bot, and whether they send it commands.
Writer = tuple[int, str, bool]


def recent(writers: Mapping[Writer, datetime]) -> Counter[Writer]:
    """How many messages (or commands) of these contacts came to these bots in the minute before a time.

    What was turned away counts: a flood is over when the person pauses. What the bot had no business with does not,
    nor what programs say in the name of the contact. A large flood is not counted to its end.
    """
    if not writers:
        return Counter()
    asked, parameters = sql.values([(*writer, now - _WINDOW) for writer, now in writers.items()])
    rows = sql.fetch(_RECENT.format(asked=asked, most=bots.MOST_PER_MINUTE), parameters)
    return Counter({(contact_id, account, bool(is_command)): count for contact_id, account, is_command, count in rows})


#: Why the gate let no answer be: who gets in at last has not written too much by having asked for it.
_NOT_ANSWERED = (
    Reason.BLOCKED,
    Reason.EDIT_IGNORED,
    Reason.NOT_ADDRESSED,
    Reason.OBSERVE_ONLY,
    Reason.POLICY_DENY,
    Reason.PAIRING_IN_DIRECT_ONLY,
    Reason.PAIRING_REQUIRED,
    Reason.PAIRING_WAITING,
    Reason.PAIRING_REFUSED,
)

_RECENT = f"""SELECT asked.column1, asked.column2, asked.column3, (
        SELECT COUNT(*) FROM (
            SELECT entry.outcome_reason FROM botsrt_journalentry AS entry
            WHERE entry.contact_id = asked.column1 AND entry.account = asked.column2
                AND entry.received_at > asked.column4 AND (entry.command <> '') = asked.column3
                AND (entry.run_mode = '{RunMode.SEND}' OR entry."trigger" <> '{Trigger.MESSAGE}')
            ORDER BY entry.received_at DESC LIMIT {{most}}) AS newest
        WHERE newest.outcome_reason NOT IN ({", ".join(f"'{reason}'" for reason in _NOT_ANSWERED)}))
    FROM {{asked}} AS asked"""  # noqa: S608  our own codes


def turn_away(entry: JournalEntry, *, now: datetime) -> bool:
    """End the entry, which was stored a moment ago, because its contact wrote too fast; tell them once in a flood.

    Returns:
        False where that is not why it would get no answer, or where nothing limits its contact: nothing was changed.
    """
    decision = entrance.decision_on(entry.pk, now=now, is_too_fast=True)
    if decision is None or decision.reason is not Reason.RATE_LIMITED:
        return False
    assert entry.contact_id is not None  # the gate has looked at it
    earlier = _lately(contact_id=entry.contact_id, account=entry.account, now=now)
    is_first = not earlier.filter(outcome_reason=Reason.RATE_LIMITED).exists()
    JournalEntry.objects.filter(pk=entry.pk).update(
        state=EntryState.COMPLETED, outcome=Outcome.SILENT, outcome_reason=Reason.RATE_LIMITED, completed_at=now
    )
    if is_first:
        # Two processes may each take theirs for the first: in one minute they write the same notice.
        key = f"too-fast:{entry.account}:{entry.contact_id}:{int(now.timestamp() // _WINDOW.total_seconds())}"
        notices.tell(notices.address_of(entry), _NOTICE, key=key, entry_id=entry.pk, now=now)
    news.changed("journal", [entry.pk])
    return True


def _lately(*, contact_id: int, account: str, now: datetime) -> QuerySet[JournalEntry]:
    return JournalEntry.objects.filter(contact=contact_id, account=account, received_at__gt=now - _WINDOW)
