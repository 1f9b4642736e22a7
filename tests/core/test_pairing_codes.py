"""Pairing codes: readable, unpredictable without the key, and good for one bot and one contact only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botsrt.core.pairing_codes import ALPHABET, LENGTH, Codes, new_nonce, normalised, words_like_codes

codes = Codes("a secret key")


def bound(nonce: str, account: str = "shop", contact_id: int = 1) -> str:
    return codes.bind(codes.seal(codes.of(nonce)), account=account, contact_id=contact_id)


def test_a_code_has_eight_characters_that_nobody_mistakes_for_another():
    assert len(ALPHABET) == 32
    assert not set("IO01") & set(ALPHABET)
    code = codes.of(new_nonce())
    assert len(code) == LENGTH == 8
    assert set(code) <= set(ALPHABET)


def test_the_same_nonce_gives_the_same_code_and_another_key_another_one():
    nonce = new_nonce()
    assert codes.of(nonce) == codes.of(nonce)
    assert codes.of(nonce) != Codes("another key").of(nonce)
    assert len({codes.of(new_nonce()) for _ in range(1_000)}) == 1_000


def test_a_code_fits_its_own_bot_and_contact_alone():
    nonce = new_nonce()
    sealed = codes.seal(codes.of(nonce))
    assert codes.fits(sealed, account="shop", contact_id=1, bound=bound(nonce))
    assert not codes.fits(sealed, account="desk", contact_id=1, bound=bound(nonce))
    assert not codes.fits(sealed, account="shop", contact_id=2, bound=bound(nonce))
    assert not codes.fits(codes.seal("AAAAAAAA"), account="shop", contact_id=1, bound=bound(nonce))
    assert not Codes("another key").fits(sealed, account="shop", contact_id=1, bound=bound(nonce))


def test_what_is_stored_does_not_contain_the_code():
    nonce = new_nonce()
    assert codes.of(nonce).lower() not in (codes.seal(codes.of(nonce)) + bound(nonce)).lower()


@given(st.text())
def test_whatever_is_typed_is_a_code_or_nothing(text):
    code = normalised(text)
    assert code is None or (len(code) == LENGTH and set(code) <= set(ALPHABET))


@pytest.mark.parametrize("typed", ["ABCD2345", "abcd2345", " ABCD-2345 ", "ab cd 23 45"])
def test_people_type_codes_as_they_like(typed):
    assert normalised(typed) == "ABCD2345"


@pytest.mark.parametrize("typed", ["", "ABCD234", "ABCD23456", "ABCD2340", "ABCDI345", "ÀBCD2345"])
def test_what_cannot_be_a_code(typed):
    assert normalised(typed) is None


def test_codes_are_seen_in_sentences():
    assert words_like_codes("my code is abcd2345, or ABCD-2345? EFGH6789.") == ["abcd2345", "EFGH6789"]
    assert words_like_codes("ABCD23456 xABCD2345") == []
