"""The people who write, and what the platforms show them. Whatever a person says has its own token; see ``agents``."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench.chaos.agents import QUOTE, TOKEN
from botsrt.conf import RuntimeConfig
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import FakeBot, TelegramServer

LABEL = RuntimeConfig().resend_label

#: Bots on Telegram (by long polling; the second holds what may have arrived, the third is called by webhook, the last
#: asks strangers for a code) and on Slack (by websocket, by events).
POLLED, HOLDING, HOOKED, PAIRING = "tg0", "tg1", "tg2", "tg3"
SOCKET, EVENTS = "sl0", "sl1"

#: How often each word is said.
_WORDS = {"plain": 0.974, "slow": 0.012, "flaky": 0.005, "broken": 0.008, "hopeless": 0.001}

#: Messages that may wait for an answer, or for their bot to take them, before people wait, too.
_MOST_WAITING = 300
_MOST_UNTAKEN = 50

#: After so long nobody waits any more, in seconds.
_PATIENCE_SECONDS = 30.0

#: How many messages come together.
_BURSTS = (1, 4, 8, 16)

#: How often somebody new writes to the bot that asks strangers for a code, in seconds.
_STRANGER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a person."""

    token: str
    word: str
    at: float  # time.monotonic


@dataclass(kw_only=True, eq=False)
class Chat:
    """The direct chat of a person with a bot."""

    person: str
    account: str
    platform: str
    user_id: str
    channel: str  # the platform's id of the chat
    said: list[Said] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)
    send: Callable[[str], Callable[[], bool]]  # says something; what it returns tells whether the bot took it


@dataclass(frozen=True, slots=True)
class Post:
    """A message of a bot, as the platform shows it."""

    account: str
    channel: str
    text: str  # without the label
    is_labelled: bool


@dataclass(slots=True)
class Answers:
    """How often a message was quoted."""

    plain: int = 0
    labelled: int = 0

    @property
    def total(self) -> int:
        return self.plain + self.labelled


class Platforms:
    """Telegram and Slack, and their own record of what the bots sent."""

    def __init__(self, telegram: TelegramServer, slack: SlackServer) -> None:
        self.telegram = telegram
        self.slack = slack
        self.answers: dict[str, Answers] = {}
        self._read = [0, 0]

    def look(self) -> None:
        """Read what was sent since the last look."""
        for post in self._news():
            for line in post.text.split("\n"):
                if line.startswith(QUOTE) and (match := TOKEN.search(line)):
                    answers = self.answers.setdefault(match[0], Answers())
                    if post.is_labelled:
                        answers.labelled += 1
                    else:
                        answers.plain += 1

    def _news(self) -> Iterator[Post]:
        telegram, slack = self._read
        self._read = [len(self.telegram.sent), len(self.slack.sent)]
        yield from self.posts(since_telegram=telegram, since_slack=slack)

    def posts(self, *, since_telegram: int = 0, since_slack: int = 0) -> Iterator[Post]:
        """Everything that stands in the chats, in the order in which it came there."""
        for number in range(since_telegram, len(self.telegram.sent)):
            sent = self.telegram.sent[number]
            yield _post(sent.bot, str(sent.chat_id), sent.text)
        for slack_sent in self.slack.sent[since_slack:]:
            yield _post(slack_sent.bot, slack_sent.channel, slack_sent.shown)

    @property
    def waiting(self) -> int:
        """Events that the bots have not taken."""
        telegram = sum(len(bot.pending) + len(bot.again) for bot in self.telegram.bots.values())
        return telegram + sum(not (delivery.is_acked or delivery.is_dropped) for delivery in self.slack.deliveries)


def _post(account: str, channel: str, text: str) -> Post:
    return Post(account, channel, text.removeprefix(LABEL), text.startswith(LABEL.strip()))


class People:
    """Everybody who writes, until told to stop."""

    def __init__(self, platforms: Platforms, *, chance: random.Random, rate: float, persons: int) -> None:
        self.platforms = platforms
        self.chats: list[Chat] = []
        self.linked: list[tuple[str, Chat, Chat]] = []  # persons with a chat on either platform
        self._chance = chance
        self._rate = rate
        self._next_at = time.monotonic()
        self.untaken: defaultdict[str, list[Callable[[], bool]]] = defaultdict(list)  # by bot
        self._tasks: list[asyncio.Task[None]] = []
        self._patience: dict[Chat, tuple[int, int]] = {}  # how far it was looked, and how many are not waited for
        for number in range(persons):
            self._add(f"p{number}", number)

    @property
    def said(self) -> int:
        return sum(len(chat.said) for chat in self.chats)

    def _add(self, person: str, number: int) -> None:
        kind = number % 10
        if kind < 3:
            telegram, slack = self._telegram(person, POLLED, 1_000 + number), self._slack(person, SOCKET, number)
            self.linked.append((person, telegram, slack))
        elif kind < 5:
            self._telegram(person, POLLED, 1_000 + number)
        elif kind == 5:
            self._telegram(person, HOLDING, 1_000 + number)
        elif kind < 8:
            self._telegram(person, HOOKED, 1_000 + number)
        else:
            self._slack(person, SOCKET if kind == 8 else EVENTS, number)

    def _telegram(self, person: str, account: str, user: int) -> Chat:
        bot = self._bot(account)

        def send(text: str) -> Callable[[], bool]:
            update = bot.say(text, user=user)
            return lambda: bot.is_acknowledged(update)

        chat = Chat(
            person=person, account=account, platform="telegram", user_id=str(user), channel=str(user), send=send
        )
        self.chats.append(chat)
        return chat

    def _bot(self, account: str) -> FakeBot:
        return next(bot for bot in self.platforms.telegram.bots.values() if bot.username == account)

    def _slack(self, person: str, account: str, number: int) -> Chat:
        server, user = self.platforms.slack, f"U0P{number}"
        channel = server.dm_channel(user, server._bot(account)).id

        def send(text: str) -> Callable[[], bool]:
            server.dm(text, user=user, bot=account)
            delivery = server.deliveries[-1]
            return lambda: delivery.is_acked

        chat = Chat(person=person, account=account, platform="slack", user_id=user, channel=channel, send=send)
        self.chats.append(chat)
        return chat

    # -- what they do ----

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._write(chat)) for chat in self.chats]
        self._tasks += [asyncio.create_task(self._strangers()), asyncio.create_task(self._look())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _look(self) -> None:
        while True:
            self.platforms.look()
            for account, waiting in self.untaken.items():
                self.untaken[account] = [is_taken for is_taken in waiting if not is_taken()]
            await asyncio.sleep(0.1)

    async def _write(self, chat: Chat) -> None:
        while True:
            await asyncio.sleep(self._chance.expovariate(1.0))
            burst = [await self._say(chat) for _ in range(self._chance.choice(_BURSTS))]
            if chat.platform == "telegram" and self._chance.random() < 0.1:
                has_slow = any(said.word == "slow" for said in burst)
                await self._command(chat, "/stop" if has_slow else self._chance.choice(["/new", "/status", "/stop"]))
            if self._chance.random() < 0.7:
                await self._answered(burst, seconds=self._chance.uniform(1, 10))

    async def _say(self, chat: Chat, word: str = "") -> Said:
        await self._turn_to_speak(chat)
        word = word or self._chance.choices(list(_WORDS), list(_WORDS.values()))[0]
        said = Said(f"{chat.person}.{chat.account}.{len(chat.said)}", word, time.monotonic())
        chat.said.append(said)
        is_taken = chat.send(f"{said.token} {word}")
        self.untaken[chat.account].append(is_taken)
        while chat.platform == "slack" and not is_taken():  # Slack promises no order of what it passes on
            await asyncio.sleep(0.02)
        return said

    async def _command(self, chat: Chat, command: str) -> None:
        await self._turn_to_speak(chat)
        chat.commands[command] += 1
        chat.send(command)

    async def _turn_to_speak(self, chat: Chat) -> None:
        """All together say ``rate`` things a second, and fewer while many wait."""
        self._next_at = max(self._next_at + 1 / self._rate, time.monotonic() - 1)
        await asyncio.sleep(self._next_at - time.monotonic())
        while (
            len(self.untaken[chat.account]) > _MOST_UNTAKEN
            or self.said - len(self.platforms.answers) - self._given_up() > _MOST_WAITING
        ):
            await asyncio.sleep(0.1)

    def _given_up(self) -> int:
        """What is not waited for: it may fail, or staff may have ended it."""
        latest = time.monotonic() - _PATIENCE_SECONDS
        for chat in self.chats:
            start, count = self._patience.get(chat, (0, 0))
            while start < len(chat.said) and chat.said[start].at < latest:
                count += chat.said[start].token not in self.platforms.answers
                start += 1
            self._patience[chat] = (start, count)
        return sum(count for _, count in self._patience.values())

    async def _answered(self, burst: list[Said], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(said.token not in self.platforms.answers for said in burst):
            await asyncio.sleep(0.1)

    async def _strangers(self) -> None:
        """Somebody new every few seconds; who is let in goes on for a while."""
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                number += 1
                group.create_task(self._be_stranger(self._telegram(f"s{number}", PAIRING, 50_000 + number)))
                await asyncio.sleep(self._chance.expovariate(1 / _STRANGER_SECONDS))

    async def _be_stranger(self, chat: Chat) -> None:
        first = await self._say(chat, "plain")
        while first.token not in self.platforms.answers:
            await asyncio.sleep(0.2)
        for _ in range(self._chance.randint(1, 5)):
            await self._answered([await self._say(chat)], seconds=5)
