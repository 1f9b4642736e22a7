from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from botsrt.runtime import databases
from botsrt.runtime.db import Database
from tests.fakes.openai import OpenAIServer
from tests.library.scripts import Scripts


@pytest.fixture
async def openai() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """A database with its tables, made once: that takes a second."""
    path = tmp_path_factory.mktemp("library") / "empty.sqlite"
    with django_db_blocker.unblock():
        bridge = databases.bridge(databases.place(path))
        asyncio.run(_open_and_close(bridge))
    return path


async def _open_and_close(bridge: Database) -> None:
    await bridge.call(lambda: None)
    await bridge.close()


@pytest.fixture
def file(_migrated: Path, tmp_path: Path) -> Path:
    """A database of one's own."""
    return Path(shutil.copy(_migrated, tmp_path / "own.sqlite"))


@pytest.fixture
def scripts(tmp_path: Path, openai: OpenAIServer) -> Scripts:
    """Scripts whose language model is the fake one."""
    return Scripts(tmp_path, OPENAI_BASE_URL=openai.url, OPENAI_API_KEY="sk-only-for-tests")
