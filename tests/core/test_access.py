"""The gate: who may talk to a bot where, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.access import MEANINGS, Asker, Reason, Rules, Verdict, decide
from botsrt.core.states import ChatType, EventKind, GroupRespond, Standing, UnknownUserPolicy

ALLOW, DENY, PAIR = UnknownUserPolicy.ALLOW, UnknownUserPolicy.DENY, UnknownUserPolicy.PAIR
ALL, MENTION, COMMAND, OBSERVE = GroupRespond.ALL, GroupRespond.MENTION, GroupRespond.COMMAND, GroupRespond.OBSERVE


def reason(asker: Asker, rules: Rules) -> tuple[bool, Reason]:
    decision = decide(asker, rules)
    return decision.is_allowed, decision.reason


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ALLOW, (True, Reason.POLICY_ALLOW)),
        (DENY, (False, Reason.POLICY_DENY)),
        (PAIR, (False, Reason.PAIRING_REQUIRED)),
    ],
)
def test_a_stranger_meets_the_policy(policy, expected):
    assert reason(Asker(user_id="u"), Rules(policy=policy)) == expected


def test_without_any_settings_nobody_is_answered():
    assert reason(Asker(user_id="u"), Rules()) == (False, Reason.POLICY_DENY)


@pytest.mark.parametrize("policy", UnknownUserPolicy)
def test_the_allowed_list_comes_before_the_policy(policy):
    rules = Rules(policy=policy, allowed_user_ids={"u"})
    assert reason(Asker(user_id="u"), rules) == (True, Reason.ON_ALLOWED_LIST)


def test_an_empty_allowed_list_allows_nobody_and_a_star_is_only_a_name():
    assert not decide(Asker(user_id="u"), Rules(allowed_user_ids=())).is_allowed
    assert not decide(Asker(user_id="u"), Rules(allowed_user_ids={"*", ""})).is_allowed


def test_a_user_id_is_compared_whole():
    assert not decide(Asker(user_id="12"), Rules(allowed_user_ids={"123", "1", "2"})).is_allowed


@pytest.mark.parametrize("chat_type", ChatType)
def test_blocked_beats_everything(chat_type):
    rules = Rules(policy=ALLOW, allowed_user_ids={"u"}, group_respond=ALL)
    asker = Asker(user_id="u", is_blocked=True, chat_type=chat_type, is_mentioned=True, is_command=True)
    assert reason(asker, rules) == (False, Reason.BLOCKED)


@pytest.mark.parametrize(
    ("respond", "is_mentioned", "is_command", "expected"),
    [
        (ALL, False, False, Reason.POLICY_ALLOW),
        (ALL, True, True, Reason.POLICY_ALLOW),
        (MENTION, False, False, Reason.NOT_ADDRESSED),
        (MENTION, True, False, Reason.POLICY_ALLOW),
        (MENTION, False, True, Reason.POLICY_ALLOW),
        (COMMAND, False, False, Reason.NOT_ADDRESSED),
        (COMMAND, True, False, Reason.NOT_ADDRESSED),
        (COMMAND, False, True, Reason.POLICY_ALLOW),
        (OBSERVE, True, True, Reason.OBSERVE_ONLY),
    ],
)
def test_what_a_bot_reacts_to_in_a_group(respond, is_mentioned, is_command, expected):
    asker = Asker(user_id="u", chat_type=ChatType.GROUP, is_mentioned=is_mentioned, is_command=is_command)
    rules = Rules(policy=ALLOW, group_respond=respond)
    assert reason(asker, rules) == (expected == Reason.POLICY_ALLOW, expected)


@pytest.mark.parametrize("respond", GroupRespond)
def test_group_rules_do_not_touch_direct_messages(respond):
    assert decide(Asker(user_id="u"), Rules(policy=ALLOW, group_respond=respond)).is_allowed


def test_the_allowed_list_does_not_make_a_bot_answer_what_was_not_meant_for_it():
    asker = Asker(user_id="u", chat_type=ChatType.GROUP)
    assert reason(asker, Rules(policy=ALLOW, allowed_user_ids={"u"})) == (False, Reason.NOT_ADDRESSED)


@pytest.mark.parametrize(
    ("is_mentioned", "expected"), [(False, Reason.NOT_ADDRESSED), (True, Reason.PAIRING_IN_DIRECT_ONLY)]
)
def test_pairing_never_starts_in_a_group_and_never_before_the_mention_check(is_mentioned, expected):
    asker = Asker(user_id="u", chat_type=ChatType.GROUP, is_mentioned=is_mentioned)
    assert reason(asker, Rules(policy=PAIR)) == (False, expected)


@pytest.mark.parametrize(
    ("answers_edits", "kind", "expected"),
    [
        (True, EventKind.EDIT, Reason.POLICY_ALLOW),
        (False, EventKind.EDIT, Reason.EDIT_IGNORED),
        (False, EventKind.MESSAGE, Reason.POLICY_ALLOW),
        (False, EventKind.CALLBACK, Reason.POLICY_ALLOW),
    ],
)
def test_edits_are_answered_where_the_bot_says_so(answers_edits, kind, expected):
    decision = decide(Asker(user_id="u", kind=kind), Rules(policy=ALLOW, answers_edits=answers_edits))
    assert decision.reason == expected


# -- pairing ----


@pytest.mark.parametrize("policy", UnknownUserPolicy)
def test_who_is_paired_is_let_in_whatever_the_policy(policy):
    asker = Asker(user_id="u", standing=Standing.PAIRED)
    assert reason(asker, Rules(policy=policy)) == (True, Reason.PAIRED)


@pytest.mark.parametrize(
    ("standing", "verdict", "code"),
    [
        (Standing.UNKNOWN, Verdict.PAIR, Reason.PAIRING_REQUIRED),
        (Standing.WAITING, Verdict.PAIR, Reason.PAIRING_WAITING),
        (Standing.REFUSED, Verdict.DROP, Reason.PAIRING_REFUSED),
        (Standing.PAIRED, Verdict.ALLOW, Reason.PAIRED),
    ],
)
def test_what_a_contact_may_do_where_the_bot_pairs(standing, verdict, code):
    decision = decide(Asker(user_id="u", standing=standing), Rules(policy=PAIR))
    assert (decision.verdict, decision.reason) == (verdict, code)


def test_an_alias_is_on_the_list_under_either_id():
    rules = Rules(allowed_user_ids={"old"})
    assert decide(Asker(user_id="new", known_as=["old"]), rules).is_allowed
    assert not decide(Asker(user_id="new"), rules).is_allowed


def test_every_reason_has_a_meaning():
    assert set(MEANINGS) == set(Reason)


@given(
    asker=st.builds(
        Asker,
        user_id=st.sampled_from(["u", "v"]),
        is_blocked=st.booleans(),
        standing=st.sampled_from(Standing),
        chat_type=st.sampled_from(ChatType),
        kind=st.sampled_from(EventKind),
        is_mentioned=st.booleans(),
        is_command=st.booleans(),
    ),
    rules=st.builds(
        Rules,
        policy=st.sampled_from(UnknownUserPolicy),
        allowed_user_ids=st.sampled_from([(), ("v",)]),
        group_respond=st.sampled_from(GroupRespond),
        answers_edits=st.booleans(),
    ),
)
def test_what_holds_for_every_decision(asker, rules):
    decision = decide(asker, rules)
    if asker.is_blocked:
        assert decision.reason is Reason.BLOCKED
    if decision.verdict is Verdict.PAIR:
        assert asker.chat_type is ChatType.DIRECT
        assert rules.policy is PAIR
    if decision.is_allowed:
        is_known = asker.user_id in rules.allowed_user_ids or asker.standing is Standing.PAIRED
        assert is_known or rules.policy is ALLOW


@pytest.mark.parametrize("owners", [{"u"}, {"v"}])
def test_only_owners_are_never_too_fast(owners):
    rules = Rules(policy=ALLOW, owners=owners)
    expected = (True, Reason.POLICY_ALLOW) if owners == {"u"} else (False, Reason.RATE_LIMITED)
    assert reason(Asker(user_id="u", is_too_fast=True), rules) == expected
    assert reason(Asker(user_id="u"), rules) == (True, Reason.POLICY_ALLOW)


def test_who_would_get_no_answer_anyway_is_not_told_that_they_are_too_fast():
    assert reason(Asker(user_id="u", is_too_fast=True), Rules()) == (False, Reason.POLICY_DENY)
