"""Credentials at rest can be opened by their site alone, and are shown to nobody."""

from __future__ import annotations

import pytest

from botsrt.core import redact
from botsrt.core.credentials import Vault
from botsrt.core.errors import CredentialError

TOKEN = "123456:a-token-that-nobody-may-see"


def test_a_sealed_credential_opens_again():
    vault = Vault(["key"])
    assert vault.open("token", vault.seal(TOKEN)) == TOKEN


def test_what_is_stored_does_not_show_the_secret():
    stored = Vault(["key"]).seal(TOKEN)
    assert TOKEN not in stored
    assert stored != Vault(["key"]).seal(TOKEN)  # nor that two bots have the same one


def test_a_reference_is_stored_as_it_is_and_read_when_opened(monkeypatch):
    vault = Vault(["key"])
    stored = vault.seal("env:SHOP_TOKEN")
    assert stored == "env:SHOP_TOKEN"
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    assert vault.open("token", stored) == TOKEN
    monkeypatch.setenv("SHOP_TOKEN", "another")
    assert vault.open("token", stored) == "another"


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("SHOP_TOKEN", value)
    with pytest.raises(CredentialError, match=r"token: the environment variable SHOP_TOKEN is not set"):
        Vault(["key"]).open("token", "env:SHOP_TOKEN")


def test_an_earlier_key_still_opens_and_the_newest_seals():
    stored = Vault(["old"]).seal(TOKEN)
    rotated = Vault(["new", "old"])
    assert rotated.open("token", stored) == TOKEN
    assert Vault(["new"]).open("token", rotated.seal(TOKEN)) == TOKEN


@pytest.mark.parametrize("stored", [Vault(["old"]).seal(TOKEN), "fernet:", "fernet:nonsense", "plain text", "fernet:é"])
def test_what_cannot_be_opened_says_what_to_do_and_not_what_it_was(stored):
    with pytest.raises(CredentialError, match=r"token: cannot be decrypted.*SECRET_KEY_FALLBACKS") as caught:
        Vault(["new"]).open("token", stored)
    assert TOKEN not in str(caught.value)
    assert Vault(["new"]).hint("token", stored) == "unreadable"


def test_a_hint_shows_the_last_four_characters_of_a_long_secret_only():
    vault = Vault(["key"])
    assert vault.hint("token", vault.seal(TOKEN)) == "…-see"
    assert vault.hint("token", vault.seal("short")) == "set"
    assert vault.hint("token", "env:SHOP_TOKEN") == "env:SHOP_TOKEN"


def test_an_opened_secret_is_masked_from_then_on():
    vault = Vault(["key"])
    secret = "no shape at all, only words"
    assert redact.redact(f"failed with {secret}") == f"failed with {secret}"
    vault.open("token", vault.seal(secret))
    assert redact.redact(f"failed with {secret}") == "failed with [secret]"


def test_keys_of_any_length_and_script_work():
    for key in ("k", "x" * 10_000, "ключ"):
        assert Vault([key]).open("token", Vault([key]).seal("ünïcode 😀")) == "ünïcode 😀"
