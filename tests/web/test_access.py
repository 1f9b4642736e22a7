"""Roles: which come with the database, who may do what, and how one is told of what one may not."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.template import Context, Template
from django.test import AsyncRequestFactory, Client, RequestFactory

from praisonweb.dashboard import access
from praisonweb.dashboard.access import ROLES, Act, Role
from tests.web.conftest import a_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("role", Role)
def test_every_role_is_a_group_with_its_acts(db: None, role: Role) -> None:
    group = Group.objects.get(name=role)
    assert set(group.permissions.values_list("codename", flat=True)) == {act.value for act in ROLES[role]}


def test_migrating_again_repairs_the_roles_and_leaves_other_groups_alone(db: None) -> None:
    own = Group.objects.create(name="night shift")
    viewer = Group.objects.get(name=Role.VIEWER)
    viewer.permissions.clear()
    Group.objects.get(name=Role.AUDITOR).delete()
    call_command("migrate", verbosity=0)
    assert list(viewer.permissions.values_list("codename", flat=True)) == [Act.READ]
    assert Group.objects.get(name=Role.AUDITOR).permissions.count() == len(ROLES[Role.AUDITOR])
    assert not own.permissions.exists()


def test_the_only_table_is_that_of_the_limits(db: None) -> None:
    tables = [name for name in connection.introspection.table_names() if name.startswith("dashboard")]
    assert tables == ["dashboard_botlimit"]


@pytest.mark.parametrize("act", Act)
def test_every_act_belongs_to_admin(act: Act) -> None:
    assert act in ROLES[Role.ADMIN]


@pytest.mark.parametrize(("role", "is_staff", "is_active"), [(Role.ADMIN, False, True), (Role.ADMIN, True, False)])
def test_a_role_alone_is_not_enough(role: Role, is_staff: bool, is_active: bool) -> None:
    user = a_user("eve", role, is_staff=is_staff, is_active=is_active)
    assert not access.may(user, Act.READ)
    assert "not staff" in access.why_not(user, Act.READ)
    assert access.why_not(AnonymousUser(), Act.READ)


def test_a_group_of_the_site_gives_single_acts() -> None:
    user = a_user("nina")
    own = Group.objects.create(name="night shift")
    own.permissions.set(Group.objects.get(name=Role.ADMIN).permissions.filter(codename__in=[Act.READ, Act.RETRY]))
    user.groups.add(own)
    user = User.objects.get(pk=user.pk)
    assert [act for act in Act if access.may(user, act)] == [Act.READ, Act.RETRY]


def test_the_first_login_may_do_everything() -> None:
    user = User.objects.create_superuser("admin")
    assert all(access.may(user, act) for act in Act)


@pytest.mark.parametrize(
    ("roles", "act", "words"),
    [
        ((Role.VIEWER,), Act.RETRY, "To retry failed messages you need the role operator or admin; yours is viewer."),
        (
            (),
            Act.READ,
            "To see the staff site you need the role viewer or operator or auditor or admin; you have none.",
        ),
        ((Role.OPERATOR, Role.AUDITOR), Act.USERS, "the role admin; yours is auditor, operator. Ask an administrator."),
    ],
)
def test_a_refusal_names_the_role(roles: tuple[Role, ...], act: Act, words: str) -> None:
    assert words in access.why_not(a_user("vera", *roles), act)


def test_the_page_for_403_says_it(client: Client) -> None:
    client.force_login(a_user("vera", Role.VIEWER))
    response = client.get("/try/shop/")
    assert response.status_code == 403
    assert "you need the role operator or admin; yours is viewer." in response.content.decode()


async def test_coroutine_views_are_guarded_too(transactional_db: None) -> None:
    @access.requires(Act.RETRY)
    async def view(request: object) -> HttpResponse:
        return HttpResponse("done")

    async def get(user: User) -> HttpResponse:
        request = AsyncRequestFactory().get("/")

        async def auser() -> User:
            return user

        request.auser = auser
        response: HttpResponse = await view(request)
        return response

    operator, viewer = [await sync_to_async(a_user)(role.value, role) for role in (Role.OPERATOR, Role.VIEWER)]
    assert (await get(operator)).content == b"done"
    assert await access.amay(operator, Act.RETRY)
    assert not await access.amay(viewer, Act.RETRY)
    with pytest.raises(PermissionDenied, match="operator or admin"):
        await get(viewer)


def test_templates_show_denied_acts_with_the_reason() -> None:
    template = Template(
        "{% load access %}"
        '{% if user|may:"retry" %}yes{% else %}no{% endif %}|{% why_not "retry" as why %}{{ why }}|'
        '<button{% unless_allowed "retry" %}>Retry</button>'
    )
    request = RequestFactory().get("/")
    for role, expected in (
        (Role.OPERATOR, "yes||<button>Retry</button>"),
        (
            Role.VIEWER,
            "no|To retry failed messages you need the role operator or admin; yours is viewer. Ask an administrator.|"
            '<button disabled title="To retry failed messages you need the role operator or admin; yours is viewer. '
            'Ask an administrator.">Retry</button>',
        ),
    ):
        request.user = a_user(role.value, role)
        assert template.render(Context({"request": request, "user": request.user})) == expected


def test_a_template_that_names_no_act_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="dance"):
        Template('{% load access %}{{ user|may:"dance" }}').render(Context({"user": a_user("vera")}))
