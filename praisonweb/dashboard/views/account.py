"""Signing in, and the password."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import LoginView, PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.urls import reverse, reverse_lazy
from django_htmx.http import HttpResponseClientRedirect


class SignIn(LoginView):
    template_name = "account/sign_in.html"
    redirect_authenticated_user = True

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """The form. A page that refreshes parts of itself is sent here as a whole, not filled with the form."""
        if request.headers.get("HX-Request") == "true":
            return HttpResponseClientRedirect(reverse("login"))
        return super().get(request, *args, **kwargs)


class ChangePassword(PasswordChangeView):
    """For everybody who can sign in. Other browsers of the account are signed out by it."""

    template_name = "account/password.html"
    success_url = reverse_lazy("password")

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        messages.success(self.request, "Your password is changed. Other browsers you were signed in on are signed out.")
        return super().form_valid(form)
