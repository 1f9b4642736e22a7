"""Numbers for Prometheus: the same that Home and its charts show, the most telling first.

The labels are bots, states and outcomes, so there are as many series as there are bots, times a few. A scrape costs the
same however many rows there are (``botsrt.services.figures``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import botsrt
from botsrt.core.states import AlertKind, OutboxState
from botsrt.services import alerts, figures
from botsrt.services.figures import Pile
from praisonweb.dashboard.access import ALL_BOTS
from praisonweb.dashboard.queries import charts

_PREFIX = "praisonweb"


def exposed(*, accept: str, now: datetime) -> tuple[bytes, str]:
    """All numbers in the format that ``accept`` (a header of HTTP) asks for, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(now))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


class _Numbers(Collector):
    """The numbers of one scrape."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        yield from self._waiting()
        yield from self._bots()
        yield from self._work()
        yield from self._counts()
        yield from self._alerts()

    def _waiting(self) -> Iterator[Metric]:
        pending, claimed, held = figures.pending(), figures.claimed(), figures.held_entries()
        dead = figures.dead_letters()
        oldest = [pile.oldest_at for pile in (pending, claimed) if pile.oldest_at is not None]
        yield _gauge(
            "oldest_unanswered_seconds",
            "Age of the oldest message that waits for an answer.",
            self._age(min(oldest)) if oldest else 0.0,
        )
        entries = {"pending": pending, "claimed": claimed, "held": held, "dead": dead}
        yield _by_state("entries", f"Unfinished messages by state; more than {figures.MOST} are not counted.", entries)
        yield _gauge("dlq_open", "Failures that wait for staff.", dead.count)
        yield _gauge("dlq_oldest_seconds", "Age of the oldest of them.", self._pile_age(dead))
        out = {state.value: figures.outgoing(state) for state in _OUTGOING}
        yield _by_state("outbox", "Messages on their way out by state.", out)
        ages = GaugeMetricFamily(_name("outbox_oldest_seconds"), "Age of the oldest of them.", labels=["state"])
        for state, pile in out.items():
            ages.add_metric([state], self._pile_age(pile))
        yield ages
        asking = figures.asking(now=self._now)
        yield _gauge("pairings_waiting", "People who wait for somebody to let them in.", asking.count)
        yield _gauge("lanes_waiting", "Conversations in which somebody waits for a turn.", figures.lanes_waiting())

    def _bots(self) -> Iterator[Metric]:
        labels = ["account", "platform"]
        up = GaugeMetricFamily(_name("bot_up"), "1: the bot reads and sends. Paused bots are missing.", labels=labels)
        state = GaugeMetricFamily(_name("bot_state"), "1 for what the bot's adapter does.", labels=[*labels, "state"])
        inbound = GaugeMetricFamily(
            _name("bot_last_inbound_timestamp_seconds"), "When the bot last received.", labels=labels
        )
        outbound = GaugeMetricFamily(
            _name("bot_last_outbound_timestamp_seconds"), "When the bot last sent.", labels=labels
        )
        restarts = CounterMetricFamily(_name("bot_restarts"), "Starts of the adapter after failures.", labels=labels)
        for bot in figures.bots(now=self._now):
            values = [bot.account, bot.platform]
            if bot.is_enabled:
                up.add_metric(values, float(bot.is_up))
            state.add_metric([*values, "paused" if not bot.is_enabled else bot.state if bot.is_held else "unknown"], 1)
            if bot.last_inbound_at:
                inbound.add_metric(values, bot.last_inbound_at.timestamp())
            if bot.last_outbound_at:
                outbound.add_metric(values, bot.last_outbound_at.timestamp())
            restarts.add_metric(values, bot.restarts)
        return iter((up, state, inbound, outbound, restarts))

    def _work(self) -> Iterator[Metric]:
        workers = figures.workers(now=self._now)
        yield _gauge("workers", "Workers that were heard of within their lease.", workers.count)
        yield _gauge("workers_draining", "Those of them that stop.", workers.draining)
        yield _gauge("turns_running", "Turns that run now.", figures.running_turns())
        yield _gauge(
            "event_loop_gap_seconds",
            "Longest standstill of a worker's event loop that the latest beats told of.",
            workers.loop_gap_seconds,
        )

    def _counts(self) -> Iterator[Metric]:
        totals = figures.totals()
        for name, label, text in (
            ("received", "account", "Messages received."),
            ("written", "account", "Outgoing messages written; each part of a long one counts."),
            ("ended", "outcome", "Messages that ended without staff, by how."),
        ):
            family = CounterMetricFamily(
                _name(f"messages_{name}"), f"{text} Brought up to date once a minute.", labels=[label]
            )
            for value, total in totals[name].items():
                family.add_metric([value], total)
            yield family
        counted_at = figures.counted_at()
        yield _gauge(
            "watch_timestamp_seconds",
            "When the task cluster last looked after counts and alerts; 0: never.",
            counted_at.timestamp() if counted_at else 0.0,
        )
        hour = charts.last_hour(scope=ALL_BOTS, now=self._now)
        yield _gauge("hour_messages", "Messages of the last full hour, as the chart on Home has them.", hour.count)
        yield _gauge("hour_failed", "Those of them that failed.", hour.failed)
        usual, slow = charts.percentiles(hour.seconds)
        seconds = GaugeMetricFamily(
            _name("hour_answer_seconds"), "How long answers of the last full hour took.", labels=["quantile"]
        )
        seconds.add_metric(["0.5"], usual)
        seconds.add_metric(["0.95"], slow)
        yield seconds

    def _alerts(self) -> Iterator[Metric]:
        counts = alerts.open_counts()
        family = GaugeMetricFamily(_name("alerts"), "Alerts that are raised, by kind.", labels=["kind"])
        for kind in AlertKind:
            family.add_metric([kind], counts.get(kind, 0))
        yield family
        info = GaugeMetricFamily(_name("build_info"), "1, with the version.", labels=["version"])
        info.add_metric([botsrt.__version__], 1)
        yield info

    def _age(self, at: datetime) -> float:
        return max((self._now - at).total_seconds(), 0.0)

    def _pile_age(self, pile: Pile) -> float:
        return self._age(pile.oldest_at) if pile.oldest_at else 0.0


#: States of outgoing messages that are not over.
_OUTGOING = (OutboxState.PENDING, OutboxState.SENDING, OutboxState.UNKNOWN, OutboxState.HELD)


def _name(name: str) -> str:
    return f"{_PREFIX}_{name}"


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_name(name), text, value=value)


def _by_state(name: str, text: str, piles: dict[str, Pile]) -> Metric:
    family = GaugeMetricFamily(_name(name), text, labels=["state"])
    for state, pile in piles.items():
        family.add_metric([state], pile.count)
    return family
