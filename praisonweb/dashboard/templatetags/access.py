"""What somebody may do, for templates: denied acts stay visible, disabled, and say why."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from praisonweb.dashboard import access
from praisonweb.dashboard.access import Act

register = template.Library()


@register.filter
def may(user: Any, act: str) -> bool:
    """``{% if user|may:"retry" %}``."""
    return access.may(user, Act(act))


@register.filter
def sees_all_bots(user: Any) -> bool:
    """``{% if user|sees_all_bots %}``: what is about all bots is open to them."""
    return not access.scope(user).is_limited


@register.simple_tag(takes_context=True)
def why_not(context: template.Context, act: str) -> str:
    """The reason as a sentence, empty where the act is allowed: ``{% why_not "retry" as reason %}``."""
    return access.why_not(context.get("user"), Act(act))


@register.simple_tag(takes_context=True)
def unless_allowed(context: template.Context, act: str) -> SafeString | str:
    """Inside a button's tag: nothing, or ``disabled`` and the reason: ``<button{% unless_allowed "retry" %}>``."""
    reason = why_not(context, act)
    return format_html(' disabled title="{}"', reason) if reason else ""
