"""Outgoing messages: strict order per chat, and an honest end for each."""

from __future__ import annotations

import pytest

from botsrt.core.states import OutboxState, Outcome
from botsrt.models import OutboxMessage
from tests.factories import a_bot, answered, send_all

pytestmark = pytest.mark.django_db


def test_an_answer_leaves_through_the_outbox():
    a_bot()
    assert answered("Hello", "Hi there").outcome == Outcome.ANSWERED
    assert send_all() == ["Hi there"]
    assert OutboxMessage.objects.get().state == OutboxState.SENT
