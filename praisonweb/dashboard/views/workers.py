"""The processes that run bots."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from praisonweb.dashboard import htmx
from praisonweb.dashboard.access import all_bots, staff_only
from praisonweb.dashboard.queries import workers


@require_safe
@staff_only
@all_bots
def page(request: HttpRequest) -> HttpResponse:
    alive, ended = workers.read(now=timezone.now())
    context = {"alive": alive, "ended": ended}
    return htmx.page_or_part(request, "workers/page.html", "workers/_list.html", context)
