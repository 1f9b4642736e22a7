"""Agents: what answers for the bots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from botsrt.core.ports import Option
from botsrt.runtime import platforms
from botsrt.services import bots as service
from praisonweb.dashboard import acts, htmx
from praisonweb.dashboard.access import Act, all_bots, requires, staff_only
from praisonweb.dashboard.acts import Done, Question
from praisonweb.dashboard.queries import agents
from praisonweb.dashboard.views.bots import option_field

_MAX_INSTRUCTIONS_CHARS = 50_000


class AgentForm(forms.Form):
    """Instructions, and the settings that the kind declares."""

    instructions = forms.CharField(
        label="Instructions",
        required=False,
        max_length=_MAX_INSTRUCTIONS_CHARS,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text="What the agent is told about its task.",
    )

    def __init__(self, *args: Any, options: tuple[Option, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in options:
            self.fields[f"setting:{option.name}"] = option_field(option)


class AddForm(AgentForm):
    name = forms.CharField(label="Name", max_length=63, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    field_order = ("name", "instructions")


def _settings(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.removeprefix("setting:"): value.strip() for name, value in values.items() if name.startswith("setting:")
    }


@require_safe
@staff_only
@all_bots
def page(request: HttpRequest) -> HttpResponse:
    return htmx.page_or_part(request, "agents/page.html", "agents/_list.html", {"agents": agents.rows()})


@require_safe
@staff_only
@all_bots
def agent(request: HttpRequest, name: str) -> HttpResponse:
    shown = agents.one(name=name)
    if shown is None:
        return _no_agent(request, name)
    return htmx.page_or_part(request, "agents/agent.html", "agents/_agent.html", {"agent": shown})


def _no_agent(request: HttpRequest, name: str) -> HttpResponse:
    return acts.gone(request, f"There is no agent {name} (any more).", back=reverse("agents"))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.AGENTS)
@all_bots
def add(request: HttpRequest) -> HttpResponse:
    """Choose a kind, then say what it needs."""
    kind, known = request.GET.get("kind", ""), platforms.agent_kinds()
    if kind not in known:
        return render(request, "agents/choose.html", {"kinds": known})
    options = platforms.agent_options(kind)
    question = Question(title=f"Add an agent of kind {kind}", verb="Add", back=reverse("agents"))

    def do(values: Mapping[str, Any]) -> Done:
        settings = {name: value for name, value in _settings(values).items() if value}
        platforms.check_agent(values["name"], kind, settings)
        service.add_agent(
            name=values["name"],
            kind=kind,
            options=options,
            instructions=values["instructions"],
            settings=settings,
            actor=acts.actor(request),
            now=timezone.now(),
        )
        said = f"Added {values['name']}. Choose it in the settings of a bot."
        return Done(said=said, then=reverse("agents"), is_elsewhere=True)

    return acts.ask_or_do(request, question=question, form=AddForm, do=do, form_options={"options": options})


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.AGENTS)
@all_bots
def edit(request: HttpRequest, name: str) -> HttpResponse:
    shown = agents.one(name=name)
    if shown is None:
        return _no_agent(request, name)
    options = platforms.agent_options(shown.kind)
    used = f" It answers for {', '.join(shown.bots)}." if shown.bots else ""
    question = Question(
        title=f"Agent {name}",
        text=f"The next turn uses it.{used}",
        verb="Save",
        back=acts.back_of(request, reverse("agent", args=[name])),
    )

    def do(values: Mapping[str, Any]) -> Done:
        settings = _settings(values)
        kept = {key: value for key, value in {**shown.settings, **settings}.items() if value}
        platforms.check_agent(name, shown.kind, kept)
        version = service.change_agent(
            name=name,
            options=options,
            instructions=values["instructions"],
            settings=settings,
            actor=acts.actor(request),
            now=timezone.now(),
        )
        return Done(said=f"{name} has version {version} now; the next turn uses it.")

    initial = {"instructions": shown.instructions} | {f"setting:{key}": value for key, value in shown.settings.items()}
    return acts.ask_or_do(
        request, question=question, form=AgentForm, do=do, initial=initial, form_options={"options": options}
    )


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Act.AGENTS)
@all_bots
def remove(request: HttpRequest, name: str) -> HttpResponse:
    question = Question(
        title=f"Remove 1 agent, {name}?",
        text="Its instructions and settings are gone. What it said stays.",
        verb="Remove",
        is_destructive=True,
        back=acts.back_of(request, reverse("agent", args=[name])),
    )

    def do(values: Mapping[str, Any]) -> Done:
        service.remove_agent(name=name, actor=acts.actor(request), now=timezone.now())
        return Done(said=f"Removed {name}.", then=reverse("agents"), is_elsewhere=True)

    return acts.ask_or_do(request, question=question, form=forms.Form, do=do)
