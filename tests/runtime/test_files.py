"""Files that come with messages, on their way from the platform's server to the agent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core.errors import FileUnavailable, TransientAgentError
from botsrt.core.messages import Attachment, Route, Sender
from botsrt.core.states import Outcome, RunMode, Trigger, UnknownUserPolicy
from botsrt.models import Contact, JournalEntry, KeptFile
from botsrt.models.turns import new_turn_id
from botsrt.runtime import files as files_module
from botsrt.runtime import platforms
from botsrt.runtime.db import Database
from botsrt.runtime.files import Files
from botsrt.runtime.turn import dry_run
from botsrt.services import attachments, bots, identity, journal
from botsrt.services.bots import Changes
from botsrt.services.claimed import ClaimedEntry, ClaimedTurn
from tests.factories import ALICE, NOW, a_message
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


def a_turn(account: str = "shop", platform: str = "telegram", *, entries: tuple[ClaimedEntry, ...] = ()) -> ClaimedTurn:
    return ClaimedTurn(
        id=new_turn_id(),
        lane="lane",
        session_pk=1,
        session_id="s",
        generation=0,
        platform=platform,
        account=account,
        route=Route(channel_id="501"),
        entries=entries,
        attempt=1,
        trigger=Trigger.MESSAGE,
        run_mode=RunMode.SEND,
        runs_aside=False,
    )


def an_entry(attachment: Attachment, contact_id: int) -> ClaimedEntry:
    """Of a message with that file."""
    return ClaimedEntry(
        id=1,
        message=a_message(platform="telegram", attachments=(attachment,)),
        received_at=NOW,
        attempts=0,
        deaths=0,
        contact_id=contact_id,
        root_id=contact_id,
        known_as=(),
        is_from_blocked=False,
        command="",
        sealed_code="",
    )


def _ann() -> Contact:
    return identity.contact_seen(platform="telegram", sender=Sender(user_id="501"), now=NOW)


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
    reference, other = (server.bot.add_file("a.txt", b"content")["file_id"] for _ in range(2))
    fetch = files.of(a_turn())
    try:
        assert await fetch(Attachment(kind="document", reference=reference)) == b"content"
        server.fail_next("rate_limit", method="getFile", retry_after=7)
        with pytest.raises(TransientAgentError) as caught:
            await fetch(Attachment(kind="document", reference=other))
        assert caught.value.retry_after is not None
        assert caught.value.retry_after.total_seconds() == 7
        server.fail_next("error", method="getFile", status=500)
        with pytest.raises(TransientAgentError, match="could not be fetched"):
            await fetch(Attachment(kind="document", reference=other))
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


# -- copies ----


async def test_a_replay_has_what_the_platform_no_longer_has(server: TelegramServer, config: RuntimeConfig) -> None:
    async with running(config):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
        server.bot._files.clear()  # Telegram removes files in time
        entry = await sync_to_async(JournalEntry.objects.get)()
        replay = partial(journal.replay, mode=RunMode.SEND, actor=ALICE, reason="lost", now=timezone.now())
        await sync_to_async(replay)(entry_id=entry.pk)
        await until(lambda: len(server.sent) == 2)
    assert [sent.text for sent in server.sent] == ["Pay this: 3 euros"] * 2
    kept = await sync_to_async(KeptFile.objects.get)()
    assert (kept.contact_id, kept.account, kept.size_bytes) == (entry.contact_id, "shop", 7)
    assert stat.S_IMODE(attachments.folder().stat().st_mode) == 0o700


async def test_a_copy_that_was_changed_or_lost_is_fetched_again(server: TelegramServer, config: RuntimeConfig) -> None:
    database = Database(max_batch=config.max_batch)
    attachment = Attachment(kind="document", reference=server.bot.add_file("a.txt", b"a content of its own")["file_id"])
    turn = a_turn(entries=(an_entry(attachment, (await sync_to_async(_ann)()).pk),))
    fetch = Files(database=database, config=config, keepers={}).of(turn)
    assert await fetch(attachment) == b"a content of its own"
    assert await fetch(attachment) == b"a content of its own"
    assert server.calls["getFile"] == 1
    (path,) = attachments.folder().glob(f"*/{hashlib.sha256(b'a content of its own').hexdigest()}")
    path.write_bytes(b"something else")
    assert await fetch(attachment) == b"a content of its own"
    path.unlink()
    assert await fetch(attachment) == b"a content of its own"
    assert server.calls["getFile"] == 3
    await database.close()


async def test_of_who_is_erased_meanwhile_nothing_is_kept_and_others_commit(
    server: TelegramServer, config: RuntimeConfig
) -> None:
    database = Database(max_batch=config.max_batch)
    attachment = Attachment(kind="document", reference=server.bot.add_file("a.txt", b"a content of its own")["file_id"])
    contact = await sync_to_async(_ann)()
    gone = contact.pk
    await sync_to_async(contact.delete)()
    fetch = Files(database=database, config=config, keepers={}).of(a_turn(entries=(an_entry(attachment, gone),)))
    assert await fetch(attachment) == b"a content of its own"
    # One commit for both.
    keep = partial(database.call, attachments.keep, account="shop", reference="f1", digest="0" * 64, size_bytes=1)
    _, ann = await asyncio.gather(
        keep(contact_id=gone, now=NOW),
        database.call(identity.contact_seen, platform="telegram", sender=Sender(user_id="501"), now=NOW),
    )
    await database.close()
    assert await sync_to_async(Contact.objects.filter(pk=ann.pk).exists)()
    assert not await sync_to_async(KeptFile.objects.exists)()


async def test_what_nobody_sent_is_not_kept(server: TelegramServer, config: RuntimeConfig) -> None:
    database = Database(max_batch=config.max_batch)
    attachment = Attachment(kind="document", reference=server.bot.add_file("a.txt", b"sent by nobody")["file_id"])
    assert await Files(database=database, config=config, keepers={}).of(a_turn())(attachment) == b"sent by nobody"
    await database.close()
    assert attachments.read(hashlib.sha256(b"sent by nobody").hexdigest()) is None
    assert not await sync_to_async(KeptFile.objects.exists)()


async def test_a_worker_sweeps_the_folder_of_its_host(
    transactional_db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOTSRT = {**SETTINGS, "FILES_FOLDER": str(tmp_path / "files")}
    conf.load.cache_clear()
    monkeypatch.setattr(files_module, "_FIRST_SWEEP_SECONDS", 0.0)
    named, left = attachments.put(b"named"), attachments.put(b"expired on another host")
    keep = partial(attachments.keep, account="shop", reference="f1", digest=named, size_bytes=5, now=NOW)
    await sync_to_async(keep)(contact_id=(await sync_to_async(_ann)()).pk)
    for path in tmp_path.glob("files/*/*"):
        os.utime(path, (time.time() - 7_200, time.time() - 7_200))
    async with running(conf.load()):
        await until(lambda: attachments.read(left) is None)
    assert attachments.read(named) == b"named"


@pytest.mark.parametrize("broken", ["full", "off"])
async def test_an_agent_has_its_file_where_none_can_be_kept(
    server: TelegramServer, settings: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(content: bytes) -> str:
        raise OSError(28, "No space left on device")

    settings.BOTSRT = SETTINGS | ({"KEPT_FILE_SECONDS": "0"} if broken == "off" else {})
    conf.load.cache_clear()
    if broken == "full":
        monkeypatch.setattr(attachments, "put", full)
    async with running(conf.load()):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
    assert server.sent[0].text == "Pay this: 3 euros"
    assert not await sync_to_async(KeptFile.objects.exists)()


async def test_a_dry_run_keeps_nothing(server: TelegramServer, settings: Any, config: RuntimeConfig) -> None:
    settings.BOTSRT = SETTINGS | {"KEPT_FILE_SECONDS": "0"}
    conf.load.cache_clear()
    async with running(conf.load()):
        server.bot.document("Pay this", content="3 euros")
        await until(lambda: server.sent)
    settings.BOTSRT = SETTINGS
    conf.load.cache_clear()
    entry = await sync_to_async(JournalEntry.objects.get)()
    assert (await dry_run(entry.pk)).text == "Pay this: 3 euros"
    assert not await sync_to_async(KeptFile.objects.exists)()
