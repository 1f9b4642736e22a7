"""The one place where our errors become HTTP answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.http import HttpResponse, JsonResponse

from botsrt.core import redact
from botsrt.core.errors import (
    AlreadyExists,
    BotsError,
    Conflict,
    ForgedRequest,
    InvalidInput,
    NotFound,
    StorageUnavailable,
    UnreadableUpdate,
)

#: When a caller should try again while the database is away, in seconds.
_RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    code: str  # for programs
    text: str = ""  # what a stranger is told; empty: the error's own words


#: By class, the first that fits. Whatever is not here is our trouble: strangers learn that there is some, no more.
_ANSWERS: tuple[tuple[type[BotsError], _Answer], ...] = (
    (ForgedRequest, _Answer(status=403, code="forged")),
    (NotFound, _Answer(status=404, code="not_found")),
    (UnreadableUpdate, _Answer(status=400, code="unreadable")),
    (InvalidInput, _Answer(status=400, code="invalid")),
    (AlreadyExists, _Answer(status=409, code="exists")),
    (Conflict, _Answer(status=409, code="conflict")),
    (StorageUnavailable, _Answer(status=503, code="not_stored", text="It was not stored; deliver it again.")),
    (BotsError, _Answer(status=503, code="unavailable", text="The bot cannot take this now; its page says why.")),
)


def _answer_to(error: BotsError) -> _Answer:
    return next(answer for kind, answer in _ANSWERS if isinstance(error, kind))


def status_of(error: BotsError) -> int:
    """The HTTP status that says what ``error`` says."""
    return _answer_to(error).status


def as_json(error: BotsError) -> HttpResponse:
    """``error`` as a short answer for a program that may be a stranger: it names the problem, and no secret."""
    answer = _answer_to(error)
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if answer.status == 503 else None
    return json_answer(answer.status, answer.code, answer.text or redact.redact(str(error)), headers=headers)


def json_answer(status: int, code: str, text: str, *, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """The one shape of an error that a program reads."""
    return JsonResponse({"error": code, "detail": text}, status=status, headers=headers)
