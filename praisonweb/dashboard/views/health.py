"""For load balancers and monitors: does this process live, is it ready, and how do things stand in numbers?"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from botsrt.runtime import readiness
from praisonweb.dashboard.queries import metrics


@login_not_required
@never_cache
@require_safe
async def live(request: HttpRequest) -> HttpResponse:
    """200 and "ok": the process answers. A restart would not mend anything else."""
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@login_not_required
@never_cache
@require_safe
async def ready(request: HttpRequest) -> HttpResponse:
    """200 when the process can do its work, else 503; what is wrong is said in either case."""
    checks = await readiness.check()
    is_ready = all(check.is_ok for check in checks)
    body = {
        "ready": is_ready,
        "checks": {check.name: {"ok": check.is_ok, "reason": check.reason} for check in checks},
    }
    return JsonResponse(body, status=200 if is_ready else 503)


@login_not_required
@never_cache
@require_safe
def numbers(request: HttpRequest) -> HttpResponse:
    """For Prometheus, with the token of the settings; without one in the settings there is no such page.

    Raises:
        Http404: no token is set.
    """
    if not settings.METRICS_TOKEN:
        raise Http404("Metrics are off: PRAISONWEB_METRICS_TOKEN is not set.")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not constant_time_compare(token.strip(), settings.METRICS_TOKEN):
        answer = HttpResponse("the token is missing or wrong\n", status=401, content_type="text/plain; charset=utf-8")
        answer["WWW-Authenticate"] = "Bearer"
        return answer
    body, content_type = metrics.exposed(accept=request.headers.get("Accept", ""), now=timezone.now())
    return HttpResponse(body, content_type=content_type)
