"""One look for what many pages show: a state, an age, a platform, an icon, a link of the navigation, foreign text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import template
from django.conf import settings
from django.template.defaultfilters import stringfilter
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from praisonweb.dashboard import access
from praisonweb.dashboard.queries.standing import Standing

register = template.Library()

#: How platforms write their own names; others are shown with a capital.
_PLATFORMS = {"web": "Web chat", "whatsapp": "WhatsApp"}

#: Platforms whose mark has a colour of its own.
_MARKED = {"telegram", "slack", "discord", "whatsapp", "webhook", "web", "console"}

#: Letters of marks that would look like another platform's; the others are the name's first two.
_LETTERS = {"webhook": "Hk"}

#: Marks that turn the reading direction around or take no room (Unicode UAX 9), and control characters but tab and
#: line break: with them a text can look like another one.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

#: Up to twice the next unit an age is said in the smaller one: "90 min" tells more than "1 h".
_PATIENCE = 2


@register.inclusion_tag("_badge.html")
def badge(standing: Standing) -> dict[str, Any]:
    """A state, by word and colour; what it means as a hint."""
    return {"standing": standing}


@register.simple_tag
def age(at: datetime | None) -> SafeString:
    """ "12 s ago", with the moment itself as a hint; "never" for None."""
    if at is None:
        return format_html('<span class="age">{}</span>', "never")
    moment = at.astimezone(UTC)
    return format_html(
        '<time class="age" datetime="{}" title="{} UTC">{}</time>',
        moment.isoformat(timespec="seconds"),
        f"{moment:%Y-%m-%d %H:%M:%S}",
        age_text(timezone.now() - at),
    )


def age_text(passed: timedelta) -> str:
    """A duration since something, in its largest fitting unit."""
    seconds = int(passed.total_seconds())
    if seconds < 0:
        return _ahead(-seconds)
    for size, unit in _UNITS:
        if seconds >= size * (_PATIENCE if size > 1 else 1):
            return f"{seconds // size} {unit} ago"
    return "now"


def _ahead(seconds: int) -> str:
    """How far ahead something is due."""
    if seconds < _UNITS[-2][0]:
        return "in a moment"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size * (_PATIENCE if size > 1 else 1))
    return f"in {seconds // size} {unit}"


@register.simple_tag
def moment(at: datetime | None) -> SafeString:
    """The moment itself, with its age as a hint."""
    if at is None:
        return format_html('<span class="age">{}</span>', "never")
    utc = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{} UTC</time>',
        utc.isoformat(timespec="seconds"),
        age_text(timezone.now() - at),
        f"{utc:%Y-%m-%d %H:%M:%S}",
    )


@register.filter
@stringfilter
def platform(name: str) -> str:
    """A platform's name as people write it."""
    return _PLATFORMS.get(name, name.capitalize())


@register.filter
@stringfilter
def visible(text: str) -> str:
    """Foreign text with its invisible marks shown as what they are; still to be escaped."""
    return _INVISIBLE.sub(lambda mark: f"\u27e6U+{ord(mark[0]):04X}\u27e7", text)


@register.simple_tag
def marked(text: str, words: Collection[str] = ()) -> SafeString:
    """Foreign text, ``visible``, with what begins like one of ``words`` marked."""
    if not words:
        return format_html("{}", visible(text))
    found = re.compile(rf"(?<!\w)((?:{'|'.join(map(re.escape, words))})\w*)", re.IGNORECASE)
    pieces = found.split(text)  # outside, inside, outside, …
    return format_html_join(
        "",
        "{}",
        (
            (format_html("<mark>{}</mark>", visible(piece)) if place % 2 else visible(piece),)
            for place, piece in enumerate(pieces)
        ),
    )


@register.simple_tag
def icon(name: str) -> SafeString:
    """A drawing of ``static/icons.svg``, for the eye alone."""
    return format_html(
        '<svg class="icon" aria-hidden="true" width="20" height="20"><use href="{}#{}"></use></svg>',
        static("icons.svg"),
        name,
    )


@register.simple_tag
def platform_mark(name: str) -> SafeString:
    """A platform as a small mark for the eye, its name for the ear."""
    return format_html(
        '<span class="mark mark-{}" title="{}"><span aria-hidden="true">{}</span><span class="unseen">{}</span></span>',
        name if name in _MARKED else "other",
        platform(name),
        _LETTERS.get(name, name[:2].capitalize()),
        platform(name),
    )


@register.simple_tag
def environment() -> SafeString:
    """The stripe that says where one is, so that nobody takes production for a test; empty where nobody named it."""
    name = settings.ENVIRONMENT or ("debug mode" if settings.DEBUG else "")
    return format_html('<p class="environment" role="note">{}</p>', name) if name else SafeString()


@register.inclusion_tag("_act_link.html", takes_context=True)
def act_link(
    context: Mapping[str, Any],
    label: str,
    url_name: str,
    *args: Any,
    key: str = "",
    back: str = "",
    obstacle: str = "",
    primary: bool = False,
    danger: bool = False,
    query: str = "",
) -> dict[str, Any]:
    """A button that asks before an act. One that is not possible now, or not allowed, stays visible and says why."""
    address = reverse(url_name, args=args)
    user, asked = context.get("user"), access.asked_of(url_name, address)
    limit = asked.all_bots and access.why_limited(user)
    obstacle = access.why_not(user, asked.act) or limit or obstacle
    parameters = urlencode({"back": back}) if back else ""
    return {
        "label": label,
        "url": f"{address}?{'&'.join(filter(None, (query, parameters)))}".rstrip("?"),
        "key": key,
        "obstacle": visible(obstacle),  # it may name somebody
        "tone": "primary" if primary else "quiet-danger" if danger else "",
    }


@register.inclusion_tag("_nav_link.html", takes_context=True)
def nav_link(context: template.Context, url_name: str, label: str, icon_name: str, keys: str = "") -> dict[str, Any]:
    """An entry of the navigation; marked on its own page and those below it. One about all bots stays visible for
    those who are limited to some, and says why it is closed."""
    url, user = reverse(url_name), context.get("user")
    path = context["request"].path
    return {
        "url": url,
        "label": label,
        "icon": icon_name,
        "keys": keys,
        "obstacle": access.asked_of(url_name, url).all_bots and access.why_limited(user),
        "is_here": path == url or (url != "/" and path.startswith(url)),
    }
