"""Text that wants to be more than text, and a way to put it into every column that holds words from outside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.db import models
from django.db.models import JSONField

#: Never longer than the shortest column that they go into is cut to; each is hostile on its own.
STRINGS = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror=window.hacked=1>',
    "<b hx-get=/accounts/ hx-trigger=load>",
    "' onfocus=window.hacked=1 autofocus x='",
    '" hx-get="/accounts/" hx-trigger="load" y="',
    "javascript:window.hacked=1",
    "[a](javascript:window.hacked=1)",
    "![x](http://127.0.0.1:9/x.png)",
    "\u202eevil\u2066.exe\u200b\u2028\u0007\u001b[31m",
    '=HYPERLINK("http://127.0.0.1:9/","a")',
    "</textarea></title></style><svg/onload=window.hacked=1>",
    "{{ 7|add:7 }}{% debug %}${7*7}",
    "www.example.com\n# heading\n\n<i>",
    "@SUM(1+1)",
    "W" * 5_000,
)

#: All of them, for columns without an end.
EVERYTHING = "\n".join(STRINGS)

#: Columns whose values are made here or checked at the door, by name, with the reason.
_OURS = {
    "account": "core.keys.ACCOUNT_NAME",
    "agent": "core.keys.ACCOUNT_NAME",
    "other_account": "core.keys.ACCOUNT_NAME",
    "platform": "core.keys.PLATFORM_NAME",
    "command": "core.commands",
    "lane": "computed; the hostile user id below is in one",
    "session_id": "computed; the hostile user id below is in one",
    "unified_user_id": "checked by core.identity",
    "fingerprint": "a hash",
    "nonce": "a random number",
    "code_hash": "a hash",
    "credentials": "sealed",
    "accounts": "core.keys.ACCOUNT_NAME",
    "kind": "a registered kind, or a state",
    "id": "a key",
    "times": "numbers",
    "steps": "numbers",
    "options": "checked choices",
    "applied_config": "what a bot was given, as settings are",
}

#: Columns that are compared with each other, so that each row needs its own.
_UNIQUE = ("idempotency_key", "mirror_key", "guesser", "message_id", "platform_user_id")

_turns = itertools.cycle(STRINGS)


def poison() -> None:
    """Put hostile text into every free column of every row of the runtime's tables, past all services."""
    for model in apps.get_app_config("botsrt").get_models():
        free = [field for field in model._meta.concrete_fields if _is_free(model, field)]
        for row in model._base_manager.all():
            changes = {field.attname: _hostile(field, row) for field in free}
            if changes:
                model._base_manager.filter(pk=row.pk).update(**changes)
    User.objects.update(first_name=STRINGS[0], last_name=STRINGS[1], email="a@example.org")


def free_columns() -> Iterator[tuple[str, str]]:
    """Table and column of everything that ``poison`` fills."""
    for model in apps.get_app_config("botsrt").get_models():
        yield from ((model.__name__, field.name) for field in model._meta.concrete_fields if _is_free(model, field))


def _is_free(model: type[models.Model], field: Any) -> bool:
    is_text = isinstance(field, models.CharField | models.TextField | JSONField) and not field.choices
    if (model.__name__, field.name) == ("AgentProfile", "name"):
        return False  # core.keys.ACCOUNT_NAME
    return is_text and field.name not in _OURS


def _hostile(field: Any, row: models.Model) -> Any:
    value = getattr(row, field.attname)
    if isinstance(field, JSONField):
        return _hostile_json(field.name, value)
    text = EVERYTHING if field.max_length is None else next(_turns)
    if field.name in _UNIQUE:
        text = f"{row.pk}{text}"
    if value is None:
        return None
    return text[: field.max_length]


def _hostile_json(name: str, value: Any) -> Any:
    match name:
        case "payload" if value:
            sender = {**value["sender"], "user_name": next(_turns)[:300], "display_name": next(_turns)[:300]}
            file = {"kind": STRINGS[0], "reference": STRINGS[1], "name": EVERYTHING[:300], "mime_type": STRINGS[2]}
            return {**value, "text": EVERYTHING, "chat_name": STRINGS[1], "sender": sender, "attachments": [file]}
        case "attachments":
            return [{"kind": STRINGS[0], "name": STRINGS[1], "reference": STRINGS[5]}]
        case "buttons":
            return [{"label": STRINGS[1], "data": STRINGS[5]}]
        case "route":
            return {}  # a note must have none
        case "settings" if isinstance(value, Mapping):
            return {key: next(_turns) for key in value} | {STRINGS[1]: STRINGS[0]}
        case _:
            return {text: text for text in STRINGS} | {"nested": [list(STRINGS), {"deep": EVERYTHING}]}
