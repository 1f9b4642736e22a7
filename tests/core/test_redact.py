"""Secrets reach neither logs nor tables, whatever carries them."""

from __future__ import annotations

import logging

import pytest

from botsrt.core import redact
from botsrt.core.redact import MASK, RedactingFormatter, redacted_traceback

TELEGRAM = "123456789:AAF-abcdefghijklmnopqrstuvwxyz01234"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {TELEGRAM} refused", f"token {MASK} refused"),
        ("xoxb-1234567890-abcdefghij", MASK),
        ("xapp-1-A0123-456-abcdef", MASK),
        ("key sk-proj-abcdefghijklmnopqrstuv was refused", f"key {MASK} was refused"),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: Bearer {MASK}"),
        ("postgres://user:hunter2@db.example.org/x", f"postgres://{MASK}@db.example.org/x"),
    ],
)
def test_tokens_are_known_by_their_shape(text, expected):
    assert redact.redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The meeting is at 12:30, order 123456 costs 7:3.",
        "https://example.org/path?q=1#x",
        "mail ann@example.org",
        "10.0.0.1:8080",
        "Bearer of bad news",
        "",
    ],
)
def test_ordinary_text_stays(text):
    assert redact.redact(text) == text


def test_a_loaded_credential_is_masked_wherever_it_stands():
    redact.remember("plain-words-secret")
    assert redact.redact("a plain-words-secret, twice: xplain-words-secretx") == f"a {MASK}, twice: x{MASK}x"


def test_a_secret_within_another_does_not_leave_the_rest_of_it():
    redact.remember("abcdefgh")
    redact.remember("abcdefgh-and-more")
    assert redact.redact("abcdefgh-and-more") == MASK


def test_a_short_credential_does_not_shred_ordinary_text():
    redact.remember("test")
    assert redact.redact("this is a test") == "this is a test"


def failure(text: str) -> BaseException:
    try:
        try:
            raise ValueError(text)
        except ValueError as cause:
            raise RuntimeError(f"wrapped {text}") from cause
    except RuntimeError as error:
        return error


def test_a_traceback_has_no_secret_in_its_causes_either():
    text = redacted_traceback(failure(TELEGRAM))
    assert "ValueError" in text
    assert TELEGRAM not in text


def test_of_a_long_traceback_the_end_is_kept():
    text = redacted_traceback(failure("x" * 50_000), max_chars=100)
    assert len(text) == 100
    assert text.endswith("x\n")


def test_the_formatter_masks_message_arguments_and_exceptions():
    formatter = RedactingFormatter("{levelname} {message}", style="{")
    error = failure(TELEGRAM)
    record = logging.LogRecord(
        "x", logging.ERROR, "f.py", 1, "calling %s", (f"https://host/{TELEGRAM}/x",), (type(error), error, None)
    )
    line = formatter.format(record)
    assert TELEGRAM not in line
    assert f"ERROR calling https://host/{MASK}/x" in line
    assert "RuntimeError" in line


def test_a_token_in_the_path_of_a_url_is_masked_though_nobody_loaded_it():
    assert redact.redact(f"POST https://host/bot{TELEGRAM}/getMe") == f"POST https://host/bot{MASK}/getMe"
    assert TELEGRAM[10:] not in redact.redact(f"https://host/bot{TELEGRAM.replace(':', '%3A')}/getMe")


def test_a_loaded_credential_is_masked_in_its_url_form_too():
    redact.remember("pass/word with spaces")
    assert redact.redact("https://host/?q=pass%2Fword%20with%20spaces&x=1") == f"https://host/?q={MASK}&x=1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:hunter2@cache:6379/0", f"redis://{MASK}@cache:6379/0"),
        ("GET /hook?access_token=abc123&x=1", f"GET /hook?access_token={MASK}&x=1"),
        ("https://host/?a=1&token=abc123", f"https://host/?a=1&token={MASK}"),
        ("https://hooks.slack.com/services/T000/B000/abcDEF123", f"https://hooks.slack.com/services/{MASK}"),
        ("authorization: bearer abcdef0123456789", f"authorization: bearer {MASK}"),
        ("Bot MTAwMDAwMDAwMDAwMDAwMDAw.GaBcDe." + 38 * "x" + " was", f"Bot {MASK} was"),
    ],
)
def test_secrets_in_urls_and_headers_are_masked(text, expected):
    assert redact.redact(text) == expected
