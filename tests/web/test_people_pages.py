"""Conversations in the browser: the list, a person's timeline over all platforms, answers, notes, takeovers, links."""

from __future__ import annotations

import re
import uuid
from html import unescape
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone

from botsrt.core.states import EntryState, Handler, HistoryKind, Proof
from botsrt.models import AuditEvent, BotSession, Contact, HistoryMessage, IdentityLink, JournalEntry, OutboxMessage
from botsrt.services import handling, identity, mirror
from tests.factories import ALICE, NOW, a_bot, a_group_message, a_message, answered, received, send_all
from tests.web.conftest import confirmed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _two_bots(transactional_db: None) -> None:
    a_bot()
    a_bot("desk", platform="slack")


def shown(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, response.content.decode()[-500:]
    return response.content.decode()


def session(session_id: str = "bot_web_user-1") -> BotSession:
    return BotSession.objects.get(session_id=session_id)


def path(session_id: str = "bot_web_user-1", rest: str = "") -> str:
    return f"/people/{session(session_id).pk}/{rest}"


def on_slack(text: str = "And here?", **fields: object) -> JournalEntry:
    return answered(a_message(text, platform="slack", account="desk", user_id="U1", **fields), "Here too.")  # type: ignore[arg-type]


def link(user_id: str, platform: str = "web", person: str = "ada") -> None:
    identity.link(
        platform=platform,
        user_id=user_id,
        unified_user_id=person,
        proof=Proof.STAFF,
        actor=ALICE,
        reason="one human",
        now=timezone.now(),
    )


# -- the list ----


def test_nobody_has_written_yet(staff_client):
    assert "Nobody has written yet." in shown(staff_client, "/people/")
    assert "Nobody waits for us." in shown(staff_client, "/people/?tab=waiting")


def test_the_list_has_a_row_for_each_person_and_not_for_each_session(staff_client):
    answered(a_message("Hello", display_name="Ada L."))
    on_slack()
    answered(a_group_message("Hi all", chat_name="The room"))
    text = shown(staff_client, "/people/")
    assert text.count('class="row talk"') == 3
    link("user-1")
    link("U1", "slack")
    text = shown(staff_client, "/people/")
    assert text.count('class="row talk"') == 2
    assert ">ada<" in text
    assert "The room" in text


def test_tabs_show_who_waits_and_who_is_with_a_human(staff_client):
    answered("Hello")
    received(a_message("Anybody?", user_id="user-2", channel_id="chat-2"))
    assert "user-2" in shown(staff_client, "/people/?tab=waiting")
    assert "user-1" not in shown(staff_client, "/people/?tab=waiting").split("</nav>", 2)[2]
    handling.hand_to(session_id="bot_web_user-1", handler=Handler.HUMAN, actor=ALICE, now=NOW)
    assert "user-1" in shown(staff_client, "/people/?tab=human")


def test_words_find_messages_and_lead_to_their_place(staff_client):
    answered("Where is my order 4711?")
    text = shown(staff_client, "/people/?q=order+4711")
    said = HistoryMessage.objects.get(text__contains="4711")
    place = f"/people/{said.session_id}/?at={said.pk}&amp;q=order%204711#said-{said.pk}"
    assert place in text
    assert "<mark>order</mark> <mark>4711</mark>?" in text
    there = shown(staff_client, unescape(place))
    assert "is-wanted" in there
    assert "<mark>order</mark>" in there
    assert 'href="/people/?q=order+4711">Back to what was found' in there
    assert "Nothing matches." in shown(staff_client, "/people/?q=nothing-like-it")


def test_tokens_filter(staff_client):
    answered(a_message("Hello", display_name="Ada L."))
    on_slack()
    assert shown(staff_client, "/people/?q=platform:slack").count('class="row talk"') == 1
    assert shown(staff_client, "/people/?q=from:Ada").count('class="row talk"') == 1
    assert shown(staff_client, "/people/?q=order+has:note").count('class="row talk"') == 0
    assert shown(staff_client, "/people/?q=before:2026-01-01").count('class="row talk"') == 0


def test_tokens_about_messages_find_messages_without_words_too(staff_client):
    answered("Hello", "Look at https://example.org/sizes")
    handling.note(session_id="bot_web_user-1", text="Careful.", actor=ALICE, now=NOW)
    for query, found in {
        "kind:user": ["Hello"],
        "kind:note": ["Careful."],
        "kind:user kind:note": ["Careful.", "Hello"],
        "has:link": ["Look at https://example.org/sizes"],
        "kind:bot has:attachment": [],
        "kind:bot before:2026-01-01": [],
    }.items():
        text = shown(staff_client, f"/people/?q={quote(query)}")
        rows = re.findall(r'<span class="row-words" dir="auto">(?:<span class="quiet">we: </span>)?(.*?)</span>', text)
        assert rows == found, query


def test_a_token_that_there_is_not_is_said_and_nothing_of_the_query_is_lost(staff_client):
    answered("Hello")
    text = shown(staff_client, "/people/?q=platfrom:web+hello+from:user-1")
    assert "There is no filter platfrom: here, only platform:, bot:, from:, kind:, has:, before:." in text
    assert 'value="from:user-1 platfrom:web hello"' in text
    assert "hit-" not in text


# -- the timeline ----


def test_one_person_is_one_page_over_all_platforms_with_every_kind_of_message(staff_client):
    answered("Hello <script>", "Hi")
    on_slack()
    link("user-1")
    link("U1", "slack")
    mirror.append(user_id="ada", text="Standup soon.", source_label="cron", now=timezone.now())
    handling.note(session_id="bot_web_user-1", text="Careful.", actor=ALICE, now=timezone.now())
    received("Still waiting")
    text = shown(staff_client, path())
    for part in ("Hello &lt;script&gt;", "And here?", "mirror: cron", "note of alice", "Still waiting", "pending"):
        assert part in text
    assert "was linked to ada by alice, asserted by staff." in text
    assert "<script>" not in text.split("</head>")[1]
    only = shown(staff_client, path() + "?platform=slack")
    assert "And here?" in only
    assert "Hello &lt;script" not in only


def test_a_long_conversation_is_read_in_pages(staff_client, django_assert_max_num_queries):
    answered("The first")
    row = session()
    HistoryMessage.objects.bulk_create(
        HistoryMessage(session=row, role="user", kind=HistoryKind.CHAT, text=f"line {number}", created_at=NOW)
        for number in range(300)
    )
    with django_assert_max_num_queries(25):
        text = shown(staff_client, path())
    assert "line 299" in text
    assert "line 200<" not in text
    earlier = text.split('class="earlier"><a href="')[1].split('"')[0]
    assert "line 249<" in shown(staff_client, earlier)
    wanted = HistoryMessage.objects.get(text="line 100")
    assert "line 100<" in shown(staff_client, path() + f"?at={wanted.pk}")


def test_a_conversation_that_is_gone_is_a_page(staff_client):
    shown(staff_client, "/people/4711/", 404)


# -- what staff say ----


def post(client: Client, rest: str, **fields: object):
    return client.post(path(rest=rest), fields, follow=True)


def test_a_reply_goes_out_as_staff_on_the_route_that_the_page_shows(staff_client):
    answered("Hello", "Hi")
    assert "via shop, chat chat-1" in shown(staff_client, path())
    seen = JournalEntry.objects.latest("id").pk
    response = post(staff_client, "reply/", text="I am human.", key=uuid.uuid4(), seen=seen)
    assert "Your reply is on its way." in response.content.decode()
    assert list(OutboxMessage.objects.order_by("id").values_list("text", "source")) == [
        ("Hi", "reply"),
        ("I am human.", "staff"),
    ]
    assert "alice, staff" in shown(staff_client, path())


def test_a_reply_that_missed_a_newer_message_stays_in_the_form(staff_client):
    seen = answered("Hello").pk
    received("Wait!")
    response = post(staff_client, "reply/", text="My long answer", key=uuid.uuid4(), seen=seen)
    assert response.status_code == 409
    assert "A newer message came" in response.content.decode()
    assert "My long answer</textarea>" in response.content.decode()
    assert OutboxMessage.objects.filter(source="staff").count() == 0


def test_the_same_form_twice_is_one_reply(staff_client):
    answered("Hello")
    key = uuid.uuid4()
    for _ in range(2):
        response = post(staff_client, "reply/", text="Once", key=key, seen=0)
    assert "This reply was sent already." in response.content.decode()
    assert OutboxMessage.objects.filter(source="staff").count() == 1


def test_a_note_is_kept_and_never_sent(staff_client):
    answered("Hello", "Hi")
    post(staff_client, "note/", note="Only for us.")
    assert "Only for us." in shown(staff_client, path())
    assert send_all() == ["Hi"]


def test_taking_over_and_handing_back(staff_client):
    answered("Hello")
    assert "an answer that it is writing is not sent" in shown(staff_client, path(rest="hand-to/human/"))
    post(staff_client, "hand-to/human/", reason="")
    assert session().handler == Handler.HUMAN
    late = staff_client.post(path(rest="hand-to/human/"), {"reason": ""})
    assert late.status_code == 409
    assert "with a human already, by alice" in late.content.decode()
    waiting = received("Are you there?")
    post(staff_client, "reply/", text="Yes.", key=uuid.uuid4(), seen=0)
    waiting.refresh_from_db()
    assert waiting.state == EntryState.COMPLETED
    post(staff_client, "hand-to/bot/", reason="")
    assert session().handler == Handler.BOT
    shown(staff_client, path(rest="hand-to/nobody/"), 404)


# -- who is who ----


def test_the_wizard_shows_what_is_joined_and_the_timeline_takes_it_back(staff_client):
    answered("Hello")
    on_slack()
    link("U1", "slack")
    contact = Contact.objects.get(platform_user_id="user-1")
    wizard = f"/people/contacts/{contact.pk}/link/"
    text = shown(staff_client, f"{wizard}?person=ada")
    assert "<strong>2</strong> more messages of ada" in text
    assert "And here?" in text
    refused = staff_client.post(wizard, {"person": "ada", "reason": ""})
    assert refused.status_code == 400
    staff_client.post(wizard, {"person": "ada", "reason": "she told me", "back": path()})
    assert session().lane == "person:ada"
    assert f"/people/contacts/{contact.pk}/unlink/" in shown(staff_client, path())
    staff_client.post(f"/people/contacts/{contact.pk}/unlink/", {"reason": "a mistake"})
    assert session().lane == "bot_web_user-1"
    assert IdentityLink.objects.get(contact=contact).unlink_reason == "a mistake"


@pytest.mark.parametrize("person", ["Ada Lovelace!", "bot_x", "../etc"])
def test_an_unusable_person_is_explained(staff_client, person):
    answered("Hello")
    contact = Contact.objects.get()
    response = staff_client.get(f"/people/contacts/{contact.pk}/link/", {"person": person})
    assert response.status_code == 400
    assert not IdentityLink.objects.exists()


def test_an_export_is_a_file_and_is_audited(staff_client):
    answered("Hello", "Hi")
    confirmed(staff_client)
    response = staff_client.post(path(rest="export/"), {"file_format": "csv", "reason": "asked for"})
    assert response["Content-Disposition"].endswith('.csv"')
    assert b"Hello" in b"".join(response.streaming_content)
    assert AuditEvent.objects.filter(verb="sessions.export", reason="asked for").exists()
    assert staff_client.post(path(rest="export/"), {"file_format": "pdf"}).status_code == 400
