"""Run commands of the chat that are somebody else's code: off the database thread, for a limited time."""

from __future__ import annotations

import asyncio
import inspect

from botsrt.agents import threads
from botsrt.agents.failures import translated
from botsrt.agents.threads import Gate
from botsrt.core.commands import ChatCommand, CommandCall
from botsrt.core.context import clear_session_context, set_session_context
from botsrt.core.errors import AgentError
from botsrt.core.states import ChatType

#: How long a command may take, in seconds.
PATIENCE_SECONDS = 20.0

#: Blocking commands at a time in this process; one that hangs keeps its place until its thread ends.
_gate = Gate(32)

_DIRECT_ONLY = "Please send this to me in a direct message."
_OWNERS_ONLY = "Only an owner of this bot can use this."


async def answer(command: ChatCommand, call: CommandCall, *, chat_type: ChatType) -> str:
    """What the command says; empty: nothing.

    Raises:
        AgentError: it failed.
        AgentUnavailable: earlier calls of commands fill this process and do not end.
        TimeoutError: it took too long. A blocking one runs on, unheard.
    """
    if command.is_for_owners and not call.is_owner:
        return _OWNERS_ONLY
    if command.is_direct_only and chat_type != ChatType.DIRECT:
        return _DIRECT_ONLY
    token = set_session_context(call.context)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            with translated():
                said = await _called(command, call)
    finally:
        clear_session_context(token)
    if said is None:
        return ""
    if not isinstance(said, str):
        raise AgentError(f"/{command.name} returned {type(said).__name__}; it must return str or None.")
    return said


async def _called(command: ChatCommand, call: CommandCall) -> object:
    if inspect.iscoroutinefunction(command.answer):
        return await command.answer(call)
    said = await threads.run(lambda: command.answer(call), gate=_gate)
    return await said if inspect.isawaitable(said) else said
