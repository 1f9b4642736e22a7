"""Measure and write ``bench/RESULTS.md``: ``python -m bench [--kind K]... [--entries N]... [--seconds S]``.

Without ``--kind`` everything is measured. Kinds that are not measured keep their lines, each with its date.

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
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

SIZES = (0, 50_000, 1_000_000)
RESULTS = Path(__file__).parent / "RESULTS.md"

_POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")

_TITLES = {
    "receive": "Receive: new messages stored per second, 64 callers",
    "cycle": "Cycle: receive, claim (for all that wait, as a worker does) and finish, per second, 64 callers",
    "turn": "Whole turns: received, gated, answered by echo, committed, sent, per second, 1,000 contacts",
    "alone": "One contact alone: whole turns per second, one after the other",
    "shared": "An agent of 50 ms shared by 1,000 contacts: whole turns per second, one worker with 256 slots",
    "latency": "An idle process: from the sink to the call of the platform, one message at a time, echo",
    "misbehaving": "Event loop while agents raise, hang, block, say nothing or 100,000 characters",
    "memory": "Memory: growth over 10,000 new contacts",
    "identity": "Identity: resolve a contact, load a person's history, through the bridge; five contacts to a person",
    "pages": "Pages: what the server takes for each page with 1,000,000 messages and 200,000 entries, 10 requests each",
    "resume": "Resume: turns per second of two processes that continue one session, 1,000 turns each, echo agent",
    "sockets": "Sockets: open pages beside a bot that answers 50 messages a second, one process with the site, 60 s",
    "chaos": "Chaos: everything fails at once (python -m bench.chaos --results); times are those of a busy machine",
    "soak": "Soak: 200,000 messages of 100,000 people, one runbots, an agent made anew for each; growth when warm",
    "fuzz": "Fuzzing: broken inputs for each parser, one process",
}

#: Kinds that grow with the journal; those that have a program of their own; those that only one database is asked for.
_GROWING = ("receive", "cycle", "turn")
_PROGRAMS = {
    "pages": "bench.pages",
    "resume": "bench.resume",
    "sockets": "bench.sockets",
    "soak": "bench.soak",
    "fuzz": "bench.fuzz",
}
_SQLITE_ALONE = ("sockets", "soak", "fuzz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    measured = [kind for kind in _TITLES if kind != "chaos"]  # which adds its lines by itself
    parser.add_argument("--kind", action="append", choices=measured, help="only this kind (repeatable)")
    parser.add_argument("--entries", type=int, action="append", help=f"entries in the journal ({SIZES})")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a measurement (6)")
    options = parser.parse_args()
    databases = ["sqlite", *(["postgresql"] if _has_postgres() else [])]
    kinds = options.kind or measured
    lines = [line for line in _earlier() if line["kind"] not in kinds]
    for database in databases:
        for kind in kinds:
            if database == "sqlite" or kind not in _SQLITE_ALONE:
                for entries in (options.entries or SIZES) if kind in _GROWING else (0,):
                    lines += _measure(database, kind, entries, options.seconds)
    RESULTS.write_text(_report(lines))
    print(f"Written to {RESULTS}")


def _earlier() -> list[dict[str, Any]]:
    """The raw lines of before."""
    if not RESULTS.exists():
        return []
    found = RESULTS.read_text().splitlines()
    return [json.loads(line) for line in found if line.startswith("{")]


def add(line: dict[str, Any]) -> None:
    """Keep one more line, beside those that are there."""
    RESULTS.write_text(_report([*_earlier(), {**line, "on": f"{datetime.now(UTC):%Y-%m-%d}"}]))


def _has_postgres() -> bool:
    try:
        psycopg.connect(_POSTGRES_URL, connect_timeout=2).close()
    except psycopg.OperationalError:
        print("No PostgreSQL at TEST_POSTGRES_URL; only SQLite is measured.", file=sys.stderr)
        return False
    return True


def _measure(database: str, kind: str, entries: int, seconds: float) -> list[dict[str, Any]]:
    """One measurement; its lines are printed and returned, with the day and how busy the machine was."""
    with tempfile.TemporaryDirectory(prefix="praisonweb-bench-") as home:
        env = {**os.environ, "PRAISON_HOME": home, "BENCH_SECONDS": str(seconds)}
        env["DATABASE_URL"] = f"sqlite:///{home}/bench.sqlite3" if database == "sqlite" else _new_postgres()
        program = [_PROGRAMS[kind]] if kind in _PROGRAMS else ["bench.measure", kind]
        command = [sys.executable, "-m", *program, "--entries", str(entries)]
        load = os.getloadavg()[0]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=7_200)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{kind} on {database} with {entries} entries failed:\n{error.stderr}")
        finally:
            if database == "postgresql":
                _drop_postgres(env["DATABASE_URL"])
    print(done.stdout.strip(), flush=True)
    about = {"load_before": round(load, 1), "on": f"{datetime.now(UTC):%Y-%m-%d}"}
    return [{**json.loads(line), **about} for line in done.stdout.splitlines() if line.startswith("{")]


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
        f"Made by `make bench`: {os.cpu_count()} cores, Python {platform.python_version()}, SQLite with "
        "synchronous=FULL, PostgreSQL as installed. Absolute figures belong to that machine; what matters is that they "
        "do not fall as the journal grows. Sections were measured one by one: `on` says when, `load_before` is the "
        "load average before (above the number of cores, others were at work, and times are that much too long). "
        "Lines without a day are from 2026-11-21, before those that have one.",
    ]
    for kind, title in _TITLES.items():
        chosen = [line for line in lines if line["kind"] == kind]
        if chosen:
            parts += ["", f"## {title}", "", *(_pages(chosen) if kind == "pages" else _table(chosen))]
    parts += ["", "## Raw lines", "", "```", *(json.dumps(line) for line in lines), "```", ""]
    return "\n".join(parts)


def _table(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for line in lines for name in line if name != "kind"))
    rows = ["| " + " | ".join(f"{line.get(name, '')}" for name in columns) + " |" for line in lines]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *rows]


def _pages(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many are within the goal, the long timeline beside the short one, and all pages, the slowest first."""
    by_database: dict[str, dict[str, Mapping[str, Any]]] = {}
    for line in lines:
        by_database.setdefault(line["database"], {})[line["page"]] = line
    sums = []
    for database, pages in by_database.items():
        p95, cpu = ([page[name] for page in pages.values()] for name in ("p95_ms", "cpu_p50_ms"))
        long, short = pages["/people/1/"], pages["/people/3/"]
        sums.append(
            {
                "database": database,
                "pages": len(pages),
                "p95_under_100_ms": sum(value < 100 for value in p95),
                "worst_p95_ms": max(p95),
                "cpu_under_100_ms": sum(value < 100 for value in cpu),
                "worst_cpu_ms": max(cpu),
                "most_queries": max(page["queries"] for page in pages.values()),
                "timeline_50000_p50_ms": long["p50_ms"],
                "timeline_50_p50_ms": short["p50_ms"],
                "ratio": round(long["p50_ms"] / short["p50_ms"], 2),
                "cpu_ratio": round(long["cpu_p50_ms"] / short["cpu_p50_ms"], 2),
                "load_before": long.get("load_before", ""),
                "on": long.get("on", ""),
            }
        )
    rows = [
        {
            "page": f"`{page}`",
            **{
                f"{database} {name}": pages[page][key] if page in pages else ""
                for database, pages in by_database.items()
                for name, key in (("p50", "p50_ms"), ("p95", "p95_ms"), ("cpu", "cpu_p50_ms"), ("queries", "queries"))
            },
        }
        for page in sorted(
            {line["page"] for line in lines},
            key=lambda page: (-max(pages[page]["p95_ms"] for pages in by_database.values() if page in pages), page),
        )
    ]
    about = (
        "Times in ms; `cpu` is the processor time of the site's process (median): what others do does not change it."
    )
    return [*_table(sums), "", about, "", *_table(rows)]


if __name__ == "__main__":
    main()
