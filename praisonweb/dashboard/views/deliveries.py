"""Outgoing messages, and deciding about those whose fate is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.core.states import BulkVerb
from botsrt.models import OutboxMessage
from botsrt.services import outbox
from praisonweb.dashboard import access, acts, filters, htmx, paging
from praisonweb.dashboard.access import Act, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import deliveries
from praisonweb.dashboard.views import operations

#: Resolution → the question, its consequence, the button, and what is said afterwards.
_WORDS = {
    "arrived": ("Note that {} arrived?", "It counts as sent; nothing is sent now.", "It arrived", "counted as sent"),
    "again": (
        "Send {} now?",
        "The person gets it now. What may have arrived already is marked as sent again.",
        "Send",
        "set to go out",
    ),
    "drop": ("Drop {}?", "The person never gets it. This cannot be undone.", "Drop", "dropped"),
}


class IdsForm(acts.ReasonForm):
    ids = forms.CharField(widget=forms.HiddenInput)


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    wanted = filters.parse(request.GET.get("q", ""), keys=deliveries.KEYS, now=timezone.now())
    shown = deliveries.read(filters=wanted, before=paging.before(request), scope=access.scope(request.user))
    context = {"shown": shown, "older": paging.older(request, shown.page), "keys": deliveries.KEYS}
    return htmx.page_or_part(request, "deliveries/page.html", "deliveries/_list.html", context)


@require_safe
@staff_only
def one(request: HttpRequest, outbox_id: int) -> HttpResponse:
    shown = deliveries.one(outbox_id=outbox_id, scope=access.scope(request.user))
    if shown is None:
        return _none(request, outbox_id)
    return htmx.page_or_part(request, "deliveries/delivery.html", "deliveries/_delivery.html", {"delivery": shown})


def _none(request: HttpRequest, outbox_id: int) -> HttpResponse:
    return acts.gone(request, f"There is no outgoing message {outbox_id} (any more).", back=reverse("deliveries"))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DECIDE_DELIVERIES)
def resolve(request: HttpRequest, outbox_id: int, resolution: str) -> HttpResponse:
    """Decide about one message of unknown fate, or a held reply with all its parts."""
    title, text, verb, said = _words(resolution)
    parts = deliveries.parts_of(outbox_id, scope=access.scope(request.user))
    if not parts:
        return _none(request, outbox_id)
    what = "1 message" if parts == 1 else f"1 reply of {parts} parts"
    question = Question(
        title=title.format(what),
        text=text,
        verb=verb,
        is_destructive=resolution == "drop",
        back=acts.back_of(request, reverse("delivery", args=[outbox_id])),
    )

    def do(values: Mapping[str, Any]) -> Done:
        outbox.resolve(
            outbox_id=outbox_id,
            resolution=resolution,
            actor=acts.actor(request),
            reason=values["reason"],
            now=timezone.now(),
        )
        return Done(said=f"Message {outbox_id}: {said}.")

    return acts.ask_or_do(request, question=question, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DECIDE_DELIVERIES)
def resolve_many(request: HttpRequest, resolution: str) -> HttpResponse:
    """Decide about the selected messages; their ids are fixed when the question is asked."""
    title, text, verb, said = _words(resolution)
    ids = operations.frozen(request, OutboxMessage.objects.all())
    question = Question(
        title=title.format(acts.counted(len(ids), "message")),
        text=text,
        verb=f"{verb} ({len(ids)})",
        is_destructive=resolution == "drop",
        obstacle="" if ids else "No message is selected.",
        back=acts.back_of(request, reverse("deliveries")),
    )

    def do(values: Mapping[str, Any]) -> Done:
        return operations.begin(request, BulkVerb(resolution), ids, said=said, reason=values["reason"])

    initial = {"ids": ",".join(map(str, ids))}
    return acts.ask_or_do(request, question=question, form=IdsForm, do=do, initial=initial)


def _words(resolution: str) -> tuple[str, str, str, str]:
    if resolution not in _WORDS:
        raise Http404(f"{resolution} is no decision; there are {', '.join(_WORDS)}.")
    return _WORDS[resolution]
