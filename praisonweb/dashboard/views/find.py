"""Find anything by a few letters: a page, and what the palette over every page shows."""

from __future__ import annotations

from functools import partial

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from praisonweb.dashboard import access, htmx
from praisonweb.dashboard.access import staff_only
from praisonweb.dashboard.queries import find


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    scope = access.scope(request.user)
    found = find.read(text=request.GET.get("q", ""), may=partial(access.may, request.user), scope=scope)
    return htmx.page_or_part(request, "find/page.html", "find/_found.html", {"found": found})
