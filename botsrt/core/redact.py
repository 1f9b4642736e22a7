"""Take secrets out of text before it is stored or logged.

Two nets: the credentials this process has loaded, wherever they stand; and the shapes of well-known tokens, for
those it has not.
"""

from __future__ import annotations

import logging
import re
import traceback
from urllib.parse import quote

MASK = "[secret]"

#: A loaded credential shorter than this is no secret worth masking, and masking it would shred ordinary text.
MIN_SECRET_CHARS = 8

#: What stands before a secret and stays is in the group ``keep``.
_SHAPES = re.compile(
    r"(?<!\d)\d{6,12}(?::|%3A)[A-Za-z0-9_-]{30,}"  # Telegram bot token, also behind the "bot" of a URL
    r"|\b[A-Za-z0-9_-]{23,32}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}\b"  # Discord bot token
    r"|\bxox[a-z]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}"  # Slack tokens
    r"|\bEAA[A-Za-z0-9]{30,}"  # access tokens of Meta
    r"|(?P<keep>hooks\.slack\.com/services/|\bbearer[ ](?=\S{12})|[?&](?:access_token|token|api_?key|secret|password)=)"
    r"[A-Za-z0-9._~+/=%-]+"
    r"|\bsk-[A-Za-z0-9_-]{16,}"  # keys of LLM providers
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",  # user and password in a URL
    re.IGNORECASE,
)

_known: set[str] = set()


def remember(secret: str) -> None:
    """Mask ``secret`` from now on in this process, also as it is written in URLs."""
    if len(secret) >= MIN_SECRET_CHARS:
        _known.update((secret, quote(secret, safe="")))


def redact(text: str) -> str:
    """``text`` without any known or token-shaped secret."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _SHAPES.sub(lambda match: (match["keep"] or "") + MASK, text)


def redacted_traceback(error: BaseException, *, max_chars: int = 20_000) -> str:
    """The traceback of ``error``, redacted; the end is kept when it is too long."""
    return redact("".join(traceback.format_exception(error)))[-max_chars:]


class RedactingFormatter(logging.Formatter):
    """Formats as ever, then redacts: message, arguments and traceback alike."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
