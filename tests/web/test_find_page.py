"""Finding anything by a few letters: as a page, and as what the palette shows."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone

from botsrt.core.states import Proof, UnknownUserPolicy
from botsrt.models import Bot, BotSession
from botsrt.services import identity
from praisonweb.dashboard.access import Role
from praisonweb.dashboard.queries import find
from tests.factories import ALICE, a_bot, a_group_message, a_message, asks, received
from tests.web.acting import HARMLESS, HOSTILE, read
from tests.web.conftest import a_user

pytestmark = pytest.mark.django_db(transaction=True)


def found(client: Client, text: str, **options: Any) -> dict[str, str]:
    """What is found, by its label: where it leads."""
    html = read(client, f"/find/?q={quote(text)}", **options)
    part = html.split("<main")[-1]
    rows = re.findall(
        r'<a class="find-one"[^>]*? href="([^"]+)">.*?<span class="find-label">(.*?)</span>', part, re.DOTALL
    )
    return {unescape(label): unescape(url) for url, label in rows}


def as_(role: Role) -> Client:
    client = Client()
    client.force_login(a_user(role.value, role))
    return client


def test_without_text_it_shows_every_page_of_the_navigation(staff_client: Client) -> None:
    html = read(staff_client, "/find/")
    nav = re.findall(r'data-go="[^"]+"><svg.*?</svg><span>(.*?)</span>', html, re.DOTALL)
    assert len(nav) > 10
    assert set(nav) <= set(found(staff_client, ""))


def test_the_help_has_the_keys_of_every_page_of_the_navigation(staff_client: Client) -> None:
    html = read(staff_client, "/")
    keys = re.findall(r'data-go="(g \w)"', html)
    assert len(keys) > 10
    assert [pair for pair in keys if " ".join(f"<kbd>{key}</kbd>" for key in pair.split()) not in html] == []


@pytest.mark.parametrize(
    ("text", "label", "url"),
    [
        ("jour", "Journal", "/journal/"),
        ("DEAD let", "Dead letters", "/dlq/"),
        ("failures", "Dead letters", "/dlq/"),
        ("verify", "Verify a pairing code", "/pairings/verify/"),
        ("waiting", "See who waits on us", "/people/?tab=waiting"),
        ("add bot", "Add a bot", "/bots/+add/"),
        ("refund 12", "Search what was said for “refund 12”", "/people/?q=refund+12"),
    ],
)
def test_pages_and_acts_are_found_by_their_words(staff_client: Client, text: str, label: str, url: str) -> None:
    assert found(staff_client, text)[label] == url


@pytest.mark.parametrize("text", ["Ada L", "lovelace", "@ada_l", "ada_l", "4711", "countess"])
def test_a_person_is_found_by_name_handle_id_and_unified_id(staff_client: Client, bot: Bot, text: str) -> None:
    received(a_message(user_id="4711-x", user_name="ada_l", display_name="Ada Lovelace"))
    identity.link(
        platform="web",
        user_id="4711-x",
        unified_user_id="countess",
        proof=Proof.STAFF,
        actor=ALICE,
        reason="she told me",
        now=timezone.now(),
    )
    assert found(staff_client, text)["Ada Lovelace"] == f"/people/{BotSession.objects.get().pk}/"
    assert "countess · @ada_l · 4711-x" in read(staff_client, f"/find/?q={quote(text)}")


def test_a_contact_who_never_wrote_is_found_too(staff_client: Client, bot: Bot) -> None:
    received(a_message(user_id="u-9", display_name="Grace"))
    BotSession.objects.update(contact=None)
    assert found(staff_client, "Grace")["Grace"] == "/people/?q=from%3Au-9"


def test_messages_bots_groups_sessions_and_requests_are_found(staff_client: Client, transactional_db: None) -> None:
    a_bot("shop", policy=UnknownUserPolicy.PAIR)
    request = asks("stranger", "Let me in", display_name="Sam Stranger")
    entry = received(a_message(f"Hello {HOSTILE}", display_name="Ada"))
    received(a_group_message(chat_name="The kitchen"))
    assert found(staff_client, str(entry.pk))[f"Message {entry.pk}"] == f"/journal/{entry.pk}/"
    assert found(staff_client, f"#{entry.pk}")[f"Message {entry.pk}"] == f"/journal/{entry.pk}/"
    assert HARMLESS in read(staff_client, f"/find/?q={entry.pk}")
    assert found(staff_client, "sho")["shop"] == "/bots/shop/"
    assert found(staff_client, "kitch")["The kitchen"].startswith("/people/")
    assert found(staff_client, "bot_web_user-1")["bot_web_user-1"].startswith("/people/")
    assert f"/pairings/#row-{request.pk}" in read(staff_client, "/find/?q=Sam")
    assert "Message 999999" not in found(staff_client, "999999")


def test_nobody_is_offered_what_they_may_not_open(transactional_db: None) -> None:
    viewer, operator = found(as_(Role.VIEWER), ""), found(as_(Role.OPERATOR), "")
    assert "Journal" in viewer
    for label in ("Audit", "Add a bot", "Users and roles", "Verify a pairing code", "Try it"):
        assert label not in viewer
    assert "Verify a pairing code" in operator
    assert "Add a bot" not in operator
    assert "Audit" in found(as_(Role.AUDITOR), "")


def test_everything_that_is_offered_can_be_opened(staff_client: Client, bot: Bot) -> None:
    for label, url in found(staff_client, "").items():
        assert staff_client.get(url).status_code in (200, 302), label


def test_the_part_is_a_list_box(staff_client: Client, bot: Bot) -> None:
    html = read(staff_client, "/find/?q=shop", part=True)
    assert "<html" not in html
    ids = re.findall(r'role="option" aria-selected="false" tabindex="-1" id="(find-\d+-\d+)"', html)
    assert len(ids) == len(set(ids)) == html.count('class="find-one"') > 2
    assert 'data-found="shop"' in html


@pytest.mark.parametrize("text", ["", "a", "12", "ada", HOSTILE, "%", "x" * 5_000, "9" * 40, "\x00", "from:ada"])
def test_any_text_costs_a_few_queries(
    staff_client: Client, bot: Bot, text: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        received(a_message(display_name=f"Ada {number}", user_id=f"u-{number}", channel_id=f"c-{number}"))
    with django_assert_max_num_queries(11):
        html = read(staff_client, f"/find/?q={quote(text)}")
    assert "<script>alert" not in html
    assert len(found(staff_client, text)) <= len(find._PAGES) + len(find._ACTS) + 6 * 6
