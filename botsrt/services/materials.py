"""What a turn needs beside its entries, read when it begins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from botsrt.core import resets
from botsrt.core.ports import HistoryItem
from botsrt.core.runtime_state import RuntimeState
from botsrt.core.states import Standing, UnknownUserPolicy
from botsrt.services import bots, contexts, identity, pairing, sessions
from botsrt.services.batches import batched, only
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """What a turn needs beside its entries, as it is at this moment."""

    bot: BotView | None  # None: removed meanwhile
    standings: Mapping[int, Standing]  # root contact → what staff decided; none: unknown
    persons: Mapping[int, str]  # root contact → unified user id, where linked
    history: tuple[HistoryItem, ...]
    begins_anew: str  # why the conversation begins anew with this turn; empty: it goes on
    runtime_state: RuntimeState = field(default_factory=dict)  # where the bot mirrors it, or there is no bot


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """Whose materials are asked for; a call of ``gather``."""

    turn: ClaimedTurn
    max_history: int
    refused_for: timedelta
    now: datetime

    @property
    def contact_ids(self) -> set[int]:
        return {entry.root_id for entry in self.turn.entries}


def _gather_all(needs: Sequence[_Need]) -> list[Materials]:
    """``gather``, for many turns."""
    for need in needs:
        identity.refresh(lane=need.turn.lane, now=need.now)
    views = bots.views(accounts={need.turn.account for need in needs})
    standings = _standings(needs, views)
    persons = identity.persons_of({contact_id for need in needs for contact_id in need.contact_ids})
    anew = {need.turn.id: _why_anew(need.turn, views.get(need.turn.account)) for need in needs}
    histories = _histories([need for need in needs if not anew[need.turn.id]])
    found = []
    for need in needs:
        turn, bot = need.turn, views.get(need.turn.account)
        found.append(
            Materials(
                bot=bot,
                standings=standings.get(turn.account, {}),
                persons={pk: persons[pk] for pk in need.contact_ids if pk in persons},
                history=() if anew[turn.id] else histories.get(turn.session_pk, ()),
                begins_anew=anew[turn.id],
                runtime_state=(
                    sessions.runtime_state(session_pk=turn.session_pk)
                    if bot is None or bot.mirrors_runtime_state
                    else {}
                ),
            )
        )
    return found


@batched(_Need, _gather_all)
def gather(*, turn: ClaimedTurn, max_history: int, refused_for: timedelta, now: datetime) -> Materials:
    """Read the bot's rules and agent, who writes, and the conversation so far."""
    return only(_gather_all([_Need(turn=turn, max_history=max_history, refused_for=refused_for, now=now)]))


def _histories(needs: Sequence[_Need]) -> dict[int, tuple[HistoryItem, ...]]:
    """What the agents may see, by session: that of the present contexts, with what is recalled in them."""
    found = sessions.histories({need.turn.session_pk: need.max_history for need in needs})
    recalling = contexts.recalling({need.turn.lane for need in needs})
    for need in needs:
        if need.turn.lane in recalling:
            history = found.get(need.turn.session_pk, ())
            found[need.turn.session_pk] = contexts.recalled(history, lane=need.turn.lane, max_messages=need.max_history)
    return found


def _standings(needs: Sequence[_Need], views: Mapping[str, BotView]) -> dict[str, Mapping[int, Standing]]:
    """By account: what staff decided about those who wrote, where the bot does not answer everybody anyway."""
    asked: defaultdict[str, list[_Need]] = defaultdict(list)
    for need in needs:
        bot = views.get(need.turn.account)
        if bot is not None and bot.rules.policy != UnknownUserPolicy.ALLOW:
            asked[bot.account].append(need)
    return {
        account: pairing.standings(
            account=account,
            contact_ids={contact_id for need in these for contact_id in need.contact_ids},
            refused_for=these[0].refused_for,
            now=these[0].now,
        )
        for account, these in asked.items()
    }


def _why_anew(turn: ClaimedTurn, bot: BotView | None) -> str:
    """Why the bot's policy wants a new conversation: seen from when the message came, however long it waited since."""
    if bot is None or (bot.resets.idle is None and bot.resets.daily_at is None):
        return ""
    last_at = sessions.last_said_at(session_pk=turn.session_pk)
    came_at = min(entry.received_at for entry in turn.entries)
    return resets.why(bot.resets, last_at=last_at, now=came_at) if last_at is not None else ""
