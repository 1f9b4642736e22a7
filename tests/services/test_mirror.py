"""Mirrors: written once, kept when a turn runs, and never in the way of a delivery."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from botsrt.core.errors import InvalidInput, NotFound
from botsrt.core.states import HistoryKind, Proof
from botsrt.models import BotSession, HistoryMessage
from botsrt.runtime import mirror as face
from botsrt.runtime.db import Database
from botsrt.services import identity, mirror, sessions
from tests.factories import ALICE, NOW, a_bot, a_message, answered, claim_one, finish, later, received

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _bots(transactional_db: None) -> None:
    a_bot()
    a_bot("desk", platform="slack")


def append(text: str = "Standup soon.", *, user_id: str = "bot_web_user-1", **fields: Any) -> bool:
    return mirror.append(user_id=user_id, text=text, source_label="cron", now=NOW, **fields)


def shown(session_id: str = "bot_web_user-1") -> list[str]:
    pk = BotSession.objects.get(session_id=session_id).pk
    return [item.text for item in sessions.history(session_pk=pk, max_messages=10)]


def test_a_mirror_is_part_of_the_history_with_its_source_and_is_no_activity():
    answered("Hello", "Hi")
    before = BotSession.objects.get().last_activity_at
    assert append(metadata={"job": 7})
    row = HistoryMessage.objects.get(kind=HistoryKind.MIRROR)
    assert (row.source, row.metadata) == ("cron", {"job": 7})
    assert shown() == ["Hello", "Hi", "Standup soon."]
    assert BotSession.objects.get().last_activity_at == before


def test_with_a_key_it_is_written_once_and_without_one_each_counts():
    answered("Hello", "Hi")
    assert append(idempotency_key="standup-1")
    assert not append(idempotency_key="standup-1")
    assert append()
    assert append()
    assert shown().count("Standup soon.") == 3


def test_a_mirror_during_a_turn_is_kept():
    received("Hello")
    turn = claim_one()
    append()
    assert finish(turn, "Hi")
    assert shown() == ["Standup soon.", "Hello", "Hi"]


def test_the_mirror_of_a_person_goes_where_they_were_last_and_is_seen_everywhere():
    answered("Hello", "Hi")
    message = a_message("And here?", platform="slack", account="desk", user_id="U1")
    row = received(message, now=later(seconds=5))
    finish(claim_one(now=later(seconds=6)), "Here too.", now=later(seconds=6))
    assert row.pk
    for platform, user_id in (("web", "user-1"), ("slack", "U1")):
        identity.link(
            platform=platform,
            user_id=user_id,
            unified_user_id="alice",
            proof=Proof.STAFF,
            actor=ALICE,
            reason="one human",
            now=NOW,
        )
    append(user_id="alice")
    assert HistoryMessage.objects.get(kind=HistoryKind.MIRROR).session.session_id == "bot_slack_U1"
    assert shown()[-1] == shown("bot_slack_U1")[-1] == "Standup soon."


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"text": " "}, InvalidInput), ({"user_id": "nobody"}, NotFound), ({"idempotency_key": "x" * 201}, InvalidInput)],
)
def test_what_cannot_be_mirrored_is_said(fields, error):
    answered("Hello")
    with pytest.raises(error):
        append(**fields)


# -- the faces for programs ----


async def test_the_asynchronous_face_never_raises_and_never_blocks(caplog):
    await sync_to_async(answered)("Hello", "Hi")
    bridge = Database(max_batch=8)
    try:
        began = time.perf_counter()
        tasks = [
            asyncio.create_task(
                face.amirror_to_session(
                    user_id=user_id, message_text="Standup soon.", source_label="cron", bridge=bridge
                )
            )
            for user_id in ("bot_web_user-1", "nobody")
        ]
        await asyncio.sleep(0)
        assert time.perf_counter() - began < 0.05
        assert await asyncio.gather(*tasks) == [True, False]
    finally:
        await bridge.close()
    assert "could not be mirrored" in caplog.text
    assert "Standup" not in caplog.text


def test_the_synchronous_face_waits_and_says_whether_it_was_kept():
    answered("Hello", "Hi")
    assert face.mirror_to_session(user_id="bot_web_user-1", message_text="Standup soon.", source_label="cron")
    assert not face.mirror_to_session(user_id="nobody", message_text="Standup soon.", source_label="cron")
    assert shown()[-1] == "Standup soon."


async def test_on_an_event_loop_the_synchronous_face_hands_over():
    await sync_to_async(answered)("Hello", "Hi")
    from botsrt.runtime.db import database

    database.cache_clear()
    try:
        assert face.mirror_to_session(user_id="bot_web_user-1", message_text="Standup soon.", source_label="cron")
        await asyncio.gather(*face._under_way)
        assert (await sync_to_async(shown)())[-1] == "Standup soon."
    finally:
        await database().close()
        database.cache_clear()
