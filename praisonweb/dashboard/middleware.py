"""What every request passes: is somebody signed in, with all that signing in asks for; and one more header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django_htmx.http import HttpResponseClientRedirect

from praisonweb.dashboard import second_factor

#: What no page of this site uses, and none may be talked into using.
_PERMISSIONS = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"


def before_second_factor(view: Any) -> Any:
    """Mark a view that staff need before they have the second factor they must have."""
    view.is_before_second_factor = True
    return view


class SignedInMiddleware(LoginRequiredMiddleware):
    """Every view asks for a sign-in unless it is marked; and for the second factor, where there is one or must be."""

    def process_view(
        self, request: HttpRequest, view_func: Callable[..., Any], view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        answer = super().process_view(request, view_func, view_args, view_kwargs)
        if answer is not None or not getattr(view_func, "login_required", True):
            return answer
        user: Any = request.user
        if user.is_verified():
            return None
        if second_factor.has_one(user):
            # Opened before the second factor was turned on, elsewhere: over, as after a change of the password.
            logout(request)
            return self.handle_no_permission(request, view_func)
        if second_factor.is_required(user) and not getattr(view_func, "is_before_second_factor", False):
            return _to_set_up(request, user)
        return None


def _to_set_up(request: HttpRequest, user: User) -> HttpResponse:
    url = reverse("second_factor")
    if "HX-Request" in request.headers:
        return HttpResponseClientRedirect(url)
    messages.warning(request, "Staff need a second factor here. Set yours up to go on.")
    return redirect(url)


class PermissionsPolicyMiddleware(MiddlewareMixin):
    """Turns off what browsers would let a page ask for."""

    async_capable = True

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self.__acall__(request)
        return _with_policy(self.get_response(request))

    async def __acall__(self, request: HttpRequest) -> Any:
        return _with_policy(await self.get_response(request))  # type: ignore[misc]


def _with_policy(response: Any) -> Any:
    response.headers.setdefault("Permissions-Policy", _PERMISSIONS)
    return response
