"""Who did what, why, and what it changed."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from praisonweb.dashboard import filters, htmx, paging
from praisonweb.dashboard.access import Act, all_bots, requires
from praisonweb.dashboard.queries import audit


@require_safe
@requires(Act.AUDIT)
@all_bots
def page(request: HttpRequest) -> HttpResponse:
    wanted = filters.parse(request.GET.get("q", ""), keys=audit.KEYS, now=timezone.now())
    shown = audit.read(filters=wanted, before=paging.before(request))
    context = {"shown": shown, "older": paging.older(request, shown.page), "keys": audit.KEYS}
    return htmx.page_or_part(request, "audit/page.html", "audit/_list.html", context)
