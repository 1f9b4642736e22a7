"""Try it: a chat with a web bot in the browser, on the way that every message takes."""

from __future__ import annotations

import uuid

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from botsrt.core.errors import BotsError
from praisonweb.dashboard import access, errors, htmx, webchat
from praisonweb.dashboard.access import Act, requires
from praisonweb.dashboard.queries import try_it


@require_safe
@requires(Act.TRY)
def bots(request: HttpRequest) -> HttpResponse:
    """The web bots; the chat itself where there is only one."""
    rows = try_it.web_bots(scope=access.scope(request.user), now=timezone.now())
    if len(rows) == 1:
        return redirect("try_chat", account=rows[0].account)
    return render(request, "try/bots.html", {"bots": rows})


@require_safe
@requires(Act.TRY)
def chat(request: HttpRequest, account: str) -> HttpResponse:
    """The conversation of this member of staff with one bot; ``?before=`` an entry's id shows what came earlier."""
    return _page(request, account, before=_before(request))


@require_POST
@requires(Act.TRY)
async def send(request: HttpRequest, account: str) -> HttpResponse:
    """Store a message of the form, for browsers without script."""
    user = await request.auser()
    assert isinstance(user, User)
    try:
        draft = webchat.read(request.POST)
        await webchat.receive(draft, account=account, user=user)
    except BotsError as error:
        messages.error(request, f"Not sent. {error}")
        text = request.POST.get("text", "")[: webchat.MAX_TEXT_CHARS]
        return await sync_to_async(_page)(request, account, text=text, status=errors.status_of(error))
    return redirect("try_chat", account=account)


def _page(
    request: HttpRequest, account: str, *, before: int | None = None, text: str = "", status: int = 200
) -> HttpResponse:
    assert isinstance(request.user, User)
    user_id = webchat.user_id(request.user)
    scope = access.scope(request.user)
    shown = try_it.chat(account=account, user_id=user_id, before=before, scope=scope, now=timezone.now())
    if shown is None:
        raise Http404(f"There is no web bot {account}.")
    context = {
        "chat": shown,
        "text": text,
        "message_id": uuid.uuid4(),
        "max_text_chars": webchat.MAX_TEXT_CHARS,
        "user_id": user_id,
    }
    return htmx.page_or_part(request, "try/chat.html", "try/_conversation.html", context, status=status)


def _before(request: HttpRequest) -> int | None:
    value = request.GET.get("before", "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Http404(f"before: {value[:40]!r} is not the number of a message.")
    return int(value)
