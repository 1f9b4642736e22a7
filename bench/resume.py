"""Two processes continue one session: ``python -m bench.resume`` checks what they wrote and prints a JSON line.

Each is one ``manage.py sessions resume`` that says N things, one turn after the other. The database is the one of
``DATABASE_URL``, which must be empty.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
os.environ.setdefault("LOG_LEVEL", "CRITICAL")
django.setup()

from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench import world  # noqa: E402
from botsrt.core.states import Role  # noqa: E402
from botsrt.models import HistoryMessage, JournalEntry, OutboxMessage  # noqa: E402
from botsrt.services import inline, journal, ledger  # noqa: E402

PROCESSES = 2
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000, help="of each process (1,000)")
    parser.add_argument("--entries", help="ignored; the session is new")
    turns: int = parser.parse_args().turns
    session_id = make_session()
    began = time.monotonic()
    running = [start(session_id, f"process {number}", turns) for number in range(PROCESSES)]
    for process in running:
        if process.wait():
            sys.exit(f"A process ended with {process.returncode}.")
    seconds = time.monotonic() - began
    check(turns)
    told = {"kind": "resume", "database": connection.vendor, "processes": PROCESSES, "turns": PROCESSES * turns}
    print(json.dumps({**told, "seconds": round(seconds, 1), "per_second": round(PROCESSES * turns / seconds, 1)}))


def make_session() -> str:
    """A session in which nothing was said."""
    world.make(entries=0)
    now = timezone.now()
    message = world.message(1, 1)
    entry_id = journal.receive(message=message, now=now, max_raw_bytes=0)
    assert entry_id is not None
    inline.withdraw(entry_id=entry_id, reason="It only made the session.", now=now)
    session = JournalEntry.objects.select_related("session").get(pk=entry_id).session
    assert session is not None
    return session.session_id


def start(session_id: str, name: str, turns: int) -> subprocess.Popen[bytes]:
    said = [word for number in range(turns) for word in ("--continue", f"{name}: {number}")]
    command = [sys.executable, "manage.py", "sessions", "resume", "--session-id", session_id, *said]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def check(turns: int) -> None:
    """Every turn is there once, in the order of its process, question and answer by turns, and nothing was sent."""
    rows = list(HistoryMessage.objects.order_by("id").values_list("role", "text"))
    expect(len(rows) == PROCESSES * turns * 2, f"{len(rows)} messages")
    roles = [role for role, _ in rows]
    expect(roles == [Role.USER, Role.ASSISTANT] * (PROCESSES * turns), "roles do not alternate")
    expect(all(asked == answered for (_, asked), (_, answered) in zip(rows[::2], rows[1::2], strict=True)), "mixed up")
    said = [text for role, text in rows if role == Role.USER]
    expect(max(Counter(said).values()) == 1, "something was said twice")
    for number in range(PROCESSES):
        own = [text for text in said if text.startswith(f"process {number}: ")]
        expect(own == [f"process {number}: {turn}" for turn in range(turns)], f"process {number} lost its order")
    expect(not OutboxMessage.objects.exists(), "something was sent")
    balance = ledger.check(since=None, lease=timedelta(seconds=30), now=timezone.now())
    expect(balance.is_balanced, f"the ledger: {balance}")


def expect(is_so: bool, problem: str) -> None:
    if not is_so:
        sys.exit(f"Failed: {problem}.")


if __name__ == "__main__":
    main()
