"""Conversations: read what was said over all platforms, answer, take over, and say who is who."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from botsrt.core.errors import BotsError, InvalidInput
from botsrt.core.states import Handler, Proof
from botsrt.runtime import platforms
from botsrt.services import handling, identity, search, transcripts
from praisonweb.dashboard import access, acts, errors, filters, htmx, paging
from praisonweb.dashboard.access import Act, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import people
from praisonweb.dashboard.queries.people import Conversation, Mark, Place
from praisonweb.dashboard.sudo import sudo_required

#: Longest reply or note, in characters.
_MAX_TEXT_CHARS = 20_000

_CONTENT_TYPES = {
    "jsonl": ("application/x-ndjson", "jsonl"),
    "csv": ("text/csv; charset=utf-8", "csv"),
    "markdown": ("text/markdown; charset=utf-8", "md"),
}


class ReplyForm(forms.Form):
    text = forms.CharField(label="Reply", max_length=_MAX_TEXT_CHARS, strip=False)
    key = forms.UUIDField()
    seen = forms.IntegerField(min_value=0)


class NoteForm(forms.Form):
    note = forms.CharField(label="Note", max_length=_MAX_TEXT_CHARS, strip=False)


class LinkForm(acts.RequiredReasonForm):
    person = forms.CharField(widget=forms.HiddenInput, max_length=63)


class ExportForm(acts.ReasonForm):
    file_format = forms.ChoiceField(
        label="As",
        choices=[("markdown", "Markdown, for reading"), ("csv", "CSV, for a spreadsheet"), ("jsonl", "JSON lines")],
        widget=forms.RadioSelect,
        initial="markdown",
    )
    redacted = forms.BooleanField(label="Leave out names, addresses, numbers and notes", required=False, initial=True)
    field_order = ("file_format", "redacted", "reason")


# -- pages ----


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    """The list, or the messages that have the words."""
    wanted = filters.parse(request.GET.get("q", ""), keys=people.KEYS, now=timezone.now())
    tab = request.GET.get("tab", "all")
    tab = tab if tab in people.TABS else "all"
    shown = people.read(filters=wanted, tab=tab, before=paging.before(request), scope=access.scope(request.user))
    context = {
        "people": shown,
        "keys": people.KEYS,
        "tabs": people.TABS,
        "older": _older(request, shown, tab),
        "words": search.words_of(" ".join(wanted.words)),
    }
    return htmx.page_or_part(request, "people/page.html", "people/_list.html", context)


def _older(request: HttpRequest, shown: people.People, tab: str) -> str:
    query = request.GET.copy()
    last = shown.hits.older_before if shown.hits else shown.older
    if not last:
        return ""
    query["before"] = str(last)
    return f"?{query.urlencode()}"


@require_safe
@staff_only
def one(request: HttpRequest, session_pk: int) -> HttpResponse:
    """One conversation: its end, or where the address says (``?on=``, ``?at=``, ``?before=``, ``?after=``)."""
    place, problem = _place(request)
    shown = people.conversation(
        session_pk=session_pk,
        place=place,
        platform=request.GET.get("platform", "")[:30],
        seen=_seen(request),
        scope=access.scope(request.user),
    )
    if shown is None:
        return _none(request, session_pk)
    return _show(request, shown, place=place, place_problem=problem or _nothing_since(shown, place))


def _place(request: HttpRequest) -> tuple[Place, str]:
    """Where the reader wants to be, and what is wrong with the date if something is."""
    on = request.GET.get("on", "").strip()
    if on:
        try:
            return Place(day=date.fromisoformat(on)), ""
        except ValueError:
            return Place(), f"{on[:40]!r} is no date; write 2026-11-20."
    return Place(
        before=paging.before(request),
        after=paging.row_id(request, "after"),
        wanted=paging.row_id(request, "at"),
    ), ""


def _nothing_since(shown: Conversation, place: Place) -> str:
    if place.day is None:
        return ""
    if not shown.is_from_start:
        return f"Nothing was said on {place.day:%Y-%m-%d} or later. This is the end."
    first = next((said.at.date() for said in shown.said if said.id), place.day)
    return f"Nothing was said on {place.day:%Y-%m-%d}. This came next." if first > place.day else ""


def _seen(request: HttpRequest) -> Mark | None:
    """What the page had when it was opened; only the part that keeps it fresh says so."""
    history, _, entry = request.GET.get("seen", "").partition("-")
    is_usable = all(
        number.isascii() and number.isdigit() and len(number) <= paging.MAX_ID_CHARS for number in (history, entry)
    )
    return Mark(history=int(history), entry=int(entry)) if is_usable else None


def _show(request: HttpRequest, shown: Conversation, *, status: int = 200, **more: Any) -> HttpResponse:
    wanted = filters.parse(request.GET.get("q", ""), keys=people.KEYS, now=timezone.now())
    address = partial(_address, request, _url(shown.session.pk))
    context = {
        "talk": shown,
        "place": Place(),
        "today": timezone.now().date(),
        "words": search.words_of(" ".join(wanted.words)),
        "hits_url": f"{reverse('people')}{filters.address(wanted.text)}" if wanted else "",
        "talk_url": _url(shown.session.pk),
        "refresh_url": address(seen=_seen(request) or shown.mark),
        "earlier_url": address(**_only("before", shown.earlier_before)),
        "later_url": address(**_only("after", shown.later_after)),
        "newest_url": address(**_only("", None)),
        "is_part": htmx.is_part(request),
        "key": uuid.uuid4(),
        "text": "",
        "note": "",
        "problem": "",
        **more,
    }
    return htmx.page_or_part(request, "people/conversation.html", "people/_timeline.html", context, status=status)


#: Parameters that say which page of a conversation it is.
_PLACES = ("on", "at", "before", "after", "seen")


def _only(name: str, value: object) -> dict[str, object]:
    """One parameter of ``_PLACES``, and none of the others."""
    return {**dict.fromkeys(_PLACES), **({name: value} if name else {})}


def _address(request: HttpRequest, path: str, **changes: object) -> str:
    """``path`` with the parameters of the request, some of them changed; None leaves one out."""
    query = request.GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = str(value)
    return f"{path}?{query.urlencode()}" if query else path


# -- what staff say ----


@require_POST
@requires(Act.REPLY)
def reply(request: HttpRequest, session_pk: int) -> HttpResponse:
    """Answer as staff. What could not be sent stays in the form, with the reason."""
    shown = people.conversation(session_pk=session_pk, scope=access.scope(request.user))
    if shown is None:
        return _none(request, session_pk)
    form = ReplyForm(request.POST)
    text = str(request.POST.get("text", ""))[:_MAX_TEXT_CHARS]
    if not form.is_valid() or shown.route is None:
        return _show_whole(request, shown, status=400, text=text, problem="Write something to send.")
    try:
        is_new = handling.reply(
            session_id=shown.reply_session_id,
            text=form.cleaned_data["text"],
            parts=platforms.parts(form.cleaned_data["text"], shown.route.platform),
            idempotency_key=str(form.cleaned_data["key"]),
            seen_entry_id=form.cleaned_data["seen"] or None,
            actor=acts.actor(request),
            now=timezone.now(),
        )
    except BotsError as error:
        again = people.conversation(session_pk=session_pk, scope=access.scope(request.user)) or shown
        return _show_whole(request, again, status=errors.status_of(error), text=text, problem=str(error))
    messages.success(request, "Your reply is on its way." if is_new else "This reply was sent already.")
    return redirect(f"{_url(session_pk)}#end")


@require_POST
@requires(Act.NOTE)
def note(request: HttpRequest, session_pk: int) -> HttpResponse:
    """Keep a note for colleagues."""
    shown = people.conversation(session_pk=session_pk, scope=access.scope(request.user))
    if shown is None:
        return _none(request, session_pk)
    form = NoteForm(request.POST)
    if not form.is_valid():
        return _show_whole(request, shown, status=400, problem="Write something to keep.")
    try:
        handling.note(
            session_id=shown.session.session_id,
            text=form.cleaned_data["note"],
            actor=acts.actor(request),
            now=timezone.now(),
        )
    except BotsError as error:
        return _show_whole(
            request, shown, status=errors.status_of(error), note=form.cleaned_data["note"], problem=str(error)
        )
    messages.success(request, "The note is kept. Only colleagues see it.")
    return redirect(f"{_url(session_pk)}#end")


def _show_whole(request: HttpRequest, shown: Conversation, **more: Any) -> HttpResponse:
    """The whole page again, whoever asked: the form belongs to it."""
    request.META.pop("HTTP_HX_REQUEST", None)
    return _show(request, shown, **more)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.REPLY)
def hand_to(request: HttpRequest, session_pk: int, handler: str) -> HttpResponse:
    """Let the bot, a human or nobody answer from now on."""
    if handler not in tuple(Handler):
        raise Http404(f"{handler!r} cannot answer.")
    session = people.session_of(session_pk=session_pk, scope=access.scope(request.user))
    if session is None:
        return _none(request, session_pk)
    title, text, verb, said = _HANDING[Handler(handler)]

    def do(values: Mapping[str, Any]) -> Done:
        handling.hand_to(
            session_id=session.session_id,
            handler=Handler(handler),
            actor=acts.actor(request),
            reason=values["reason"],
            now=timezone.now(),
        )
        return Done(said=said, then=_url(session_pk), is_elsewhere=True)

    question = Question(title=title, text=text, verb=verb, back=acts.back_of(request, _url(session_pk)))
    return acts.ask_or_do(request, question=question, do=do)


_HANDING = {
    Handler.HUMAN: (
        "Take this conversation over?",
        "The bot stops: an answer that it is writing is not sent. What comes waits for you and your colleagues.",
        "Take over",
        "You have the conversation now.",
    ),
    Handler.PAUSED: (
        "Pause the bot here?",
        "Nobody answers until somebody takes over or lets the bot go on. Nothing that comes is lost.",
        "Pause",
        "The bot is paused in this conversation.",
    ),
    Handler.BOT: (
        "Hand back to the bot?",
        "The bot answers what waits, with everything that was said meanwhile as its context.",
        "Hand back",
        "The bot has the conversation again.",
    ),
}


# -- who is who ----


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.LINK)
def link(request: HttpRequest, contact_id: int) -> HttpResponse:
    """Choose a person, see what would be joined, confirm with a reason."""
    contact = people.contact_of(contact_id=contact_id, scope=access.scope(request.user))
    if contact is None:
        return acts.gone(request, f"There is no contact {contact_id}.", back=reverse("people"))
    back = acts.back_of(request, reverse("people"))
    person = str(request.POST.get("person") or request.GET.get("person") or "").strip().lower()[:63]
    scope = access.scope(request.user)
    context: dict[str, Any] = {"contact": contact, "person": person, "back": back}
    context["persons"] = people.persons(scope=scope)
    status = 200
    if person:
        try:
            context["preview"] = people.link_preview(contact_id=contact_id, person=person, scope=scope)
        except InvalidInput as error:
            context["error"], status = error.problem, 400
    form = LinkForm(request.POST if request.method == "POST" else None, initial={"person": person})
    if request.method == "POST" and form.is_valid() and "preview" in context:
        try:
            identity.link(
                platform=contact.platform,
                user_id=contact.platform_user_id,
                unified_user_id=person,
                proof=Proof.STAFF,
                actor=acts.actor(request),
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            messages.success(request, f"{contact} is {person} now. The timeline has the way back.")
            return redirect(back)
        except BotsError as error:
            context["error"], status = str(error), errors.status_of(error)
    elif request.method == "POST":
        status = 400
    context["form"] = form
    return htmx.page_or_part(request, "people/link.html", "people/_link.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.LINK)
def unlink(request: HttpRequest, contact_id: int) -> HttpResponse:
    """End a contact's link."""
    contact = people.contact_of(contact_id=contact_id, scope=access.scope(request.user))
    if contact is None:
        return acts.gone(request, f"There is no contact {contact_id}.", back=reverse("people"))

    def do(values: Mapping[str, Any]) -> Done:
        person = identity.unlink(
            platform=contact.platform,
            user_id=contact.platform_user_id,
            actor=acts.actor(request),
            reason=values["reason"],
            now=timezone.now(),
        )
        own = people.latest_session(contact, scope=access.scope(request.user))
        then = _url(own.pk) if own else reverse("people")
        return Done(said=f"{contact} is not {person} any more.", then=then, is_elsewhere=True)

    question = Question(
        title=f"End the link of {contact}?",
        text="Both sides read as if it had never been. What was said stays where it was said.",
        verb="End the link",
        is_destructive=True,
        back=acts.back_of(request, reverse("people")),
    )
    return acts.ask_or_do(request, question=question, do=do)


# -- files ----


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.EXPORT)
@sudo_required
def export(request: HttpRequest, session_pk: int) -> HttpResponse | StreamingHttpResponse:
    """The whole conversation as a file."""
    session = people.session_of(session_pk=session_pk, scope=access.scope(request.user))
    if session is None:
        return _none(request, session_pk)
    form = ExportForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        content_type, ending = _CONTENT_TYPES[form.cleaned_data["file_format"]]
        pieces = transcripts.export(
            session_id=session.session_id,
            file_format=form.cleaned_data["file_format"],
            is_redacted=form.cleaned_data["redacted"],
            accounts=access.scope(request.user).accounts,
            actor=acts.actor(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        response = StreamingHttpResponse(pieces, content_type=content_type)
        response["Content-Disposition"] = f'attachment; filename="conversation-{session_pk}.{ending}"'
        return response
    status = 400 if request.method == "POST" else 200
    context = {"form": form, "session_pk": session_pk, "back": _url(session_pk)}
    return htmx.page_or_part(request, "people/export.html", "people/_export.html", context, status=status)


def _url(session_pk: int) -> str:
    return reverse("conversation", args=[session_pk])


def _none(request: HttpRequest, session_pk: int) -> HttpResponse:
    return acts.gone(request, f"There is no conversation {session_pk} (any more).", back=reverse("people"))
