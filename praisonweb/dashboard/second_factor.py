"""The second factor of an account: codes of an authenticator app (TOTP, RFC 6238), and recovery codes.

The models, the check of a code and the growing pause after a wrong one are django-otp's. An account has at most one
app. Recovery codes work once and are kept as hashes. Who has a second factor counts as signed in only in a session
in which a code was given; sessions from before are over.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import django_otp
import segno
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.models import Device
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from botsrt.core.actors import Actor
from botsrt.core.errors import AlreadyExists, InvalidInput
from botsrt.services import audit

#: Recovery codes of an account, and the random bytes of each: 16 letters and digits.
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10

#: What a new app's clock may be off, in steps of 30 s.
_TOLERANCE_STEPS = 1

_APP_CODE = re.compile(r"[0-9]{6}")
_RECOVERY_CODE = re.compile(r"[a-z2-7]{16}")


class WrongCode(InvalidInput):
    """The code was wrong, or no code is looked at for a while."""

    def __init__(self, problem: str, *, was_looked_at: bool = True) -> None:
        super().__init__("code", problem)
        self.was_looked_at = was_looked_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A code that was right."""

    device: Any  # the django-otp device, for the session
    recovery_codes_left: int | None  # None: it was a code of the app


# -- questions ----


def app_of(user: User) -> Any | None:
    """The device row of the account's authenticator app."""
    return TOTPDevice.objects.filter(user=user, confirmed=True).first()


def is_on(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def recovery_codes_left(user: User) -> int:
    device = StaticDevice.objects.filter(user=user).first()
    return device.token_set.count() if device else 0


def is_required(user: User) -> bool:
    """Whether ``user`` may not go without."""
    return bool(settings.REQUIRE_SECOND_FACTOR) and user.is_staff


def has_one(user: Any) -> bool:
    """``is_on`` as it was when ``user`` was loaded; for who is signed in it costs nothing."""
    return bool(user.has_second_factor) if hasattr(user, "has_second_factor") else is_on(user)


def is_missing(user: User, session: Any) -> bool:
    """Whether ``session`` lacks the code that ``user`` has to give, or the second factor they have to set up."""
    if device_id := session.get(DEVICE_ID_SESSION_KEY):
        device = Device.from_persistent_id(device_id)
        if device is not None and device.user_id == user.pk and device.confirmed:
            return False
    return is_required(user) or has_one(user)


# -- setting up ----


def new_key() -> str:
    """A fresh secret, hexadecimal as django-otp keeps it."""
    return secrets.token_hex(20)


def key_for_people(key: str) -> str:
    """The secret as apps take it typed: base 32 in groups of four."""
    letters = b32encode(bytes.fromhex(key)).decode()
    return " ".join(letters[start : start + 4] for start in range(0, len(letters), 4))


def app_address(user: User, key: str) -> str:
    """The secret as an address that apps open (otpauth://)."""
    return str(TOTPDevice(user=user, key=key).config_url)


def picture(address: str) -> str:
    """A QR code as the address of an image that holds it: nothing is fetched, nothing is unescaped."""
    return segno.make(address, error="m").svg_data_uri(scale=4, border=4, dark="#000", light="#fff")


def turn_on(*, user: User, key: str, code: str, actor: Actor, now: datetime) -> tuple[Any, list[str]]:
    """Give ``user`` a second factor, if ``code`` shows that the app has the secret.

    Returns:
        The device, for the session, and the recovery codes, which cannot be shown again.

    Raises:
        WrongCode: the code does not fit the secret.
        AlreadyExists: the account has one.
    """
    totp = TOTP(bytes.fromhex(key))
    totp.time = now.timestamp()
    typed = _normal(code)
    if not _APP_CODE.fullmatch(typed) or not totp.verify(int(typed), tolerance=_TOLERANCE_STEPS):
        raise WrongCode("does not fit. Is the clock of your phone right? Take the code that the app shows now.")
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)  # two browsers at once: the second one waits here
        if is_on(user):
            raise AlreadyExists("Your account has a second factor already.")
        device = TOTPDevice.objects.create(user=user, name="app", key=key, drift=totp.drift, last_t=totp.t())
        codes = _make_recovery_codes(user)
        audit.record(actor=actor, verb="account.second_factor_on", object_kind="user", object_id=user, now=now)
    return device, codes


def turn_off(*, user: User, actor: Actor, reason: str = "", now: datetime) -> bool:
    """Take the second factor and its recovery codes away. False: there was none."""
    with transaction.atomic():
        removed, _ = TOTPDevice.objects.filter(user=user).delete()
        StaticDevice.objects.filter(user=user).delete()
        if removed:
            audit.record(
                actor=actor,
                verb="account.second_factor_off",
                object_kind="user",
                object_id=user,
                reason=reason,
                now=now,
            )
    return bool(removed)


def renew_recovery_codes(*, user: User, actor: Actor, now: datetime) -> list[str]:
    """New recovery codes; the old ones work no more."""
    with transaction.atomic():
        codes = _make_recovery_codes(user)
        audit.record(actor=actor, verb="account.recovery_codes", object_kind="user", object_id=user, now=now)
    return codes


def _make_recovery_codes(user: User) -> list[str]:
    device, _ = StaticDevice.objects.get_or_create(user=user, defaults={"name": "recovery codes"})
    device.token_set.all().delete()
    codes = [b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    for code in codes:
        device.token_set.create(token=_hashed(code))
    return ["-".join(code[start : start + 4] for start in range(0, len(code), 4)) for code in codes]


def _hashed(code: str) -> str:
    """As kept: 80 bits of a hash of 80 random bits. The column takes 16 characters."""
    return b32encode(hashlib.sha256(code.encode()).digest()).decode().lower()[:16]


# -- checking ----


def check(user: User, code: str) -> Accepted:
    """Take a code of the app or a recovery code. Each is taken once.

    Raises:
        WrongCode: it is wrong, or there were so many wrong ones that this account has to wait; says for how long.
    """
    typed = _normal(code)
    device: Any
    if _RECOVERY_CODE.fullmatch(typed):
        device, token = StaticDevice.objects.filter(user=user).first(), _hashed(typed)
    else:
        device, token = app_of(user), typed if _APP_CODE.fullmatch(typed) else ""
    if device is None:
        raise WrongCode("is wrong.")
    is_allowed, why = device.verify_is_allowed()
    if not is_allowed:
        problem = f"is not looked at: the one before was wrong. Try again {_when(why)}."
        raise WrongCode(problem, was_looked_at=False)
    # Locks the row while it looks, so that no code counts twice.
    if django_otp.verify_token(user, device.persistent_id, token) is None:
        raise WrongCode("is wrong.")
    is_recovery = isinstance(device, StaticDevice)
    return Accepted(device=device, recovery_codes_left=device.token_set.count() if is_recovery else None)


def _when(why: Any) -> str:
    until = why.get("locked_until") if isinstance(why, dict) else None
    if until is None:
        return "later"
    seconds = max(1, round((until - timezone.now()).total_seconds()))
    return f"in {seconds} s" if seconds < 120 else f"in {seconds // 60} min"


def _normal(code: str) -> str:
    """Without the spaces and dashes that codes are shown with."""
    return re.sub(r"[\s-]", "", code).lower()
