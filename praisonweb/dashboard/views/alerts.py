"""Alerts: look at them, and say that somebody has one in hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.services import alerts as service
from praisonweb.dashboard import access, acts, htmx, paging
from praisonweb.dashboard.access import Act, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import alerts


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    shown = alerts.read(before=paging.before(request), scope=access.scope(request.user))
    context = {"page": shown, "older": paging.older(request, shown)}
    return htmx.page_or_part(request, "alerts/page.html", "alerts/_list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def acknowledge(request: HttpRequest, alert_id: int) -> HttpResponse:
    alert = alerts.theirs(access.scope(request.user)).filter(pk=alert_id).first()
    if alert is None:
        return acts.gone(request, f"There is no alert {alert_id} (any more).", back=reverse("alerts"))

    def do(values: Mapping[str, Any]) -> Done:
        service.acknowledge(alert_id=alert_id, actor=acts.actor(request), reason=values["reason"], now=timezone.now())
        return Done(said="It is yours; nobody is reminded of it any more.")

    question = Question(
        title="Acknowledge the alert?",
        text=f"{alert.text}\nYou have it in hand: there are no more reminders. When it is over, that is still told.",
        verb="Acknowledge",
        back=acts.back_of(request, reverse("alerts")),
    )
    return acts.ask_or_do(request, question=question, do=do)
