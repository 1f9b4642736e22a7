"""One turn, from its claimed entries to its end. Read from top to bottom, it is the story of a message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from botsrt import conf
from botsrt.conf import RuntimeConfig
from botsrt.core import backoff, commands, keys, runtime_state
from botsrt.core.access import Decision, Verdict
from botsrt.core.commands import ChatCommand, CommandCall
from botsrt.core.context import SessionContext, clear_session_context, set_session_context
from botsrt.core.errors import (
    AgentError,
    AgentUnavailable,
    BotsError,
    NotFound,
    StorageUnavailable,
    TransientAgentError,
)
from botsrt.core.messages import Attachment, as_lines
from botsrt.core.ports import AgentReply, AgentRequest, no_files, unseen
from botsrt.core.text import one_line
from botsrt.runtime import compaction, customs, platforms
from botsrt.runtime.agents import AgentPool
from botsrt.runtime.db import Database
from botsrt.runtime.files import Files
from botsrt.runtime.previews import Previews
from botsrt.runtime.steering import Steering
from botsrt.services import claims, entrance, finishing, reception, turns
from botsrt.services.bots import BotView
from botsrt.services.claimed import ClaimedEntry, ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.finishing import Result
from botsrt.services.materials import Materials, gather

logger = logging.getLogger(__name__)

#: An agent that cannot run at present (no key, for one) is asked again after this long.
_UNAVAILABLE_WAIT = timedelta(seconds=30)

#: An answer that is there sooner needs no sign that it is being written.
_TYPING_AFTER_SECONDS = 0.2

#: Shows "typing…" for as long as it runs.
ShowTyping = Callable[[ClaimedTurn], Awaitable[None]]


async def run(
    turn: ClaimedTurn,
    *,
    database: Database,
    agents: AgentPool,
    steering: Steering,
    config: RuntimeConfig,
    show_typing: ShowTyping,
    previews: Previews,
    files: Files,
) -> None:
    """Run one claimed turn to its end. Cancelled, it hands its entries back."""
    try:
        materials = await _materials(turn, database=database, config=config)
        if materials.bot is None:
            await _give_back(turn, database, after=_UNAVAILABLE_WAIT)
            return
        decisions = gate(turn, materials, materials.bot)
        if (own := commands.own().get(turn.entries[0].command)) and decisions[turn.entries[0].id].is_allowed:
            await _answer_by(own, turn, materials, materials.bot, database=database, config=config)
            return
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
            steering=steering,
            config=config,
            show_typing=show_typing,
            previews=previews,
            files=files,
        )
        await compaction.after(turn, materials.bot, database=database, agents=agents)
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
        gather,
        turn=turn,
        max_history=config.max_history,
        refused_for=timedelta(seconds=config.pairing_refused_seconds),
        now=timezone.now(),
    )


def gate(turn: ClaimedTurn, materials: Materials, bot: BotView) -> dict[int, Decision]:
    """What may become of each entry. Nothing expensive happens before this."""
    return entrance.decide_all(turn.entries, bot=bot, standings=materials.standings)


def _code(decision: Decision) -> str:
    return decision.reason.value


def _reception(
    turn: ClaimedTurn, bot: BotView, decisions: Mapping[int, Decision], config: RuntimeConfig
) -> Callable[[datetime], bool] | None:
    """What ends the turn without an agent, if anything does: a command, a press, or a stranger who asks for access."""
    first = turn.entries[0]
    decision = decisions[first.id]
    is_open = decision.verdict is Verdict.PAIR and reception.is_open_to_strangers(first)
    if first.command and (decision.is_allowed or is_open):
        terms = config.pairing_terms
        return lambda now: reception.answer(turn=turn, bot=bot, decision=decision, terms=terms, now=now)
    if any(decision.verdict is Verdict.PAIR for decision in decisions.values()):
        terms = config.pairing_terms
        reasons = {entry_id: _code(decision) for entry_id, decision in decisions.items()}
        return lambda now: reception.ask(turn=turn, bot=bot, reasons=reasons, terms=terms, now=now)
    return None


async def _answer_by(
    command: ChatCommand,
    turn: ClaimedTurn,
    materials: Materials,
    bot: BotView,
    *,
    database: Database,
    config: RuntimeConfig,
) -> None:
    """Let a command of somebody else's answer the turn's one entry. If it fails, that is a failure like an agent's."""
    entry = turn.entries[0]
    parsed = commands.parse(entry.message.text)
    call = CommandCall(
        name=command.name,
        argument=parsed.argument if parsed else "",
        context=make_request(turn, turn.entries, materials).context,
        is_owner=entrance.is_owner(entry, bot),
        account=turn.account,
        session_id=turn.session_id,
        entry_id=entry.id,
    )
    try:
        text = await customs.answer(command, call, chat_type=entry.message.chat_type)
    except AgentUnavailable as error:
        await _give_back(turn, database, after=_UNAVAILABLE_WAIT, reason=Failure.of(error))
    except Exception as error:  # noqa: BLE001  somebody else's code, which may raise anything
        await _fail(
            turn, Failure.of(error, is_timeout=isinstance(error, TimeoutError)), database=database, config=config
        )
    else:
        parts = platforms.parts(text, turn.platform)
        await _conclude(turn, lambda now: reception.say(turn=turn, text=text, parts=parts, now=now), database=database)


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
    steering: Steering,
    config: RuntimeConfig,
    show_typing: ShowTyping,
    previews: Previews,
    files: Files,
) -> None:
    """Let the agent answer ``entries``, and end the turn as it went."""
    preview = previews.of(turn, bot)
    request = make_request(turn, entries, materials, show=preview.show if preview else unseen, fetch=files.of(turn))
    try:
        async with preview or nullcontext():
            with steering.open(turn, bot) as joined, _typing(show_typing, turn):
                reply = await _run_agent(agents, bot, request, timeout_seconds=config.run_timeout_seconds)
    except AgentUnavailable as error:
        logger.warning("agent %s cannot run now: %s", bot.agent.name, error)
        await _give_back(turn, database, after=_UNAVAILABLE_WAIT, reason=Failure.of(error))
        return
    except _RunFailed as failed:
        await _fail(turn, failed.failure, database=database, config=config)
        return
    turn = replace(turn, entries=(*turn.entries, *joined))
    result = Result(
        parts=platforms.parts(reply.text, turn.platform),
        text=reply.text if reply.text.strip() else "",
        dropped=dropped,
        agent=bot.agent.name,
        agent_version=bot.agent.version,
        usage=reply.usage,
        metadata=reply.metadata,
        begins_anew=materials.begins_anew,
        preview_id=preview.id if preview else None,
        runtime_id=bot.agent.kind,
        runtime_state=reply.runtime_state if bot.mirrors_runtime_state else {},
    )
    await _finish(turn, result, database=database, config=config)


def make_request(
    turn: ClaimedTurn,
    entries: Sequence[ClaimedEntry],
    materials: Materials,
    *,
    show: Callable[[str], None] = unseen,
    fetch: Callable[[Attachment], Awaitable[bytes]] = no_files,
) -> AgentRequest:
    """What the agent gets: the newest revision of each message, in order.

    Args:
        show: is given what the agent says so far.
        fetch: gives the content of an attachment.
    """
    newest = {entry.message.message_id: entry for entry in entries}  # later revisions replace earlier ones
    messages = [entry.message for entry in newest.values()]
    last = messages[-1]
    return AgentRequest(
        text=as_lines(messages),
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
        show=show,
        fetch=fetch,
    )


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


@contextmanager
def _typing(show_typing: ShowTyping, turn: ClaimedTurn) -> Iterator[None]:
    """Show "typing…" while the block lasts, unless it is over before anybody would see it."""
    shown: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        _TYPING_AFTER_SECONDS, lambda: shown.append(asyncio.create_task(_show(show_typing, turn)))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in shown:
            task.cancel()


async def _show(show_typing: ShowTyping, turn: ClaimedTurn) -> None:
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
        turn = await bridge.call(claims.rehearsal, entry_id=entry_id)
        materials = await _materials(turn, database=bridge, config=config)
        if materials.bot is None:
            raise NotFound(f"There is no bot {turn.account} any more.")
        files = Files(database=bridge, config=config, keepers={}, keeps=False)
        request = make_request(turn, turn.entries, materials, fetch=files.of(turn))
        return await _run_agent(agents, materials.bot, request, timeout_seconds=config.run_timeout_seconds)
    except _RunFailed as failed:
        raise AgentError(f"{failed.failure.error_class}: {failed.failure.error_text}") from failed.__cause__
    finally:
        await agents.close()
        await bridge.close()


# -- the ends ----


async def _finish(turn: ClaimedTurn, result: Result, *, database: Database, config: RuntimeConfig) -> None:
    late_after = timedelta(seconds=config.late_reply_seconds)
    if await _commit(database, finishing.finish, turn=turn, result=result, late_after=late_after, now=timezone.now()):
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


async def _give_back(turn: ClaimedTurn, database: Database, *, after: timedelta, reason: Failure | None = None) -> None:
    now = timezone.now()
    await _commit(database, turns.release, turn_id=turn.id, available_at=now + after, reason=reason, now=now)


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
