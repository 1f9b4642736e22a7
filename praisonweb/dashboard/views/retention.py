"""How long each kind of data is kept, and what would go now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from botsrt import tasks
from praisonweb.dashboard import acts, htmx
from praisonweb.dashboard.access import Act, all_bots, requires
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import retention
from praisonweb.dashboard.sudo import sudo_required


@require_safe
@requires(Act.PURGE)
@all_bots
def page(request: HttpRequest) -> HttpResponse:
    context = {"kinds": retention.read()}
    return htmx.page_or_part(request, "retention/page.html", "retention/_list.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.PURGE)
@all_bots
@sudo_required
def apply(request: HttpRequest) -> HttpResponse:
    """Remove now what housekeeping would remove within ten minutes by itself."""
    due = sum(kind.count for kind in retention.read())

    def do(values: Mapping[str, Any]) -> Done:
        tasks.apply_retention(actor=acts.actor(request))
        return Done(said="The task cluster removes it, a few rows at a time.", then=reverse("retention"))

    question = Question(
        title=f"Remove {acts.counted(due, 'row')} for good?",
        text="What is over, and older than the period of its kind. Nothing unfinished is removed. Housekeeping does "
        "the same by itself, every ten minutes.",
        verb="Remove",
        is_destructive=True,
        obstacle="" if due else "Nothing is old enough.",
        back=acts.back_of(request, reverse("retention")),
    )
    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)
