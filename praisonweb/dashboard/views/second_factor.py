"""The second factor of who is signed in: look, set up, new recovery codes, turn off."""

from __future__ import annotations

import django_otp
from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from botsrt.core.errors import AlreadyExists
from praisonweb.dashboard import access, second_factor
from praisonweb.dashboard.middleware import before_second_factor
from praisonweb.dashboard.second_factor import WrongCode
from praisonweb.dashboard.sudo import sudo_required
from praisonweb.dashboard.views.account import ConfirmForm, code_field

#: The secret between the page that shows it and the code that proves it was taken over.
_KEY = "second_factor_key"


class _FirstCodeForm(forms.Form):
    code = code_field()

    def __init__(self, data: object = None) -> None:
        super().__init__(data)  # type: ignore[arg-type]
        self.fields["code"].help_text = "Six digits that the app shows now."
        self.fields["code"].widget.attrs |= {"inputmode": "numeric", "autocomplete": "off"}


@before_second_factor
@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Whether it is on, and what can be done."""
    user = _user(request)
    app = second_factor.app_of(user)
    context = {
        "app": app,
        "codes_left": second_factor.recovery_codes_left(user) if app else 0,
        "is_required": second_factor.is_required(user),
    }
    return render(request, "account/second_factor.html", context)


@before_second_factor
@never_cache
@require_http_methods(["GET", "POST"])
@sudo_required
def set_up(request: HttpRequest) -> HttpResponse:
    """Show a secret; take a code that proves the app has it; show the recovery codes, once."""
    user = _user(request)
    if second_factor.is_on(user):
        messages.info(request, "Your account has a second factor already.")
        return redirect("second_factor")
    key = request.session.setdefault(_KEY, second_factor.new_key())
    form = _FirstCodeForm(request.POST or None)
    if form.is_valid():
        try:
            device, codes = second_factor.turn_on(
                user=user, key=key, code=form.cleaned_data["code"], actor=access.actor(request), now=timezone.now()
            )
        except WrongCode as error:
            form.add_error("code", f"The code {error.problem}")
        except AlreadyExists as error:
            messages.info(request, str(error))
            return redirect("second_factor")
        else:
            del request.session[_KEY]
            request.session.cycle_key()
            django_otp.login(request, device)
            return _show_codes(request, codes, is_new=True)
    address = second_factor.app_address(user, key)
    context = {
        "form": form,
        "secret": second_factor.key_for_people(key),
        "address": address,
        "picture": second_factor.picture(address),
    }
    return render(request, "account/second_factor_set_up.html", context)


@never_cache
@require_POST
@sudo_required
def recovery_codes(request: HttpRequest) -> HttpResponse:
    """Make new recovery codes and show them, once."""
    user = _user(request)
    if not second_factor.is_on(user):
        messages.info(request, "Recovery codes go with a second factor. Set one up first.")
        return redirect("second_factor")
    codes = second_factor.renew_recovery_codes(user=user, actor=access.actor(request), now=timezone.now())
    return _show_codes(request, codes, is_new=False)


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
def turn_off(request: HttpRequest) -> HttpResponse:
    """Needs the password and a code, however short ago they were given."""
    user = _user(request)
    if not second_factor.is_on(user):
        messages.info(request, "Your account has no second factor.")
        return redirect("second_factor")
    form = ConfirmForm(request)
    if form.is_valid():
        second_factor.turn_off(user=user, actor=access.actor(request), now=timezone.now())
        messages.success(request, "The second factor is off. Your password alone signs you in.")
        return redirect("second_factor")
    return render(request, "account/second_factor_off.html", {"form": form})


def _show_codes(request: HttpRequest, codes: list[str], *, is_new: bool) -> HttpResponse:
    return render(request, "account/recovery_codes.html", {"codes": codes, "is_new": is_new})


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
