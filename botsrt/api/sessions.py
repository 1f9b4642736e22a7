"""``BotSessionManager``: conversations of a bot whose messages a program receives and whose answers it sends itself."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from django.utils import timezone

from botsrt import conf
from botsrt.api import loop
from botsrt.api.agent import described, keep_profile, on_loop
from botsrt.api.dlq import NO_RETRY, InboundDLQ, is_replaying
from botsrt.api.journal import InboundJournal
from botsrt.core import keys
from botsrt.core.errors import Conflict, InvalidInput
from botsrt.core.messages import InboundMessage, Sender
from botsrt.core.ports import AgentConfig
from botsrt.runtime.inline import Answering, EndFailed, Inline
from botsrt.runtime.mirror import amirror_to_session
from botsrt.services import inline, mirror, turns
from botsrt.services.claimed import ClaimedTurn
from botsrt.services.dlq import Failure
from botsrt.services.materials import Materials

logger = logging.getLogger(__name__)

#: The bot of a program that has only one.
DEFAULT_ACCOUNT = "default"

#: Messages that one call of ``recover`` runs at most.
_MAX_RECOVERED = 10_000

#: Takes the answer to a message to where it belongs.
Send = Callable[[InboundMessage, str], Awaitable[object]]


class BotSessionManager:
    """Runs an agent over the stored conversations of one platform's users, one message of a user at a time."""

    def __init__(
        self, platform: str = "", *, ingress_journal: InboundJournal | None = None, dlq: InboundDLQ | None = None
    ) -> None:
        """Name the platform, and where things are stored.

        Args:
            ingress_journal: makes duplicates recognisable, and keeps messages across a crash. The conversations are
                in its database; without one in the project's.
            dlq: takes the messages that an agent failed on.

        Raises:
            InvalidInput: this cannot be the name of a platform.
        """
        if not keys.PLATFORM_NAME.fullmatch(platform):
            raise InvalidInput("platform", f"{platform!r}: write a small letter, then small letters and digits.")
        self.platform = platform
        self._journal = ingress_journal
        self._dlq = dlq
        self._database = ingress_journal.database if ingress_journal else loop.database()
        self._inline = Inline(
            database=self._database, config=ingress_journal.config() if ingress_journal else conf.load()
        )
        self._profiles: WeakKeyDictionary[Any, AgentConfig] = WeakKeyDictionary()  # as stored; they go with the agents

    def __repr__(self) -> str:
        return f"BotSessionManager(platform={self.platform!r})"

    def session_id(self, user_id: object) -> str:
        """The session of a user's direct messages."""
        return keys.direct_session_id(self.platform, str(user_id))

    async def chat(
        self,
        agent: Any,
        user_id: object,
        prompt: str | None,
        *,
        message_id: str = "",
        account: str = DEFAULT_ACCOUNT,
        chat_id: object = "",
        thread_id: object = "",
        user_name: str = "",
    ) -> str:
        """What ``agent`` answers to a user's message, with the conversation so far; "" for a duplicate.

        Args:
            agent: an ``Agent``, a function that takes a request, or an object with ``chat`` or ``achat``.
            message_id: the platform's id of the message; without one, or without a journal, nothing is a duplicate.
            account: the stable name of the bot: part of the key of the message.

        Raises:
            AgentError: the agent failed, or did not answer in time. The message is in the dead letter queue if there is
                one, else it is in the journal and ``recover`` tries again.
            Conflict: staff have the conversation in hand, or it moved on during the run.
        """
        key = str(message_id) if message_id and self._journal else f"said-{uuid.uuid4().hex}"
        message = InboundMessage(
            platform=self.platform,
            account=account,
            channel_id=str(chat_id or user_id),
            thread_id=str(thread_id),
            message_id=key,
            sender=Sender(user_id=str(user_id), display_name=user_name),
            text=prompt or "",
            is_mentioned=True,
        )
        end_failed = self._inline.give_up if is_replaying() else self._end_failed
        return await loop.arun(self._chat(agent, message, end_failed))

    async def recover(self, agent: Any, send: Send) -> int:
        """Let ``agent`` answer the messages that a crash left behind, and ``send`` each answer. Returns how many.

        Call it when the program starts, and now and then after; ``InboundJournal.replay`` is part of it.

        Args:
            send: gets the message and its answer. If it fails, the answer stays in the conversation, unsent.
        """
        done = 0
        for entry_id, session_id in await loop.arun(self._left_behind()):
            try:
                answered = await loop.arun(self._run(agent, entry_id, session_id, self._end_failed))
            except Conflict:  # somebody else has it by now
                continue
            except Exception as error:  # noqa: BLE001  one bad message takes no other with it
                logger.warning("message %d of %s could not be answered: %s", entry_id, session_id, error)
                continue
            message, text = answered
            if text:
                await send(message, text)
            done += 1
        return done

    async def mirror(self, *, user_id: str, message_text: str, source_label: str, metadata: Any = None) -> bool:
        """``mirror_to_session`` on the library's loop."""
        known = await self._database.call(_session_for_mirror, user_id=user_id, session_id=self.session_id(user_id))
        return await amirror_to_session(
            user_id=known,
            message_text=message_text,
            source_label=source_label,
            metadata=metadata,
            bridge=self._database,
        )

    async def _chat(self, agent: Any, message: InboundMessage, end_failed: EndFailed) -> str:
        entry_id = await self._store(message)
        if entry_id is None:
            return ""
        _, text = await self._run(agent, entry_id, self.session_id(message.sender.user_id), end_failed)
        return text

    async def _store(self, message: InboundMessage) -> int | None:
        if self._journal is not None:
            return await self._journal.store(message)
        return await self._database.call(
            inline.receive,
            message=message,
            reserved_for=inline.RESERVED,
            max_raw_bytes=conf.load().max_raw_bytes,
            now=timezone.now(),
        )

    async def _run(
        self, agent: Any, entry_id: int, session_id: str, end_failed: EndFailed
    ) -> tuple[InboundMessage, str]:
        async def choose(materials: Materials) -> Answering:
            return await self._answering_of(agent)

        async with self._inline.in_line(session_id):
            turn = await self._inline.claim(entry_id)
            reply = await self._inline.run(turn, choose=choose, end_failed=end_failed)
        return turn.entries[0].message, reply.text

    async def _answering_of(self, agent: Any) -> Answering:
        try:
            profile = self._profiles.get(agent)
        except TypeError:  # it cannot be hashed, or not be referred to weakly
            return Answering(agent=await on_loop(agent), profile=described(agent))
        if profile is None:
            profile = await keep_profile(self._inline, described(agent))
            self._profiles[agent] = profile
        return Answering(agent=await on_loop(agent), profile=profile)

    async def _end_failed(self, turn: ClaimedTurn, failure: Failure) -> None:
        """The entry waits where it is, or in the dead letter queue: in one place, never in two."""
        now = timezone.now()
        if self._dlq is None:
            await self._database.call(turns.release, turn_id=turn.id, available_at=now, now=now)
        elif self._dlq.database is self._database:
            await self._database.call(turns.fail, turn=turn, failure=failure, **NO_RETRY, now=now)
        else:
            await self._dlq.park(turn.entries[0].message, failure)
            await self._inline.give_up(turn, failure)

    async def _left_behind(self) -> list[tuple[int, str]]:
        now = timezone.now()
        await self._database.call(inline.replay, max_worker_deaths=conf.load().max_worker_deaths, now=now)
        return await self._database.call(inline.waiting, platform=self.platform, limit=_MAX_RECOVERED, now=now)


def _session_for_mirror(*, user_id: str, session_id: str) -> str:
    """``user_id``, if a person or a session is called so, else the session of the platform's user of that id."""
    return user_id if mirror.has_conversation(user_id=user_id) else session_id
