"""One worker in the test's own event loop, on the toy platform, with short leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core.states import UnknownUserPolicy
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.worker import Worker
from botsrt.services import bots
from botsrt.services.bots import Changes
from tests.factories import ALICE, NOW
from tests.toys import agents as toy_agents
from tests.toys.toy import HUBS, Hub

SETTINGS = {
    "LEASE_SECONDS": "3",
    "POLL_SECONDS": "0.05",
    "RUN_TIMEOUT_SECONDS": "2",
    "DRAIN_SECONDS": "1",
    "SEND_TIMEOUT_SECONDS": "2",
    "ADAPTER_PACKAGES": "botsrt.adapters,tests.toys",
}


@pytest.fixture(autouse=True)
def config(settings: Any) -> RuntimeConfig:
    settings.BOTSRT = SETTINGS
    conf.load.cache_clear()
    return conf.load()


@pytest.fixture(autouse=True)
def _fresh_toys() -> None:
    HUBS.clear()
    toy_agents.REQUESTS.clear()
    toy_agents.SEEN_ATTEMPTS.clear()
    toy_agents.STARTED = asyncio.Event()
    toy_agents.LET_GO = asyncio.Event()


@pytest.fixture
def hub(transactional_db: None) -> Hub:
    """The toy bot "shop", answered by the echo agent."""
    return toy_bot("shop")


def toy_bot(
    account: str,
    *,
    agent: str = "",
    settings: Mapping[str, str] | None = None,
    policy: UnknownUserPolicy = UnknownUserPolicy.ALLOW,
) -> Hub:
    """Add a toy bot. ``agent`` is the name of a function in ``tests.toys.agents``; empty: echo."""
    if agent:
        give_agent(agent)
    bots.add(
        account=account,
        platform="toy",
        shape=platforms.shape("toy"),
        changes=Changes(policy=policy, settings=settings or {}, credentials={"token": "good"}, agent=agent or None),
        actor=ALICE,
        now=NOW,
    )
    return HUBS[account]


def give_agent(function: str) -> None:
    """An agent profile named like a function of ``tests.toys.agents`` that it runs."""
    bots.add_agent(
        name=function,
        kind="python",
        options=platforms.agent_options("python"),
        settings={"target": f"tests.toys.agents:{function}"},
        actor=ALICE,
        now=NOW,
    )


@asynccontextmanager
async def running(config: RuntimeConfig) -> AsyncIterator[Worker]:
    """A worker from start to a clean stop."""
    database = Database(max_batch=config.max_batch)
    worker = Worker(database=database, config=config)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()
        await database.close()


async def until(condition: Callable[[], Any], *, seconds: float = 10.0) -> None:
    """Wait until ``condition()`` holds; it must not touch the database."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not: {condition}"
        await asyncio.sleep(0.01)


async def until_db(condition: Callable[[], Any], *, seconds: float = 10.0) -> None:
    """Wait until ``condition()``, which reads the database, holds."""
    from asgiref.sync import sync_to_async

    deadline = time.monotonic() + seconds
    while not await sync_to_async(condition)():
        assert time.monotonic() < deadline, f"still not: {condition}"
        await asyncio.sleep(0.02)
