"""May this contact talk to this bot here? One pure decision, with a reason code for every drop.

The order is fixed: blocked → group rules → allowed list → paired → policy. Deny by default; an empty list allows
nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from botsrt.core.states import ChatType, EventKind, GroupRespond, UnknownUserPolicy


class Reason(StrEnum):
    """Why the gate decided as it did; stored on the entry, shown to staff."""

    BLOCKED = "blocked"
    EDIT_IGNORED = "edit_ignored"
    NOT_ADDRESSED = "not_addressed"
    OBSERVE_ONLY = "observe_only"
    ON_ALLOWED_LIST = "on_allowed_list"
    POLICY_ALLOW = "policy_allow"
    POLICY_DENY = "policy_deny"
    PAIRING_IN_DIRECT_ONLY = "pairing_in_direct_only"
    PAIRING_REQUIRED = "pairing_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a bot's settings say about access."""

    policy: UnknownUserPolicy = UnknownUserPolicy.DENY
    allowed_user_ids: Collection[str] = ()
    group_respond: GroupRespond = GroupRespond.MENTION
    answers_edits: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who writes, where and how."""

    user_id: str
    is_blocked: bool = False
    chat_type: ChatType = ChatType.DIRECT
    kind: EventKind = EventKind.MESSAGE
    is_mentioned: bool = False
    is_command: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    is_allowed: bool
    reason: Reason


def decide(asker: Asker, rules: Rules) -> Decision:
    """Allow or drop, and why."""
    if asker.is_blocked:
        return _drop(Reason.BLOCKED)
    if asker.kind == EventKind.EDIT and not rules.answers_edits:
        return _drop(Reason.EDIT_IGNORED)
    if asker.chat_type == ChatType.GROUP and (reason := _group_reason(asker, rules)):
        return _drop(reason)
    if asker.user_id in rules.allowed_user_ids:
        return Decision(is_allowed=True, reason=Reason.ON_ALLOWED_LIST)
    match rules.policy:
        case UnknownUserPolicy.ALLOW:
            return Decision(is_allowed=True, reason=Reason.POLICY_ALLOW)
        case UnknownUserPolicy.DENY:
            return _drop(Reason.POLICY_DENY)
        case UnknownUserPolicy.PAIR:
            is_direct = asker.chat_type == ChatType.DIRECT
            return _drop(Reason.PAIRING_REQUIRED if is_direct else Reason.PAIRING_IN_DIRECT_ONLY)


def _drop(reason: Reason) -> Decision:
    return Decision(is_allowed=False, reason=reason)


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
