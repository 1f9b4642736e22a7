"""Strangers, links and takeovers, on a running worker."""

from __future__ import annotations

import re
import time
from functools import partial

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from botsrt.conf import RuntimeConfig
from botsrt.core.pairing_codes import Terms
from botsrt.core.states import EntryState, OutboxState, Outcome, TurnState, UnknownUserPolicy
from botsrt.models import BotSession, JournalEntry, OutboxMessage, Pairing, Turn
from botsrt.services import identity, pairing
from tests.factories import ALICE
from tests.runtime.conftest import running, toy_bot, until, until_db
from tests.toys import agents as toy_agents
from tests.toys.toy import Hub

pytestmark = pytest.mark.django_db(transaction=True)

CODE = re.compile(r"\b[A-HJ-NP-Z2-9]{8}\b")


def code_in(text: str) -> str:
    found = CODE.search(text)
    assert found, text
    return found[0]


async def toy(account: str, **options) -> Hub:
    return await sync_to_async(toy_bot)(account, **options)


async def verify(account: str, code: str) -> Pairing:
    service = sync_to_async(pairing.verify)
    return await service(account=account, code=code, actor=ALICE, terms=Terms(), now=timezone.now())


def has_sent(hub: Hub, count: int, channel: str = "ann") -> bool:
    return len(hub.texts(channel)) >= count


async def test_a_stranger_is_let_in_and_then_answered(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await toy("shop", policy=UnknownUserPolicy.PAIR)
    async with running(config):
        for number in range(30):
            hub.write(f"message {number}", message_id=f"d{number}")
            hub.write(f"message {number}", chat="room", mentioned=True, message_id=f"g{number}")
        await until_db(lambda: JournalEntry.objects.exclude(outcome="").count() == 60)
        await until(lambda: hub.sent)
        assert hub.texts("room") == []
        assert len(hub.texts()) == 1
        request = await verify("shop", code_in(hub.texts()[0]))
        await until(lambda: len(hub.sent) == 3)
        hub.write("and now?", message_id="later")
        await until(lambda: len(hub.sent) == 4)
    assert request.asked_count == 30
    assert hub.texts()[1].startswith("You have access now")
    assert hub.texts()[2:] == ["message 0", "and now?"]
    stored = await sync_to_async(lambda: list(OutboxMessage.objects.values_list("text", flat=True)))()
    assert not any(CODE.search(text) for text in stored)


async def test_revoked_the_running_turn_stops_at_once_and_nothing_more_is_answered(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await toy("shop", policy=UnknownUserPolicy.PAIR, agent="waits")
    async with running(config):
        hub.write("let me in", message_id="1")
        await until(lambda: hub.sent)
        request = await verify("shop", code_in(hub.texts()[0]))
        await until(toy_agents.STARTED.is_set)
        began = time.monotonic()
        await sync_to_async(pairing.revoke)(request_id=request.pk, actor=ALICE, now=timezone.now())
        await until_db(lambda: JournalEntry.objects.get().state == EntryState.COMPLETED)
        assert time.monotonic() - began < config.lease_seconds / 3
        toy_agents.LET_GO.set()
        hub.write("still there?", message_id="2")
        await until_db(lambda: JournalEntry.objects.filter(outcome=Outcome.SILENT).count() == 2)
        await until(lambda: hub.texts()[-1] == "Your access has been withdrawn.")
    assert not any("waited" in text for text in hub.texts())
    reasons = await sync_to_async(lambda: list(JournalEntry.objects.values_list("outcome_reason", flat=True)))()
    assert set(reasons) == {"pairing_refused"}
    cancelled = await sync_to_async(Turn.objects.filter(state=TurnState.CANCELLED).count)()
    assert cancelled == 1


async def test_an_owner_decides_by_a_button_and_nobody_else_does(transactional_db: None, config: RuntimeConfig) -> None:
    hub = await toy("shop", policy=UnknownUserPolicy.PAIR, settings={"owners": "boss", "allowed_users": "bob"})
    async with running(config):
        hub.write("let me in", message_id="1")
        await until(partial(has_sent, hub, 1, "boss"))
        (notice,) = [message for message in hub.sent if message.route.channel_id == "boss"]
        assert "let me in" in notice.text
        assert not CODE.search(notice.text)
        approve = notice.buttons[0].data
        hub.write(approve, user="bob", kind="callback", message_id="b1")
        await until(partial(has_sent, hub, 1, "bob"))
        assert hub.texts("bob") == ["Only an owner of this bot can decide about that."]
        hub.write(approve, user="boss", kind="callback", message_id="b2")
        await until(partial(has_sent, hub, 2, "boss"))
        await until(partial(has_sent, hub, 3))
        hub.write(notice.buttons[1].data, user="boss", kind="callback", message_id="b3")
        await until(partial(has_sent, hub, 3, "boss"))
    assert hub.texts()[-1] == "let me in"
    assert hub.texts("boss")[1].startswith("Approved")
    assert "was approved already, by owner:toy:boss, at " in hub.texts("boss")[2]


async def test_two_accounts_of_one_human_become_one_conversation_and_two_again(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await toy("shop", agent="listing", policy=UnknownUserPolicy.ALLOW)
    async with running(config):
        hub.write("from ann", user="ann", message_id="1")
        await until(partial(has_sent, hub, 1, "ann"))
        hub.write("from zoe", user="zoe", message_id="2")
        await until(partial(has_sent, hub, 1, "zoe"))
        hub.write("/link", user="ann", message_id="3")
        await until(partial(has_sent, hub, 2, "ann"))
        hub.write(f"/link {code_in(hub.texts('ann')[1])}", user="zoe", message_id="4")
        await until(partial(has_sent, hub, 2, "zoe"))
        request = await sync_to_async(Pairing.objects.get)()
        approve = sync_to_async(pairing.approve)
        await approve(request_id=request.pk, person="ann", actor=ALICE, reason="the code fits", now=timezone.now())
        await until(partial(has_sent, hub, 3, "zoe"))
        hub.write("what do you know?", user="zoe", message_id="5")
        await until(partial(has_sent, hub, 4, "zoe"))
        joined = toy_agents.REQUESTS[-1]
        unlink = sync_to_async(identity.unlink)
        await unlink(platform="toy", user_id="zoe", actor=ALICE, now=timezone.now())
        hub.write("and now?", user="zoe", message_id="6")
        await until(partial(has_sent, hub, 5, "zoe"))
        alone = toy_agents.REQUESTS[-1]
    assert [item.text for item in joined.history] == ["from ann", "0: from ann", "from zoe", "0: from zoe"]
    assert joined.context.unified_user_id == "ann"
    assert [item.text for item in alone.history[:2]] == ["from zoe", "0: from zoe"]
    assert not any(item.text == "from ann" for item in alone.history)
    assert alone.context.unified_user_id == "bot_toy_zoe"
    lanes = await sync_to_async(lambda: dict(BotSession.objects.values_list("session_id", "lane")))()
    assert lanes == {"bot_toy_ann": "person:ann", "bot_toy_zoe": "bot_toy_zoe"}


async def test_new_begins_anew_between_what_was_said_before_and_after(
    transactional_db: None, config: RuntimeConfig
) -> None:
    hub = await toy("shop", agent="listing")
    async with running(config):
        hub.write("old", message_id="1")
        await until(partial(has_sent, hub, 1))
        hub.write("/new", message_id="2")
        await until(partial(has_sent, hub, 2))
        hub.write("fresh", message_id="3")
        await until(partial(has_sent, hub, 3))
    assert toy_agents.REQUESTS[-1].history == ()
    assert toy_agents.REQUESTS[-1].text == "fresh"
    states = await sync_to_async(lambda: set(OutboxMessage.objects.values_list("state", flat=True)))()
    assert states == {OutboxState.SENT}
