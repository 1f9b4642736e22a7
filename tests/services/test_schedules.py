"""200 random schedules, and the proof that they find what they are for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Max
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from botsrt.core import commands
from botsrt.core.states import EntryState
from botsrt.models import BotSession, Contact, HistoryMessage, JournalEntry
from botsrt.services import claims, entrance, finishing, identity, lanes, persons, sessions, turns
from tests.services.schedules import Schedules

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.timeout(600)]

#: More of them, and other ones each time: ``SCHEDULES=5000 pytest tests/services/test_schedules.py``.
EXAMPLES = int(os.environ.get("SCHEDULES", "200"))

SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=25,
    derandomize="SCHEDULES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_random_schedules_lose_nothing_and_mix_nothing() -> None:
    run_state_machine_as_test(Schedules, settings=SETTINGS)


# -- do they find anything? ----

Plant = Callable[[pytest.MonkeyPatch], None]


def a_link_moves_no_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lanes, "move", lambda **_: None)


def an_unlink_leaves_the_session_where_it_is(patch: pytest.MonkeyPatch) -> None:
    real = identity.lane_of

    def lane_of(contact: Contact) -> str:
        session = contact.sessions.first()
        return session.lane if session else real(contact)

    patch.setattr(identity, "lane_of", lane_of)


def running_turns_are_not_handed_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lanes, "hand_back", lambda running, *, now: 0)


def a_running_turn_stays_in_the_lane_that_was_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lanes, "_take_along", lambda turn_id, lane: True)


def the_end_of_a_turn_ignores_its_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(turns, "end", lambda turn_id, state, *, now, generation=None, **_: True)
    patch.setattr(finishing, "_end_all", lambda endings: [True for _ in endings])


def history_forgets_where_it_begins(patch: pytest.MonkeyPatch) -> None:
    real = sessions._parts
    patch.setattr(sessions, "_parts", lambda pks: [part._replace(start=0) for part in real(pks)])


def history_is_that_of_the_session_alone(patch: pytest.MonkeyPatch) -> None:
    real = sessions._parts
    patch.setattr(
        sessions,
        "_parts",
        lambda pks: [
            part._replace(start=BotSession.objects.get(pk=part.pk).context_start)
            for part in real(pks)
            if part.pk == part.asked
        ],
    )


def new_begins_only_the_own_session(patch: pytest.MonkeyPatch) -> None:
    def start_new(*, session: BotSession, turn_id: object, now: object) -> None:
        last = HistoryMessage.objects.aggregate(last=Max("id"))["last"] or 0
        BotSession.objects.filter(pk=session.pk).update(context_start=last)

    patch.setattr(sessions, "start_new", start_new)


def commands_are_taken_with_other_messages(patch: pytest.MonkeyPatch) -> None:
    def group(due: Any, *, max_entries: int) -> Any:
        first = due[0]
        return [first] if first.command else [one for one in due if not one.command and one.chat == first.chat]

    patch.setattr(claims, "_group", group)


def stop_leaves_what_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entrance, "allowed", lambda rows, *, now: [])


def commands_wait_in_their_lane(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "runs_aside", lambda name: False)


def lanes_are_not_looked_at_when_claiming(patch: pytest.MonkeyPatch) -> None:
    def locked(groups: Any) -> dict[int, Any]:
        found = BotSession.objects.filter(pk__in=[group[0].session_pk for group in groups])
        return {pk: claims._Locked(epoch, is_bots=True) for pk, epoch in found.values_list("pk", "epoch")}

    real = JournalEntry.objects.filter
    patch.setattr(claims, "_locked", locked)
    patch.setattr(lanes, "JournalEntry", _NothingWaits(real))


class _NothingWaits:
    """Entries as ``lanes`` sees them: none that waits, so that none is moved."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real

    @property
    def objects(self) -> _NothingWaits:
        return self

    def filter(self, **fields: Any) -> Any:
        found = self._real(**fields)
        return found.none() if fields.get("state") == EntryState.PENDING else found


def a_dead_turn_keeps_its_entries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(turns, "_give_back_or_poison", lambda entries, **_: None)


def an_undone_merge_brings_nobody_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(persons, "_gather", lambda contact_ids, person, *, now: None)


PLANTS: list[Plant] = [
    a_link_moves_no_session,
    an_unlink_leaves_the_session_where_it_is,
    running_turns_are_not_handed_back,
    a_running_turn_stays_in_the_lane_that_was_left,
    the_end_of_a_turn_ignores_its_state,
    history_forgets_where_it_begins,
    history_is_that_of_the_session_alone,
    new_begins_only_the_own_session,
    commands_are_taken_with_other_messages,
    stop_leaves_what_waits,
    commands_wait_in_their_lane,
    lanes_are_not_looked_at_when_claiming,
    a_dead_turn_keeps_its_entries,
    an_undone_merge_brings_nobody_back,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("Whether the schedules find anything does not depend on the database; SQLite is the faster one.")
    plant(monkeypatch)
    hunting = settings(SETTINGS, phases=[Phase.generate], print_blob=False, report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Schedules, settings=hunting)
