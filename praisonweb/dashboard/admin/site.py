"""The admin's frame: who gets in, and how."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from botsrt.models import DLQItem, JournalEntry, Pairing
from praisonweb.dashboard import access
from praisonweb.dashboard.access import Act
from praisonweb.dashboard.admin.accounts import GroupPages, UserPages
from praisonweb.dashboard.admin.acts import DLQPages, JournalPages, PairingPages
from praisonweb.dashboard.admin.raw import RawPages


class Site(admin.AdminSite):
    """For everybody who may see the staff site, of all bots; the pages ask for what else they need."""

    site_title = "PraisonWeb"
    site_header = "PraisonWeb: raw tables"
    index_title = "Raw tables"

    def has_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.READ)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return access.staff_only(access.all_bots(super().admin_view(view, cacheable)))

    @method_decorator(never_cache)
    @method_decorator(login_not_required)
    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """There is one way to sign in, with its throttling and second factor."""
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"))

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return redirect("password")

    def password_change_done(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return redirect("password")


#: Tables whose pages do more than show rows; all others of the runtime are shown by ``RawPages``.
_PAGES: dict[type, type[RawPages]] = {DLQItem: DLQPages, JournalEntry: JournalPages, Pairing: PairingPages}


def _made() -> Site:
    made = Site(name="admin")
    for model in apps.get_app_config("botsrt").get_models():
        made.register(model, _PAGES.get(model, RawPages))
    made.register(User, UserPages)
    made.register(Group, GroupPages)
    return made


site = _made()
