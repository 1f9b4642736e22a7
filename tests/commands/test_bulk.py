"""``manage.py bulk``."""

from __future__ import annotations

import pytest
from django.utils import timezone

from botsrt.core.states import BulkVerb, DLQState
from botsrt.models import DLQItem
from botsrt.services import bulk
from tests.factories import ALICE, a_bot, a_message, parked

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operation() -> int:
    a_bot()
    items = [parked(a_message(user_id=f"u{number}")).pk for number in range(3)]
    return bulk.begin(verb=BulkVerb.RETRY, object_ids=[*items, 999], actor=ALICE, reason="mended", now=timezone.now())


def test_one_is_listed_stopped_and_goes_on_to_its_end(manage, operation: int) -> None:
    (row,) = manage("bulk", "list", "--json").json
    assert (row["id"], row["verb"], row["state"], row["total"], row["waiting"]) == (operation, "retry", "running", 4, 4)
    assert manage("bulk", "stop", str(operation)).out.strip() == f"{operation}: stopped."
    ran = manage("bulk", "stop", str(operation))
    assert (ran.code, "is stopped already, by os:" in ran.err) == (1, True)
    assert manage("bulk", "list", "--state", "running", "--json").json == []
    assert manage("bulk", "resume", str(operation)).out.strip() == f"{operation}: goes on."
    assert DLQItem.objects.filter(state=DLQState.RETRYING).count() == 3
    shown = manage("bulk", "show", str(operation), "--json").json
    assert (shown["state"], shown["done"], shown["skipped"]) == ("finished", 3, 1)
    assert shown["why_skipped"] == {"999": "There is no dead letter item 999."}


def test_an_unknown_one_is_an_error(manage) -> None:
    for verb in ("show", "stop", "resume"):
        ran = manage("bulk", verb, "4711")
        assert (ran.code, ran.err.strip()) == (1, "CommandError: There is no bulk operation 4711.")
