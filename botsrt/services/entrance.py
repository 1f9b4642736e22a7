"""The gate, with what the database knows: who of those who wrote may be answered. ``core.access`` decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from botsrt.core import access
from botsrt.core.access import Asker, Decision
from botsrt.core.states import Standing
from botsrt.services import bots, claimed, pairing
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedEntry


def decide_all(
    entries: Sequence[ClaimedEntry], *, bot: BotView, standings: Mapping[int, Standing], is_too_fast: bool = False
) -> dict[int, Decision]:
    """What may become of each of the entries, which came to one bot, by their ids.

    An album is addressed to the bot as a whole: its caption stands at one of its parts.

    Args:
        standings: root contact → what staff decided about it and this bot; none: unknown.
        is_too_fast: their contacts wrote as much in the last minute as the bot answers.
    """
    addressed = {_album(entry) for entry in entries if entry.message.is_mentioned} - {None}
    return {
        entry.id: decide(
            entry,
            bot=bot,
            standing=standings.get(entry.root_id, Standing.UNKNOWN),
            is_too_fast=is_too_fast,
            is_mentioned=entry.message.is_mentioned or _album(entry) in addressed,
        )
        for entry in entries
    }


def is_owner(entry: ClaimedEntry, bot: BotView) -> bool:
    """Whether an owner of the bot sent the entry."""
    return not {entry.message.sender.user_id, *entry.known_as}.isdisjoint(bot.owners)


def _album(entry: ClaimedEntry) -> tuple[str, str, int] | None:
    """The album that the entry is a part of; None: none."""
    message = entry.message
    return (message.channel_id, message.album, entry.contact_id) if message.album else None


def decide(
    entry: ClaimedEntry, *, bot: BotView, standing: Standing, is_mentioned: bool, is_too_fast: bool = False
) -> Decision:
    """What may become of one entry.

    Args:
        standing: what staff decided about its contact and this bot.
        is_mentioned: it is addressed to the bot, in whatever way.
        is_too_fast: its contact wrote as much in the last minute as the bot answers.
    """
    message = entry.message
    asker = Asker(
        user_id=message.sender.user_id,
        known_as=entry.known_as,
        is_blocked=entry.is_from_blocked,
        standing=standing,
        chat_type=message.chat_type,
        kind=message.kind,
        is_mentioned=is_mentioned,
        is_command=message.text.startswith("/"),
        is_too_fast=is_too_fast,
    )
    return access.decide(asker, bot.rules)


def allowed(entry_ids: Collection[int], *, now: datetime) -> list[ClaimedEntry]:
    """Those of the entries that an agent would be given now, oldest first."""
    return [entry for entry, decision in _decided(entry_ids, now=now) if decision.is_allowed]


def decision_on(entry_id: int, *, now: datetime, is_too_fast: bool) -> Decision | None:
    """What would become of an entry now; None where no bot would get it.

    Args:
        is_too_fast: its contact wrote as much in the last minute as the bot answers.
    """
    return next((decision for _, decision in _decided([entry_id], now=now, is_too_fast=is_too_fast)), None)


def _decided(
    entry_ids: Collection[int], *, now: datetime, is_too_fast: bool = False
) -> list[tuple[ClaimedEntry, Decision]]:
    """What would become of each of the entries now, oldest first; nothing for those of no bot."""
    by_account: defaultdict[str, list[ClaimedEntry]] = defaultdict(list)
    for row in claimed.rows(entry_ids):
        by_account[row.account].append(claimed.entry_of(row))
    views = bots.views(accounts=by_account)
    found: list[tuple[ClaimedEntry, Decision]] = []
    for account, entries in by_account.items():
        if (bot := views.get(account)) is None:
            continue
        contacts = {entry.root_id for entry in entries}
        # How old a refusal is matters to who may ask again, not to who is let in.
        standings = pairing.standings(account=account, contact_ids=contacts, refused_for=timedelta(), now=now)
        decisions = decide_all(entries, bot=bot, standings=standings, is_too_fast=is_too_fast)
        found += [(entry, decisions[entry.id]) for entry in entries]
    return sorted(found, key=lambda pair: pair[0].id)
