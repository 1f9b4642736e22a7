"""Answer one URL with a whole page, or with the part of it that htmx asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers


def is_part(request: HttpRequest) -> bool:
    """Whether a script asks, which has the rest of the page."""
    return request.headers.get("HX-Request") == "true"


def page_or_part(
    request: HttpRequest, page: str, part: str, context: Mapping[str, Any], *, status: int = 200
) -> HttpResponse:
    """``page``, or only ``part`` of it (a template that the page includes) for a script that keeps the page fresh."""
    response = render(request, part if is_part(request) else page, dict(context), status=status)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response
