"""PraisonWeb's bot runtime, and the library: ``from botsrt import Agent, Bot, …`` (docs/library.md).

The names of the library are loaded when they are first asked for: importing this package costs nothing and needs no
settings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botsrt.api.agent import Agent
    from botsrt.api.bots import Bot, BotConfig, BotOS
    from botsrt.api.dlq import InboundDLQ
    from botsrt.api.journal import InboundJournal
    from botsrt.api.mirror import mirror_to_session
    from botsrt.api.run_control import SessionRunControl
    from botsrt.api.sessions import BotSessionManager
    from botsrt.core.commands import ChatCommand, CommandCall
    from botsrt.core.context import SessionContext, clear_session_context, get_session_context, set_session_context
    from botsrt.core.identity import IdentityResolverProtocol
    from botsrt.services.resolvers import FileIdentityResolver, InMemoryIdentityResolver

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Bot",
    "BotConfig",
    "BotOS",
    "BotSessionManager",
    "ChatCommand",
    "CommandCall",
    "FileIdentityResolver",
    "IdentityResolverProtocol",
    "InMemoryIdentityResolver",
    "InboundDLQ",
    "InboundJournal",
    "SessionContext",
    "SessionRunControl",
    "clear_session_context",
    "get_session_context",
    "mirror_to_session",
    "set_session_context",
]

#: Where each name of the library is. What is in ``botsrt.api`` sets Django up; the rest does without.
_MODULES = {
    "Agent": "botsrt.api.agent",
    "Bot": "botsrt.api.bots",
    "BotConfig": "botsrt.api.bots",
    "BotOS": "botsrt.api.bots",
    "BotSessionManager": "botsrt.api.sessions",
    "ChatCommand": "botsrt.core.commands",
    "CommandCall": "botsrt.core.commands",
    "FileIdentityResolver": "botsrt.services.resolvers",
    "IdentityResolverProtocol": "botsrt.core.identity",
    "InMemoryIdentityResolver": "botsrt.services.resolvers",
    "InboundDLQ": "botsrt.api.dlq",
    "InboundJournal": "botsrt.api.journal",
    "SessionContext": "botsrt.core.context",
    "SessionRunControl": "botsrt.api.run_control",
    "clear_session_context": "botsrt.core.context",
    "get_session_context": "botsrt.core.context",
    "mirror_to_session": "botsrt.api.mirror",
    "set_session_context": "botsrt.core.context",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
