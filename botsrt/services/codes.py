"""Pairing codes around the database: never in it, recognised in what people type, written in when a message leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from botsrt.core import commands
from botsrt.core.pairing_codes import PLACEHOLDER, Codes, normalised, words_like_codes
from botsrt.core.states import PairingState
from botsrt.models import Pairing

#: Stands in a message whose code is no longer valid when it leaves.
_OVER = "(no longer valid)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A text as it may be stored."""

    text: str
    sealed: str = ""  # the keyed hash of the code that ``/link`` was given
    had_code: bool = False  # so the platform's own update must not be kept


def keyring() -> Codes:
    return Codes(settings.SECRET_KEY)


def without_codes(text: str, *, contact_id: int) -> Words:
    """``text`` without the codes in it: that of ``/link CODE``, and the contact's own live one."""
    command = commands.parse(text)
    if command is not None and command.name == "link" and command.argument:
        code = normalised(command.argument)
        sealed = keyring().seal(code) if code else ""
        return Words(text=f"/link {PLACEHOLDER}", sealed=sealed, had_code=True)
    live = _live_among(words_like_codes(text), contact_id=contact_id)
    for word in live:
        text = text.replace(word, PLACEHOLDER)
    return Words(text=text, had_code=bool(live))


def _live_among(words: list[str], *, contact_id: int) -> list[str]:
    """Those of ``words`` that are the code of a request of this contact that still waits."""
    if not words:
        return []
    waiting = list(Pairing.objects.filter(contact=contact_id, state=PairingState.WAITING))
    return [word for word in words if match(keyring().seal(word.upper()), waiting)]


def match(sealed: str, requests: Iterable[Pairing]) -> Pairing | None:
    """The one of ``requests`` that has this code. All are looked at, each in constant time."""
    codes, found = keyring(), None
    for request in requests:
        if codes.fits(sealed, account=request.account, contact_id=request.contact_id, bound=request.code_hash):
            found = request
    return found


def hash_of(nonce: str, *, account: str, contact_id: int) -> str:
    """What a request with this nonce stores."""
    codes = keyring()
    return codes.bind(codes.seal(codes.of(nonce)), account=account, contact_id=contact_id)


def written_in(text: str, request: Pairing) -> str:
    """``text`` as the person reads it: with the request's code, if that is still good for something."""
    is_live = request.state == PairingState.WAITING and request.code_hash == hash_of(
        request.nonce, account=request.account, contact_id=request.contact_id
    )
    return text.replace(PLACEHOLDER, keyring().of(request.nonce) if is_live else _OVER)
