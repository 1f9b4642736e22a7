"""A bot's credentials at rest: a reference to the environment, or encrypted."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from botsrt.core import redact
from botsrt.core.errors import CredentialError

_ENV = "env:"
_ENCRYPTED = "fernet:"


class Vault:
    """Seals and opens credentials with keys derived from ``keys``: the first seals, any opens (so keys can rotate)."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(_derive(key)) for key in keys])

    def seal(self, value: str) -> str:
        """What is stored: ``env:NAME`` as it is, anything else encrypted."""
        if value.startswith(_ENV):
            return value
        return _ENCRYPTED + self._fernet.encrypt(value.encode()).decode()

    def open(self, name: str, stored: str) -> str:
        """The secret itself, remembered for redaction.

        Raises:
            CredentialError: the variable is not set, or the key has changed since the value was sealed.
        """
        secret = self._open_env(name, stored) if stored.startswith(_ENV) else self._decrypt(name, stored)
        redact.remember(secret)
        return secret

    def hint(self, name: str, stored: str) -> str:
        """What may be shown: the variable's name, or the last four characters."""
        if stored.startswith(_ENV):
            return stored
        try:
            secret = self._decrypt(name, stored)
        except CredentialError:
            return "unreadable"
        return f"…{secret[-4:]}" if len(secret) >= 12 else "set"

    @staticmethod
    def _open_env(name: str, stored: str) -> str:
        variable = stored.removeprefix(_ENV)
        secret = os.environ.get(variable, "")
        if not secret:
            raise CredentialError(f"{name}: the environment variable {variable} is not set; export it and restart.")
        return secret

    def _decrypt(self, name: str, stored: str) -> str:
        try:
            return self._fernet.decrypt(stored.removeprefix(_ENCRYPTED).encode()).decode()
        except InvalidToken as error:
            raise CredentialError(
                f"{name}: cannot be decrypted, because SECRET_KEY has changed; set the credential again, "
                "or put the old key back with SECRET_KEY_FALLBACKS."
            ) from error


def _derive(key: str) -> bytes:
    """A Fernet key of 32 bytes from a secret of any length; the label keeps it apart from other uses of the secret."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"botsrt.credentials:" + key.encode()).digest())
