"""Commands of the chat that behave, and some that do not."""

from __future__ import annotations

import asyncio
import sys
import threading

from botsrt import ChatCommand, CommandCall, get_session_context

LET_GO = threading.Event()


def _hours(call: CommandCall) -> str:
    who = get_session_context().user_name or call.context.user_id
    return f"{who}, we are open from 9 to 5{' on ' + call.argument if call.argument else ''}."


async def _later(call: CommandCall) -> str:
    await asyncio.sleep(0)
    return f"{call.account} {call.session_id}"


def _breaks(call: CommandCall) -> str:
    raise KeyError("no such shelf")


async def _exits(call: CommandCall) -> None:
    sys.exit(3)


def _blocks(call: CommandCall) -> None:
    LET_GO.wait(30)


def _numbers(call: CommandCall) -> str:
    return 42  # type: ignore[return-value]


hours = ChatCommand(name="hours", help="when we are open", answer=_hours)
later = ChatCommand(name="later", help="something asynchronous", answer=_later)
stock = ChatCommand(name="stock", help="what is left", is_for_owners=True, answer=_hours)
diary = ChatCommand(name="diary", help="between you and me", is_direct_only=True, answer=_hours)
quiet = ChatCommand(name="quiet", help="say nothing", answer=lambda call: None)
breaks = ChatCommand(name="breaks", help="raise an error", answer=_breaks)
exits = ChatCommand(name="exits", help="end the process", answer=_exits)
blocks = ChatCommand(name="blocks", help="take for ever", answer=_blocks)
numbers = ChatCommand(name="numbers", help="count", answer=_numbers)

twin = ChatCommand(name="hours", help="the same again", answer=_hours)
taken = ChatCommand(name="stop", help="take what is taken", answer=_hours)
shouting = ChatCommand(name="HOURS", help="loud", answer=_hours)
helpless = ChatCommand(name="helpless", help="", answer=_hours)
