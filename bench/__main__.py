"""Measure everything and write ``bench/RESULTS.md``: ``python -m bench [--entries N]... [--seconds S]``.

Each measurement runs in a process of its own on a database of its own. Figures are per machine and per run; what is
compared is the columns of one table, measured one after the other in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

SIZES = (0, 50_000, 1_000_000)
RESULTS = Path(__file__).parent / "RESULTS.md"

_POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")

_TITLES = {
    "receive": "Receive: new messages stored per second, 64 callers",
    "cycle": "Cycle: receive, claim and finish through the bridge, per second, 64 callers",
    "turn": "Whole turns: received, gated, answered by echo, committed, sent, per second, 1,000 contacts",
    "misbehaving": "Event loop while agents raise, hang, block, say nothing or 100,000 characters",
    "memory": "Memory: growth over 10,000 new contacts",
    "identity": "Identity: resolve a contact, load a person's history, through the bridge; five contacts to a person",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, action="append", help=f"entries in the journal ({SIZES})")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a measurement (6)")
    options = parser.parse_args()
    databases = ["sqlite", *(["postgresql"] if _has_postgres() else [])]
    lines = []
    for database in databases:
        for entries in options.entries or SIZES:
            lines += [_measure(database, kind, entries, options.seconds) for kind in ("receive", "cycle", "turn")]
        lines += [_measure(database, kind, 0, options.seconds) for kind in ("misbehaving", "memory", "identity")]
    RESULTS.write_text(_report(lines))
    print(f"Written to {RESULTS}")


def _has_postgres() -> bool:
    try:
        psycopg.connect(_POSTGRES_URL, connect_timeout=2).close()
    except psycopg.OperationalError:
        print("No PostgreSQL at TEST_POSTGRES_URL; only SQLite is measured.", file=sys.stderr)
        return False
    return True


def _measure(database: str, kind: str, entries: int, seconds: float) -> dict[str, Any]:
    """One measurement; its line is printed and returned."""
    with tempfile.TemporaryDirectory(prefix="praisonweb-bench-") as home:
        env = {**os.environ, "PRAISON_HOME": home, "BENCH_SECONDS": str(seconds)}
        env["DATABASE_URL"] = f"sqlite:///{home}/bench.sqlite3" if database == "sqlite" else _new_postgres()
        command = [sys.executable, "-m", "bench.measure", kind, "--entries", str(entries)]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=1_800)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{kind} on {database} with {entries} entries failed:\n{error.stderr}")
        finally:
            if database == "postgresql":
                _drop_postgres(env["DATABASE_URL"])
    print(done.stdout.strip(), flush=True)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def _new_postgres() -> str:
    name = f"praisonweb_bench_{secrets.token_hex(4)}"
    with psycopg.connect(_POSTGRES_URL, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"{_POSTGRES_URL.rpartition('/')[0]}/{name}"


def _drop_postgres(url: str) -> None:
    with psycopg.connect(_POSTGRES_URL, autocommit=True) as server:
        server.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


def _report(lines: list[dict[str, Any]]) -> str:
    """The tables, one per kind, and the raw lines."""
    parts = [
        "# Benchmark results",
        "",
        f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, SQLite with synchronous=FULL, PostgreSQL as installed. Absolute figures belong "
        "to that machine; what matters is that they do not fall as the journal grows.",
    ]
    for kind, title in _TITLES.items():
        chosen = [line for line in lines if line["kind"] == kind]
        columns = [name for name in chosen[0] if name != "kind"]
        parts += ["", f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        parts += ["| " + " | ".join(f"{line.get(name, '')}" for name in columns) + " |" for line in chosen]
    parts += ["", "## Raw lines", "", "```", *(json.dumps(line) for line in lines), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
