"""What staff see of a message whose sender stopped its answer."""

from __future__ import annotations

import pytest
from django.test import Client

from botsrt.core.access import Decision, Reason, Verdict
from botsrt.core.pairing_codes import Terms
from botsrt.models import Bot
from botsrt.services import bots, reception
from tests.factories import NOW, claim_one, received
from tests.web.acting import badges, read

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_entry_and_the_conversation_tell_it_as_it_was(staff_client: Client, bot: Bot) -> None:
    row = received("a long story")
    claim_one()
    received("/stop")
    aside = claim_one(limit=0)
    view = bots.views(accounts=["shop"])["shop"]
    allowed = Decision(verdict=Verdict.ALLOW, reason=Reason.POLICY_ALLOW)
    assert reception.answer(turn=aside, bot=view, decision=allowed, terms=Terms(), now=NOW)

    page = read(staff_client, f"/journal/{row.pk}/")
    assert "The person stopped it." in page
    assert "silent" in badges(page)
    assert "cancelled" in badges(read(staff_client, f"/journal/{row.pk}/?tab=attempts"))
    talk = read(staff_client, f"/people/{row.session_id}/")
    places = [talk.index(words) for words in ("a long story", "/stop", "Stopped.")]
    assert places == sorted(places)
    assert "the bot is writing" not in talk
