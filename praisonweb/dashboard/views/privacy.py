"""What people can ask for: everything that is held about them, and that it is erased."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from botsrt.core.states import BulkVerb
from botsrt.core.text import one_line
from botsrt.models import Contact
from botsrt.services import dossier, erasing, identity
from praisonweb.dashboard import access, acts, htmx
from praisonweb.dashboard.access import Act, requires
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import people
from praisonweb.dashboard.sudo import sudo_required
from praisonweb.dashboard.views import operations

_WORDS: Mapping[str, tuple[str, str]] = {
    "conversations": ("direct conversation", ""),
    "messages": ("message in it", "messages in them"),
    "group_messages": ("message in groups", "messages in groups"),
    "entries": ("journal entry", "journal entries"),
    "dead_letters": ("dead letter", ""),
    "outgoing": ("outgoing message", ""),
    "turns": ("turn", ""),
    "pairings": ("pairing", ""),
    "links": ("link", ""),
    "files": ("kept file", ""),
    "audit": ("mention in the audit", "mentions in the audit"),
}


class _Who(forms.Form):
    """Which contacts: the one on the page with its aliases, or all of the person."""

    def __init__(self, *args: Any, choices: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["who"] = forms.ChoiceField(label="Of whom", choices=choices)


class DataForm(_Who, acts.ReasonForm):
    """Whose data, and why."""


class EraseForm(_Who, acts.ReasonForm):
    """Whose data is erased; their name is typed, so that nobody does it by a slip."""

    confirm = forms.CharField(
        label="Type it again",
        max_length=300,
        help_text="Exactly what stands above: the person, or platform:user id.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = "Kept in the audit: do not name the person here."
        self.order_fields(["who", "confirm", "reason"])

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if "who" in values and values.get("confirm") not in (None, values["who"].strip()):
            self.add_error("confirm", f"Write exactly: {one_line(values['who'])}")
        return values


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.EXPORT)
@sudo_required
def data(request: HttpRequest, contact_id: int) -> HttpResponse | StreamingHttpResponse:
    """Everything that is held about somebody, as a file."""
    contact = people.contact_of(contact_id=contact_id, scope=access.scope(request.user))
    if contact is None:
        return _gone(request, contact_id)
    access.demand_all_bots(request.user)
    form = DataForm(request.POST or None, choices=_choices(contact))
    if request.method == "POST" and form.is_valid():
        pieces = dossier.export(
            contact_ids=erasing.contacts_of(form.cleaned_data["who"]),
            actor=acts.actor(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        response = StreamingHttpResponse(pieces, content_type="application/json")
        response["Content-Disposition"] = f'attachment; filename="contact-{contact_id}.json"'
        return response
    context = {"form": form, "back": acts.back_of(request, reverse("people"))}
    status = 400 if request.method == "POST" else 200
    return htmx.page_or_part(request, "people/data.html", "people/_data.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.PURGE)
@sudo_required
def erase(request: HttpRequest, contact_id: int) -> HttpResponse:
    """Counts what would go; then erases it, row by row in the background."""
    contact = people.contact_of(contact_id=contact_id, scope=access.scope(request.user))
    if contact is None:
        return _gone(request, contact_id)
    access.demand_all_bots(request.user)
    choices = _choices(contact)

    def do(values: Mapping[str, Any]) -> Done:
        done = operations.begin(
            request,
            BulkVerb.ERASE,
            erasing.contacts_of(values["who"]),
            said="erased",
            reason=values["reason"],
            noun="contact",
        )
        return Done(said=done.said, then=done.then or reverse("people"), is_elsewhere=True)

    question = Question(
        title=f"Erase {one_line(choices[0][0])}?",
        text="\n\n".join(_consequence(who) for who, _ in choices),
        verb="Erase for good",
        is_destructive=True,
        back=acts.back_of(request, reverse("people")),
    )
    return acts.ask_or_do(request, question=question, form=EraseForm, do=do, form_options={"choices": choices})


def _choices(contact: Contact) -> list[tuple[str, str]]:
    """Who can be meant: the person first, if the contact is one of several."""
    root = contact.alias_of or contact
    alone = (str(root), f"{root}, this contact alone")
    person = identity.persons_of([root.pk]).get(root.pk)
    return [(person, f"{person}, with all contacts"), alone] if person else [alone]


def _consequence(who: str) -> str:
    held = erasing.preview(contact_ids=erasing.contacts_of(who))
    counts = held.counts()
    found = [acts.counted(counts[name], *words) for name, words in _WORDS.items() if counts[name]]
    others = ", ".join(one_line(name) for name in held.contacts if name != who)
    text = f"{one_line(who)}{f' ({others})' if others else ''}: {', '.join(found) or 'nothing'}."
    if held.running:
        text += f" {acts.counted(held.running, 'running turn')} will be cancelled."
    if held.bots:
        text += f" The settings of {', '.join(held.bots)} name them; that is to be changed there."
    return text + " This cannot be undone. Who writes afterwards is somebody new, and not blocked."


def _gone(request: HttpRequest, contact_id: int) -> HttpResponse:
    return acts.gone(request, f"There is no contact {contact_id} (any more).", back=reverse("people"))
