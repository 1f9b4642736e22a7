"""The dead letter queue: look, retry, discard, note, assign, snooze."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.core.states import BulkVerb, DLQState
from botsrt.models import DLQItem
from botsrt.services import bulk
from botsrt.services import dlq as service
from praisonweb.dashboard import access, acts, filters, htmx, paging
from praisonweb.dashboard.access import Act, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import dlq
from praisonweb.dashboard.views import operations

_MAX_TEXT_CHARS = 20_000

#: How long staff can put something off.
_SNOOZES = {"1 h": timedelta(hours=1), "4 h": timedelta(hours=4), "1 d": timedelta(days=1), "7 d": timedelta(days=7)}


# -- pages ----


@require_safe
@staff_only
def groups(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    wanted = filters.parse(request.GET.get("q", ""), keys=dlq.KEYS, now=now)
    shown = dlq.groups(filters=wanted, before=paging.before(request), scope=access.scope(request.user), now=now)
    context = {"dlq": shown, "older": paging.older(request, shown.page), "keys": dlq.KEYS}
    return htmx.page_or_part(request, "dlq/page.html", "dlq/_groups.html", context)


@require_safe
@staff_only
def group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    """The items of a group; ``?state=`` those that are closed."""
    wanted = request.GET.get("state", DLQState.OPEN)
    state = wanted if wanted in tuple(DLQState) else DLQState.OPEN
    scope, before = access.scope(request.user), paging.before(request)
    shown = dlq.group(fingerprint=fingerprint, state=state, before=before, scope=scope, now=timezone.now())
    if shown is None:
        return _no_group(request, fingerprint)
    context = {
        "shown": shown,
        "group": shown.group,
        "older": f"?state={state}&before={shown.page.older_before}" if shown.page.older_before else "",
        "states": list(DLQState),
    }
    return htmx.page_or_part(request, "dlq/group.html", "dlq/_group.html", context)


@require_safe
@staff_only
def item(request: HttpRequest, item_id: int) -> HttpResponse:
    shown = dlq.item(item_id=item_id, scope=access.scope(request.user), now=timezone.now())
    if shown is None:
        return _no_item(request, item_id)
    return htmx.page_or_part(request, "dlq/item.html", "dlq/_item.html", {"item": shown, "me": request.user})


def _no_item(request: HttpRequest, item_id: int) -> HttpResponse:
    return acts.gone(request, f"There is no dead letter item {item_id} (any more).", back=reverse("dlq"))


def _no_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    return acts.gone(request, f"There is no group {fingerprint} (any more).", back=reverse("dlq"))


def _row(request: HttpRequest, item_id: int) -> DLQItem | None:
    return dlq.row_of(item_id=item_id, scope=access.scope(request.user))


def _has_group(request: HttpRequest, fingerprint: str) -> bool:
    return dlq.has_group(fingerprint=fingerprint, scope=access.scope(request.user))


# -- forms ----


class EditForm(acts.ReasonForm):
    text = forms.CharField(
        label="What the agent gets",
        max_length=_MAX_TEXT_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "dir": "auto"}),
        help_text="The original stays readable, and the edit is marked.",
    )
    field_order = ("text", "reason")


class NoteForm(forms.Form):
    note = forms.CharField(
        label="Note",
        required=False,
        max_length=acts.MAX_REASON_CHARS,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="For your colleagues; neither agents nor people ever see it.",
    )


class AssignForm(forms.Form):
    assignee = forms.CharField(
        label="Who looks after it", required=False, max_length=150, help_text="Empty: nobody in particular."
    )


class SnoozeForm(forms.Form):
    span = forms.ChoiceField(
        label="For how long",
        choices=[*((name, name) for name in _SNOOZES), ("none", "Not at all: show it now")],
        widget=forms.RadioSelect,
        initial="4 h",
    )


class IdsForm(acts.ReasonForm):
    ids = forms.CharField(widget=forms.HiddenInput)


class RetryForm(IdsForm):
    pace = forms.ChoiceField(
        label="How",
        choices=[
            ("steps", "Step by step: 1, then 5, then 25, then the rest; stops when a step fails the same way"),
            ("all", "All at once"),
        ],
        widget=forms.RadioSelect,
    )
    field_order = ("pace", "reason")


class RequiredIdsForm(acts.RequiredReasonForm):
    ids = forms.CharField(widget=forms.HiddenInput)


# -- acts on one item ----


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.RETRY)
def retry(request: HttpRequest, item_id: int) -> HttpResponse:
    if _row(request, item_id) is None:
        return _no_item(request, item_id)
    question = Question(
        title="Retry 1 message?",
        text="The person gets the answer, if there is one now. If it fails again, it comes back here.",
        verb="Retry",
        back=_item_page(request, item_id),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.retry(item_id=item_id, actor=acts.actor(request), reason=values["reason"], now=timezone.now())
        return Done(said=f"Item {item_id} runs again.")

    return acts.ask_or_do(request, question=question, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.RETRY)
def edit(request: HttpRequest, item_id: int) -> HttpResponse:
    """Edit and retry."""
    row = _row(request, item_id)
    if row is None:
        return _no_item(request, item_id)
    question = Question(
        title="Edit and retry 1 message?",
        text="The agent gets this text instead; the person gets the answer.",
        verb="Retry with this text",
        back=_item_page(request, item_id),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.retry(
            item_id=item_id,
            actor=acts.actor(request),
            reason=values["reason"],
            edited_text=values["text"],
            now=timezone.now(),
        )
        return Done(said=f"Item {item_id} runs again, with the edited text.")

    text = row.entry.edited_text if row.entry.edited_text is not None else str(row.entry.payload.get("text") or "")
    return acts.ask_or_do(request, question=question, form=EditForm, do=do, initial={"text": text})


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DISCARD)
def discard(request: HttpRequest, item_id: int) -> HttpResponse:
    if _row(request, item_id) is None:
        return _no_item(request, item_id)
    question = Question(
        title="Discard 1 message?",
        text="The person gets no answer. You can undo this for 30 days.",
        verb="Discard",
        is_destructive=True,
        back=_item_page(request, item_id),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.discard(item_id=item_id, actor=acts.actor(request), reason=values["reason"], now=timezone.now())
        return Done(said=f"Item {item_id} is discarded.", undo=reverse("dlq_undo", args=[item_id]))

    return acts.ask_or_do(request, question=question, form=acts.RequiredReasonForm, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DISCARD)
def undo(request: HttpRequest, item_id: int) -> HttpResponse:
    if _row(request, item_id) is None:
        return _no_item(request, item_id)
    question = Question(
        title="Take the discard of 1 message back?",
        text="It waits in the queue again, as before.",
        verb="Undo the discard",
        back=_item_page(request, item_id),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.undo_discard(item_id=item_id, actor=acts.actor(request), now=timezone.now())
        return Done(said=f"Item {item_id} is open again.")

    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def note(request: HttpRequest, item_id: int) -> HttpResponse:
    return _annotate_item(request, item_id, "note", NoteForm, "Note on 1 message", "Save the note")


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def assign(request: HttpRequest, item_id: int) -> HttpResponse:
    return _annotate_item(request, item_id, "assignee", AssignForm, "Assign 1 message", "Assign")


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def snooze(request: HttpRequest, item_id: int) -> HttpResponse:
    return _annotate_item(request, item_id, "snoozed_until", SnoozeForm, "Snooze 1 message", "Snooze")


def _annotate_item(
    request: HttpRequest, item_id: int, field: str, form: type[forms.Form], title: str, verb: str
) -> HttpResponse:
    row = _row(request, item_id)
    if row is None:
        return _no_item(request, item_id)
    question = Question(title=title, verb=verb, text=_ANNOTATIONS[field], back=_item_page(request, item_id))

    def do(values: Mapping[str, Any]) -> Done:
        now = timezone.now()
        service.annotate(item_id=item_id, actor=acts.actor(request), now=now, **_change(values, now=now))
        return Done(said=f"Item {item_id}: {_said(values)}")

    return acts.ask_or_do(request, question=question, form=form, do=do, initial=_initial(request, row))


def _item_page(request: HttpRequest, item_id: int) -> str:
    return acts.back_of(request, reverse("dlq_item", args=[item_id]))


# -- acts on a group, or on selected items: the ids are fixed when the question is asked ----


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.RETRY)
def retry_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    if not _has_group(request, fingerprint):
        return _no_group(request, fingerprint)
    return _retry(
        request,
        _of_group(request, fingerprint, readable_only=True),
        pace="steps",
        back=reverse("dlq_group", args=[fingerprint]),
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DISCARD)
def discard_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    if not _has_group(request, fingerprint):
        return _no_group(request, fingerprint)
    return _discard(
        request, _of_group(request, fingerprint, readable_only=False), back=reverse("dlq_group", args=[fingerprint])
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.RETRY)
def retry_selected(request: HttpRequest) -> HttpResponse:
    return _retry(request, _chosen(request), pace="steps" if "all" in request.GET else "all", back=reverse("dlq"))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.DISCARD)
def discard_selected(request: HttpRequest) -> HttpResponse:
    return _discard(request, _chosen(request), back=reverse("dlq"))


def _of_group(request: HttpRequest, fingerprint: str, *, readable_only: bool) -> list[int]:
    """What is selected, or all that the act would take."""
    if request.POST.get("ids") or request.GET.get("id"):
        return operations.frozen(request, DLQItem.objects.all())
    return dlq.open_ids(fingerprint=fingerprint, readable_only=readable_only, scope=access.scope(request.user))


def _chosen(request: HttpRequest) -> list[int]:
    """What is selected, or what the filter of ``?all=`` shows."""
    if request.method != "POST" and "all" in request.GET:
        now, scope = timezone.now(), access.scope(request.user)
        wanted = filters.parse(request.GET["all"], keys=dlq.KEYS, now=now)
        return dlq.matching_ids(filters=wanted, scope=scope, now=now)
    return operations.frozen(request, DLQItem.objects.all())


def _retry(request: HttpRequest, ids: list[int], *, pace: str, back: str) -> HttpResponse:
    question = Question(
        title=f"Retry {acts.counted(len(ids), 'message')}?",
        text=dlq.consequence(ids, scope=access.scope(request.user), now=timezone.now()) + _most(ids) if ids else "",
        verb=f"Retry {len(ids):,}",
        obstacle=_obstacle(ids),
        back=acts.back_of(request, back),
    )

    def do(values: Mapping[str, Any]) -> Done:
        return operations.begin(
            request,
            BulkVerb.RETRY,
            ids,
            said="queued to run again",
            reason=values["reason"],
            is_canary=values.get("pace") == "steps",
        )

    initial = {"ids": ",".join(map(str, ids)), "pace": pace}
    form = RetryForm if len(ids) > 1 else IdsForm
    return acts.ask_or_do(request, question=question, form=form, do=do, initial=initial)


def _discard(request: HttpRequest, ids: list[int], *, back: str) -> HttpResponse:
    question = Question(
        title=f"Discard {acts.counted(len(ids), 'message')}?",
        text="The people who wrote get no answer. Each can be taken back for 30 days." + _most(ids),
        verb=f"Discard {len(ids):,}",
        is_destructive=True,
        obstacle=_obstacle(ids),
        back=acts.back_of(request, back),
    )

    def do(values: Mapping[str, Any]) -> Done:
        return operations.begin(request, BulkVerb.DISCARD, ids, said="discarded", reason=values["reason"])

    initial = {"ids": ",".join(map(str, ids))}
    return acts.ask_or_do(request, question=question, form=RequiredIdsForm, do=do, initial=initial)


def _most(ids: list[int]) -> str:
    return f" These are the oldest {len(ids):,}; ask again for more." if len(ids) == bulk.MAX_ITEMS else ""


def _obstacle(ids: list[int]) -> str:
    return "" if ids else "Nothing here is open any more, or nothing is selected."


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def note_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    return _annotate_group(request, fingerprint, "note", NoteForm, "Note on the group", "Save the note")


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def assign_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    return _annotate_group(request, fingerprint, "assignee", AssignForm, "Assign the group", "Assign")


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.NOTE)
def snooze_group(request: HttpRequest, fingerprint: str) -> HttpResponse:
    return _annotate_group(request, fingerprint, "snoozed_until", SnoozeForm, "Snooze the group", "Snooze")


def _annotate_group(
    request: HttpRequest, fingerprint: str, field: str, form: type[forms.Form], title: str, verb: str
) -> HttpResponse:
    if not _has_group(request, fingerprint):
        return _no_group(request, fingerprint)
    newest = DLQItem.objects.filter(fingerprint=fingerprint, state=DLQState.OPEN).order_by("-pk").first()
    back = acts.back_of(request, reverse("dlq_group", args=[fingerprint]))
    obstacle = "" if newest else "No item of this group is open any more."
    question = Question(title=title, verb=verb, text=_ANNOTATIONS[field], obstacle=obstacle, back=back)

    def do(values: Mapping[str, Any]) -> Done:
        now = timezone.now()
        by = acts.actor(request)
        count = service.annotate_group(fingerprint=fingerprint, actor=by, now=now, **_change(values, now=now))
        return Done(said=f"{acts.counted(count, 'message')}: {_said(values)}")

    return acts.ask_or_do(request, question=question, form=form, do=do, initial=_initial(request, newest))


_ANNOTATIONS = {
    "note": "",
    "assignee": "",
    "snoozed_until": "Until then it is not counted and not listed, unless you look for snoozed ones.",
}


def _initial(request: HttpRequest, row: DLQItem | None) -> dict[str, str]:
    me = acts.actor(request).name if "me" in request.GET else ""
    return {"note": row.note if row else "", "assignee": me or (row.assignee if row else "")}


def _change(values: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    """What a form's values change of an item."""
    if "span" in values:
        return {"snoozed_until": now + _SNOOZES.get(values["span"], timedelta())}
    return dict(values)


def _said(values: Mapping[str, Any]) -> str:
    if "span" in values:
        return "shown again." if values["span"] == "none" else f"snoozed for {values['span']}."
    if "assignee" in values:
        return f"assigned to {values['assignee']}." if values["assignee"] else "assigned to nobody."
    return "the note is saved."
