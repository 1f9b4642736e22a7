"""What a worker hands to an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from botsrt.agents.python import Agent
from botsrt.core.context import SessionContext
from botsrt.core.messages import Attachment
from botsrt.core.ports import AgentConfig, AgentRequest, HistoryItem, no_files, unseen
from botsrt.core.states import Role


def a_request(
    text: str = "hello",
    *,
    earlier: tuple[str, ...] = (),
    attachments: tuple[Attachment, ...] = (),
    show: Callable[[str], None] = unseen,
    fetch: Callable[[Attachment], Awaitable[bytes]] = no_files,
) -> Any:
    """A request after ``earlier`` messages, which user and agent wrote in turns."""
    roles = (Role.USER, Role.ASSISTANT)
    return AgentRequest(
        text=text,
        history=tuple(HistoryItem(role=roles[number % 2], text=said) for number, said in enumerate(earlier)),
        attachments=attachments,
        context=SessionContext(platform="web", user_id="ann"),
        session_id="bot_web_ann",
        turn_id="turn-1",
        entry_ids=(1,),
        attempt=1,
        show=show,
        fetch=fetch,
    )


def a_config(kind: str = "python", **settings: str) -> AgentConfig:
    return AgentConfig(name="helper", kind=kind, settings=settings)


def python_agent(target: str, **settings: str) -> Agent:
    """``target`` is ``module:attribute``, or an attribute of ``tests.agents.targets``."""
    full = target if ":" in target else f"tests.agents.targets:{target}"
    return Agent(a_config(target=full, **settings))
