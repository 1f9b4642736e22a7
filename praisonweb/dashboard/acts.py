"""Acts of staff: one address for the question ("Replay 1 message?") and for the deed.

GET asks, as a page or as the content of a dialog; POST does it through one service and goes back. What the database
then says is what the pages show. An act that comes too late answers 409 and says what happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRedirect

from botsrt.core import redact
from botsrt.core.errors import BotsError
from praisonweb.dashboard import errors, htmx
from praisonweb.dashboard.access import actor as actor

#: Longest reason or note, in characters.
MAX_REASON_CHARS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked before an act."""

    title: str  # verb and count: "Replay 1 message?"
    verb: str  # on the button
    text: str = ""  # the consequence
    is_destructive: bool = False
    obstacle: str = ""  # why it cannot be done now; empty: it can
    back: str = "/"  # where the person came from
    cancel: str = "Cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an act has done."""

    said: str
    then: str = ""  # where to go; empty: back to where the person came from
    is_elsewhere: bool = False  # the page that showed the thing is of no use any more, or another one is wanted
    undo: str = ""  # the address that takes it back


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label="Reason",
        required=False,
        max_length=MAX_REASON_CHARS,
        help_text="Kept in the audit.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class RequiredReasonForm(ReasonForm):
    reason = forms.CharField(
        label="Reason",
        max_length=MAX_REASON_CHARS,
        help_text="Required; kept in the audit.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


def ask_or_do(
    request: HttpRequest,
    *,
    question: Question,
    form: type[forms.Form] = ReasonForm,
    do: Callable[[Mapping[str, Any]], Done],
    initial: Mapping[str, Any] | None = None,
    form_options: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """GET: the question. POST: ``do`` with the form's values; 400 when they cannot be used, 409 when it is too late."""
    options = dict(form_options or {})
    if request.method != "POST" or question.obstacle:
        status = 409 if request.method == "POST" else 200
        return _ask(request, question, form(initial=dict(initial or {}), **options), status=status)
    filled = form(request.POST, initial=dict(initial or {}), **options)
    if not filled.is_valid():
        return _ask(request, question, filled, status=400)
    try:
        done = do(filled.cleaned_data)
    except BotsError as error:
        return _ask(request, question, filled, status=errors.status_of(error), error=redact.redact(str(error)))
    return _answer(request, question, done)


def back_of(request: HttpRequest, default: str) -> str:
    """Where the person came from, if that is a page of ours."""
    wanted = request.POST.get("back") or request.GET.get("back") or ""
    is_ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) and wanted.startswith("/")
    return wanted if is_ours and len(wanted) <= 2_000 else default


def counted(count: int, noun: str, plural: str = "") -> str:
    """ "1 message", "1,200 messages"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _ask(request: HttpRequest, question: Question, form: forms.Form, *, status: int, error: str = "") -> HttpResponse:
    if error and status >= 500:
        status = 409  # the platform's or the agent's trouble, not the site's
    context = {"question": question, "form": form, "error": error, "status": status}
    return htmx.page_or_part(request, "acts/ask.html", "acts/_ask.html", context, status=status)


def _answer(request: HttpRequest, question: Question, done: Done) -> HttpResponse:
    then = done.then or question.back
    if not htmx.is_part(request):
        messages.success(request, done.said)
        return redirect(then)
    if done.is_elsewhere:
        messages.success(request, done.said)
        return HttpResponseClientRedirect(then)
    response = HttpResponse(status=204)
    response["HX-Trigger"] = json.dumps({"pw:done": {"text": done.said, "undo": done.undo}})
    return response


def gone(request: HttpRequest, text: str, *, back: str) -> HttpResponse:
    """The thing is not there any more."""
    context = {"text": text, "back": back}
    return htmx.page_or_part(request, "acts/gone.html", "acts/_gone.html", context, status=404)
