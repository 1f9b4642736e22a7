"""Bots, agents, workers and the audit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from botsrt.core.states import AdapterStatus, UnknownUserPolicy
from botsrt.models import AgentProfile, AuditEvent, Bot
from botsrt.services import audit as audit_service
from botsrt.services import bots as service
from botsrt.services import workers
from botsrt.services.bots import Changes, Shape
from praisonweb.dashboard.access import Role
from tests.factories import BOB, NOW, a_bot, an_agent, received
from tests.web.acting import HARMLESS, HOSTILE, HTMX, badges, do, problem, read, rows, said, title
from tests.web.conftest import a_user, confirmed

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "123456:ABCdefGHIjklMNOpqr"


def a_telegram_bot(staff_client: Client, account: str = "tele", **fields: str) -> Bot:
    known = {"account": account, "agent": "echo", "policy": "deny", "credential:token": TOKEN, "reason": ""}
    confirmed(staff_client)
    assert do(staff_client, "/bots/+add/?platform=telegram", fields=known | fields) == f"/bots/{account}/"
    return Bot.objects.get(account=account)


# -- bots: pages ----


def test_without_a_bot_it_says_how_to_begin(staff_client: Client, transactional_db: None) -> None:
    assert "There is no bot yet." in read(staff_client, "/bots/")


def test_a_card_says_what_is_wanted_and_what_runs(staff_client: Client, bot: Bot) -> None:
    now = timezone.now()
    lease = timedelta(seconds=30)
    workers.register(worker_id="w1", host="h", pid=1, version="1", lease=lease, now=now)
    workers.lease_adapters(worker_id="w1", accounts=["shop"], lease=lease, now=now)
    workers.report_adapter(
        worker_id="w1", account="shop", state=AdapterStatus.RUNNING, identity=HOSTILE, applied_version=1, now=now
    )
    service.reconnect(account="shop", actor=BOB, now=now)
    html = read(staff_client, "/bots/")
    assert badges(html) == ["running"]
    assert "Version 2 is wanted, 1 runs" in html
    assert HARMLESS in html
    assert HARMLESS in read(staff_client, "/bots/shop/")


def test_a_bot_that_is_gone_says_so(staff_client: Client, transactional_db: None) -> None:
    confirmed(staff_client)
    for path in ("", "edit/", "credentials/", "pause/"):
        assert "There is no bot none" in read(staff_client, f"/bots/none/{path}", status=404)
    assert "There is no bot none" in problem(do(staff_client, "/bots/none/reconnect/", status=404))


def test_the_pages_cost_the_same_however_many(
    staff_client: Client, bot: Bot, django_assert_max_num_queries: Any
) -> None:
    for number in range(8):
        a_bot(f"bot-{number}")
    for path, most in (("/bots/", 3), ("/bots/shop/", 4), ("/agents/", 4), ("/workers/", 3), ("/audit/", 3)):
        with django_assert_max_num_queries(most):
            read(staff_client, path)


# -- bots: acts ----


def test_adding_begins_with_the_platform(staff_client: Client, transactional_db: None) -> None:
    html = read(staff_client, "/bots/+add/")
    assert 'href="?platform=telegram"' in html
    assert "console" not in html
    assert "On which platform" in read(staff_client, "/bots/+add/?platform=../x")
    assert 'name="credential:token"' in read(confirmed(staff_client), "/bots/+add/?platform=telegram")


def test_a_bot_is_added_with_its_secret_sealed(staff_client: Client, transactional_db: None) -> None:
    bot = a_telegram_bot(staff_client, **{"setting:group_respond": "all"})
    assert (bot.platform, bot.policy, bot.settings) == ("telegram", UnknownUserPolicy.DENY, {"group_respond": "all"})
    assert bot.credentials["token"].startswith("fernet:")
    html = read(staff_client, "/bots/tele/")
    assert "…Opqr" in html
    assert TOKEN not in html
    assert "/hooks/telegram/tele/" in html
    assert TOKEN not in str(AuditEvent.objects.get(verb="bots.add").after)


def test_a_bot_that_cannot_work_is_not_added_and_keeps_what_was_typed(
    staff_client: Client, transactional_db: None
) -> None:
    fields = {"account": "bad name!", "agent": "echo", "policy": "deny", "credential:token": TOKEN}
    html = do(confirmed(staff_client), "/bots/+add/?platform=telegram", status=400, fields=fields)
    assert "use letters, digits" in problem(html)
    assert "bad name!" in html
    assert TOKEN not in html, "A secret is never sent back."
    fields |= {"account": "ok", "setting:mode": "webhook"}
    html = do(confirmed(staff_client), "/bots/+add/?platform=telegram", status=409, fields=fields)
    assert "webhook" in problem(html)
    assert not Bot.objects.exists()


def test_a_name_that_is_taken_is_refused(staff_client: Client, bot: Bot) -> None:
    html = do(staff_client, "/bots/+add/?platform=web", status=409, account="shop", agent="echo", policy="deny")
    assert "There is a bot shop already" in problem(html)


def test_a_bot_is_not_given_credentials_before_the_password_was_confirmed(
    staff_client: Client, transactional_db: None
) -> None:
    path = "/bots/+add/?platform=telegram"
    fields = {"account": "tele", "agent": "echo", "policy": "deny", "credential:token": TOKEN, "reason": ""}
    confirm = "/account/confirm/?next=%2Fbots%2F%2Badd%2F%3Fplatform%3Dtelegram"
    assert staff_client.get(path)["Location"] == confirm
    assert do(staff_client, path, fields=fields).startswith("/account/confirm/")
    assert not Bot.objects.exists()
    assert 'name="account"' in read(staff_client, "/bots/+add/?platform=web"), "It has no credentials."
    assert do(confirmed(staff_client), path, fields=fields) == "/bots/tele/"


def test_who_may_not_set_credentials_cannot_add_a_bot_with_them(transactional_db: None) -> None:
    somebody = a_user("somebody", Role.OPERATOR)
    somebody.user_permissions.add(Permission.objects.get(codename="change_bots"))
    client = Client()
    client.force_login(somebody)
    html = read(client, "/bots/+add/?platform=telegram")
    assert "credential:" not in html
    assert "To set the credentials of bots you need the role admin" in html
    fields = {"account": "tele", "agent": "echo", "policy": "deny", "credential:token": TOKEN, "reason": ""}
    client.post("/bots/+add/?platform=telegram", fields)
    assert not Bot.objects.exclude(credentials={}).exists()


def test_a_variable_that_is_not_set_is_a_warning(staff_client: Client, transactional_db: None) -> None:
    a_telegram_bot(staff_client, **{"credential:token": "env:NO_SUCH_TOKEN"})
    assert "NO_SUCH_TOKEN is not set" in said(staff_client)[0]


def test_settings_are_edited_and_an_empty_one_is_removed(staff_client: Client, transactional_db: None) -> None:
    a_telegram_bot(staff_client, **{"setting:group_respond": "all", "setting:edits": "ignore"})
    an_agent("helper")
    html = read(staff_client, "/bots/tele/edit/")
    assert '<option value="all" selected>' in html
    do(
        staff_client,
        "/bots/tele/edit/",
        fields={
            "agent": "helper",
            "policy": "allow",
            "setting:group_respond": "",
            "setting:edits": "ignore",
            "reason": "x",
        },
    )
    bot = Bot.objects.select_related("agent").get()
    assert (bot.agent.name, bot.policy, bot.settings, bot.version) == ("helper", "allow", {"edits": "ignore"}, 2)
    assert bot.credentials["token"].startswith("fernet:"), "Credentials are not touched."
    event = AuditEvent.objects.get(verb="bots.change")
    assert (event.actor, event.reason) == ("alice", "x")


def test_a_pace_that_is_no_number_is_refused_in_words(staff_client: Client, transactional_db: None) -> None:
    a_telegram_bot(staff_client)
    for name in ("busy", "busy_ack", "debounce_ms"):
        assert f'name="setting:{name}"' in read(staff_client, "/bots/tele/edit/")
    fields = {"agent": "echo", "policy": "allow", "setting:debounce_ms": "soon", "reason": "x"}
    response = staff_client.post("/bots/tele/edit/", fields)
    assert "is not a whole number from 0 to 60,000." in response.content.decode()
    assert Bot.objects.get().settings == {}
    do(staff_client, "/bots/tele/edit/", fields=fields | {"setting:debounce_ms": "800", "setting:busy": "interrupt"})
    assert Bot.objects.get().settings == {"debounce_ms": "800", "busy": "interrupt"}


def test_credentials_are_write_only(staff_client: Client, transactional_db: None) -> None:
    bot = a_telegram_bot(staff_client)
    sealed = bot.credentials
    confirmed(staff_client)
    html = read(staff_client, "/bots/tele/credentials/")
    assert "Stored: …Opqr." in html
    assert TOKEN not in html
    do(staff_client, "/bots/tele/credentials/", fields={"credential:token": ""})
    bot.refresh_from_db()
    assert (bot.credentials, bot.version) == (sealed, 1), "Empty leaves what is stored."
    do(staff_client, "/bots/tele/credentials/", fields={"credential:token": "654321:another-token-9xyz"})
    assert "…9xyz" in read(staff_client, "/bots/tele/")


def test_an_address_that_receives_the_credentials_changes_with_them_alone(
    staff_client: Client, transactional_db: None
) -> None:
    bot = a_telegram_bot(staff_client)
    away = {"setting:api_base_url": "http://127.0.0.1:9"}
    assert "api_base_url" not in read(staff_client, "/bots/tele/edit/")
    do(staff_client, "/bots/tele/edit/", fields={"agent": "echo", "policy": "deny", "reason": "", **away})
    bot.refresh_from_db()
    assert bot.settings == {}
    staff_client.logout()
    staff_client.force_login(User.objects.get(username="alice"))
    assert do(staff_client, "/bots/tele/credentials/", fields=away).startswith("/account/confirm/")
    do(confirmed(staff_client), "/bots/tele/credentials/", fields=away)
    bot.refresh_from_db()
    assert bot.settings == {"api_base_url": "http://127.0.0.1:9"}
    assert 'value="http://127.0.0.1:9"' in read(staff_client, "/bots/tele/credentials/")


def test_pause_and_resume(staff_client: Client, bot: Bot) -> None:
    assert title(read(staff_client, "/bots/shop/pause/")) == "Pause 1 bot, shop?"
    do(staff_client, "/bots/shop/pause/", reason="holiday")
    assert badges(read(staff_client, "/bots/shop/")) == ["paused"]
    html = do(staff_client, "/bots/shop/pause/", status=409)
    assert problem(html) == "shop is paused already; a colleague may have been first."
    do(staff_client, "/bots/shop/resume/")
    assert Bot.objects.get().is_enabled


def test_reconnect_raises_the_version(staff_client: Client, bot: Bot) -> None:
    do(staff_client, "/bots/shop/reconnect/")
    assert Bot.objects.get().version == 2


def test_a_test_says_who_the_platform_says_it_is(staff_client: Client, bot: Bot) -> None:
    do(staff_client, "/bots/shop/test/")
    assert said(staff_client)[0].startswith("The platform answered: shop is ")


def test_a_test_that_fails_says_why(staff_client: Client, transactional_db: None) -> None:
    a_telegram_bot(staff_client, **{"setting:api_base_url": "http://127.0.0.1:9"})
    html = do(staff_client, "/bots/tele/test/", status=409)
    assert problem(html)
    assert TOKEN not in html


def test_a_bot_is_removed_when_nothing_waits(staff_client: Client, bot: Bot) -> None:
    received()
    html = do(staff_client, "/bots/shop/remove/", reason="closed", status=409)
    assert "1 messages to shop still wait" in problem(html)
    assert "This field is required." in do(staff_client, "/bots/shop/remove/", status=400)
    service.change(account="shop", shape=Shape(), changes=Changes(), actor=BOB, now=NOW)
    from botsrt.models import JournalEntry

    JournalEntry.objects.update(state="discarded")
    response = staff_client.post("/bots/shop/remove/", {"reason": "closed"}, headers=HTMX)
    assert response["HX-Redirect"] == "/bots/"
    assert not Bot.objects.exists()


# -- agents ----


def test_an_agent_is_added_changed_and_removed(staff_client: Client, transactional_db: None) -> None:
    assert 'href="?kind=echo"' in read(staff_client, "/agents/+add/")
    fields = {"name": "kind-one", "instructions": "Be kind.", "setting:prefix": "You: "}
    assert do(staff_client, "/agents/+add/?kind=echo", fields=fields) == "/agents/"
    assert "Be kind." in read(staff_client, "/agents/kind-one/")
    do(staff_client, "/agents/kind-one/edit/", instructions="Be brief.", fields={"setting:prefix": ""})
    agent = AgentProfile.objects.get(name="kind-one")
    assert (agent.instructions, agent.settings, agent.version) == ("Be brief.", {}, 2)
    do(staff_client, "/agents/kind-one/remove/")
    assert "There is no agent kind-one" in read(staff_client, "/agents/kind-one/", status=404)


def test_an_agent_in_use_stays(staff_client: Client, bot: Bot) -> None:
    html = read(staff_client, "/agents/echo/")
    assert "It answers for shop; give them another agent first." in html
    assert "shop" in problem(do(staff_client, "/agents/echo/remove/", status=409))


def test_an_agent_that_cannot_work_is_refused(staff_client: Client, transactional_db: None) -> None:
    html = do(
        staff_client, "/agents/+add/?kind=python", name="x", status=409, fields={"setting:target": "no.such:thing"}
    )
    assert problem(html)
    assert not AgentProfile.objects.filter(name="x").exists()


def test_hostile_instructions_are_shown_as_what_they_are(staff_client: Client, transactional_db: None) -> None:
    an_agent("helper", instructions=HOSTILE, settings={"prefix": HOSTILE})
    for path in ("/agents/", "/agents/helper/"):
        assert HARMLESS in read(staff_client, path)
        assert "<script>alert" not in read(staff_client, path)


# -- workers ----


def test_workers_live_fall_silent_or_say_goodbye(staff_client: Client, bot: Bot) -> None:
    assert "No worker runs." in read(staff_client, "/workers/")
    now = timezone.now()
    for name, beat in (("w-alive", now), ("w-silent", now - timedelta(hours=1)), ("w-stopped", now)):
        workers.register(worker_id=name, host=f"host-{name}", pid=7, version="1", lease=timedelta(seconds=30), now=beat)
    workers.beat(worker_id="w-alive", accounts=["shop"], running_turns=3, now=now)
    workers.goodbye(worker_id="w-stopped", now=now)
    html = read(staff_client, "/workers/")
    assert badges(html) == ["alive", "stopped", "silent"]
    assert 'href="/bots/shop/"' in html
    assert "<dd>3</dd>" in html


# -- audit ----


def test_the_audit_says_who_did_what_to_what_and_why(staff_client: Client, bot: Bot) -> None:
    service.change(
        account="shop",
        shape=Shape(),
        changes=Changes(policy="deny"),
        actor=BOB,
        reason="too much spam",
        now=NOW,
    )
    html = read(staff_client, "/audit/")
    for words in ("<strong>bob</strong>", "bots.change", "too much spam", ">policy</th>", "192.0.2.2"):
        assert words in html
    assert 'href="/bots/shop/"' in html

    def found(query: str) -> int:
        return read(staff_client, f"/audit/?q={query}").count('<li class="event"')

    assert found("who:bob") == found("what:bots.change") == found("SPAM") == 1
    assert found("what:bots") == found("object:bot+id:shop") == found("before:1h") == 2
    assert found("after:1h") == found("who:eve") == 0
    assert "Nothing matches." in read(staff_client, "/audit/?q=who:eve")


def test_hostile_audit_texts_are_shown_as_what_they_are(staff_client: Client, transactional_db: None) -> None:
    audit_service.record(
        actor=BOB, verb="x", object_kind=HOSTILE, object_id=HOSTILE, reason=HOSTILE, after={HOSTILE: HOSTILE}, now=NOW
    )
    html = read(staff_client, "/audit/")
    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert HARMLESS in html


def test_pages_of_the_audit_go_on(staff_client: Client, transactional_db: None) -> None:
    for number in range(53):
        audit_service.record(actor=BOB, verb="x", object_kind="journal", object_id=number, now=NOW)
    first = read(staff_client, "/audit/")
    assert first.count('<li class="event"') == 50
    further = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    assert read(staff_client, f"/audit/{further}").count('<li class="event"') == 3
    assert rows(first) == []
