"""Messages are found by their words, on both databases."""

from __future__ import annotations

import pytest

from botsrt.models import HistoryMessage
from botsrt.services import search
from tests.factories import a_bot, a_message, answered

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _said() -> None:
    a_bot()
    answered(a_message("Where is my Café order 4711?"), "On its way – über die Brücke.")
    answered(a_message("Thank you!", user_id="user-2", channel_id="chat-2"), "You're welcome.")


def found(text: str) -> list[str]:
    return list(search.newest(text)[0].order_by("id").values_list("text", flat=True))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("order", 1),
        ("ORD", 1),
        ("order 4711", 1),
        ("order welcome", 0),
        ("way", 1),
        ("über", 1),
        ("", 0),
        ("?!", 0),
        ('"', 0),
        ("order'; DROP TABLE x; --", 0),
        ("order* OR welcome", 0),
        ("you", 2),
        ("NEAR(order, 4711)", 0),
    ],
)
def test_words_find_messages(text, count):
    assert len(found(text)) == count


def test_what_is_deleted_is_not_found_any_more():
    HistoryMessage.objects.filter(pk__in=[row.pk for row in search.newest("welcome")[0]]).delete()
    assert found("welcome") == []
