"""Where staff, or the system, speak of contacts: in the audit and in bulk operations. Find these places and mask them.

What was said of nobody stays as it is. Names of columns and settings are never masked; a text that is exactly the name
of a contact, a session or a person only where such a name stands; words inside a text only where somebody wrote freely.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from botsrt.core import states
from botsrt.core.states import SessionScope
from botsrt.models import AuditEvent, Bot, BotSession, BulkItem, BulkOperation, Contact, IdentityLink

#: Stands where something was.
MASK = "[erased]"

#: Shorter names and ids would be found in every other word.
MIN_WORD_CHARS = 3

#: Columns in which somebody wrote freely, and those with values whose names say what they are.
_COLUMNS: tuple[tuple[type[models.Model], tuple[str, ...], tuple[str, ...]], ...] = (
    (AuditEvent, ("reason",), ("before", "after")),
    (BulkOperation, ("reason", "note"), ()),
    (BulkItem, ("detail",), ()),
)

#: Objects of the audit that are named after somebody.
_KINDS = ("contact", "session", "person")

#: Values of the audit in which somebody wrote freely …
_FREE = frozenset({"reason", "note", "detail", "text", "why"})

#: … that are a person …
_PERSONS = frozenset({"person", "winner", "loser"})

#: … and that are user ids on the platform that stands beside them, comma-separated.
_PEOPLE = frozenset({"owners", "allowed_users"})

#: Words with which staff say how something is.
_STATES = frozenset({"enabled", "disabled", "true", "false", "yes", "none", "all", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What contacts, and persons who are nobody else, are called."""

    whole: frozenset[str]  # platform:user_id, and session ids: nothing else is called like that
    persons: frozenset[str]
    user_ids: frozenset[tuple[str, str]]  # platform, user id
    words: Sequence[str]  # that are looked for in what somebody wrote freely; the longest first

    def masked(self, text: str) -> str:
        """``text``, which somebody wrote freely, with a mask in the place of each name."""
        for word in self.words:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", MASK, text)
        return text

    def cleaned(self, value: Any, *, name: str = "", platform: str = "") -> Any:
        """The value ``name`` of an act, text or JSON, without them; ``platform`` is the one that it is about."""
        if isinstance(value, dict):
            beside = value.get("platform")
            known = beside if isinstance(beside, str) else platform
            return {key: self.cleaned(item, name=key, platform=known) for key, item in value.items()}
        if isinstance(value, list):
            return [self.cleaned(item, name=name, platform=platform) for item in value]
        if not isinstance(value, str):
            return value
        if value in self.whole or (name in _PERSONS and value in self.persons):
            return MASK
        if name in _FREE:
            return self.masked(value)
        if name in _PEOPLE:
            return re.sub(r"[^,\s]+", lambda one: MASK if (platform, one[0]) in self.user_ids else one[0], value)
        return value


def names_of(contact_ids: Collection[int]) -> Names:
    """What these contacts are called; of persons those that nobody else is, or was."""
    contacts = list(Contact.objects.filter(pk__in=contact_ids))
    sessions = BotSession.objects.filter(contact__in=contact_ids, scope=SessionScope.PER_USER)
    whole = {str(contact) for contact in contacts} | set(sessions.values_list("session_id", flat=True))
    links = IdentityLink.objects.filter(contact__in=contact_ids)
    others = IdentityLink.objects.exclude(contact__in=contact_ids).values("person")
    persons = set(links.exclude(person__in=others).values_list("person__unified_user_id", flat=True))
    words = set(persons)
    for contact in contacts:
        words |= {contact.user_name, contact.display_name, contact.platform_user_id}
    ordinary = _ordinary()
    told = {word for word in words if len(word) >= MIN_WORD_CHARS and word.lower() not in ordinary}
    return Names(
        whole=frozenset(whole),
        persons=frozenset(persons),
        user_ids=frozenset((contact.platform, contact.platform_user_id) for contact in contacts),
        words=sorted({word for word in told if not word.isdecimal()} | whole, key=len, reverse=True),
    )


def _ordinary() -> set[str]:
    """Words that stand for something else, whoever is called like that: bots, staff, states, names of columns."""
    words = {*_STATES, *(str(word) for kind in vars(states).values() if _is_enum(kind) for word in kind)}
    words |= {field.name for model in apps.get_app_config("botsrt").get_models() for field in model._meta.fields}
    for platform, account in Bot.objects.values_list("platform", "account"):
        words |= {platform, account}
    if apps.is_installed("django.contrib.auth"):
        user = get_user_model()
        words |= set(user._default_manager.values_list(user.USERNAME_FIELD, flat=True))
    return {word.lower() for word in words}


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def count(names: Names) -> int:
    """How many acts in the audit name them."""
    return sum(1 for row, _ in _changes(names) if isinstance(row, AuditEvent))


def mask(names: Names) -> None:
    """Mask their names wherever others speak of them. Who did what, and when, stays."""
    for row, changes in _changes(names):
        type(row)._default_manager.filter(pk=row.pk).update(**changes)


def _changes(names: Names) -> Iterator[tuple[models.Model, Mapping[str, Any]]]:
    """The rows that name them, each once, with the columns that would be other ones."""
    for model, free, structured in _COLUMNS:
        for row in _mentioning(model, names, (*free, *structured)):
            cleaned = {name: names.masked(getattr(row, name)) for name in free}
            cleaned |= {name: names.cleaned(getattr(row, name)) for name in structured}
            if isinstance(row, AuditEvent) and row.object_kind in _KINDS:
                own = names.persons if row.object_kind == "person" else names.whole
                cleaned["object_id"] = MASK if row.object_id in own else row.object_id
            changes = {name: value for name, value in cleaned.items() if value != getattr(row, name)}
            if changes:
                yield row, changes


def _mentioning(model: type[models.Model], names: Names, columns: Collection[str]) -> list[Any]:
    """The rows of ``model`` that may name them: with a word of theirs in one of ``columns``, as JSON writes it, too."""
    rows = model._default_manager.annotate(**{f"{name}_text": Cast(name, TextField()) for name in columns})
    found: dict[Any, models.Model] = {}
    for word in sorted({*names.words, *names.persons}):
        found |= {row.pk: row for row in _with(rows, columns, word)}
    if model is AuditEvent:
        acts = AuditEvent.objects.filter(object_kind__in=_KINDS, object_id__in=names.whole | names.persons)
        found |= {row.pk: row for row in acts}
        of_bots = rows.filter(object_kind="bot")
        for _, user_id in sorted(names.user_ids):
            found |= {row.pk: row for row in _with(of_bots, columns, user_id)}
    return [found[pk] for pk in sorted(found)]


def _with(rows: QuerySet[Any], columns: Collection[str], word: str) -> QuerySet[Any]:
    wanted = Q()
    for name in columns:
        for spelling in {word, json.dumps(word)[1:-1]}:
            wanted |= Q(**{f"{name}_text__contains": spelling})
    return rows.filter(wanted)
