"""Files that come with messages, on their way from the platform's server to the agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import FileUnavailable, TransientAgentError
from botsrt.core.messages import Attachment, Route
from botsrt.core.states import Outcome, RunMode, Trigger, UnknownUserPolicy
from botsrt.models import JournalEntry
from botsrt.models.turns import new_turn_id
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.files import Files
from botsrt.runtime.turn import dry_run
from botsrt.services import bots
from botsrt.services.bots import Changes
from botsrt.services.turns import ClaimedTurn
from tests.factories import ALICE, NOW
from tests.fakes.telegram import TOKEN, TelegramServer
from tests.runtime.conftest import SETTINGS, give_agent, running, toy_bot, until, until_db

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def server(transactional_db: None) -> AsyncIterator[TelegramServer]:
    """Telegram with the bot "shop", which tells what is in files."""
    async with TelegramServer() as server:
        await sync_to_async(_add_bot)(server)
        yield server


def _add_bot(server: TelegramServer) -> None:
    give_agent("reads")
    bots.add(
        account="shop",
        platform="telegram",
        shape=platforms.shape("telegram"),
        changes=Changes(
            agent="reads",
            policy=UnknownUserPolicy.ALLOW,
            credentials={"token": TOKEN},
            settings={"api_base_url": server.url},
        ),
        actor=ALICE,
        now=NOW,
    )


def a_turn(account: str = "shop", platform: str = "telegram") -> ClaimedTurn:
    return ClaimedTurn(
        id=new_turn_id(),
        lane="lane",
        session_pk=1,
        session_id="s",
        generation=0,
        platform=platform,
        account=account,
        route=Route(channel_id="501"),
        entries=(),
        attempt=1,
        trigger=Trigger.MESSAGE,
        run_mode=RunMode.SEND,
        runs_aside=False,
    )


async def test_a_file_reaches_the_agent_that_asks_for_it(server: TelegramServer, config: RuntimeConfig) -> None:
    async with running(config):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
    assert server.sent[0].text == "Pay this: 3 euros"


async def test_a_file_that_is_too_large_is_not_even_asked_for(server: TelegramServer, settings: Any) -> None:
    settings.BOTSRT = {**SETTINGS, "MAX_FILE_BYTES": "6"}
    conf.load.cache_clear()
    async with running(conf.load()):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
    assert server.sent[0].text == "Pay this: The file has more than 6 bytes."
    assert server.calls["getFile"] == 0


async def test_a_file_of_somebody_who_may_not_write_is_never_fetched(
    server: TelegramServer, config: RuntimeConfig
) -> None:
    deny = Changes(policy="deny")
    await sync_to_async(bots.change)(
        account="shop", shape=platforms.shape("telegram"), changes=deny, actor=ALICE, now=NOW
    )
    async with running(config):
        server.bot.document("Read this", content="evil")
        await until_db(lambda: JournalEntry.objects.filter(outcome=Outcome.SILENT).exists())
    assert server.calls["getFile"] == 0


async def test_a_worker_that_does_not_hold_the_bot_fetches_too(server: TelegramServer, config: RuntimeConfig) -> None:
    database = Database(max_batch=config.max_batch)
    files = Files(database=database, config=config, keepers={})
    reference = server.bot.add_file("a.txt", b"content")["file_id"]
    fetch = files.of(a_turn())
    try:
        assert await fetch(Attachment(kind="document", reference=reference)) == b"content"
        server.fail_next("rate_limit", method="getFile", retry_after=7)
        with pytest.raises(TransientAgentError) as caught:
            await fetch(Attachment(kind="document", reference=reference))
        assert caught.value.retry_after is not None
        assert caught.value.retry_after.total_seconds() == 7
        server.fail_next("error", method="getFile", status=500)
        with pytest.raises(TransientAgentError, match="could not be fetched"):
            await fetch(Attachment(kind="document", reference=reference))
    finally:
        await database.close()


async def test_a_dry_run_has_them_as_well(server: TelegramServer, config: RuntimeConfig) -> None:
    async with running(config):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
    entry = await sync_to_async(JournalEntry.objects.get)()
    assert (await dry_run(entry.pk)).text == "Pay this: 3 euros"


async def test_where_there_are_no_files_it_says_so(transactional_db: None, config: RuntimeConfig) -> None:
    await sync_to_async(toy_bot)("toys")
    database = Database(max_batch=config.max_batch)
    files = Files(database=database, config=config, keepers={})
    with pytest.raises(FileUnavailable, match="cannot be fetched from toy"):
        await files.of(a_turn("toys", "toy"))(Attachment(kind="document", reference="x"))
    await database.close()
