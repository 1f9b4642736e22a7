"""Webhooks of the platforms: POST /hooks/<platform>/<account>/.

No session and no CSRF token: the adapter verifies the platform's own proof, on the raw bytes, before it parses them.
200 means stored. What was not stored is answered so that the platform delivers it again (503).
"""

from __future__ import annotations

import logging

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from botsrt import conf
from botsrt.core.errors import BotsError, UnreadableUpdate
from botsrt.core.ports import WebhookRequest
from botsrt.runtime import webhooks
from praisonweb.dashboard import errors

logger = logging.getLogger(__name__)

#: Some platforms prove the address with a GET before they use it; each adapter knows whether its own does.
_METHODS = ("GET", "POST")


@csrf_exempt
@login_not_required
async def receive(request: HttpRequest, platform: str, account: str) -> HttpResponse:
    """Hand one call to the bot's adapter, and answer as it says."""
    if request.method not in _METHODS:
        return errors.json_answer(
            405, "wrong_method", "Only GET and POST are possible.", headers={"Allow": "GET, POST"}
        )
    max_bytes = conf.load().max_webhook_bytes
    body = request.read(max_bytes + 1)
    if len(body) > max_bytes:
        return errors.json_answer(413, "too_large", f"The body is larger than {max_bytes} bytes.")
    call = WebhookRequest(
        method=request.method,
        headers={name.lower(): value for name, value in request.headers.items()},
        query=request.META.get("QUERY_STRING", ""),
        body=body,
    )
    try:
        answer = await webhooks.handle(platform=platform, account=account, request=call)
    except RecursionError:
        return _refused(UnreadableUpdate("The body is nested too deeply."), platform, account)
    except BotsError as error:
        return _refused(error, platform, account)
    return HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)


def _refused(error: BotsError, platform: str, account: str) -> HttpResponse:
    logger.warning("webhook of %r on %r refused: %s: %s", account, platform, type(error).__name__, error)
    return errors.as_json(error)
