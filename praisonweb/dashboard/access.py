"""Who may do what: the acts of staff, the roles, and the one table that says which role has which act.

Signing in is asked for by the middleware. In the database an act is a permission of this app and a role is a group,
so a site can make groups of its own; the four roles are written again with every ``migrate``. Superusers of
the staff may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.apps import apps as installed
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import resolve

from botsrt.core.actors import Actor
from praisonweb.dashboard import client, second_factor

type_of_user = AbstractBaseUser | AnonymousUser | None

Model = TypeVar("Model", bound=models.Model)


class Act(StrEnum):
    """Something staff can do. The value is the permission's name in the database."""

    READ = "read"
    TRY = "try"
    NOTE = "note"
    REPLY = "reply"
    REPLAY = "replay"
    RETRY = "retry"
    DISCARD = "discard"
    DECIDE_DELIVERIES = "decide_deliveries"
    PAIR = "pair"
    LINK = "link"
    CHANGE_BOTS = "change_bots"
    CREDENTIALS = "credentials"
    AGENTS = "agents"
    ROUTING = "routing"
    AUDIT = "audit"
    EXPORT = "export"
    PURGE = "purge"
    USERS = "users"

    @property
    def permission(self) -> str:
        return f"{APP}.{self.value}"

    @property
    def words(self) -> str:
        """What completes "You may …"."""
        return _WORDS[self]


_WORDS: Mapping[Act, str] = {
    Act.READ: "see the staff site",
    Act.TRY: "write to bots under Try it",
    Act.NOTE: "write notes, assign and snooze",
    Act.REPLY: "answer people and take over conversations",
    Act.REPLAY: "replay messages",
    Act.RETRY: "retry failed messages",
    Act.DISCARD: "discard failed messages",
    Act.DECIDE_DELIVERIES: "decide about held and unsure replies",
    Act.PAIR: "approve, deny and block people",
    Act.LINK: "link and unlink people",
    Act.CHANGE_BOTS: "add, change, pause and remove bots",
    Act.CREDENTIALS: "set the credentials of bots",
    Act.AGENTS: "add, change and remove agents",
    Act.ROUTING: "change the routing",
    Act.AUDIT: "read the audit",
    Act.EXPORT: "export data",
    Act.PURGE: "remove data for good",
    Act.USERS: "manage users and roles",
}


class Role(StrEnum):
    """The groups that every site has."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


#: The app whose permissions the acts are.
APP = "dashboard"

_OPERATING = frozenset(
    {
        Act.READ,
        Act.TRY,
        Act.NOTE,
        Act.REPLY,
        Act.REPLAY,
        Act.RETRY,
        Act.DISCARD,
        Act.DECIDE_DELIVERIES,
        Act.PAIR,
        Act.LINK,
    }
)

#: Which role has which acts.
ROLES: Mapping[Role, frozenset[Act]] = {
    Role.VIEWER: frozenset({Act.READ}),
    Role.OPERATOR: _OPERATING,
    Role.AUDITOR: frozenset({Act.READ, Act.AUDIT, Act.EXPORT}),
    Role.ADMIN: frozenset(Act),
}


def make_roles(*, using: str, apps: Any = installed, **kwargs: Any) -> None:
    """Write the four roles down as ``ROLES`` has them. Called after every ``migrate``; repeating it changes nothing."""
    try:
        groups, permissions = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    except LookupError:  # only some apps were migrated
        return
    rights = permissions.objects.using(using).filter(content_type__app_label=APP)
    for role, acts in ROLES.items():
        group, _ = groups.objects.using(using).get_or_create(name=role.value)
        group.permissions.set(rights.filter(codename__in=[act.value for act in acts]))


# -- questions ----


def is_staff(user: type_of_user) -> bool:
    return isinstance(user, User) and user.is_active and user.is_staff


def may(user: type_of_user, act: Act) -> bool:
    """Whether ``user`` may do ``act``, as the database said when ``user`` was loaded."""
    return isinstance(user, User) and is_staff(user) and user.has_perm(act.permission)


async def amay(user: type_of_user, act: Act) -> bool:
    """``may``, for coroutines."""
    return await sync_to_async(may)(user, act)


def why_not(user: type_of_user, act: Act) -> str:
    """Why ``user`` may not do ``act``, as a sentence for them; empty where they may."""
    if may(user, act):
        return ""
    if not isinstance(user, User) or not is_staff(user):
        return "Your account is not staff. Ask an administrator to change that, or use another account."
    needed = " or ".join(role for role, acts in ROLES.items() if act in acts)
    own = ", ".join(user.groups.order_by("name").values_list("name", flat=True))
    yours = f"yours is {own}" if own else "you have none"
    return f"To {act.words} you need the role {needed}; {yours}. Ask an administrator."


def actor(request: HttpRequest) -> Actor:
    """Who acts, for the audit."""
    return Actor(name=request.user.get_username()[:150], address=client.address(request))


# -- limits: which bots somebody sees ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The bots that somebody sees. What belongs to others is, for them, not there."""

    accounts: frozenset[str] | None  # None: all
    name: str = ""  # whose it is; what somebody began is theirs

    @property
    def is_limited(self) -> bool:
        return self.accounts is not None

    def allows(self, account: str) -> bool:
        return self.accounts is None or account in self.accounts

    def rows(self, queryset: QuerySet[Model], field: str = "account") -> QuerySet[Model]:
        """Those of the rows that belong to these bots."""
        return queryset if self.accounts is None else queryset.filter(**{f"{field}__in": sorted(self.accounts)})

    def among(self, queryset: QuerySet[Model], ids: Sequence[int]) -> list[int]:
        """Those of the ids that belong to these bots, in their order."""
        if self.accounts is None or not ids:
            return list(ids)
        known = set(self.rows(queryset).filter(pk__in=ids).values_list("pk", flat=True))
        return [pk for pk in ids if pk in known]


#: Of superusers, of those who manage users, and of everybody who is not limited.
ALL_BOTS = Scope(accounts=None)


def scope(user: type_of_user) -> Scope:
    """The bots that ``user`` sees. Asked once for each object ``user``, which is: once a request."""
    if not isinstance(user, User) or not is_staff(user):
        return Scope(accounts=frozenset())
    known: Scope | None = getattr(user, "_scope", None)
    if known is None:
        known = user._scope = _scope(user)  # type: ignore[attr-defined]
    return known


async def ascope(user: type_of_user) -> Scope:
    """``scope``, for coroutines."""
    return await sync_to_async(scope)(user)


def _scope(user: User) -> Scope:
    if may(user, Act.USERS):
        return ALL_BOTS
    accounts = frozenset(limits_of(user))
    return Scope(accounts=accounts or None, name=user.get_username()[:150])


def limits_of(user: User) -> list[str]:
    """The bots that an administrator limited ``user`` to; empty: none."""
    return sorted(user.bot_limits.values_list("account", flat=True))


def why_limited(user: type_of_user) -> str:
    """Why ``user`` may not see what is about all bots, as a sentence for them; empty where they may."""
    accounts = scope(user).accounts
    if accounts is None:
        return ""
    return (
        f"This is about all bots, and your account is limited to {', '.join(sorted(accounts))}. Ask an administrator."
    )


# -- borders ----


def requires(act: Act) -> Callable[[Any], Any]:
    """Decorator of a view, synchronous or not: others than those who may do ``act`` get the page for 403, and why."""

    def decorate(view: Any) -> Any:
        guarded = user_passes_test(partial(_must_be_allowed, act=act))(view)
        guarded.act = act
        return guarded

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a page asks of who opens it."""

    act: Act
    all_bots: bool  # it is closed to those who are limited to some


#: By the names of the pages: a list has hundreds of links, and resolving an address takes longer than writing it.
_asked: dict[str, Asked] = {}


def asked_of(url_name: str, url: str) -> Asked:
    """What the pages of this name ask for; ``url`` is one of their addresses."""
    if url_name not in _asked:
        found = resolve(url)
        all_bots = "admin" in found.app_names or getattr(found.func, "is_about_all_bots", False)
        _asked[url_name] = Asked(act=getattr(found.func, "act", Act.READ), all_bots=all_bots)
    return _asked[url_name]


def demand(user: type_of_user, act: Act) -> None:
    """For one branch of a view.

    Raises:
        PermissionDenied: ``user`` may not do ``act``; says which role is needed.
    """
    if reason := why_not(user, act):
        raise PermissionDenied(reason)


def _must_be_allowed(user: AbstractBaseUser | AnonymousUser, *, act: Act) -> bool:
    demand(user, act)
    return True


def all_bots(view: Any) -> Any:
    """Decorator of a view about all bots at once: who is limited to some gets the page for 403, and why.

    Put it below ``requires``, so that everybody else is told of the role first.
    """
    guarded = user_passes_test(_must_see_all)(view)
    guarded.is_about_all_bots = True
    return guarded


def demand_all_bots(user: type_of_user) -> None:
    """For a view of something that may be theirs, and an act that reaches further.

    Raises:
        PermissionDenied: ``user`` is limited to some bots.
    """
    if reason := why_limited(user):
        raise PermissionDenied(reason)


def _must_see_all(user: AbstractBaseUser | AnonymousUser) -> bool:
    if reason := why_limited(user):
        raise PermissionDenied(reason)
    return True


#: A view for everybody who may see the staff site.
staff_only = requires(Act.READ)


async def staff_behind(socket: Mapping[str, Any], act: Act = Act.READ) -> User | None:
    """The member of staff behind a websocket who may do ``act``, as the database says now; their ``scope`` is read too.

    None after sign-out or loss of the right: the socket's own scope remembers how things were when it was opened.
    """
    return await database_sync_to_async(_staff_behind)(socket["session"].session_key, act)


def _staff_behind(session_key: str, act: Act) -> User | None:
    """All of it at once: hundreds of open pages ask, and each change of the thread costs more than a query."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    if not isinstance(user, User) or not may(user, act) or second_factor.is_missing(user, request.session):
        return None
    scope(user)
    return user
