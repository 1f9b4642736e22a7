"""The journal: every inbound event, and running one again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.core.errors import BotsError
from botsrt.core.states import BulkVerb, RunMode
from botsrt.models import JournalEntry
from botsrt.runtime.turn import dry_run
from botsrt.services import bulk, outbox
from botsrt.services import journal as journal_service
from praisonweb.dashboard import access, acts, filters, htmx, paging
from praisonweb.dashboard.access import Act, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import journal
from praisonweb.dashboard.views import operations

_MODES = {
    "send": "Run again and send the reply",
    "hold": "Run again and hold the reply for review",
    "again": "Send the stored reply again; the agent does not run",
    "dry-run": "Dry run: the agent runs, nothing is stored or sent, and you see what it would say",
}


class ReplayForm(acts.ReasonForm):
    mode = forms.ChoiceField(choices=list(_MODES.items()), widget=forms.RadioSelect, initial="send", label="How")
    field_order = ("mode", "reason")


class ManyForm(acts.ReasonForm):
    mode = forms.ChoiceField(
        choices=[(mode, _MODES[mode]) for mode in ("send", "hold")],
        widget=forms.RadioSelect,
        initial="send",
        label="How",
    )
    ids = forms.CharField(widget=forms.HiddenInput)
    field_order = ("mode", "reason", "ids")


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    wanted = filters.parse(request.GET.get("q", ""), keys=journal.KEYS, now=now)
    shown = journal.read(filters=wanted, before=paging.before(request), scope=access.scope(request.user), now=now)
    context = {"journal": shown, "older": paging.older(request, shown.page), "keys": journal.KEYS}
    return htmx.page_or_part(request, "journal/page.html", "journal/_list.html", context)


@require_safe
@staff_only
def entry(request: HttpRequest, entry_id: int) -> HttpResponse:
    """One entry: a page of its own, or the drawer beside the list."""
    tab = request.GET.get("tab", "message")
    tab = tab if tab in journal.TABS else "message"
    shown = journal.entry(entry_id=entry_id, tab=tab, scope=access.scope(request.user))
    if shown is None:
        return _none(request, entry_id)
    return htmx.page_or_part(
        request, "journal/entry.html", "journal/_entry.html", {"entry": shown, "tabs": journal.TABS}
    )


def _none(request: HttpRequest, entry_id: int) -> HttpResponse:
    return acts.gone(request, f"There is no journal entry {entry_id} (any more).", back=reverse("journal"))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.REPLAY)
def replay(request: HttpRequest, entry_id: int) -> HttpResponse:
    """Run an entry again, in one of four ways."""
    if not journal.is_there(entry_id=entry_id, scope=access.scope(request.user)):
        return _none(request, entry_id)
    back = acts.back_of(request, reverse("journal_entry", args=[entry_id]))
    if request.method == "POST" and request.POST.get("mode") == "dry-run":
        return _rehearse(request, entry_id, back)

    def do(values: Mapping[str, Any]) -> Done:
        by, reason, now = acts.actor(request), values["reason"], timezone.now()
        if values["mode"] == "again":
            count = outbox.send_reply_again(entry_id=entry_id, actor=by, reason=reason, now=now)
            return Done(said=f"The stored reply goes out again ({acts.counted(count, 'part')}).")
        mode = RunMode(values["mode"])
        journal_service.replay(entry_id=entry_id, mode=mode, actor=by, reason=reason, now=now)
        held = " Its reply will be held for you." if mode is RunMode.HOLD else ""
        return Done(said=f"Message {entry_id} runs again.{held}")

    question = Question(
        title="Replay 1 message?",
        text="The person may get an answer now. A reply to a message older than 6 h is held for you instead of sent.",
        verb="Replay",
        back=back,
    )
    initial = {"mode": request.GET.get("mode", "send")}
    return acts.ask_or_do(request, question=question, form=ReplayForm, do=do, initial=initial)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.REPLAY)
def replay_many(request: HttpRequest) -> HttpResponse:
    """Run the selected entries again, or all that the filter of ``?all=`` shows. Their ids are fixed when the question
    is asked."""
    now, scope = timezone.now(), access.scope(request.user)
    ids = operations.frozen(request, JournalEntry.objects.all())
    if request.method != "POST" and "all" in request.GET:
        wanted = filters.parse(request.GET["all"], keys=journal.KEYS, now=now)
        ids = journal.matching_ids(filters=wanted, scope=scope, now=now)
    most = f" These are the newest {len(ids):,} that match; ask again for more." if len(ids) == bulk.MAX_ITEMS else ""

    def do(values: Mapping[str, Any]) -> Done:
        return operations.begin(
            request,
            BulkVerb.REPLAY,
            ids,
            said="replayed",
            reason=values["reason"],
            options={"mode": values["mode"]},
        )

    question = Question(
        title=f"Replay {acts.counted(len(ids), 'message')}?",
        text=journal.consequence(ids, scope=scope, now=now) + most if ids else "",
        verb=f"Replay {len(ids):,}",
        obstacle="" if ids else "No message that could be replayed is selected.",
        back=acts.back_of(request, reverse("journal")),
    )
    initial = {"ids": ",".join(map(str, ids))}
    return acts.ask_or_do(request, question=question, form=ManyForm, do=do, initial=initial)


def _rehearse(request: HttpRequest, entry_id: int, back: str) -> HttpResponse:
    context = {"entry_id": entry_id, "back": back, "reply": None, "error": ""}
    try:
        context["reply"] = async_to_sync(dry_run)(entry_id)
    except BotsError as error:
        context["error"] = str(error)
    if htmx.is_part(request):
        return render(request, "journal/_dry_run.html", context)
    return render(request, "journal/dry_run.html", context)
