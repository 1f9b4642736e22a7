"""Replay, retry, discard and approve from the admin's lists: the same services, rights and audit as on the site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from botsrt.core.actors import Actor
from botsrt.core.errors import BotsError
from botsrt.core.states import RunMode
from botsrt.services import dlq, journal, pairing
from praisonweb.dashboard import access
from praisonweb.dashboard.access import Act
from praisonweb.dashboard.admin.raw import Pages, RawPages
from praisonweb.dashboard.templatetags.shown import visible

#: Rows that one act takes at most.
MAX_ROWS = 200

#: Refusals that are shown one by one; the rest is counted.
_MAX_REASONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAct:
    """An act on selected rows. ``do`` takes a row's id, who acts, and the reason."""

    name: str
    act: Act
    verb: str  # "Retry"
    done: str  # "retried"
    consequence: str
    noun: str  # "dead letter"
    nouns: str
    do: Callable[[Any, Actor, str], None]
    needs_reason: bool = False


def ask_or_do(pages: Pages, request: HttpRequest, rows: Any, bulk: BulkAct) -> HttpResponse | None:
    """First the question, with the count and a field for the reason; after it the act, row by row."""
    access.demand(request.user, bulk.act)
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[: MAX_ROWS + 1])
    if len(ids) > MAX_ROWS:
        messages.error(request, f"Nothing was done: that is more than {MAX_ROWS} rows. Select fewer.")
        return None
    reason = request.POST.get("reason", "").strip()
    if "confirmed" not in request.POST or (bulk.needs_reason and not reason):
        return _question(pages, request, ids, bulk)
    _do(request, ids, bulk, reason)
    return None


def _question(pages: Pages, request: HttpRequest, ids: list[Any], bulk: BulkAct) -> HttpResponse:
    what = f"{len(ids):,} {bulk.noun if len(ids) == 1 else bulk.nouns}"
    context = {
        **pages.admin_site.each_context(request),
        "title": f"{bulk.verb} {what}?",
        "opts": pages.model._meta,
        "bulk": bulk,
        "button": f"{bulk.verb} {what}",
        "ids": ids,
        "lacks_reason": "confirmed" in request.POST,
        "checkbox": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "admin/question.html", context)


def _do(request: HttpRequest, ids: list[Any], bulk: BulkAct, reason: str) -> None:
    actor, refusals = access.actor(request), []
    for row_id in ids:
        try:
            bulk.do(row_id, actor, reason)
        except BotsError as error:
            refusals.append(f"{row_id}: {error}")
    count = len(ids) - len(refusals)
    if count:
        messages.success(request, f"{count:,} {bulk.noun if count == 1 else bulk.nouns} {bulk.done}.")
    for refusal in refusals[:_MAX_REASONS]:
        messages.warning(request, visible(f"Skipped {refusal}"))
    if len(refusals) > _MAX_REASONS:
        messages.warning(request, f"{len(refusals) - _MAX_REASONS:,} more were skipped.")


# -- journal ----


def _replay(entry_id: int, actor: Actor, reason: str) -> None:
    journal.replay(entry_id=entry_id, mode=RunMode.SEND, actor=actor, reason=reason, now=timezone.now())


_REPLAY = BulkAct(
    name="replay",
    act=Act.REPLAY,
    verb="Replay",
    done="replayed",
    consequence="The agent runs again, and people may get an answer now.",
    noun="message",
    nouns="messages",
    do=_replay,
)


class JournalPages(RawPages):
    actions = ["replay"]

    @admin.action(description="Replay…", permissions=["replay"])
    def replay(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return ask_or_do(self, request, rows, _REPLAY)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.REPLAY)


# -- dead letters ----


def _retry(item_id: int, actor: Actor, reason: str) -> None:
    dlq.retry(item_id=item_id, actor=actor, reason=reason, now=timezone.now())


def _discard(item_id: int, actor: Actor, reason: str) -> None:
    dlq.discard(item_id=item_id, actor=actor, reason=reason, now=timezone.now())


_RETRY = BulkAct(
    name="retry",
    act=Act.RETRY,
    verb="Retry",
    done="retried",
    consequence="The agent runs again, and people may get an answer now.",
    noun="dead letter",
    nouns="dead letters",
    do=_retry,
)
_DISCARD = BulkAct(
    name="discard",
    act=Act.DISCARD,
    verb="Discard",
    done="discarded",
    consequence="Nobody will answer them. It can be undone for 30 days.",
    noun="dead letter",
    nouns="dead letters",
    do=_discard,
    needs_reason=True,
)


class DLQPages(RawPages):
    actions = ["retry", "discard"]

    @admin.action(description="Retry…", permissions=["retry"])
    def retry(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return ask_or_do(self, request, rows, _RETRY)

    @admin.action(description="Discard…", permissions=["discard"])
    def discard(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return ask_or_do(self, request, rows, _DISCARD)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.RETRY)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.DISCARD)


# -- pairings ----


def _approve(request_id: int, actor: Actor, reason: str) -> None:
    pairing.approve(request_id=request_id, person="", actor=actor, reason=reason, now=timezone.now())


_APPROVE = BulkAct(
    name="approve",
    act=Act.PAIR,
    verb="Approve",
    done="approved",
    consequence="Who asked for access may write and gets an answer to the first message. Accounts that asked to be "
    "connected become one person. Without a code nothing but your reason stands behind it.",
    noun="request",
    nouns="requests",
    do=_approve,
    needs_reason=True,
)


class PairingPages(RawPages):
    actions = ["approve"]

    @admin.action(description="Approve…", permissions=["approve"])
    def approve(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return ask_or_do(self, request, rows, _APPROVE)

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.PAIR)
