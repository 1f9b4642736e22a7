"""Whether what a foreign agent raised may pass by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from botsrt.core.errors import AgentError, TransientAgentError

#: HTTP answers that may be others next time: time-out, conflict, too early, rate limit, and every 5xx.
_TRANSIENT_STATUS = {408, 409, 425, 429}


def as_agent_error(error: Exception) -> AgentError:
    """``error`` in our terms; raise the result ``from error``.

    Transient are network errors, and errors that carry such an HTTP status, as those of openai, httpx and requests do.
    """
    if isinstance(error, AgentError):
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) or _is_httpx_transport_error(error) or _is_transient_status(_status(error)):
        return TransientAgentError(text, retry_after=_retry_after(error))
    return AgentError(text)


def _is_httpx_transport_error(error: Exception) -> bool:
    return any(cls.__module__.startswith("httpx") and cls.__name__ == "TransportError" for cls in type(error).__mro__)


def _is_transient_status(status: int) -> bool:
    return status in _TRANSIENT_STATUS or 500 <= status < 600


def _status(error: Exception) -> int:
    """The HTTP status that ``error`` carries; 0: none."""
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return 0


def _retry_after(error: Exception) -> timedelta | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return timedelta(seconds=float(headers.get("retry-after", "")))
    except (ValueError, OverflowError, AttributeError):
        return None
