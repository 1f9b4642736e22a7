"""Weeks in an hour: ``python -m bench.soak`` prints one JSON line.

A real ``runbots`` answers 200,000 messages of 100,000 people, with an agent object made anew for each message, on the
database of ``DATABASE_URL`` or on SQLite in a temporary folder. What it holds at rest before and after is compared, and
what it grows by once it is warm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

#: From here on the process is warm. Source: issue "Agents, the turn, and resuming", what must hold, 6.
WARM_MESSAGES = 20_000


async def measure(*, messages: int, contacts: int, database_url: str) -> dict[str, Any]:
    """Run it, and read what its adapter wrote down."""
    from tests.acceptance.home import Home

    warm = min(WARM_MESSAGES, messages // 2)
    with tempfile.TemporaryDirectory(prefix="praisonweb-bench-") as folder:
        home = Home(Path(folder), database_url=database_url, adapter_packages="botsrt.adapters,bench.platforms")
        home.env |= {"LOG_LEVEL": "ERROR", "BOTSRT_LEASE_SECONDS": "60", "BOTSRT_POLL_SECONDS": "1"}
        samples = Path(folder, "samples")
        home.manage("migrate", "--verbosity", "0")
        home.manage("agents", "add", "recreated", "--kind", "python", "--target", "bench.agents:recreated")
        home.manage(
            *("bots", "add", "soak", "--platform", "soak", "--policy", "allow", "--agent", "recreated"),
            *("--setting", f"file={samples}", "--setting", f"messages={messages}"),
            *("--setting", f"contacts={contacts}", "--setting", f"warm={warm}"),
        )
        began = time.perf_counter()
        async with home.runbots():
            while not (found := _read(samples)) or found[-1]["when"] != "idle after":
                await asyncio.sleep(1)
        seconds = time.perf_counter() - began
        home.manage("ledger")
    return {**_compared(found), "minutes": round(seconds / 60, 1)}


def _read(samples: Path) -> list[dict[str, Any]]:
    lines = samples.read_text().splitlines() if samples.exists() else []
    return [json.loads(line) for line in lines]


def _compared(samples: list[dict[str, Any]]) -> dict[str, Any]:
    before, after = next(sample for sample in samples if sample["when"] == "idle before"), samples[-1]
    most = max(sample["resident_kib"] for sample in samples)
    return {
        "answered": after["answered"],
        "warm_mib": round(before["resident_kib"] / 1024, 1),
        "end_mib": round(after["resident_kib"] / 1024, 1),
        "most_mib": round(most / 1024, 1),
        "growth_percent": round(100 * (most / before["resident_kib"] - 1), 1),
        "most_agent_locks": max(sample["agent_locks"] for sample in samples),
        **{f"{name}_left_over": after[name] - before[name] for name in ("files", "tasks", "threads", "agent_locks")},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=0, help="not used: it begins with an empty journal")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--contacts", type=int, default=100_000)
    options = parser.parse_args()
    url = os.environ.get("DATABASE_URL", "")
    line = asyncio.run(measure(messages=options.messages, contacts=options.contacts, database_url=url))
    database = "postgresql" if url.startswith("postgres") else "sqlite"
    print(json.dumps({"kind": "soak", "database": database, **line}), flush=True)
