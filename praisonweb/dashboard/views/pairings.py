"""Pairings: let people in, keep them out, confirm that two accounts are one human."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_safe

from botsrt import conf
from botsrt.core.states import PairingPurpose
from botsrt.models import Pairing
from botsrt.services import pairing as service
from praisonweb.dashboard import access, acts, htmx, paging
from praisonweb.dashboard.access import Act, Scope, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import pairings, people
from praisonweb.dashboard.queries.pairings import Row


class _PersonField(forms.CharField):
    def __init__(self) -> None:
        super().__init__(
            label="Person",
            required=False,
            max_length=63,
            help_text="Optional: who it is, such as alice. Their conversations on all platforms become one.",
            widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}),
        )


class VerifyForm(forms.Form):
    account = forms.ChoiceField(label="Bot")
    code = forms.CharField(
        label="Code",
        max_length=40,
        help_text="The 8 letters and digits that the person gave you.",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false", "class": "code-input"}
        ),
    )
    person = _PersonField()

    def __init__(self, *args: Any, scope: Scope, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["account"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(account, account) for account in pairings.accounts(scope=scope)]


class ApproveForm(acts.RequiredReasonForm):
    person = _PersonField()
    again = forms.BooleanField(required=False, widget=forms.HiddenInput)
    field_order = ("reason", "person")


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    wanted = request.GET.get("tab", "waiting")
    tab = wanted if wanted in pairings.TABS else "waiting"
    shown = pairings.read(tab=tab, before=paging.before(request), scope=access.scope(request.user), now=timezone.now())
    older = f"?tab={tab}&before={shown.page.older_before}" if shown.page.older_before else ""
    return htmx.page_or_part(request, "pairings/page.html", "pairings/_list.html", {"pairings": shown, "older": older})


@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.PAIR)
def verify(request: HttpRequest) -> HttpResponse:
    """Type the code that somebody gave you."""
    scope = access.scope(request.user)

    def do(values: Mapping[str, Any]) -> Done:
        people.check_person(values["person"], scope=scope)
        found = service.verify(
            account=values["account"],
            code=values["code"],
            person=values["person"],
            actor=acts.actor(request),
            terms=conf.load().pairing_terms,
            now=timezone.now(),
        )
        return Done(said=f"{found.contact} has access to {found.account} now. Their first message is being answered.")

    question = Question(
        title="Verify a code",
        text="Whoever gives you the code controls the contact that asked: nobody else has seen it.",
        verb="Let them in",
        obstacle="" if pairings.accounts(scope=scope) else "No bot has the policy pair, and nobody waits.",
        back=acts.back_of(request, reverse("pairings")),
    )
    return acts.ask_or_do(
        request,
        question=question,
        form=VerifyForm,
        do=do,
        initial={"account": request.GET.get("account", "")},
        form_options={"scope": scope},
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.PAIR)
def approve(request: HttpRequest, request_id: int) -> HttpResponse:
    """Let somebody in without the code, or confirm a link."""
    row = _row(request, request_id)
    if row is None:
        return _none(request, request_id)

    def do(values: Mapping[str, Any]) -> Done:
        people.check_person(values["person"], scope=access.scope(request.user))
        found = service.approve(
            request_id=request_id,
            person=values["person"],
            again=values["again"],
            actor=acts.actor(request),
            reason=values["reason"],
            now=timezone.now(),
        )
        if found.purpose == PairingPurpose.LINK:
            return Done(said=f"{found.contact} and {row.other} are one person now.")
        return Done(said=f"{found.contact} has access to {found.account} now.")

    question = Question(
        title=f"Confirm that {row.contact} and {row.other} are one human?" if row.is_link else "Approve 1 request?",
        text=_consequence(row),
        verb="Confirm" if row.is_link else "Approve",
        obstacle=row.approve_obstacle,
        back=acts.back_of(request, reverse("pairings")),
    )
    initial = {"again": request.GET.get("again") == "1"}
    return acts.ask_or_do(request, question=question, form=ApproveForm, do=do, initial=initial)


def _consequence(row: Row) -> str:
    if not row.is_link:
        return (
            f"{row.contact} may write to {row.account} and gets an answer to the first message. "
            "Without the code nothing but your reason stands behind it."
        )
    grant = f" {row.other} gets access to its bot with it." if row.gives_access else ""
    return f"Their conversations become one: an agent that answers either sees the messages of both.{grant}"


def _act(
    name: str, *, title: str, text: str, verb: str, said: str, service_act: Callable[..., Pairing]
) -> Callable[[HttpRequest, int], HttpResponse]:
    """A view for an act that needs no more than a reason."""

    def view(request: HttpRequest, request_id: int) -> HttpResponse:
        row = _row(request, request_id)
        if row is None:
            return _none(request, request_id)

        def do(values: Mapping[str, Any]) -> Done:
            found = service_act(
                request_id=request_id, actor=acts.actor(request), reason=values["reason"], now=timezone.now()
            )
            return Done(said=said.format(contact=found.contact, account=found.account))

        question = Question(
            title=title,
            text=text.format(contact=row.contact, account=row.account),
            verb=verb,
            is_destructive=True,
            back=acts.back_of(request, reverse("pairings")),
        )
        return acts.ask_or_do(request, question=question, do=do)

    view.__name__ = name
    guarded: Callable[[HttpRequest, int], HttpResponse] = requires(Act.PAIR)(view)
    return require_http_methods(["GET", "HEAD", "POST"])(guarded)


deny = _act(
    "deny",
    title="Deny 1 request?",
    text="{contact} is told, and cannot ask {account} again for a day.",
    verb="Deny",
    said="{contact} was refused.",
    service_act=service.deny,
)

block = _act(
    "block",
    title="Block 1 contact?",
    text="Whatever {contact} writes to any bot is dropped silently from now on; what runs for them is stopped.",
    verb="Block",
    said="{contact} is blocked.",
    service_act=service.block,
)

revoke = _act(
    "revoke",
    title="Take access from 1 contact?",
    text="{contact} gets no more answers from {account} and is told so. A running turn stops, replies that wait are "
    "withdrawn.",
    verb="Revoke",
    said="{contact} has no access to {account} any more.",
    service_act=service.revoke,
)


def _row(request: HttpRequest, request_id: int) -> Row | None:
    return pairings.request_of(request_id=request_id, scope=access.scope(request.user), now=timezone.now())


def _none(request: HttpRequest, request_id: int) -> HttpResponse:
    return acts.gone(request, f"There is no request {request_id} (any more).", back=reverse("pairings"))
