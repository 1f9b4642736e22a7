"""Users and groups, for those who may manage them and have just confirmed that it is them.

Nobody gives away more than they have: superusers are managed by superusers alone, and nobody changes their own rights.
Accounts are closed, not removed: the audit names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone

from botsrt.core.actors import Actor
from botsrt.core.errors import Conflict, NotFound
from botsrt.models import Bot
from botsrt.services import audit
from praisonweb.dashboard import access, second_factor
from praisonweb.dashboard.access import APP, Act, Role
from praisonweb.dashboard.admin.acts import BulkAct, ask_or_do
from praisonweb.dashboard.admin.raw import Pages, guarded
from praisonweb.dashboard.models import BotLimit
from praisonweb.dashboard.sudo import sudo_required

#: What gives power, and is not for its owner to change.
_POWER = ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")

_FOR_SUPERUSERS = ("is_superuser", "user_permissions")


class _Guarded(Pages):
    """Pages behind the right to manage users, and a confirmation."""

    def get_urls(self) -> list[URLPattern]:
        return guarded(super().get_urls(), lambda view: access.requires(Act.USERS)(sudo_required(view)))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return access.may(request.user, Act.USERS)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(request.user, Act.USERS)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(request.user, Act.USERS)


# -- users ----

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
    _Inline = admin.TabularInline[BotLimit, User]
else:
    _UserAdmin = UserAdmin
    _Inline = admin.TabularInline


class LimitForm(forms.ModelForm):  # type: ignore[type-arg]
    """One bot that a user sees. A bot that was removed stays until somebody takes it away."""

    account = forms.ChoiceField(label="Bot")

    class Meta:
        model = BotLimit
        fields = ("account",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = set(Bot.objects.values_list("account", flat=True)) | {self.instance.account} - {""}
        field = self.fields["account"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "---------"), *((name, name) for name in sorted(names))]


class Limits(_Inline):
    """The bots that a user is limited to; people who manage users are not limited."""

    model = BotLimit
    form = LimitForm
    extra = 1
    verbose_name_plural = (
        "Limited to these bots (none: sees all). Does not hold for superusers and for who manages users"
    )

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(request.user, Act.USERS)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may_change(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may_change(request, obj)


def _may_change(request: HttpRequest, user: Any) -> bool:
    is_above = user is not None and user.is_superuser and not _is_superuser(request)
    return access.may(request.user, Act.USERS) and not is_above


def _turn_second_factor_off(user_id: int, actor: Actor, reason: str) -> None:
    user = User.objects.filter(pk=user_id).first()
    if user is None:
        raise NotFound(f"There is no user {user_id}.")
    by = User.objects.filter(username=actor.name).first()
    if user.is_superuser and not (by and by.is_superuser):
        raise Conflict(f"{user} is a superuser; only superusers change that.")
    if not second_factor.turn_off(user=user, actor=actor, reason=reason, now=timezone.now()):
        raise Conflict(f"{user} has no second factor.")


_SECOND_FACTOR_OFF = BulkAct(
    name="second_factor_off",
    act=Act.USERS,
    verb="Turn off the second factor of",
    done="sign in with the password alone now",
    consequence="Until they set it up again, the password alone signs them in. Are you sure who is asking?",
    noun="user",
    nouns="users",
    do=_turn_second_factor_off,
    needs_reason=True,
)


class UserPages(_Guarded, _UserAdmin):
    list_display = ("username", "first_name", "last_name", "is_active", "is_staff", "is_superuser", "last_login")
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": ("username", "usable_password", "password1", "password2", "is_staff", "groups"),
            },
        ),
    )
    filter_horizontal = ()
    actions = ["second_factor_off"]

    def get_urls(self) -> list[URLPattern]:
        return [url for url in super().get_urls() if url.name != "auth_user_delete"]

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return () if obj is None else (Limits,)  # first the account

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _may_change(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        return fieldsets if _is_superuser(request) else [_without(fieldset, _FOR_SUPERUSERS) for fieldset in fieldsets]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        own = _POWER if obj is not None and obj.pk == request.user.pk else ()
        return ("last_login", "date_joined", *own)

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        return {"is_staff": True}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        form.before = _account(User.objects.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        user = User.objects.get(pk=form.instance.pk)
        _record(request, "users.change" if change else "users.add", "user", user, form.before, _account(user))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        with transaction.atomic():
            rows = User.objects.filter(pk=id) if id.isascii() and id.isdigit() else User.objects.none()
            before = dict(rows.values_list("pk", "password"))
            response = super().user_change_password(request, id, form_url)
            for user in rows:
                if user.password != before.get(user.pk):
                    _record(request, "users.password", "user", user)
        return response

    @admin.action(description="Turn the second factor off…", permissions=["change"])
    def second_factor_off(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return ask_or_do(self, request, rows, _SECOND_FACTOR_OFF)


def _is_superuser(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and request.user.is_superuser


def _without(fieldset: Any, names: tuple[str, ...]) -> Any:
    title, options = fieldset
    return title, {**options, "fields": tuple(name for name in options["fields"] if name not in names)}


def _account(user: User) -> dict[str, Any]:
    """An account for the audit: its rights, never its password."""
    return {
        "email": user.email,
        "is_active": user.is_active,
        "is_staff": user.is_staff,
        "is_superuser": user.is_superuser,
        "roles": sorted(user.groups.values_list("name", flat=True)),
        "bots": access.limits_of(user) or "all",
        "permissions": sorted(user.user_permissions.values_list("codename", flat=True)),
    }


# -- groups ----


class _RightsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: Any) -> str:
        return str(obj.name)


class GroupPages(_Guarded, GroupAdmin):
    """The four roles to look at, and groups of the site's own."""

    filter_horizontal = ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access.may(request.user, Act.USERS) and not _is_role(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name == "permissions":
            kwargs["queryset"] = Permission.objects.filter(content_type__app_label=APP).order_by("pk")
            kwargs["widget"] = forms.CheckboxSelectMultiple
            kwargs["form_class"] = _RightsField
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        form.before = _group(Group.objects.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        group = Group.objects.get(pk=form.instance.pk)
        _record(request, "groups.change" if change else "groups.add", "group", group, form.before, _group(group))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            _record(request, "groups.remove", "group", obj, _group(obj))
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        with transaction.atomic():
            for group in queryset:
                self.delete_model(request, group)


def _is_role(group: Any) -> bool:
    return isinstance(group, Group) and group.name in set(Role)


def _group(group: Group) -> dict[str, Any]:
    return {"name": group.name, "permissions": sorted(group.permissions.values_list("codename", flat=True))}


def _record(request: HttpRequest, verb: str, kind: str, row: object, before: Any = None, after: Any = None) -> None:
    audit.record(
        actor=access.actor(request),
        verb=verb,
        object_kind=kind,
        object_id=row,
        before=before,
        after=after,
        now=timezone.now(),
    )
