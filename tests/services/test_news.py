"""News for open pages: told after the commit, by id, and never in the way of the act itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import transaction

from botsrt.core.states import AdapterStatus, Handler, RunMode
from botsrt.models import BotSession
from botsrt.services import dlq, handling, journal, mirror, news, outbox, workers
from tests.factories import ALICE, NOW, a_bot, answered, claim_one, claim_sends, fail, finish, parked, received, sent

pytestmark = pytest.mark.django_db(transaction=True)

Told = list[tuple[str, tuple[object, ...]]]


@pytest.fixture
def told() -> Iterator[Told]:
    a_bot()
    heard: Told = []
    news.send_with(lambda topic, ids: heard.append((topic, ids)))
    yield heard
    news.send_with(None)


def topics(told: Told) -> set[str]:
    found = {topic for topic, _ in told}
    told.clear()
    return found


def test_each_step_of_a_message_is_told(told: Told) -> None:
    row = received()
    assert told == [("journal", (row.pk,))]
    told.clear()
    turn = claim_one()
    assert ("journal", (row.pk,)) in told
    told.clear()
    finish(turn)
    assert topics(told) == {"journal", "outbox"}
    (claimed,) = claim_sends()
    sent(claimed)
    assert topics(told) == {"outbox"}


def test_failures_and_acts_are_told(told: Told) -> None:
    received()
    fail(claim_one())
    assert topics(told) >= {"journal", "dlq", "outbox"}
    item = parked()
    told.clear()
    dlq.annotate(item_id=item.pk, actor=ALICE, note="x", now=NOW)
    assert told == [("dlq", (item.pk,))]
    told.clear()
    dlq.discard(item_id=item.pk, actor=ALICE, reason="x", now=NOW)
    assert topics(told) == {"dlq", "journal"}
    journal.replay(entry_id=item.entry_id, mode=RunMode.SEND, actor=ALICE, reason="", now=NOW)
    assert topics(told) == {"dlq", "journal"}
    outbox.expire_sending(now=NOW)
    assert told == [], "Nothing changed."


def test_what_bots_do_is_told(told: Told) -> None:
    told.clear()
    workers.report_adapter(worker_id="w", account="shop", state=AdapterStatus.RUNNING, now=NOW)
    assert told == [("bots", ("shop",))]


def test_what_is_rolled_back_is_not_told(told: Told) -> None:
    told.clear()
    with transaction.atomic():
        received()
        transaction.set_rollback(True)
    assert told == []


def test_what_staff_do_in_a_conversation_is_told(told: Told) -> None:
    answered("Hello")
    talk = BotSession.objects.get()
    told.clear()
    handling.note(session_id=talk.session_id, text="x", actor=ALICE, now=NOW)
    assert told == [("people", (talk.pk,))]
    told.clear()
    handling.hand_to(session_id=talk.session_id, handler=Handler.HUMAN, actor=ALICE, now=NOW)
    assert ("people", (talk.pk,)) in told
    told.clear()
    key = "00000000-0000-0000-0000-000000000001"
    handling.reply(session_id=talk.session_id, text="x", parts=["x"], idempotency_key=key, actor=ALICE, now=NOW)
    assert ("people", (talk.pk,)) in told
    told.clear()
    mirror.append(user_id=talk.session_id, text="x", source_label="cron", now=NOW)
    assert told == [("people", (talk.pk,))]
