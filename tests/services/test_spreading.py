"""Bots are spread over the workers that live, and change hands one at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from botsrt.models import AdapterState, Bot, Worker
from botsrt.services import bots, workers
from botsrt.services.bots import Changes
from tests.factories import ALICE, LEASE, NOW, SHAPE, a_bot, later

pytestmark = pytest.mark.django_db


class Crew:
    """Workers that look after their bots in turn, as the supervisor has them do it."""

    def __init__(self, count: int) -> None:
        self.held: dict[str, list[str]] = {}
        for number in range(count):
            a_bot(f"bot{number}")

    def joins(self, worker_id: str, *, only: list[str] | None = None, now: datetime = NOW) -> None:
        workers.register(worker_id=worker_id, host="h", pid=1, version="1", lease=LEASE, only=only, now=now)
        self.held[worker_id] = []

    def look(self, worker_id: str, *, now: datetime = NOW, is_draining: bool = False) -> list[str]:
        """One look of one worker: it opens what it has, and closes and gives back what it should leave."""
        before = self.held[worker_id]
        only = {row.pk: row.only for row in Worker.objects.all()}[worker_id]
        leased = workers.lease_adapters(
            worker_id=worker_id, accounts=only, lease=LEASE, running=before, is_draining=is_draining, now=now
        )
        self.held[worker_id] = [bot.account for bot in leased]
        workers.beat(worker_id=worker_id, accounts=self.held[worker_id], running_turns=0, now=now)
        for account in set(before) - set(self.held[worker_id]):
            workers.release_adapter(worker_id=worker_id, account=account, now=now)
        return self.held[worker_id]

    def settles(self, *, now: datetime = NOW) -> list[int]:
        """How many each holds when nothing moves any more; nobody's bot is held by two."""
        for step in range(60):
            before = {worker_id: list(held) for worker_id, held in self.held.items()}
            for worker_id in self.held:
                self.look(worker_id, now=now + timedelta(seconds=step))
            if before == self.held and step > 5:
                break
        everything = [account for held in self.held.values() for account in held]
        assert len(everything) == len(set(everything))
        return [len(held) for held in self.held.values()]


def test_who_comes_gets_its_share():
    crew = Crew(7)
    crew.joins("w1")
    assert crew.settles() == [7]
    crew.joins("w2")
    assert crew.settles() == [4, 3]
    crew.joins("w3")
    assert sorted(crew.settles()) == [2, 2, 3]


def test_bots_move_one_at_a_time_and_to_who_has_fewest():
    crew = Crew(4)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2")
    assert len(crew.look("w1")) == 3, "The fourth is given back in this moment."
    assert len(crew.look("w1")) == 3, "It is left to the other."
    assert crew.look("w2") == ["bot0"]
    assert len(crew.look("w1")) == 2
    assert len(crew.look("w2")) == 2


def test_bots_that_are_spread_evenly_stay_where_they_are():
    crew = Crew(5)
    crew.joins("w1")
    crew.joins("w2")
    crew.settles()
    before = {worker_id: list(held) for worker_id, held in crew.held.items()}
    crew.settles()
    assert crew.held == before


def test_who_does_not_take_its_share_is_not_waited_for():
    crew = Crew(4)
    crew.joins("w1")
    crew.joins("hangs")
    assert len(crew.look("w1", now=NOW)) == 1, "The others are left to who has none."
    assert len(crew.look("w1", now=later(seconds=2))) == 1
    assert len(crew.look("w1", now=later(seconds=3))) >= 3
    assert AdapterState.objects.filter(worker_id="w1").count() >= 3


def test_the_bots_of_who_is_gone_are_taken_at_once():
    crew = Crew(4)
    crew.joins("w1")
    crew.joins("w2")
    crew.settles()
    del crew.held["w2"]
    workers.goodbye(worker_id="w2", now=later(seconds=61))
    assert len(crew.look("w1", now=later(seconds=61))) == 4


def test_who_stops_takes_nothing_and_is_left_nothing():
    crew = Crew(4)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2")
    workers.drain(worker_id="w2")
    assert len(crew.look("w1")) == 4
    workers.release_adapter(worker_id="w1", account="bot0", now=NOW)
    assert crew.look("w2", is_draining=True) == []
    assert len(crew.look("w1")) == 4


def test_who_stops_keeps_what_it_has_until_it_gives_it_back():
    crew = Crew(4)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2")
    workers.drain(worker_id="w1")
    assert len(crew.look("w1", is_draining=True, now=later(seconds=20))) == 4
    assert crew.look("w2", now=later(seconds=40)) == []


def test_a_worker_for_some_bots_takes_part_with_these():
    crew = Crew(4)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2", only=["bot3"])
    assert crew.settles() == [3, 1]
    assert crew.held["w2"] == ["bot3"]


def test_a_bot_that_the_others_may_not_run_stays():
    crew = Crew(2)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2", only=["somebody else's"])
    assert crew.settles() == [2, 0]


def test_a_bot_that_should_be_left_and_is_not_open_is_given_back_at_once():
    """Its adapter was closed, and the database did not hear of it."""
    crew = Crew(2)
    crew.joins("w1")
    crew.look("w1")
    crew.joins("w2")
    workers.lease_adapters(worker_id="w1", accounts=None, lease=LEASE, running=["bot1"], now=NOW)
    assert crew.look("w2") == ["bot0"]


def test_a_bot_that_staff_pause_is_nobody_s():
    crew = Crew(2)
    crew.joins("w1")
    crew.look("w1")
    bots.change(account="bot0", shape=SHAPE, changes=Changes(is_enabled=False), actor=ALICE, now=NOW)
    assert crew.look("w1") == ["bot1"]
    assert Bot.objects.get(account="bot0").adapter.worker_id == ""
