"""``manage.py accounts``: who may sign in, with which role; and help for those who cannot."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from axes.utils import reset as forget
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.utils import timezone

from botsrt.core.errors import Conflict, InvalidInput, NotFound
from botsrt.management import cli
from botsrt.models import Bot
from botsrt.services import audit
from praisonweb.dashboard import access, second_factor
from praisonweb.dashboard.access import Role


class Command(cli.VerbCommand):
    help = "Look at logins; give roles; let somebody in who is locked out or has lost the phone."

    def add_verbs(self, add: Callable[..., ArgumentParser]) -> None:
        add("list", "Logins with their roles.", prints_data=True)
        verb = add("role", "Give a login a role, and take its other roles away.")
        verb.add_argument("name")
        verb.add_argument("role", choices=list(Role))
        verb = add("limit", "Limit a login to some bots: the others are, for it, not there.")
        verb.add_argument("name")
        verb.add_argument("--bots", required=True, metavar="NAMES", help="their names, joined by commas; or: all")
        verb = add("reset", "Take a login's second factor away: its password alone signs it in.")
        verb.add_argument("name")
        verb.add_argument("--reason", required=True, help="why; kept in the audit")
        add("unlock", "Forget a login's wrong passwords.").add_argument("name")

    def do_list(self, options: dict[str, Any]) -> None:
        users = User.objects.prefetch_related("groups", "bot_limits").order_by("username")
        self.table(options, [_row(user) for user in users], empty="No logins.", whole=("name",))

    def do_role(self, options: dict[str, Any]) -> None:
        with transaction.atomic():
            user = _user(options["name"])
            before = sorted(user.groups.values_list("name", flat=True))
            roles = Group.objects.filter(name__in=list(Role))
            user.groups.remove(*roles.exclude(name=options["role"]))
            user.groups.add(roles.get(name=options["role"]))
            User.objects.filter(pk=user.pk).update(is_staff=True)
            audit.record(
                actor=cli.actor(),
                verb="users.change",
                object_kind="user",
                object_id=user,
                before={"is_staff": user.is_staff, "roles": before},
                after={"is_staff": True, "roles": sorted(user.groups.values_list("name", flat=True))},
                now=timezone.now(),
            )
        self.say(f"{user}: {options['role']}.")

    def do_limit(self, options: dict[str, Any]) -> None:
        names = [] if options["bots"] == _ALL else _bots(options["bots"])
        with transaction.atomic():
            user = _user(options["name"])
            if names and access.may(user, access.Act.USERS):
                raise Conflict(f"{user} may manage users, and so sees all bots; give another role first.")
            before = access.limits_of(user)
            user.bot_limits.exclude(account__in=names).delete()
            for name in sorted(set(names) - set(before)):
                user.bot_limits.create(account=name)
            audit.record(
                actor=cli.actor(),
                verb="users.change",
                object_kind="user",
                object_id=user,
                before={"bots": before or _ALL},
                after={"bots": access.limits_of(user) or _ALL},
                now=timezone.now(),
            )
        self.say(f"{user}: {', '.join(names) if names else 'all bots'}.")

    def do_reset(self, options: dict[str, Any]) -> None:
        user = _user(options["name"])
        if not second_factor.turn_off(user=user, actor=cli.actor(), reason=options["reason"], now=timezone.now()):
            raise Conflict(f"{user} has no second factor.")
        self.say(f"{user}: signs in with the password alone.")

    def do_unlock(self, options: dict[str, Any]) -> None:
        user = _user(options["name"])
        with transaction.atomic():
            count = forget(username=user.get_username())
            if count:
                audit.record(
                    actor=cli.actor(), verb="account.unlock", object_kind="user", object_id=user, now=timezone.now()
                )
        self.say(f"{user}: {'may try again.' if count else 'nothing to forget.'}")


#: Instead of names: no limit.
_ALL = "all"


def _bots(text: str) -> list[str]:
    """The bots that ``text`` names."""
    names = list(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    if not names:
        raise InvalidInput("bots", "name at least one bot, or say: all")
    known = set(Bot.objects.filter(account__in=names).values_list("account", flat=True))
    if unknown := [name for name in names if name not in known]:
        raise NotFound(f"There is no bot {', '.join(unknown)}; see: bots list")
    return names


def _user(name: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is None:
        raise NotFound(f"There is no login {name}.")
    return user


def _row(user: User) -> dict[str, Any]:
    roles = ", ".join(sorted(group.name for group in user.groups.all()))
    return {
        "name": user.get_username(),
        "roles": "superuser" if user.is_superuser else roles,
        "bots": ", ".join(sorted(limit.account for limit in user.bot_limits.all())) or _ALL,
        "staff": user.is_staff,
        "active": user.is_active,
        "second_factor": second_factor.is_on(user),
        "last_sign_in": user.last_login,
    }
