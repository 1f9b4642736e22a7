"""Who is writing, readable by any tool while a turn runs. Isolated between concurrent runs, empty outside."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionContext:
    """Source: the cross-platform document, field for field."""

    platform: str = ""
    chat_id: str = ""
    chat_name: str = ""
    thread_id: str = ""
    user_id: str = ""
    user_name: str = ""
    unified_user_id: str = ""  # the person's slug when linked, else the session id of the contact


_current: ContextVar[SessionContext] = ContextVar("botsrt_session_context", default=SessionContext())  # noqa: B039


def get_session_context() -> SessionContext:
    """The context of the running turn; empty fields outside one."""
    return _current.get()


def set_session_context(context: SessionContext) -> Token[SessionContext]:
    """Make ``context`` current. Give the returned token to ``clear_session_context`` in a ``finally``."""
    return _current.set(context)


def clear_session_context(token: Token[SessionContext]) -> None:
    """Restore what was current before ``set_session_context``."""
    _current.reset(token)
