"""May this contact talk to this bot here? One pure decision, with a reason code for each.

The order is fixed: blocked → group rules → allowed list → paired → policy → rate. Deny by default; an empty list allows
nobody; pairing happens in direct messages only; owners are never too fast.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from botsrt.core.states import ChatType, EventKind, GroupRespond, Standing, UnknownUserPolicy


class Verdict(StrEnum):
    ALLOW = "allow"
    DROP = "drop"  # no answer, silently
    PAIR = "pair"  # no answer, but the contact may ask for access


class Reason(StrEnum):
    """Why the gate decided as it did; stored on the entry, shown to staff."""

    BLOCKED = "blocked"
    EDIT_IGNORED = "edit_ignored"
    NOT_ADDRESSED = "not_addressed"
    OBSERVE_ONLY = "observe_only"
    ON_ALLOWED_LIST = "on_allowed_list"
    PAIRED = "paired"
    POLICY_ALLOW = "policy_allow"
    POLICY_DENY = "policy_deny"
    PAIRING_IN_DIRECT_ONLY = "pairing_in_direct_only"
    PAIRING_REQUIRED = "pairing_required"
    PAIRING_WAITING = "pairing_waiting"
    PAIRING_REFUSED = "pairing_refused"
    RATE_LIMITED = "rate_limited"


#: What each reason means, for people.
MEANINGS = {
    Reason.BLOCKED: "Staff blocked this contact.",
    Reason.EDIT_IGNORED: "This bot does not answer edited messages.",
    Reason.NOT_ADDRESSED: "The message in the group is not addressed to the bot.",
    Reason.OBSERVE_ONLY: "In groups this bot reads along and never answers.",
    Reason.ON_ALLOWED_LIST: "The bot's allowed users or owners name this contact.",
    Reason.PAIRED: "Staff approved this contact for this bot.",
    Reason.POLICY_ALLOW: "This bot answers everybody.",
    Reason.POLICY_DENY: "This bot answers only contacts that it knows.",
    Reason.PAIRING_IN_DIRECT_ONLY: "The contact is unknown and can ask for access in a direct message only.",
    Reason.PAIRING_REQUIRED: "The contact is unknown: the next direct message asks staff for access.",
    Reason.PAIRING_WAITING: "The contact has asked for access; staff have not decided yet.",
    Reason.PAIRING_REFUSED: "Staff refused or withdrew this contact's access, and it is too early to ask again.",
    Reason.RATE_LIMITED: "The contact wrote more in a minute than this bot answers, and was told so.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a bot's settings say about access."""

    policy: UnknownUserPolicy = UnknownUserPolicy.DENY
    allowed_user_ids: Collection[str] = ()
    owners: Collection[str] = ()  # they may write as fast as they like
    group_respond: GroupRespond = GroupRespond.MENTION
    answers_edits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who writes, where and how."""

    user_id: str
    known_as: Collection[str] = ()  # other ids of the same contact, declared by staff
    is_blocked: bool = False
    standing: Standing = Standing.UNKNOWN
    chat_type: ChatType = ChatType.DIRECT
    kind: EventKind = EventKind.MESSAGE
    is_mentioned: bool = False
    is_command: bool = False
    is_too_fast: bool = False  # wrote as much in the last minute as the bot answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    verdict: Verdict
    reason: Reason

    @property
    def is_allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW

    @property
    def meaning(self) -> str:
        return MEANINGS[self.reason]


def decide(asker: Asker, rules: Rules) -> Decision:
    """Allow, drop or pair, and why."""
    decision = _admitted(asker, rules)
    if decision.is_allowed and asker.is_too_fast and not _is_among(asker, rules.owners):
        return _drop(Reason.RATE_LIMITED)
    return decision


def _admitted(asker: Asker, rules: Rules) -> Decision:
    if asker.is_blocked:
        return _drop(Reason.BLOCKED)
    if asker.kind == EventKind.EDIT and not rules.answers_edits:
        return _drop(Reason.EDIT_IGNORED)
    if asker.chat_type == ChatType.GROUP and (reason := _group_reason(asker, rules)):
        return _drop(reason)
    if _is_among(asker, rules.allowed_user_ids):
        return _allow(Reason.ON_ALLOWED_LIST)
    if asker.standing == Standing.PAIRED:
        return _allow(Reason.PAIRED)
    match rules.policy:
        case UnknownUserPolicy.ALLOW:
            return _allow(Reason.POLICY_ALLOW)
        case UnknownUserPolicy.DENY:
            return _drop(Reason.POLICY_DENY)
        case UnknownUserPolicy.PAIR:
            return _pair(asker)


def _is_among(asker: Asker, user_ids: Collection[str]) -> bool:
    return not {asker.user_id, *asker.known_as}.isdisjoint(user_ids)


def _pair(asker: Asker) -> Decision:
    """What an unknown contact of a bot that pairs may do."""
    if asker.chat_type != ChatType.DIRECT:
        return _drop(Reason.PAIRING_IN_DIRECT_ONLY)
    match asker.standing:
        case Standing.REFUSED:
            return _drop(Reason.PAIRING_REFUSED)
        case Standing.WAITING:
            return Decision(verdict=Verdict.PAIR, reason=Reason.PAIRING_WAITING)
        case _:
            return Decision(verdict=Verdict.PAIR, reason=Reason.PAIRING_REQUIRED)


def _allow(reason: Reason) -> Decision:
    return Decision(verdict=Verdict.ALLOW, reason=reason)


def _drop(reason: Reason) -> Decision:
    return Decision(verdict=Verdict.DROP, reason=reason)


def _group_reason(asker: Asker, rules: Rules) -> Reason | None:
    """Why a group message is none of the bot's business; None when it is."""
    match rules.group_respond:
        case GroupRespond.ALL:
            return None
        case GroupRespond.OBSERVE:
            return Reason.OBSERVE_ONLY
        case GroupRespond.COMMAND:
            return None if asker.is_command else Reason.NOT_ADDRESSED
        case GroupRespond.MENTION:
            return None if asker.is_mentioned or asker.is_command else Reason.NOT_ADDRESSED
