"""Home: what needs attention."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from praisonweb.dashboard import access, htmx
from praisonweb.dashboard.access import staff_only
from praisonweb.dashboard.queries import charts, home


@require_safe
@staff_only
def page(request: HttpRequest) -> HttpResponse:
    context = {"home": home.read(scope=access.scope(request.user), now=timezone.now())}
    return htmx.page_or_part(request, "home.html", "_home.html", context)


@require_safe
@staff_only
def charts_page(request: HttpRequest) -> HttpResponse:
    """The last 24 hours; Home fetches them once a minute, apart from what is urgent."""
    shown = charts.read(scope=access.scope(request.user), now=timezone.now())
    return htmx.page_or_part(request, "charts.html", "_charts.html", {"shown": shown})
