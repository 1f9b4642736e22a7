"""Bulk operations: begin one from a list, look at it, stop it, let it go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt import tasks
from botsrt.core.errors import Conflict
from botsrt.core.states import BulkItemState, BulkVerb
from botsrt.models import BulkOperation
from botsrt.services import bulk
from praisonweb.dashboard import access, acts, htmx, paging
from praisonweb.dashboard.access import staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import operations


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    shown = operations.read(before=paging.before(request), scope=access.scope(request.user), now=timezone.now())
    context = {"page": shown, "older": paging.older(request, shown)}
    return htmx.page_or_part(request, "operations/page.html", "operations/_list.html", context)


@require_safe
@staff_only
def operation(request: HttpRequest, operation_id: int) -> HttpResponse:
    """One operation; ``?state=`` only its rows in that state."""
    wanted = request.GET.get("state", "")
    state = wanted if wanted in tuple(BulkItemState) else ""
    shown = operations.one(
        operation_id=operation_id,
        state=state,
        after=paging.row_id(request, "after"),
        scope=access.scope(request.user),
        now=timezone.now(),
    )
    if shown is None:
        return _none(request, operation_id)
    further = f"?state={state}&after={shown.page.older_before}" if shown.page.older_before is not None else ""
    context = {
        "shown": shown,
        "operation": shown.operation,
        "obstacle": access.why_not(request.user, shown.operation.act),
        "further": further,
        "states": list(BulkItemState),
    }
    return htmx.page_or_part(request, "operations/operation.html", "operations/_operation.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@staff_only
def stop(request: HttpRequest, operation_id: int) -> HttpResponse:
    def do(values: Mapping[str, Any]) -> Done:
        bulk.stop(operation_id=operation_id, actor=acts.actor(request), now=timezone.now())
        return Done(said="It is stopped; the rest is left as it was.")

    return _change(
        request, operation_id, "Stop the {}?", "What is done stays done; the rest is left as it is.", "Stop", do
    )


@require_http_methods(["GET", "HEAD", "POST"])
@staff_only
def resume(request: HttpRequest, operation_id: int) -> HttpResponse:
    def do(values: Mapping[str, Any]) -> Done:
        bulk.resume(operation_id=operation_id, actor=acts.actor(request), now=timezone.now())
        tasks.go_on(operation_id)
        return Done(said="It goes on.")

    return _change(request, operation_id, "Go on with the {}?", "The rows that wait are done now.", "Go on", do)


def _change(request: HttpRequest, operation_id: int, title: str, text: str, verb: str, do: Any) -> HttpResponse:
    row = operations.theirs(access.scope(request.user)).filter(pk=operation_id).first()
    if row is None:
        return _none(request, operation_id)
    access.demand(request.user, operations.ACTS[BulkVerb(row.verb)])
    (shown,) = operations.operations([row], now=timezone.now())
    obstacle = operations.foreign_obstacle(row, scope=access.scope(request.user)) if verb == "Go on" else ""
    question = Question(
        title=title.format(shown.title[0].lower() + shown.title[1:]),
        text=f"{acts.counted(shown.over, 'message')} of {row.total:,} done so far. {text}",
        verb=verb,
        obstacle=obstacle,
        back=acts.back_of(request, reverse("operation", args=[operation_id])),
    )
    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)


def _none(request: HttpRequest, operation_id: int) -> HttpResponse:
    text = f"There is no bulk operation {operation_id} (any more)."
    return acts.gone(request, text, back=reverse("operations"))


# -- beginning one, from the pages of what it acts on ----


def frozen(request: HttpRequest, rows: QuerySet[Any]) -> list[int]:
    """The ids that the question named (POST), or that are selected (GET). They are fixed when the question is asked.

    Of ``rows``, those that are not theirs are left out.
    """
    chosen = request.POST.getlist("ids") if request.method == "POST" else request.GET.getlist("id")
    return access.scope(request.user).among(rows, paging.row_ids(chosen)[: bulk.MAX_ITEMS])


def begin(
    request: HttpRequest,
    verb: BulkVerb,
    ids: Sequence[int],
    *,
    said: str,
    reason: str,
    is_canary: bool = False,
    options: Mapping[str, Any] | None = None,
    noun: str = "message",
) -> Done:
    """Begin; a small operation is over at once, a larger one is shown while it goes on.

    Args:
        said: what was done, after the number: "replayed".

    Raises:
        Conflict: none of the rows was possible.
    """
    operation_id = tasks.begin_bulk(
        verb=verb, object_ids=ids, actor=acts.actor(request), reason=reason, is_canary=is_canary, options=options
    )
    (shown,) = operations.operations([BulkOperation.objects.get(pk=operation_id)], now=timezone.now())
    page = reverse("operation", args=[operation_id])
    if shown.is_running:
        return Done(said=f"{shown.title}: {shown.over} done so far.", then=page, is_elsewhere=True)
    if not shown.done:
        raise Conflict(f"Nothing was done: {_reasons(operation_id)}")
    text = f"{acts.counted(shown.done, noun)} {said}."
    if shown.skipped:
        was = "was" if shown.skipped == 1 else "were"
        text += f" {shown.skipped} {was} skipped: {_reasons(operation_id)}"
    return Done(said=text)


def _reasons(operation_id: int, most: int = 3) -> str:
    skipped = BulkOperation(pk=operation_id).items.filter(state=BulkItemState.SKIPPED)
    reasons = list(skipped.order_by("ordinal").values_list("detail", flat=True)[: most + 1])
    return " ".join(reasons[:most]) + (" …" if len(reasons) > most else "")
