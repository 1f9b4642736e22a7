"""The gate, with what the database knows: who of those who wrote may be answered. ``core.access`` decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from botsrt.core import access
from botsrt.core.access import Asker, Decision
from botsrt.core.states import Standing
from botsrt.models import JournalEntry
from botsrt.services import bots, pairing, turns
from botsrt.services.bots import BotView
from botsrt.services.turns import ClaimedEntry


def decide(entry: ClaimedEntry, *, bot: BotView, standing: Standing) -> Decision:
    """What may become of one entry.

    Args:
        standing: what staff decided about its contact and this bot.
    """
    message = entry.message
    asker = Asker(
        user_id=message.sender.user_id,
        known_as=entry.known_as,
        is_blocked=entry.is_from_blocked,
        standing=standing,
        chat_type=message.chat_type,
        kind=message.kind,
        is_mentioned=message.is_mentioned,
        is_command=message.text.startswith("/"),
    )
    return access.decide(asker, bot.rules)


def allowed(rows: Iterable[JournalEntry], *, now: datetime) -> list[JournalEntry]:
    """Those of ``rows`` (with contact and alias selected) that an agent would be given now, in the same order."""
    by_account: defaultdict[str, list[ClaimedEntry]] = defaultdict(list)
    rows = list(rows)
    for row in rows:
        by_account[row.account].append(turns.as_claimed(row))
    views = bots.views(accounts=by_account)
    passing: set[int] = set()
    for account, entries in by_account.items():
        if (bot := views.get(account)) is None:
            continue
        contacts = {entry.root_id for entry in entries}
        # How old a refusal is matters to who may ask again, not to who is let in.
        standings = pairing.standings(account=account, contact_ids=contacts, refused_for=timedelta(), now=now)
        for entry in entries:
            if decide(entry, bot=bot, standing=standings.get(entry.root_id, Standing.UNKNOWN)).is_allowed:
                passing.add(entry.id)
    return [row for row in rows if row.pk in passing]
