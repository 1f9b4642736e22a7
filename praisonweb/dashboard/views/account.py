"""Signing in and out, the password, and confirming it again."""

from __future__ import annotations

import time
from typing import Any

import django_otp
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import BACKEND_SESSION_KEY, load_backend, login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse, reverse_lazy
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from botsrt.services import audit
from praisonweb.dashboard import access, second_factor, sign_ins, sudo
from praisonweb.dashboard.middleware import before_second_factor
from praisonweb.dashboard.second_factor import Accepted, WrongCode

#: How long somebody may take from the password to the code, in seconds.
_SECOND_STEP_SECONDS = 300

_SECOND_STEP = "second_step"

_MAX_CODE_CHARS = 40


def code_field() -> forms.CharField:
    """A field for a code of the app or a recovery code."""
    return forms.CharField(
        label="Code",
        max_length=_MAX_CODE_CHARS,
        help_text="Six digits from your authenticator app, or one of your recovery codes.",
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )


# -- signing in ----


class SignIn(LoginView):
    """User name and password; who has a second factor goes on to it and is not signed in yet."""

    template_name = "account/sign_in.html"
    redirect_authenticated_user = True

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """The form. A page that refreshes parts of itself is sent here as a whole, not filled with the form."""
        if request.headers.get("HX-Request") == "true":
            return HttpResponseClientRedirect(reverse("login"))
        return super().get(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)
        if not second_factor.is_on(user):
            return super().form_valid(form)
        session = self.request.session
        session.cycle_key()  # whoever knew the key before the password must not know it after
        session[_SECOND_STEP] = {
            "user": user.pk,
            "password": user.get_session_auth_hash(),
            BACKEND_SESSION_KEY: user.backend,
            "next": self.get_redirect_url(),
            "until": int(time.time()) + _SECOND_STEP_SECONDS,
        }
        return redirect("second_step")


class _CodeForm(forms.Form):
    code = code_field()


@login_not_required
@never_cache
@require_http_methods(["GET", "POST"])
def second_step(request: HttpRequest) -> HttpResponse:
    """The code, for somebody whose password was right a moment ago."""
    user = _half_signed_in(request)
    if user is None:
        messages.info(request, "That took too long, or was done already. Sign in again.")
        return redirect("login")
    if sign_ins.is_locked(request, user):
        return sign_ins.locked_page(request)
    form = _CodeForm(request.POST or None)
    if form.is_valid():
        try:
            accepted = second_factor.check(user, form.cleaned_data["code"])
        except WrongCode as error:
            if error.was_looked_at:
                sign_ins.count_wrong_code(request, user)
            form.add_error("code", _sentence(error))
        else:
            return _sign_in(request, user, accepted)
    return render(request, "account/second_step.html", {"form": form, "name": user.get_username()})


def _half_signed_in(request: HttpRequest) -> User | None:
    """Who gave the right password within the last minutes in this session, if it still is the right one."""
    step = request.session.get(_SECOND_STEP)
    if not isinstance(step, dict) or time.time() >= step["until"]:
        return None
    user = load_backend(step[BACKEND_SESSION_KEY]).get_user(step["user"])
    if not isinstance(user, User) or not constant_time_compare(step["password"], user.get_session_auth_hash()):
        return None
    return user


def _sign_in(request: HttpRequest, user: User, accepted: Accepted) -> HttpResponse:
    step = request.session.pop(_SECOND_STEP)
    login(request, user, backend=step[BACKEND_SESSION_KEY])
    django_otp.login(request, accepted.device)
    _warn_of_last_codes(request, accepted)
    return redirect(step["next"] or resolve_url(settings.LOGIN_REDIRECT_URL))


def _warn_of_last_codes(request: HttpRequest, accepted: Accepted) -> None:
    left = accepted.recovery_codes_left
    if left is not None:
        codes = "recovery code is" if left == 1 else "recovery codes are"
        messages.warning(request, f"{left} {codes} left. Make new ones under Second factor before they run out.")


def _sentence(error: WrongCode) -> str:
    return f"The code {error.problem}"


sign_out = before_second_factor(LogoutView.as_view())


# -- confirming again ----


class ConfirmForm(forms.Form):
    """The password once more, and a code where the account has a second factor."""

    password = forms.CharField(
        label="Password",
        strip=False,
        max_length=4_096,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    code = code_field()

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.POST if request.method == "POST" else None)
        assert isinstance(request.user, User)
        self._request, self._user = request, request.user
        self.accepted: Accepted | None = None
        if not second_factor.is_on(self._user):
            del self.fields["code"]
        else:
            del self.fields["code"].widget.attrs["autofocus"]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if self.errors:
            return data
        if not sign_ins.is_own_password(self._request, data["password"]):
            raise ValidationError({"password": "The password is wrong."})
        if "code" in self.fields:
            try:
                self.accepted = second_factor.check(self._user, data["code"])
            except WrongCode as error:
                if error.was_looked_at:
                    sign_ins.count_wrong_code(self._request, self._user)
                raise ValidationError({"code": _sentence(error)}) from error
        sign_ins.forget_failures(self._request)
        return data


@before_second_factor
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
def confirm(request: HttpRequest) -> HttpResponse:
    """Ask for the password (and code) again, then go back to the page that wanted it."""
    target = sudo.safe_target(request, request.GET.get("next") or request.POST.get("next") or "")
    form = ConfirmForm(request)
    if form.is_valid():
        sudo.start(request)
        audit.record(
            actor=access.actor(request),
            verb="account.sudo",
            object_kind="user",
            object_id=request.user.get_username(),
            now=timezone.now(),
        )
        if form.accepted:
            _warn_of_last_codes(request, form.accepted)
        return redirect(target or reverse("home"))
    context = {"form": form, "next": target, "minutes": sudo.LIFETIME_SECONDS // 60}
    return render(request, "account/confirm.html", context)


# -- the password ----


class _PasswordForm(PasswordChangeForm):
    """Wrong old passwords count as they do at the sign-in."""

    def __init__(self, user: User, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self._request = request

    def clean_old_password(self) -> str:
        password = str(self.cleaned_data["old_password"])
        if not sign_ins.is_own_password(self._request, password):
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        sign_ins.forget_failures(self._request)
        return password


class ChangePassword(PasswordChangeView):
    """For everybody who can sign in. Other browsers of the account are signed out by it."""

    template_name = "account/password.html"
    form_class = _PasswordForm
    success_url = reverse_lazy("password")

    def get_form_kwargs(self) -> dict[str, Any]:
        return {**super().get_form_kwargs(), "request": self.request}

    def form_valid(self, form: PasswordChangeForm) -> HttpResponse:
        messages.success(self.request, "Your password is changed. Other browsers you were signed in on are signed out.")
        name = self.request.user.get_username()
        actor = access.actor(self.request)
        audit.record(actor=actor, verb="account.password", object_kind="user", object_id=name, now=timezone.now())
        return super().form_valid(form)
