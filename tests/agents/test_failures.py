"""What may pass by itself is tried again; what will not goes to staff."""

from __future__ import annotations

import asyncio
import email.utils
import io
import ssl
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from botsrt.agents.failures import as_agent_error, explained, translated
from botsrt.core.errors import AgentError, AgentUnavailable, CredentialError, TransientAgentError


class Answered(Exception):
    """An error with an HTTP answer, as openai, httpx and requests raise it."""

    def __init__(self, status: int, headers: Any = None) -> None:
        super().__init__(f"the server said {status}")
        self.response = SimpleNamespace(status_code=status, headers=headers)


class StatusItself(Exception):
    status_code = 503


class RequestsError(OSError):
    """Like those of requests, all of which are OSErrors."""

    response = SimpleNamespace(status_code=404, headers={})


class Nasty(Exception):
    """Tells nothing without raising."""

    @property
    def response(self) -> Any:
        raise RuntimeError("the response is closed")

    def __str__(self) -> str:
        raise RuntimeError("no words")


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route to host"),
        ConnectionResetError(),
        TimeoutError(),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        Answered(408),
        Answered(409),
        Answered(425),
        Answered(429),
        Answered(500),
        Answered(599),
        StatusItself(),
        urllib.error.HTTPError("http://x", 503, "busy", Message(), None),
        caused(RuntimeError("the tool failed"), ConnectionRefusedError()),
        caused(RuntimeError("the tool failed"), caused(ValueError("no"), Answered(502))),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:50],
)
def test_what_may_pass_is_transient(error: Exception):
    assert isinstance(as_agent_error(error), TransientAgentError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad word"),
        KeyError("order"),
        FileNotFoundError(2, "no such file"),
        PermissionError(13, "denied"),
        io.UnsupportedOperation("not readable"),
        ssl.SSLCertVerificationError("self-signed"),
        RequestsError("404"),
        Answered(400),
        Answered(401),
        Answered(404),
        CredentialError("no key"),
        Nasty(),
        SystemExit(1),
        caused(Answered(400), ConnectionResetError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_will_not_pass_is_permanent(error: Exception):
    told = as_agent_error(error)
    assert isinstance(told, AgentError)
    assert not isinstance(told, TransientAgentError)
    assert type(error).__name__ in str(told)


def test_our_own_errors_pass_through():
    error = AgentUnavailable("no key")
    assert as_agent_error(error) is error
    assert explained(error) is error


def test_a_wrapped_transient_error_keeps_its_wait():
    wrapped = caused(RuntimeError("failed"), TransientAgentError("busy", retry_after=timedelta(seconds=9)))
    told = as_agent_error(wrapped)
    assert isinstance(told, TransientAgentError)
    assert told.retry_after == timedelta(seconds=9)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0.5", 0.5), ("-3", 0), ("999999999999", 86_400), ("Mon, 01 Jan 2001 00:00:00 GMT", 0)],
)
def test_retry_after_is_honoured(header: str, seconds: float):
    told = as_agent_error(Answered(429, httpx.Headers({"Retry-After": header})))
    assert isinstance(told, TransientAgentError)
    assert told.retry_after == timedelta(seconds=seconds)


def test_retry_after_may_be_a_date():
    at = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    told = as_agent_error(Answered(503, {"Retry-After": at}))
    assert isinstance(told, TransientAgentError)
    assert told.retry_after is not None
    assert timedelta(seconds=50) < told.retry_after <= timedelta(seconds=60)


@pytest.mark.parametrize("header", ["", "soon", "nan", "inf"])
def test_a_retry_after_that_says_nothing_is_none(header: str):
    told = as_agent_error(Answered(429, {"retry-after": header}))
    assert isinstance(told, TransientAgentError)
    assert told.retry_after is None


def test_no_headers_say_nothing():
    told = as_agent_error(Answered(429))
    assert isinstance(told, TransientAgentError)
    assert told.retry_after is None


async def test_the_cause_is_kept():
    with pytest.raises(AgentError) as caught, translated():
        raise KeyError("order")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_leaving_the_program_is_no_way_out():
    with pytest.raises(AgentError, match="SystemExit"), translated():
        raise SystemExit(3)


async def test_a_cancellation_that_was_asked_for_goes_on():
    async def work() -> None:
        with translated():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_within_is_a_failure():
    with pytest.raises(AgentError, match="CancelledError"), translated():
        raise asyncio.CancelledError
