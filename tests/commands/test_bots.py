"""``bots`` and ``agents``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from botsrt.models import AgentProfile, AuditEvent, Bot, JournalEntry
from tests.factories import an_agent, received

pytestmark = pytest.mark.django_db(transaction=True)
Manage = Callable[..., object]

TOKEN = "7000000001:AAF-a-telegram-token-that-is-long-enough"


def add_telegram(manage, *more: str):
    return manage("bots", "add", "shop", "--platform", "telegram", "--credential", f"token={TOKEN}", *more)


def test_a_bot_is_added_and_listed(manage) -> None:
    assert add_telegram(manage, "--policy", "allow").code == 0
    (row,) = manage("bots", "list", "--json").json
    assert (row["account"], row["platform"], row["state"], row["policy"]) == ("shop", "telegram", "stopped", "allow")


def test_strangers_are_denied_unless_said_otherwise(manage) -> None:
    add_telegram(manage)
    assert Bot.objects.get().policy == "deny"


def test_credentials_are_sealed_and_never_printed(manage) -> None:
    assert TOKEN not in add_telegram(manage).out
    assert TOKEN not in str(Bot.objects.values())
    assert TOKEN not in str(AuditEvent.objects.values())
    assert TOKEN not in manage("bots", "list", "--json").out


def test_a_variable_that_is_not_set_yet_is_a_warning(manage) -> None:
    ran = manage("bots", "add", "shop", "--platform", "telegram", "--credential", "token=env:NOT_SET_YET")
    assert ran.code == 0
    assert "NOT_SET_YET is not set" in ran.err
    assert Bot.objects.get().credentials == {"token": "env:NOT_SET_YET"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["add", "shop", "--platform", "pigeon"], "'pigeon' is not known; there are console"),
        (["add", "shop", "--platform", "telegram"], "token: missing"),
        (["add", "a b", "--platform", "web"], "account"),
        (["add", "shop", "--platform", "web", "--setting", "colour=red"], "'colour' is not known"),
        (["add", "shop", "--platform", "web", "--setting", "colour"], "not of the form NAME=VALUE"),
        (["add", "shop", "--platform", "web", "--setting", "edits=maybe"], "'maybe' is not one of answer, ignore"),
        (
            ["add", "shop", "--platform", "web", "--credential", "token=env:a b"],
            "does not name an environment variable",
        ),
        (["add", "shop", "--platform", "web", "--agent", "nobody"], "no agent nobody"),
        (["set", "nobody", "--policy", "allow"], "no bot nobody"),
        (["remove", "nobody"], "no bot nobody"),
        (["probe", "nobody"], "no bot nobody"),
    ],
)
def test_nonsense_is_refused_in_one_clear_line(manage, args: list[str], says: str) -> None:
    ran = manage("bots", *args)
    assert ran.code == 1
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert not Bot.objects.exists()


@pytest.mark.parametrize("args", [[], ["fly"], ["add"], ["add", "shop"], ["list", "--colour"]])
def test_a_wrong_call_exits_with_2(manage, args: list[str]) -> None:
    assert manage("bots", *args).code == 2


def test_an_account_is_taken_once(manage) -> None:
    add_telegram(manage)
    ran = add_telegram(manage)
    assert ran.code == 1
    assert "bots set shop" in ran.err


def test_a_change_raises_the_version_and_is_audited(manage) -> None:
    add_telegram(manage)
    assert manage("bots", "set", "shop", "--policy", "allow", "--setting", "edits=ignore").code == 0
    bot = Bot.objects.get()
    assert (bot.version, bot.policy, bot.settings) == (2, "allow", {"edits": "ignore"})
    event = AuditEvent.objects.get(verb="bots.change")
    assert event.actor.startswith("os:")
    assert (event.before["policy"], event.after["policy"]) == ("deny", "allow")


def test_a_bot_is_disabled_and_enabled(manage) -> None:
    add_telegram(manage)
    manage("bots", "disable", "shop")
    assert not Bot.objects.get().is_enabled
    manage("bots", "enable", "shop")
    assert Bot.objects.get().is_enabled


def test_a_bot_with_waiting_messages_is_not_removed(manage) -> None:
    manage("bots", "add", "shop", "--platform", "web")
    received("hello")
    ran = manage("bots", "remove", "shop")
    assert ran.code == 1
    assert "1 messages to shop still wait" in ran.err
    JournalEntry.objects.update(state="completed", outcome="silent")
    assert manage("bots", "remove", "shop").code == 0


def test_a_bot_needs_no_echo_agent_when_another_is_named(manage) -> None:
    an_agent("mine")
    assert manage("agents", "remove", "echo").code == 0
    assert manage("bots", "add", "shop", "--platform", "web", "--agent", "mine").code == 0
    ran = manage("bots", "add", "other", "--platform", "web")
    assert ran.code == 1
    assert "no agent echo" in ran.err


def test_agents_are_checked_when_added(manage) -> None:
    ran = manage("agents", "add", "mine", "--kind", "python", "--target", "no_such_module:thing")
    assert ran.code == 1
    assert "no module no_such_module" in ran.err
    assert manage("agents", "add", "mine", "--kind", "python").code == 1
    assert manage("agents", "add", "mine", "--kind", "parrot").code == 1
    assert manage("agents", "add", "mine", "--kind", "python", "--target", "tests.toys.agents:listing").code == 0
    assert {row["name"] for row in manage("agents", "list", "--json").json} == {"echo", "mine"}


def test_an_agent_in_use_is_not_removed(manage) -> None:
    an_agent("mine")
    manage("bots", "add", "shop", "--platform", "web", "--agent", "mine")
    ran = manage("agents", "remove", "mine")
    assert ran.code == 1
    assert "answers for shop" in ran.err
    manage("bots", "set", "shop", "--agent", "echo")
    assert manage("agents", "remove", "mine").code == 0


def test_a_changed_agent_has_a_new_version(manage) -> None:
    an_agent("mine")
    assert manage("agents", "set", "mine", "--setting", "prefix=> ").code == 0
    assert AgentProfile.objects.get(name="mine").version == 2
    assert manage("agents", "set", "nobody").code == 1
