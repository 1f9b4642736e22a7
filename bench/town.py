"""A database as large as the site must bear: filled by SQL, so that it takes minutes at most.

1,000,000 messages of 100,000 contacts with a session each, 20,000 persons of two contacts, 200,000 journal entries in
all states with their turns and replies, 10,000 open dead letters in 201 groups, requests, acts, and a bulk operation of
10,000 rows. Session 1 belongs to a person with 50,000 messages, session 3 to one with 50.
"""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from bench import world
from botsrt.core.actors import SYSTEM
from botsrt.core.states import UnknownUserPolicy
from botsrt.models import BotSession
from botsrt.services import bots
from botsrt.services.bots import Changes, Shape

MESSAGES = 1_000_000
ENTRIES = 200_000
CONTACTS = 100_000
GROUPS = 2_000
PERSONS = 20_000

#: Sessions of the person with 50,000 messages, and of the one with 50.
TALKATIVE, SHY = 1, 3

#: Messages stand in pairs of a question and its answer; the newest pairs have an entry and a turn.
_PAIRS = MESSAGES // 2
_OLD_PAIRS = _PAIRS - ENTRIES

#: The session of pair ``p``.
_SESSION_OF = f"""(CASE WHEN ({{p}}) % 20 = 0 THEN 1 + ({{p}}) / 20 % 2
    WHEN ({{p}}) % 20000 = 1 THEN 3 + ({{p}}) / 20000 % 2
    ELSE 5 + ({{p}}) * 1009 % {CONTACTS - 4} END)"""
_PAIR = "(n + 1) / 2"
_SESSION = _SESSION_OF.format(p=_PAIR)
_ENTRY_SESSION = _SESSION_OF.format(p=f"n + {_OLD_PAIRS}")

_PLATFORM = "(CASE {x} % 3 WHEN 0 THEN 'web' WHEN 1 THEN 'telegram' ELSE 'slack' END)"
_ACCOUNT = "(CASE {x} % 3 WHEN 0 THEN 'shop' WHEN 1 THEN 'desk' ELSE 'news' END)"
_SESSION_ID = f"'bot_' || {_PLATFORM} || '_u' || {{x}}"
_LANE = f"(CASE WHEN {{x}} <= {PERSONS * 2} THEN 'person:p' || (({{x}} - 1) / 2 + 1) ELSE {_SESSION_ID} END)"

_ENTRY_STATE = """(CASE WHEN n % 20 = 1 THEN 'dead' WHEN n % 400 = 2 THEN 'held' WHEN n % 100 = 3 THEN 'discarded'
    WHEN n % 200 = 4 THEN 'pending' WHEN n % 20000 = 5 THEN 'claimed' ELSE 'completed' END)"""
_OUTBOX_STATE = """(CASE WHEN n % 100 = 11 THEN 'dead' WHEN n % 400 = 12 THEN 'held' WHEN n % 500 = 13 THEN 'unknown'
    WHEN n % 400 = 14 THEN 'pending' WHEN n % 10000 = 15 THEN 'sending' ELSE 'sent' END)"""
_WORDS = """'order ' || n || ' ' || (CASE n % 7 WHEN 0 THEN 'has not arrived yet' WHEN 1 THEN 'is on its way to you'
    WHEN 2 THEN 'was packed twice' WHEN 3 THEN 'needs another address' ELSE 'is as I hoped, thank you' END)
    || (CASE WHEN n % 100 = 0 THEN ' refund' ELSE '' END) || (CASE WHEN n % 100000 = 7 THEN ' unicorn' ELSE '' END)"""


def _filled() -> dict[str, tuple[int, str]]:
    """Table → number of rows, and what to insert for row ``n``."""
    no, yes, uuid = "{no}", "{yes}", "{uuid}"  # world.fill knows how each database writes them
    empty, update, after = "'{{}}'", """'{{"update_id": 1}}'""", """'{{"state": "pending"}}'"""
    is_postgres = connection.vendor == "postgresql"

    def ago(seconds: str) -> str:
        if is_postgres:
            return f"(now() - ({seconds}) * interval '1 second')"
        return f"datetime('now', printf('%+d seconds', -({seconds})))"

    entry_at = ago(f"({ENTRIES} - n) * 12 + 1")
    of_group = "CASE WHEN n % 2 = 0 THEN 0 ELSE n / 2 % 200 + 1 END"
    fingerprint = f"lpad(to_hex({of_group}), 16, '0')" if is_postgres else f"printf('%016x', {of_group})"
    its_entry = f"({_PAIR} - {_OLD_PAIRS})"
    its_turn = f"lpad(to_hex({its_entry}), 32, '0')::uuid" if is_postgres else f"printf('%032x', {its_entry})"
    json_object, json = ("jsonb_build_object", "::jsonb") if is_postgres else ("json_object", "")
    state_of_item = "(CASE WHEN n <= 10000 THEN 'open' WHEN n <= 12000 THEN 'discarded' ELSE 'resolved' END)"
    entry_of_item = """(CASE WHEN n <= 10000 THEN (n - 1) * 20 + 1 WHEN n <= 12000 THEN (n - 10001) * 100 + 3
        ELSE (n - 12001) * 50 + 10 END)"""
    return {
        "botsrt_contact": (
            CONTACTS,
            f"""(id, platform, platform_user_id, user_name, display_name, is_blocked, is_reachable, first_seen_at,
             last_seen_at)
            SELECT n, {_PLATFORM.format(x="n")}, 'u' || n, 'user' || n, 'Ada Nr ' || (n % 5000), {no}, {yes},
             {ago("n * 30")}, {ago("n * 20")}""",
        ),
        "botsrt_person": (PERSONS, f"(id, unified_user_id, created_at) SELECT n, 'p' || n, {ago('n')}"),
        "botsrt_identitylink": (
            PERSONS * 2,
            f"""(contact_id, person_id, proof, linked_by, linked_at, reason, unlinked_by, unlink_reason, context_start)
            SELECT n, (n - 1) / 2 + 1, 'staff', 'alice', {ago("n")}, 'same address', '', '', 0""",
        ),
        "botsrt_botsession": (
            CONTACTS,
            f"""(id, session_id, lane, platform, account, scope, contact_id, channel_id, thread_id, chat_name, handler,
             handler_by, epoch, context_start, runtime_state, created_at, last_activity_at)
            SELECT n, {_SESSION_ID.format(x="n")}, {_LANE.format(x="n")}, {_PLATFORM.format(x="n")},
             {_ACCOUNT.format(x="n")},
             'per_user', n, '', '', '', (CASE WHEN n % 500 = 0 THEN 'human' WHEN n % 700 = 0 THEN 'paused' ELSE 'bot'
             END), '', 1, 0, {empty}, {ago("n * 30")}, {ago("n * 20")}""",
        ),
        "botsrt_botsession ": (
            GROUPS,
            f"""(id, session_id, lane, platform, account, scope, channel_id, thread_id, chat_name, handler,
             handler_by, epoch, context_start, runtime_state, created_at, last_activity_at)
            SELECT {CONTACTS} + n, 'group' || n, 'group' || n, 'telegram', 'desk', 'per_chat', 'g' || n, '',
             'Group ' || n, 'bot', '', 1, 0, {empty}, {ago("n")}, {ago("n * 999")}""",
        ),
        "botsrt_turn": (
            ENTRIES,
            f"""(id, lane, runs_aside, session_id, generation, worker_id, lease_expires_at, deadline_at, state,
             "trigger", run_mode, requested_by, request_reason, attempt, agent, agent_version, error_class, error_text,
             usage, started_at, finished_at)
            SELECT {uuid}, 'lane' || n, {no}, {_ENTRY_SESSION}, 1, 'w', {entry_at}, {entry_at},
             (CASE {_ENTRY_STATE} WHEN 'claimed' THEN 'running' WHEN 'dead' THEN 'failed' ELSE 'finished' END),
             'message', 'send', '', '', 1, 'echo', 1, '', '', {empty}, {entry_at}, {entry_at}""",
        ),
        "botsrt_journalentry": (
            ENTRIES,
            f"""(id, platform, account, channel_id, message_id, revision, thread_id, chat_type, kind, lane, command,
             session_id, contact_id, payload, raw, state, outcome, outcome_reason, available_at, attempts, deaths,
             duplicates, interruptions, runs_alone, runs_aside, turn_id, "trigger", run_mode, requested_by,
             request_reason, received_at, completed_at)
            SELECT n, {_PLATFORM.format(x=_ENTRY_SESSION)}, {_ACCOUNT.format(x=_ENTRY_SESSION)},
             'u' || {_ENTRY_SESSION}, 'm' || n, '', '', 'direct', (CASE WHEN n % 90 = 0 THEN 'edit' ELSE 'message' END),
             {_LANE.format(x=_ENTRY_SESSION)}, '', {_ENTRY_SESSION}, {_ENTRY_SESSION},
             {json_object}('text', {_WORDS}),
             (CASE WHEN n > 150000 THEN {update} END){json},
             {_ENTRY_STATE}, (CASE {_ENTRY_STATE} WHEN 'completed' THEN 'answered' WHEN 'pending' THEN '' WHEN 'claimed'
             THEN '' ELSE {_ENTRY_STATE} END), '', {entry_at}, (CASE WHEN n % 20 = 1 THEN 3 ELSE 0 END), 0,
             (CASE WHEN n % 3000 = 0 THEN 1 ELSE 0 END), 0, {no}, {no}, {uuid}, 'message', 'send', '', '', {entry_at},
             (CASE WHEN {_ENTRY_STATE} IN ('pending', 'claimed') THEN NULL ELSE {entry_at} END)""",
        ),
        "botsrt_outboxmessage": (
            ENTRIES,
            f"""(id, idempotency_key, platform, account, channel_id, thread_id, reply_to, session_id, turn_id, entry_id,
             source, requested_by, text, buttons, edits, state, is_resend, attempts, next_attempt_at, worker_id,
             platform_message_id, error, created_at, sent_at)
            SELECT n, 'r:' || n, {_PLATFORM.format(x=_ENTRY_SESSION)}, {_ACCOUNT.format(x=_ENTRY_SESSION)},
             'u' || {_ENTRY_SESSION}, '', '', {_ENTRY_SESSION}, {uuid}, n,
             (CASE WHEN n % 30 = 0 THEN 'staff' ELSE 'reply' END), '', {_WORDS}, '[]', '', {_OUTBOX_STATE}, {no}, 0,
             {entry_at}, 'w', 'p' || n, '', {entry_at}, {entry_at}""",
        ),
        "botsrt_historymessage": (
            MESSAGES,
            f"""(id, session_id, turn_id, ordinal, entry_id, role, kind, sender_name, text, attachments, route, source,
             metadata, created_at)
            SELECT n, {_SESSION},
             (CASE WHEN {_PAIR} > {_OLD_PAIRS} AND n % 1000 <> 4 THEN {its_turn} END),
             1 - n % 2, (CASE WHEN {_PAIR} > {_OLD_PAIRS} AND n % 2 = 1 THEN {its_entry} END),
             (CASE WHEN n % 1000 = 4 THEN 'system' WHEN n % 2 = 1 THEN 'user' ELSE 'assistant' END),
             (CASE WHEN n % 1000 = 4 THEN 'note' WHEN n % 500 = 6 THEN 'staff' WHEN n % 500 = 8 THEN 'mirror'
             ELSE 'chat' END), 'Ada', {_WORDS}, '[]', {empty}, '', {empty}, {ago(f"({_PAIRS} - {_PAIR}) * 12 + 1")}""",
        ),
        "botsrt_dlqitem": (
            16_000,
            f"""(id, entry_id, account, state, reason, error_class, error_text, traceback, fingerprint, attempts,
             first_failed_at, last_failed_at, note, assignee, closed_at, closed_by, close_reason)
            SELECT n, {entry_of_item}, 'desk', {state_of_item}, 'failed', 'KeyError', 'no price for order ' || n,
             'Traceback', {fingerprint}, 3, {ago("16000 - n + 2")}, {ago("16000 - n + 1")}, '',
             (CASE WHEN n % 3 = 0 THEN 'alice' ELSE '' END), (CASE WHEN n > 10000 THEN {ago("n")} END), '', ''""",
        ),
        "botsrt_pairing": (
            20_000,
            f"""(id, platform, account, contact_id, purpose, state, nonce, code_hash, created_at, expires_at,
             session_id, channel_id, thread_id, first_words, asked_count, code_sent_at, other_account, other_channel_id,
             other_needs_access, proof, decided_by, decided_at, reason)
            SELECT n, {_PLATFORM.format(x="n")}, {_ACCOUNT.format(x="n")}, 100000 - n, 'access',
             (CASE WHEN n % 200 = 0 THEN 'waiting' WHEN n % 9 = 1 THEN 'denied' WHEN n % 9 = 2 THEN 'expired'
             WHEN n % 90 = 3 THEN 'blocked' WHEN n % 90 = 4 THEN 'revoked' ELSE 'approved' END), 'nonce', 'hash',
             {ago("3600 - n % 60")}, {ago("n % 60 - 3600")}, 100000 - n, 'u' || (100000 - n), '', 'hello', 1,
             {ago("3600")}, '', '', {no}, '', 'alice', {ago("n")}, ''""",
        ),
        "botsrt_auditevent": (
            100_000,
            f"""(id, at, actor, address, verb, object_kind, object_id, reason, before, after)
            SELECT n, {ago("(100000 - n) * 30")}, (CASE WHEN n % 1000 = 0 THEN 'carol' WHEN n % 3 = 0 THEN 'bob' ELSE
             'alice' END), '127.0.0.1', (CASE n % 4 WHEN 0 THEN 'dlq.retry' WHEN 1 THEN 'journal.replay' WHEN 2 THEN
             'outbox.drop' ELSE 'dlq.note' END), (CASE n % 4 WHEN 1 THEN 'journal' WHEN 2 THEN 'outbox' ELSE 'dlq' END),
             '' || (n % 16000 + 1), 'reason ' || n, {empty}, {after}""",
        ),
        "botsrt_bulkoperation": (
            60,
            f"""(id, verb, options, reason, asked_by, address, state, total, steps, step, runner_id, note, stopped_by,
             created_at, moved_at)
            SELECT n, 'retry', {empty}, '', 'alice', '', (CASE WHEN n = 1 THEN 'stopped' ELSE 'finished' END),
             (CASE WHEN n = 1 THEN 10000 ELSE 100 END), '[1, 5, 25, 9969]', 3, '', '', '', {ago("999")}, {ago("n")}""",
        ),
        "botsrt_bulkitem": (
            10_000,
            f"""(operation_id, ordinal, object_id, step, state, detail, fingerprint, done_at)
            SELECT 1, n, n, 3, (CASE WHEN n > 9000 THEN 'waiting' WHEN n % 50 = 0 THEN 'skipped' ELSE 'done' END), '',
             '', {ago("n")}""",
        ),
        "botsrt_bulkitem ": (
            5_900,
            f"""(operation_id, ordinal, object_id, step, state, detail, fingerprint, done_at)
            SELECT 2 + (n - 1) / 100, n, n, 3, 'done', '', '', {ago("n")}""",
        ),
        "botsrt_worker": (
            150,
            f"""(id, host, pid, version, accounts, running_turns, started_at, last_beat_at, lease_seconds, stopped_at)
            SELECT 'w' || n, 'host', n, '1', '[]', 0, {ago("n * 100")}, {ago("n")}, 60,
             (CASE WHEN n > 3 THEN {ago("n")} END)""",
        ),
    }


def make() -> None:
    """Migrate and fill; a database that is filled already stays as it is."""
    call_command("migrate", verbosity=0)
    if BotSession.objects.filter(pk=CONTACTS).exists():
        return
    now = timezone.now()
    for account, platform in (("shop", "web"), ("desk", "null"), ("news", "null")):
        changes = Changes(policy=UnknownUserPolicy.PAIR)
        bots.add(account=account, platform=platform, shape=Shape(), changes=changes, actor=SYSTEM, now=now)
    User.objects.create_superuser("alice", password="alice")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM botsrt_auditevent")
    for table, (rows, columns) in _filled().items():
        world.fill(table.strip(), columns, rows)
    world.move_sequences([table for table in _filled() if table == table.strip()])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
