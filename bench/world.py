"""A database of a given size, filled by SQL so that a million rows take seconds."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from botsrt.core.actors import SYSTEM
from botsrt.core.messages import InboundMessage, Sender
from botsrt.core.states import UnknownUserPolicy
from botsrt.runtime import platforms
from botsrt.services import bots
from botsrt.services.bots import Changes, Shape

ACCOUNT = "bench"

#: Contacts that take part in the measurement; the rows that fill the tables belong to them too.
CONTACTS = 1_000

#: Tables whose ids are no numbers.
_WITHOUT_SEQUENCE = ("botsrt_turn", "botsrt_worker")

_COLUMNS = {
    "botsrt_contact": """
        (id, platform, platform_user_id, user_name, display_name, is_blocked, is_reachable, first_seen_at, last_seen_at)
        SELECT n, 'null', 'u' || n, '', '', {no}, {yes}, {now}, {now}""",
    "botsrt_botsession": """
        (id, session_id, lane, platform, account, scope, contact_id, channel_id, thread_id, chat_name, handler,
         handler_by, epoch, context_start, runtime_state, created_at, last_activity_at)
        SELECT n, 'bot_null_u' || n, 'bot_null_u' || n, 'null', 'bench', 'per_user', n, '', '', '', 'bot', '', 1, 0,
         '{{}}', {now}, {now}""",
    "botsrt_turn": """
        (id, lane, runs_aside, session_id, generation, worker_id, lease_expires_at, deadline_at, state, "trigger",
         run_mode, requested_by, request_reason, attempt, agent, agent_version, error_class, error_text, usage,
         started_at)
        SELECT {uuid}, 'bot_null_u' || (n % 1000 + 1), {no}, n % 1000 + 1, 1, 'w', {now}, {now}, 'finished', 'message',
         'send', '', '', 1, 'echo', 1, '', '', '{{}}', {now}""",
    "botsrt_journalentry": """
        (id, platform, account, channel_id, message_id, revision, thread_id, chat_type, kind, lane, command, session_id,
         contact_id, payload, state, outcome, outcome_reason, available_at, attempts, deaths, duplicates, interruptions,
         runs_alone, runs_aside, turn_id, "trigger", run_mode, requested_by, request_reason, received_at, completed_at)
        SELECT n, 'null', 'bench', 'u' || (n % 1000 + 1), 'old' || n, '', '', 'direct', 'message',
         'bot_null_u' || (n % 1000 + 1), '', n % 1000 + 1, n % 1000 + 1, '{{"text": "an earlier message"}}',
         'completed', 'answered', '', {now}, 0, 0, 0, 0, {no}, {no}, {uuid}, 'message', 'send', '', '', {earlier},
         {earlier}""",
    "botsrt_outboxmessage": """
        (id, idempotency_key, platform, account, channel_id, thread_id, reply_to, session_id, turn_id, entry_id, source,
         requested_by, text, buttons, edits, state, is_resend, attempts, next_attempt_at, worker_id,
         platform_message_id, error, created_at, sent_at)
        SELECT n, 'old:' || n, 'null', 'bench', 'u' || (n % 1000 + 1), '', '', n % 1000 + 1, {uuid}, n, 'reply', '',
         'an earlier answer', '[]', '', 'sent', {no}, 0, {now}, 'w', 'p' || n, '', {now}, {now}""",
    "botsrt_historymessage": """
        (session_id, turn_id, ordinal, entry_id, role, kind, sender_name, text, attachments, route, source, metadata,
         created_at)
        SELECT n % 1000 + 1, {uuid}, 0, n, 'user', 'chat', '', 'an earlier message', '[]', '{{}}', '', '{{}}', {now}""",
}


def add_bot(*, account: str, agent: str) -> None:
    """A bot that is answered by a function of ``bench.agents``."""
    now = timezone.now()
    options = platforms.agent_options("python")
    bots.add_agent(
        name=agent,
        kind="python",
        options=options,
        settings={"target": f"bench.agents:{agent}"},
        actor=SYSTEM,
        now=now,
    )
    changes = Changes(policy=UnknownUserPolicy.ALLOW, agent=agent, settings={"max_per_minute": "0"})
    bots.add(account=account, platform="null", shape=Shape(), changes=changes, actor=SYSTEM, now=now)


def make(*, entries: int) -> None:
    """Migrate, add the bot and its contacts, and fill the tables with ``entries`` answered messages."""
    call_command("migrate", verbosity=0)
    bots.add(
        account=ACCOUNT,
        platform="null",
        shape=Shape(),
        changes=Changes(policy=UnknownUserPolicy.ALLOW, settings={"max_per_minute": "600"}),  # as fast as can be named
        actor=SYSTEM,
        now=timezone.now(),
    )
    for table, columns in _COLUMNS.items():
        rows = CONTACTS if table in ("botsrt_contact", "botsrt_botsession") else entries
        if rows:
            fill(table, columns, rows)
    move_sequences([table for table in _COLUMNS if table != "botsrt_historymessage"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def link(*, contacts: int) -> None:
    """``contacts`` contacts with a session and two messages each; every five of them are one person."""
    statements = {
        "botsrt_contact": (_COLUMNS["botsrt_contact"], contacts - CONTACTS),
        "botsrt_botsession": (_COLUMNS["botsrt_botsession"], contacts - CONTACTS),
        "botsrt_person": ("(id, unified_user_id, created_at) SELECT n, 'person-' || n, {now}", contacts // 5),
        "botsrt_identitylink": (
            """(contact_id, person_id, proof, linked_by, linked_at, reason, unlinked_by, unlink_reason, context_start)
            SELECT n, (n - 1) / 5 + 1, 'staff', 'bench', {now}, '', '', '', 0""",
            contacts,
        ),
        "botsrt_historymessage": (
            """(session_id, ordinal, role, kind, sender_name, text, attachments, route, source, metadata, created_at)
            SELECT (n - 1) % {contacts} + 1, 0, 'user', 'chat', '', 'an earlier message', '[]', '{{}}', '', '{{}}',
             {now}""".replace("{contacts}", str(contacts)),
            contacts * 2,
        ),
    }
    for table, (columns, rows) in statements.items():
        if rows > 0:
            first = CONTACTS + 1 if table in ("botsrt_contact", "botsrt_botsession") else 1
            fill(table, columns, rows, first=first)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE botsrt_botsession SET lane = 'person:person-' || ((contact_id - 1) / 5 + 1)")
        cursor.execute("ANALYZE")


def fill(table: str, columns: str, rows: int, *, first: int = 1) -> None:
    """Insert rows ``n`` from ``first``; ``columns`` names the columns and says what each is for ``n``."""
    last = first + rows - 1
    is_postgres = connection.vendor == "postgresql"
    words = {
        "now": "now()" if is_postgres else "datetime('now')",
        "earlier": "now() - interval '1 day'" if is_postgres else "datetime('now', '-1 day')",  # it counts to no rate
        "yes": "true" if is_postgres else "1",
        "no": "false" if is_postgres else "0",
        "uuid": "lpad(to_hex(n), 32, '0')::uuid" if is_postgres else "printf('%032x', n)",
    }
    numbers = (
        f"generate_series({first}, {last}) AS numbers(n)"
        if is_postgres
        else f"(WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM c WHERE n < {last}) SELECT n FROM c)"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} {columns.format(**words)} FROM {numbers}")


def move_sequences(tables: Iterable[str]) -> None:
    """Ids were given by hand; PostgreSQL's sequences have to be told."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for table in tables:
            if table not in _WITHOUT_SEQUENCE:
                highest = f"(SELECT coalesce(max(id), 1) FROM {table})"
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {highest})")


def message(contact: int, number: int) -> InboundMessage:
    """Message ``number`` of contact ``contact`` (1-based)."""
    return InboundMessage(
        platform="null",
        account=ACCOUNT,
        channel_id=f"u{contact}",
        message_id=f"new{number}",
        sender=Sender(user_id=f"u{contact}"),
        text=f"message {number}",
        raw={"update_id": number, "message": {"text": f"message {number}"}},
    )
