"""Alerts: those that are there, and those that are over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet
from django.urls import reverse

from botsrt.core.alerting import MAIL
from botsrt.core.states import AlertKind, OutboxState
from botsrt.models import Alert, AlertNotice
from praisonweb.dashboard.access import Scope
from praisonweb.dashboard.filters import address
from praisonweb.dashboard.paging import PAGE_SIZE, Page, page_of
from praisonweb.dashboard.queries.standing import Standing, Tone

#: Alerts that Home shows; there is one of a kind and bot at most.
MAX_ON_HOME = 20

_TITLES: Mapping[AlertKind, str] = {
    AlertKind.NO_WORKER: "No worker",
    AlertKind.ADAPTER_DOWN: "Bot not connected",
    AlertKind.BACKLOG: "Backlog",
    AlertKind.JOURNAL_FULL: "Journal nearly full",
    AlertKind.DLQ_GROWTH: "Many failures",
    AlertKind.UNKNOWN_SENDS: "Unsure sends",
    AlertKind.SILENCE: "Bot too quiet",
}

_RAISED = Standing(word="raised", tone=Tone.BAD)
_WAITS = Standing(word="raised", tone=Tone.WARN, text="It can wait for the end of quiet hours.")
_IN_HAND = Standing(word="acknowledged", tone=Tone.BUSY)
_OVER = Standing(word="over", tone=Tone.IDLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: int
    title: str
    account: str
    text: str
    standing: Standing
    raised_at: datetime
    cleared_at: datetime | None
    acknowledged_by: str
    url: str  # where one can see it
    untold: str  # why somebody has not been told yet; empty: all have, or that is not for these eyes

    @property
    def is_open(self) -> bool:
        return self.cleared_at is None and not self.acknowledged_by


def theirs(scope: Scope) -> QuerySet[Alert]:
    """The alerts that somebody sees: what is about all bots is not for those who are limited to some."""
    return scope.rows(Alert.objects.all())


def current(*, scope: Scope) -> list[Row]:
    """The alerts that are there, the newest first."""
    return _rows(list(theirs(scope).filter(cleared_at=None).order_by("-pk")[:MAX_ON_HOME]), scope)


def read(*, before: int | None, scope: Scope) -> Page[Row]:
    """A page of all alerts, the newest first."""
    rows = theirs(scope) if before is None else theirs(scope).filter(pk__lt=before)
    listed = list(rows.order_by("-pk")[: PAGE_SIZE + 1])
    return page_of(_rows(listed, scope), [alert.pk for alert in listed], before=before)


def _rows(listed: Sequence[Alert], scope: Scope) -> list[Row]:
    untold = {} if scope.is_limited else _untold(listed)  # it names bots and chats of others
    return [_row(alert, untold.get(alert.pk, "")) for alert in listed]


def _untold(listed: Sequence[Alert]) -> dict[int, str]:
    """Alert → whom it could not be told yet, and why."""
    untold: dict[int, str] = {}
    waiting = AlertNotice.objects.filter(alert__in=[alert.pk for alert in listed], closed_at=None).exclude(error="")
    for alert_id, target, error in waiting.order_by("pk").values_list("alert_id", "target", "error"):
        untold.setdefault(alert_id, f"{'Mail' if target == MAIL else target}: {error}")
    return untold


def _row(alert: Alert, untold: str) -> Row:
    kind = AlertKind(alert.kind)
    return Row(
        id=alert.pk,
        title=_TITLES[kind],
        account=alert.account,
        text=alert.text,
        standing=_standing(alert),
        raised_at=alert.raised_at,
        cleared_at=alert.cleared_at,
        acknowledged_by=alert.acknowledged_by,
        url=_url(kind, alert.account),
        untold=untold,
    )


def _standing(alert: Alert) -> Standing:
    if alert.cleared_at is not None:
        return _OVER
    if alert.acknowledged_at is not None:
        return _IN_HAND
    return _RAISED if alert.is_urgent else _WAITS


def _url(kind: AlertKind, account: str) -> str:
    match kind:
        case AlertKind.NO_WORKER:
            return reverse("workers")
        case AlertKind.ADAPTER_DOWN | AlertKind.SILENCE:
            return reverse("bot", args=[account])
        case AlertKind.DLQ_GROWTH:
            return reverse("dlq")
        case AlertKind.UNKNOWN_SENDS:
            return reverse("deliveries") + address(f"state:{OutboxState.UNKNOWN}")
        case _:
            return reverse("journal") + address("state:pending state:claimed")
