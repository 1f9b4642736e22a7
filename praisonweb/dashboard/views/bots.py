"""Bots: what each does, and every act on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.core.keys import PLATFORM_NAME
from botsrt.core.ports import Option
from botsrt.core.states import UnknownUserPolicy
from botsrt.runtime import platforms
from botsrt.services import bots as service
from botsrt.services.bots import COMMON_SETTINGS, Changes, Shape
from praisonweb.dashboard import access, acts, htmx, sudo
from praisonweb.dashboard.access import Act, all_bots, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import bots
from praisonweb.dashboard.sudo import sudo_required

_MAX_VALUE_CHARS = 2_000

#: What staff can choose.
_POLICIES = {
    UnknownUserPolicy.DENY: "deny: nobody knows them, nobody answers",
    UnknownUserPolicy.PAIR: "pair: strangers ask for access, staff decide",
    UnknownUserPolicy.ALLOW: "allow: everybody is answered",
}


# -- pages ----


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    context = {"bots": bots.rows(scope=access.scope(request.user), now=timezone.now())}
    return htmx.page_or_part(request, "bots/page.html", "bots/_list.html", context)


@require_safe
@staff_only
def bot(request: HttpRequest, account: str) -> HttpResponse:
    shown = bots.one(account=account, scope=access.scope(request.user), now=timezone.now())
    if shown is None:
        return _no_bot(request, account)
    return htmx.page_or_part(request, "bots/bot.html", "bots/_bot.html", {"bot": shown.row, "shown": shown})


def _no_bot(request: HttpRequest, account: str) -> HttpResponse:
    return acts.gone(request, f"There is no bot {account} (any more).", back=reverse("bots"))


# -- forms ----


def label_of(option: Option) -> str:
    """The name of a setting as words: commands know it with underscores."""
    return option.name.replace("_", " ").capitalize()


def option_field(option: Option) -> forms.Field:
    """The field of one declared setting; empty means its default."""
    default = f" Default: {option.default}." if option.default else ""
    help_text = f"{option.help}{default}"
    if option.choices:
        nothing = ("", f"default ({option.default})" if option.default else "not set")
        choices = [nothing, *((choice, choice) for choice in option.choices)]
        return forms.ChoiceField(label=label_of(option), choices=choices, required=False, help_text=option.help)
    return forms.CharField(
        label=label_of(option),
        required=False,
        max_length=_MAX_VALUE_CHARS,
        help_text=help_text,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class SettingsForm(acts.ReasonForm):
    """Agent, policy and the settings that the platform declares."""

    def __init__(self, *args: Any, shape: Shape, agents: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["agent"] = forms.ChoiceField(label="Agent", choices=[(name, name) for name in agents])
        self.fields["policy"] = forms.ChoiceField(
            label="People nobody knows",
            choices=[(policy.value, words) for policy, words in _POLICIES.items()],
        )
        for option in (*COMMON_SETTINGS, *shape.settings):
            if not option.is_guarded:
                self.fields[f"setting:{option.name}"] = option_field(option)
        self.order_fields([name for name in self.fields if name != "reason"])


class CredentialsForm(acts.ReasonForm):
    """Credentials, and the settings that decide who receives them.

    Credentials are write-only: what is stored is never shown again, and an empty field leaves it as it is.
    """

    def __init__(self, *args: Any, shape: Shape, hints: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in shape.credentials:
            stored = f" Stored: {hints[option.name]}." if option.name in hints else " Not set."
            self.fields[f"credential:{option.name}"] = credential_field(option, more=stored)
        _add_guarded(self, shape)
        self.order_fields([name for name in self.fields if name != "reason"])


def credential_field(option: Option, *, more: str = "") -> forms.Field:
    return forms.CharField(
        label=label_of(option),
        required=False,
        max_length=_MAX_VALUE_CHARS,
        help_text=f"{option.help}{more} env:NAME reads it from the environment.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
    )


def _add_guarded(form: forms.Form, shape: Shape) -> None:
    for option in shape.settings:
        if option.is_guarded:
            form.fields[f"setting:{option.name}"] = option_field(option)


class AddForm(SettingsForm):
    account = forms.CharField(
        label="Name",
        max_length=63,
        help_text="Stable: it is part of what tells messages apart, and cannot be changed later.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(
        self, *args: Any, shape: Shape, agents: list[str], may_set_credentials: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, shape=shape, agents=agents, **kwargs)
        if may_set_credentials:
            for option in shape.credentials:
                self.fields[f"credential:{option.name}"] = credential_field(option)
            _add_guarded(self, shape)
        credentials = [name for name in self.fields if name.startswith("credential:")]
        self.order_fields(["account", "agent", "policy", *credentials])


def _values(values: Mapping[str, Any], kind: str) -> dict[str, str]:
    start = f"{kind}:"
    return {name.removeprefix(start): value.strip() for name, value in values.items() if name.startswith(start)}


# -- acts ----


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
@all_bots
def add(request: HttpRequest) -> HttpResponse:
    """Choose a platform, then say what it needs. Whoever may give credentials with it confirms that it is them."""
    platform = request.GET.get("platform", "")
    known = platforms.names()
    if not PLATFORM_NAME.fullmatch(platform) or platform not in known:
        return render(request, "bots/choose.html", {"platforms": known})
    shape = platforms.shape(platform)
    may_set_credentials = access.may(request.user, Act.CREDENTIALS)
    if shape.credentials and may_set_credentials and not sudo.is_on(request):
        return sudo.ask(request)
    later = f" {access.why_not(request.user, Act.CREDENTIALS)}" if shape.credentials else ""
    question = Question(
        title=f"Add a {platform} bot",
        text=f"A running worker starts it at once.{later}",
        verb="Add",
        back=reverse("bots"),
    )

    def do(values: Mapping[str, Any]) -> Done:
        account = values["account"]
        with transaction.atomic():
            service.add(
                account=account,
                platform=platform,
                shape=shape,
                changes=Changes(
                    agent=values["agent"],
                    policy=values["policy"],
                    settings=_values(values, "setting"),
                    credentials={name: value for name, value in _values(values, "credential").items() if value},
                ),
                actor=acts.actor(request),
                now=timezone.now(),
            )
            warning = platforms.check_stored(account)
        said = f"Added {account}. {warning}".strip()
        return Done(said=said, then=reverse("bot", args=[account]), is_elsewhere=True)

    options = {"shape": shape, "agents": bots.agent_names(), "may_set_credentials": may_set_credentials}
    initial = {"agent": service.DEFAULT_AGENT}
    return acts.ask_or_do(request, question=question, form=AddForm, do=do, initial=initial, form_options=options)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def edit(request: HttpRequest, account: str) -> HttpResponse:
    shown = bots.one(account=account, scope=access.scope(request.user), now=timezone.now())
    if shown is None:
        return _no_bot(request, account)
    shape = platforms.shape(shown.row.platform)
    question = Question(
        title=f"Settings of {account}",
        text="Its adapter alone restarts. If it cannot start with them, it goes on with those that worked.",
        verb="Save",
        back=_back(request, account),
    )

    def do(values: Mapping[str, Any]) -> Done:
        changes = Changes(agent=values["agent"], policy=values["policy"], settings=_values(values, "setting"))
        return _change(request, account, shape, changes, reason=values["reason"])

    initial = {"agent": shown.row.agent, "policy": shown.policy}
    initial |= {f"setting:{name}": value for name, value in shown.settings.items()}
    options = {"shape": shape, "agents": bots.agent_names()}
    return acts.ask_or_do(request, question=question, form=SettingsForm, do=do, initial=initial, form_options=options)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CREDENTIALS)
@sudo_required
def credentials(request: HttpRequest, account: str) -> HttpResponse:
    shown = bots.one(account=account, scope=access.scope(request.user), now=timezone.now())
    if shown is None:
        return _no_bot(request, account)
    shape, stored = platforms.shape(shown.row.platform), dict(shown.settings)
    question = Question(
        title=f"Credentials of {account}",
        text="They are stored encrypted and never shown again; an empty one leaves what is stored. "
        "The addresses decide who receives them.",
        verb="Save",
        obstacle="" if shape.credentials else f"A {shown.row.platform} bot needs none.",
        back=_back(request, account),
    )

    def do(values: Mapping[str, Any]) -> Done:
        given = {name: value for name, value in _values(values, "credential").items() if value}
        settings = _values(values, "setting")
        if not given and all(stored.get(name, "") == value for name, value in settings.items()):
            return Done(said="Nothing was given, so nothing was changed.")
        return _change(request, account, shape, Changes(credentials=given, settings=settings), reason=values["reason"])

    options = {"shape": shape, "hints": dict(shown.credentials)}
    initial = {f"setting:{name}": value for name, value in stored.items()}
    return acts.ask_or_do(
        request, question=question, form=CredentialsForm, do=do, initial=initial, form_options=options
    )


def _change(request: HttpRequest, account: str, shape: Shape, changes: Changes, *, reason: str) -> Done:
    with transaction.atomic():
        version = service.change(
            account=account,
            shape=shape,
            changes=changes,
            actor=acts.actor(request),
            reason=reason,
            now=timezone.now(),
        )
        warning = platforms.check_stored(account)
    return Done(said=f"{account} has version {version} now; its adapter restarts. {warning}".strip())


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def pause(request: HttpRequest, account: str) -> HttpResponse:
    text = "Nothing is read, answered or sent for it. What the platform keeps meanwhile comes when it is resumed."
    return _switch(request, account, is_enabled=False, title=f"Pause 1 bot, {account}?", text=text, verb="Pause")


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def resume(request: HttpRequest, account: str) -> HttpResponse:
    text = "It reads what waits at the platform, and answers."
    return _switch(request, account, is_enabled=True, title=f"Resume 1 bot, {account}?", text=text, verb="Resume")


def _switch(request: HttpRequest, account: str, *, is_enabled: bool, title: str, text: str, verb: str) -> HttpResponse:
    found = bots.rows(scope=access.scope(request.user), now=timezone.now(), account=account)
    if not found:
        return _no_bot(request, account)
    word = "runs" if is_enabled else "is paused"
    obstacle = (
        f"{account} {word} already; a colleague may have been first." if found[0].is_enabled == is_enabled else ""
    )
    question = Question(title=title, text=text, verb=verb, obstacle=obstacle, back=_back(request, account))

    def do(values: Mapping[str, Any]) -> Done:
        service.change(
            account=account,
            shape=Shape(),  # nothing of the platform is touched: this works when the platform is gone, too
            changes=Changes(is_enabled=is_enabled),
            actor=acts.actor(request),
            reason=values["reason"],
            now=timezone.now(),
        )
        return Done(said=f"{account} {'is started' if is_enabled else 'is paused'}.")

    return acts.ask_or_do(request, question=question, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def reconnect(request: HttpRequest, account: str) -> HttpResponse:
    if not access.scope(request.user).allows(account):
        return _no_bot(request, account)
    question = Question(
        title=f"Reconnect 1 bot, {account}?",
        text="Its connection is closed and opened anew. No message is lost.",
        verb="Reconnect",
        back=_back(request, account),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.reconnect(account=account, actor=acts.actor(request), now=timezone.now())
        return Done(said=f"{account} reconnects.")

    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def test(request: HttpRequest, account: str) -> HttpResponse:
    """Ask the platform who the bot is."""
    if not access.scope(request.user).allows(account):
        return _no_bot(request, account)
    question = Question(
        title=f"Test 1 bot, {account}?",
        text="The platform is asked who the bot is, with the stored credentials. Nothing is changed or sent.",
        verb="Test",
        back=_back(request, account),
    )

    def do(values: Mapping[str, Any]) -> Done:
        identity = async_to_sync(platforms.identity)(service.adapter_config(account=account))
        return Done(said=f"The platform answered: {account} is {identity}.")

    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.CHANGE_BOTS)
def remove(request: HttpRequest, account: str) -> HttpResponse:
    if not access.scope(request.user).allows(account):
        return _no_bot(request, account)
    question = Question(
        title=f"Remove 1 bot, {account}?",
        text="It stops for good, and its settings and credentials are gone. Its journal, sessions and history stay.",
        verb="Remove",
        is_destructive=True,
        back=_back(request, account),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.remove(account=account, actor=acts.actor(request), reason=values["reason"], now=timezone.now())
        return Done(said=f"Removed {account}.", then=reverse("bots"), is_elsewhere=True)

    return acts.ask_or_do(request, question=question, form=acts.RequiredReasonForm, do=do)


def _back(request: HttpRequest, account: str) -> str:
    return acts.back_of(request, reverse("bot", args=[account]))
