"""Staff at work in the site, over HTTP: retry, replay, take over, answer, hand back, let in, link, retry in bulk.

What they did is read from the audit afterwards: of a request that was cut off nobody knows what became of it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from bench.chaos.agents import TOKEN
from bench.chaos.ground import Postgres, Sqlite
from bench.chaos.people import People

NAME, PASSWORD = "alice", "a-password-for-the-chaos-7"

#: A pause between two acts, on average, in seconds.
_PAUSE_SECONDS = 0.8

#: Words of staff: their number tells which chat they were meant for.
REPLY = "staff says {key} to {channel}"

#: More messages than a request does itself: the task cluster does the rest.
BULK_ITEMS = 60


class Staff:
    def __init__(
        self, url: str, database: Sqlite | Postgres, people: People, mended: Path, *, chance: random.Random
    ) -> None:
        self.acts: Counter[str] = Counter()  # that the site said it did
        self.refused: Counter[str] = Counter()  # by status
        self.replies: dict[str, str] = {}  # text → channel, of all that may have been sent
        self.replayed: set[int] = set()
        self._database = database
        self._people = people
        self._mended = mended
        self._chance = chance
        self._url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=10)
        self._task: asyncio.Task[None] | None = None
        self._in_hand: set[int] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Go home: what was taken over is handed back when all is calm; see ``tidy``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled() and (error := self._task.exception()):
                raise error

    async def close(self) -> None:
        await self._http.aclose()

    async def _work(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self.retry, self.retry, self.replay, self.take_over, self.hand_back, self.answer, self.let_in, self.let_in,
            self.link, self.unlink,
        ]  # fmt: skip
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / _PAUSE_SECONDS))
            try:
                await self._chance.choice(acts)()
            except Exception as error:  # noqa: BLE001  the database or the site is away
                self.refused[type(error).__name__] += 1

    # -- acts ----

    async def retry(self) -> None:
        """One dead letter, after what was broken is mended."""
        rows = await self._rows(
            "SELECT i.id, e.payload FROM botsrt_dlqitem i JOIN botsrt_journalentry e ON e.id = i.entry_id "
            "WHERE i.state = 'open' ORDER BY i.id DESC LIMIT 20"
        )
        if rows:
            item, payload = self._chance.choice(rows)
            self.mend(str(payload))
            await self._post(f"/dlq/{item}/retry/", "retry")

    def mend(self, payload: str) -> None:
        if match := TOKEN.search(payload):
            (self._mended / match[0]).touch()

    async def replay(self) -> None:
        if fresh := await self._fresh():
            pk = self._chance.choice(fresh)
            self.replayed.add(pk)
            await self._post(f"/journal/{pk}/replay/", "replay", mode="send")

    async def take_over(self) -> None:
        if session := await self._any_session("handler = 'bot'"):
            self._in_hand.add(session)
            await self._post(f"/people/{session}/hand-to/human/", "take over")

    async def hand_back(self) -> None:
        if self._in_hand:
            session = self._chance.choice(sorted(self._in_hand))
            if await self._post(f"/people/{session}/hand-to/bot/", "hand back") in (302, 409):
                self._in_hand.discard(session)

    async def answer(self) -> None:
        """What waits with a human is answered by what they say."""
        if not self._in_hand:
            return
        session = self._chance.choice(sorted(self._in_hand))
        ((channel, last),) = await self._rows(
            f"SELECT channel_id, id FROM botsrt_journalentry WHERE session_id = {session} ORDER BY id DESC LIMIT 1"
        )
        key = str(uuid.UUID(int=self._chance.getrandbits(128)))
        text = REPLY.format(key=key, channel=channel)
        self.replies[text] = channel
        for _ in range(2):  # a form that is sent twice is one reply
            await self._post(f"/people/{session}/reply/", "reply", text=text, key=key, seen=str(last))

    async def let_in(self) -> None:
        rows = await self._rows("SELECT id FROM botsrt_pairing WHERE state = 'waiting' ORDER BY id LIMIT 5")
        if rows:
            await self._post(f"/pairings/{self._chance.choice(rows)[0]}/approve/", "let in", reason="they called")

    async def link(self) -> None:
        person, telegram, slack = self._chance.choice(self._people.linked)
        for chat in (telegram, slack):
            if contact := await self._contact(chat.platform, chat.user_id):
                await self._post(f"/people/contacts/{contact}/link/", "link", person=person, reason="they called")

    async def unlink(self) -> None:
        _, telegram, _ = self._chance.choice(self._people.linked)
        if contact := await self._contact(telegram.platform, telegram.user_id):
            await self._post(f"/people/contacts/{contact}/unlink/", "unlink", reason="a mistake")

    async def bulk(self) -> bool:
        """Replay many messages in one act. False: the site did not take it, or there are not so many."""
        fresh = await self._fresh()
        if len(fresh) < BULK_ITEMS:
            return False
        chosen = self._chance.sample(fresh, BULK_ITEMS)
        self.replayed.update(chosen)
        ids = ",".join(map(str, chosen))
        return await self._post("/journal/replay/", "bulk replay", ids=ids, mode="send") == 302

    async def _fresh(self) -> list[int]:
        """Messages of late that are over and were not replayed."""
        rows = await self._rows(
            "SELECT id FROM botsrt_journalentry WHERE state = 'completed' AND command = '' ORDER BY id DESC LIMIT 300"
        )
        return [pk for (pk,) in rows if pk not in self.replayed]

    async def tidy(self) -> None:
        """Hand everything back, let everybody in, retry what can be mended."""
        for (session,) in await self._rows("SELECT id FROM botsrt_botsession WHERE handler <> 'bot'"):
            await self._post(f"/people/{session}/hand-to/bot/", "hand back")
        for (request,) in await self._rows("SELECT id FROM botsrt_pairing WHERE state = 'waiting'"):
            await self._post(f"/pairings/{request}/approve/", "let in", reason="they called")
        rows = await self._rows(
            "SELECT i.id, e.payload FROM botsrt_dlqitem i JOIN botsrt_journalentry e ON e.id = i.entry_id "
            "WHERE i.state = 'open'"
        )
        for item, payload in rows:
            if " hopeless" not in str(payload):
                self.mend(str(payload))
                await self._post(f"/dlq/{item}/retry/", "retry")

    # -- how ----

    async def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self._database.rows, sql)

    async def _any_session(self, condition: str) -> int | None:
        rows = await self._rows(
            f"SELECT id FROM botsrt_botsession WHERE {condition} ORDER BY last_activity_at DESC LIMIT 20"
        )
        return self._chance.choice(rows)[0] if rows else None

    async def _contact(self, platform: str, user_id: str) -> int | None:
        rows = await self._rows(
            f"SELECT id FROM botsrt_contact WHERE platform = '{platform}' AND platform_user_id = '{user_id}'"
        )
        return rows[0][0] if rows else None

    async def _post(self, path: str, act: str, **values: str) -> int:
        """Send a form, signing in before if need be. Returns the status; 0: nobody knows what became of it."""
        for _ in range(2):
            try:
                response = await self._http.post(path, data=values, headers=self._headers())
            except httpx.HTTPError as error:
                self.refused[type(error).__name__] += 1
                return 0
            is_signed_out = response.is_redirect and "/account/sign-in/" in response.headers["location"]
            if response.status_code != 403 and not is_signed_out:
                break
            await self._sign_in()
        if response.status_code in (200, 204, 302):
            self.acts[act] += 1
        else:
            self.refused[f"{act} {response.status_code}"] += 1
        return response.status_code

    async def _sign_in(self) -> None:
        try:
            await self._http.get("/account/sign-in/")
            form = {"username": NAME, "password": PASSWORD}
            await self._http.post("/account/sign-in/", data=form, headers=self._headers())
        except httpx.HTTPError as error:
            self.refused[type(error).__name__] += 1

    def _headers(self) -> dict[str, str]:
        return {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": f"{self._url}/"}
