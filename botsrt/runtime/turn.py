"""One turn, from its claimed entries to its end. Read from top to bottom, it is the story of a message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core import access, backoff, keys, runtime_state
from botsrt.core.access import Asker, Decision, Verdict
from botsrt.core.context import SessionContext, clear_session_context, set_session_context
from botsrt.core.errors import (
    AgentError,
    AgentUnavailable,
    BotsError,
    NotFound,
    StorageUnavailable,
    TransientAgentError,
)
from botsrt.core.messages import InboundMessage
from botsrt.core.ports import AgentReply, AgentRequest
from botsrt.core.states import ChatType, Standing
from botsrt.core.text import one_line
from botsrt.runtime import platforms
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.db import Database
from botsrt.services import reception, turns
from botsrt.services.bots import BotView
from botsrt.services.dlq import Failure
from botsrt.services.turns import ClaimedEntry, ClaimedTurn, Materials, Result

logger = logging.getLogger(__name__)

#: An agent that cannot run at present (no key, for one) is asked again after this long.
_UNAVAILABLE_WAIT = timedelta(seconds=30)

#: Shows "typing…" for as long as it runs.
ShowTyping = Callable[[ClaimedTurn], Awaitable[None]]


async def run(
    turn: ClaimedTurn, *, database: Database, agents: AgentPool, config: RuntimeConfig, show_typing: ShowTyping
) -> None:
    """Run one claimed turn to its end. Cancelled, it hands its entries back."""
    try:
        materials = await _materials(turn, database=database, config=config)
        if materials.bot is None:
            await _give_back(turn, database, after=_UNAVAILABLE_WAIT)
            return
        decisions = gate(turn, materials, materials.bot)
        if at_reception := _reception(turn, materials.bot, decisions, config):
            await _conclude(turn, at_reception, database=database)
            return
        dropped = {entry_id: _code(decision) for entry_id, decision in decisions.items() if not decision.is_allowed}
        entries = [entry for entry in turn.entries if entry.id not in dropped]
        if not entries:
            await _finish(turn, Result(dropped=dropped), database=database, config=config)
            return
        await _answer(
            turn,
            entries,
            materials,
            materials.bot,
            dropped=dropped,
            database=database,
            agents=agents,
            config=config,
            show_typing=show_typing,
        )
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(turn, database, after=timedelta()))
        raise
    except StorageUnavailable as error:
        logger.warning("turn %s is handed back: %s", turn.id, error)
        await _give_back(turn, database, after=timedelta())
    except Exception as error:  # a fault of ours: shown to staff, not run in circles
        logger.exception("turn %s broke", turn.id)
        await _fail(turn, Failure.of(error), database=database, config=config)


async def _materials(turn: ClaimedTurn, *, database: Database, config: RuntimeConfig) -> Materials:
    return await database.call(
        turns.materials,
        turn=turn,
        max_history=config.max_history,
        refused_for=config.pairing_terms.refused_for,
        now=timezone.now(),
    )


def gate(turn: ClaimedTurn, materials: Materials, bot: BotView) -> dict[int, Decision]:
    """What may become of each entry. Nothing expensive happens before this."""
    return {entry.id: access.decide(_asker(entry, materials), bot.rules) for entry in turn.entries}


def _asker(entry: ClaimedEntry, materials: Materials) -> Asker:
    message = entry.message
    return Asker(
        user_id=message.sender.user_id,
        known_as=entry.known_as,
        is_blocked=entry.is_from_blocked,
        standing=materials.standings.get(entry.root_id, Standing.UNKNOWN),
        chat_type=message.chat_type,
        kind=message.kind,
        is_mentioned=message.is_mentioned,
        is_command=message.text.startswith("/"),
    )


def _code(decision: Decision) -> str:
    return decision.reason.value


def _reception(
    turn: ClaimedTurn, bot: BotView, decisions: Mapping[int, Decision], config: RuntimeConfig
) -> Callable[[datetime], bool] | None:
    """What ends the turn without an agent, if anything does: a command, a press, or a stranger who asks for access."""
    terms = config.pairing_terms
    first = turn.entries[0]
    decision = decisions[first.id]
    is_open = decision.verdict is Verdict.PAIR and reception.is_open_to_strangers(first)
    if first.command and (decision.is_allowed or is_open):
        return lambda now: reception.answer(turn=turn, bot=bot, decision=decision, terms=terms, now=now)
    if any(decision.verdict is Verdict.PAIR for decision in decisions.values()):
        reasons = {entry_id: _code(decision) for entry_id, decision in decisions.items()}
        return lambda now: reception.ask(turn=turn, bot=bot, reasons=reasons, terms=terms, now=now)
    return None


async def _conclude(turn: ClaimedTurn, act: Callable[[datetime], bool], *, database: Database) -> None:
    now = timezone.now()
    if not await _commit(database, act, now=now):
        await _give_back(turn, database, after=timedelta())


async def _answer(
    turn: ClaimedTurn,
    entries: Sequence[ClaimedEntry],
    materials: Materials,
    bot: BotView,
    *,
    dropped: Mapping[int, str],
    database: Database,
    agents: AgentPool,
    config: RuntimeConfig,
    show_typing: ShowTyping,
) -> None:
    """Let the agent answer ``entries``, and end the turn as it went."""
    request = make_request(turn, entries, materials)
    typing = asyncio.create_task(_typing(show_typing, turn))
    try:
        reply = await _run_agent(agents, bot, request, timeout_seconds=config.run_timeout_seconds)
    except AgentUnavailable as error:
        logger.warning("agent %s cannot run now: %s", bot.agent.name, error)
        await _give_back(turn, database, after=_UNAVAILABLE_WAIT)
        return
    except _RunFailed as failed:
        await _fail(turn, failed.failure, database=database, config=config)
        return
    finally:
        typing.cancel()
    result = Result(
        parts=platforms.parts(reply.text, turn.platform),
        text=reply.text if reply.text.strip() else "",
        dropped=dropped,
        agent=bot.agent.name,
        agent_version=bot.agent.version,
        usage=reply.usage,
        metadata=reply.metadata,
        runtime_id=bot.agent.kind,
        runtime_state=reply.runtime_state if bot.mirrors_runtime_state else {},
    )
    await _finish(turn, result, database=database, config=config)


def make_request(turn: ClaimedTurn, entries: Sequence[ClaimedEntry], materials: Materials) -> AgentRequest:
    """What the agent gets: the newest revision of each message, in order."""
    newest = {entry.message.message_id: entry for entry in entries}  # later revisions replace earlier ones
    messages = [entry.message for entry in newest.values()]
    last = messages[-1]
    return AgentRequest(
        text="\n".join(_line(message) for message in messages),
        history=materials.history,
        attachments=tuple(attachment for message in messages for attachment in message.attachments),
        context=SessionContext(
            platform=turn.platform,
            chat_id=last.channel_id,
            chat_name=one_line(last.chat_name),
            thread_id=last.thread_id,
            user_id=last.sender.user_id,
            user_name=one_line(last.sender.display_name or last.sender.user_name),
            unified_user_id=materials.persons.get(
                entries[-1].root_id, keys.direct_session_id(turn.platform, last.sender.user_id)
            ),
        ),
        session_id=turn.session_id,
        turn_id=str(turn.id),
        entry_ids=tuple(entry.id for entry in entries),
        attempt=turn.attempt,
        runtime_state=materials.runtime_state,
    )


def _line(message: InboundMessage) -> str:
    """The message as the agent reads it; in a group it says who wrote it."""
    if message.chat_type == ChatType.DIRECT:
        return message.text
    name = one_line(message.sender.display_name or message.sender.user_name or message.sender.user_id)
    return f"{name}: {message.text}"


class _RunFailed(Exception):
    """The agent did not answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error_text)
        self.failure = failure


async def _run_agent(agents: AgentPool, bot: BotView, request: AgentRequest, *, timeout_seconds: float) -> AgentReply:
    """The agent's reply.

    Raises:
        AgentUnavailable: it cannot run now.
        _RunFailed: anything else; says whether it may pass.
    """
    token = set_session_context(request.context)
    deadline = asyncio.timeout(timeout_seconds)
    try:
        async with deadline:
            reply = await (await agents.get(bot.agent)).run(request)
            if bot.mirrors_runtime_state:
                runtime_state.check(reply.runtime_state)
            return reply
    except AgentUnavailable:
        raise
    except TransientAgentError as error:
        raise _RunFailed(Failure.of(error, is_transient=True, retry_after=error.retry_after)) from error
    except TimeoutError as error:
        if not deadline.expired():  # the agent's own time-out, not ours
            raise _RunFailed(Failure.of(error, is_transient=True)) from error
        late = AgentError(f"The agent did not answer within {timeout_seconds:g} s.")
        raise _RunFailed(Failure.of(late, is_timeout=True)) from error
    except Exception as error:  # an agent is somebody else's code: it may raise anything
        if not isinstance(error, BotsError):
            logger.warning("agent %s failed", bot.agent.name, exc_info=error)
        raise _RunFailed(Failure.of(error)) from error
    finally:
        clear_session_context(token)


async def _typing(show_typing: ShowTyping, turn: ClaimedTurn) -> None:
    try:
        await show_typing(turn)
    except Exception as error:  # noqa: BLE001  nobody waits for an indicator
        logger.debug("typing indicator: %s", error)


async def dry_run(entry_id: int) -> AgentReply:
    """What the agent would say to an entry now. Nothing is stored or sent; tools of the agent act, if it has any.

    Raises:
        NotFound: there is no such entry, or its bot is gone.
        InvalidInput: it was not readable when it came.
        AgentError: the agent failed.
    """
    config = conf.load()
    bridge = Database(max_batch=config.max_batch)
    agents = AgentPool()
    try:
        turn = await bridge.call(turns.rehearsal, entry_id=entry_id)
        materials = await _materials(turn, database=bridge, config=config)
        if materials.bot is None:
            raise NotFound(f"There is no bot {turn.account} any more.")
        request = make_request(turn, turn.entries, materials)
        return await _run_agent(agents, materials.bot, request, timeout_seconds=config.run_timeout_seconds)
    except _RunFailed as failed:
        raise AgentError(f"{failed.failure.error_class}: {failed.failure.error_text}") from failed.__cause__
    finally:
        await agents.close()
        await bridge.close()


# -- the ends ----


async def _finish(turn: ClaimedTurn, result: Result, *, database: Database, config: RuntimeConfig) -> None:
    late_after = timedelta(seconds=config.late_reply_seconds)
    if await _commit(database, turns.finish, turn=turn, result=result, late_after=late_after, now=timezone.now()):
        return
    logger.warning("turn %s ended elsewhere meanwhile; its result is refused", turn.id)
    await _give_back(turn, database, after=timedelta())


async def _fail(turn: ClaimedTurn, failure: Failure, *, database: Database, config: RuntimeConfig) -> None:
    logger.warning("turn %s failed: %s: %s", turn.id, failure.error_class, failure.error_text)
    await _commit(
        database,
        turns.fail,
        turn=turn,
        failure=failure,
        max_attempts=config.max_attempts,
        notice_after=timedelta(seconds=config.notice_after_seconds),
        notice_text=config.trouble_text,
        now=timezone.now(),
    )


async def _give_back(turn: ClaimedTurn, database: Database, *, after: timedelta) -> None:
    now = timezone.now()
    await _commit(database, turns.release, turn_id=turn.id, available_at=now + after, now=now)


async def _commit(database: Database, service: Callable[..., bool], **arguments: Any) -> bool:
    """End the turn, however long the database is away: the work is done, and its end is guarded against repetition."""
    failures = 0
    while True:
        try:
            return await database.call(service, **arguments)
        except StorageUnavailable as error:
            failures += 1
            logger.warning("the end of a turn waits for the database: %s", error)
            await asyncio.sleep(backoff.exponential(failures, first_seconds=0.2, max_seconds=5.0).total_seconds())
