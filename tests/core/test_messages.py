"""What is an ``InboundMessage`` can be stored as it is, and comes back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.errors import UnreadableUpdate
from botsrt.core.messages import MAX_ID_CHARS, MAX_NAME_CHARS, Attachment, InboundMessage, Sender
from botsrt.core.states import ChatType, EventKind
from tests.factories import a_message

ids = st.text(st.characters(), min_size=1, max_size=MAX_ID_CHARS)
anything = st.text(st.characters(), max_size=400)
messages = st.builds(
    InboundMessage,
    platform=st.just("web"),
    account=st.just("shop"),
    channel_id=ids,
    message_id=ids,
    sender=st.builds(Sender, user_id=ids, user_name=anything, display_name=anything),
    text=anything,
    revision=st.text(max_size=MAX_ID_CHARS),
    thread_id=st.text(max_size=MAX_ID_CHARS),
    reply_to=st.text(max_size=MAX_ID_CHARS),
    kind=st.sampled_from(EventKind),
    chat_type=st.sampled_from(ChatType),
    chat_name=anything,
    is_mentioned=st.booleans(),
    attachments=st.lists(
        st.builds(Attachment, kind=st.text(), reference=st.text(), size_bytes=st.none() | st.integers()), max_size=3
    ).map(tuple),
    sent_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(messages)
def test_a_message_comes_back_from_its_payload_as_it_was(message):
    stored = json.loads(json.dumps(message.to_payload()))
    assert InboundMessage.from_payload(stored) == message


@given(messages)
def test_whatever_a_platform_sends_can_be_encoded_and_has_no_nul(message):
    encoded = json.dumps(message.to_payload(), ensure_ascii=False).encode()
    assert b"\\u0000" not in encoded


def test_nul_and_lone_surrogates_become_replacement_characters():
    message = a_message("a\x00b\ud83dc", channel_id="c\x00", user_id="u\ud800", display_name="n\x00")
    assert message.text == "a�b�c"
    assert message.channel_id == "c�"
    assert message.sender == Sender(user_id="u�", display_name="n�")


def test_an_emoji_is_no_lone_surrogate():
    assert a_message("😀").text == "😀"


@pytest.mark.parametrize("name", ["channel_id", "message_id", "user_id"])
def test_an_id_that_is_missing_is_refused_by_name(name):
    with pytest.raises(UnreadableUpdate, match=rf"{name} is empty"):
        a_message(**{name: ""})


@pytest.mark.parametrize("name", ["channel_id", "message_id", "user_id", "revision", "thread_id", "reply_to"])
def test_an_id_that_is_too_long_is_refused_never_cut(name):
    a_message(**{name: "x" * MAX_ID_CHARS})
    with pytest.raises(UnreadableUpdate, match=rf"{name} has 201 characters; 200 are possible"):
        a_message(**{name: "x" * (MAX_ID_CHARS + 1)})


def test_a_name_that_is_too_long_is_cut_never_refused():
    message = a_message(user_name="u" * 999, display_name="d" * 999, chat_name="c" * 999)
    assert len(message.sender.user_name) == len(message.sender.display_name) == MAX_NAME_CHARS
    assert len(message.chat_name) == MAX_NAME_CHARS


def test_the_answer_goes_where_the_message_came_from():
    route = a_message(channel_id="c", thread_id="t", reply_to="m").route
    assert (route.channel_id, route.thread_id, route.reply_to) == ("c", "t", "m")


def test_the_raw_update_is_no_part_of_the_payload_nor_of_logs():
    message = replace(a_message(), raw={"token": "hidden"})
    assert "raw" not in message.to_payload()
    assert "hidden" not in repr(message)


def test_a_time_keeps_its_zone():
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert InboundMessage.from_payload(a_message(sent_at=at).to_payload()).sent_at == at


def test_a_payload_of_another_version_is_still_read():
    payload = a_message("Hello", attachments=(Attachment(kind="photo", reference="r"),)).to_payload()
    newer = {**payload, "mood": "good", "sender": {**payload["sender"], "age": 7}}
    newer["attachments"] = [{**payload["attachments"][0], "colour": "blue"}]
    older = {name: payload[name] for name in ("platform", "account", "channel_id", "message_id", "sender", "text")}

    assert InboundMessage.from_payload(newer) == InboundMessage.from_payload(payload)
    assert InboundMessage.from_payload(older).text == "Hello"
    assert InboundMessage.from_payload(older).attachments == ()


@pytest.mark.parametrize("payload", [{}, {"sender": None}, {"sender": {"user_id": ""}}, {"kind": "nonsense"}])
def test_a_payload_that_is_no_message_is_unreadable(payload):
    whole = {} if not payload else a_message().to_payload() | payload
    with pytest.raises(UnreadableUpdate):
        InboundMessage.from_payload(whole)
