"""Whether what a foreign agent raised may pass by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botsrt.core.errors import AgentError, TransientAgentError

#: HTTP answers that may be others next time: time-out, conflict, too early, rate limit; and every 5xx.
_TRANSIENT_STATUS = {408, 409, 425, 429, *range(500, 600)}

#: Kinds of ``OSError`` that will be raised again: nobody makes the file between two attempts.
_LASTING_OS_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ValueError,  # both in one: a malformed URL or body (requests), a file not open for that (io), a bad certificate
)

#: Libraries whose network errors are no ``OSError``: the first part of the module, and the class they all come from.
_NETWORK_ERRORS = {
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
    ("aiohttp", "ClientConnectionError"),
}

#: A library wraps the error of the library that it uses; deeper than this nobody looks.
_MAX_CAUSES = 5

#: Longest wait that a server may ask for.
_MAX_RETRY_AFTER = timedelta(days=1)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the block raises leaves it as an ``AgentError``, except a cancellation that was asked for.

    Also ``SystemExit``: an agent that calls ``sys.exit`` must not end the process.
    """
    try:
        yield
    except AgentError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise as_agent_error(error) from error
    except (Exception, SystemExit) as error:
        raise as_agent_error(error) from error


def explained(error: BaseException) -> AgentError:
    """``as_agent_error``, with ``error`` as its cause."""
    told = as_agent_error(error)
    if told is not error:
        told.__cause__ = error
    return told


def as_agent_error(error: BaseException) -> AgentError:
    """``error`` in our terms; raise the result ``from error``.

    Transient are network errors and time-outs, and errors that carry an HTTP status which may be another next time, as
    those of openai, httpx, requests and aiohttp do. An error that tells neither is judged by its causes.
    """
    if isinstance(error, AgentError):
        return error
    text = _words(error)
    for told in _with_causes(error):
        if isinstance(told, TransientAgentError):
            return TransientAgentError(text, retry_after=told.retry_after)
        if status := _status(told):
            may_pass = status in _TRANSIENT_STATUS
            return TransientAgentError(text, retry_after=_retry_after(told)) if may_pass else AgentError(text)
        if _is_network_error(told):
            return TransientAgentError(text)
    return AgentError(text)


def _words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}".removesuffix(": ")
    except Exception as broken:  # noqa: BLE001  its words are made by foreign code, which may raise anything
        return f"{name} (what it says cannot be read: {type(broken).__name__})"


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _is_network_error(error: BaseException) -> bool:
    if isinstance(error, OSError):  # also ConnectionError, TimeoutError, and what requests raises
        return not isinstance(error, _LASTING_OS_ERRORS)
    return any((cls.__module__.partition(".")[0], cls.__name__) in _NETWORK_ERRORS for cls in type(error).__mro__)


def _status(error: BaseException) -> int:
    """The HTTP status that ``error`` carries; 0: none."""
    for holder, name in (
        (error, "status_code"),
        (_peek(error, "response"), "status_code"),
        (error, "status"),  # aiohttp
        (error, "code"),  # urllib
    ):
        status = _peek(holder, name)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return 0


def _retry_after(error: BaseException) -> timedelta | None:
    """What the Retry-After header asks for: seconds or a date (RFC 9110, 10.2.3)."""
    for headers in (_peek(_peek(error, "response"), "headers"), _peek(error, "headers")):
        for name in ("retry-after", "Retry-After"):  # a plain mapping tells cases apart
            try:
                wait = _wait(str(headers[name]))
            except (TypeError, KeyError, ValueError, OverflowError):
                continue
            return min(max(wait, timedelta()), _MAX_RETRY_AFTER)
    return None


def _wait(text: str) -> timedelta:
    try:
        return timedelta(seconds=float(text))
    except ValueError:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)


def _peek(holder: object, name: str) -> Any:
    """An attribute of somebody else's error; None when it has none, or raises instead of telling."""
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001  a property of foreign code may raise anything
        return None
