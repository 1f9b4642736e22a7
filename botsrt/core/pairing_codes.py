"""Pairing codes: made from a key and a nonce, shown to one person, stored by nobody.

A code can be computed again by whoever has the site's key and the request's nonce; that is how the message that carries
it is written at the moment of sending. The database has only keyed hashes, bound to the bot and the contact.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta

#: No I, O, 0 or 1: they are mistaken for each other. Source: the features document.
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

LENGTH = 8

#: Stands in stored text where the person sees, or wrote, the code.
PLACEHOLDER = "⟨code⟩"

_SHAPE = re.compile(f"[{ALPHABET}]{{{LENGTH}}}")

#: A word of a message that may be a code; people type them in any case.
_WORD = re.compile(f"(?<![A-Za-z0-9])[{ALPHABET}{ALPHABET.lower()}]{{{LENGTH}}}(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The limits of pairing. Source of the defaults: the features document."""

    valid_for: timedelta = timedelta(minutes=60)
    resend_after: timedelta = timedelta(minutes=10)  # the code is not sent again earlier, however often they write
    max_waiting: int = 50  # requests of one bot
    refused_for: timedelta = timedelta(days=1)  # a refused contact cannot ask again earlier
    max_wrong_codes: int = 5
    wrong_codes_within: timedelta = timedelta(seconds=60)
    locked_for: timedelta = timedelta(seconds=300)


class Codes:
    """Makes and recognises codes with the site's key."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"botsrt.pairing_codes\0" + secret.encode()).digest()

    def of(self, nonce: str) -> str:
        """The code of the request that has this nonce."""
        digest = self._hmac("code", nonce)
        return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:LENGTH])  # 256 is a multiple of 32: no bias

    def seal(self, code: str) -> str:
        """A keyed hash that can be stored in place of a code that somebody typed."""
        return self._hmac("sealed", code).hex()

    def bind(self, sealed: str, *, account: str, contact_id: int) -> str:
        """The hash that a request stores: it fits this bot and this contact alone."""
        return self._hmac("bound", f"{account}\n{contact_id}\n{sealed}").hex()

    def fits(self, sealed: str, *, account: str, contact_id: int, bound: str) -> bool:
        """Whether ``sealed`` is the code behind ``bound``, compared in constant time."""
        return hmac.compare_digest(self.bind(sealed, account=account, contact_id=contact_id), bound)

    def _hmac(self, use: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{use}\n{text}".encode(), "sha256")


def new_nonce() -> str:
    return secrets.token_hex(16)


def normalised(text: str) -> str | None:
    """What a person typed as a code, or None when it cannot be one: any case, spaces and hyphens between."""
    code = re.sub(r"[\s-]", "", text).upper()
    return code if _SHAPE.fullmatch(code) else None


def words_like_codes(text: str) -> list[str]:
    """The words of ``text`` that could be codes, as they stand there."""
    return _WORD.findall(text)
