"""The examples of the source documents, as they stand there but for the import lines, as plain scripts.

Where an example leaves something open ("in your webhook handler"), what it leaves open stands beside it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable

import pytest

from tests.acceptance.home import ROOT
from tests.acceptance.test_pairing_flow import texts, until
from tests.fakes.discord import DiscordServer
from tests.fakes.openai import OpenAIServer
from tests.fakes.telegram import TOKEN, TelegramServer
from tests.library.scripts import Scripts, ported

MANAGE = ROOT / "manage.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def telegram(server: TelegramServer) -> dict[str, str]:
    return {"TELEGRAM_TOKEN": TOKEN, "TELEGRAM_API_BASE_URL": server.url, "TELEGRAM_POLICY": "allow"}


def discord(server: DiscordServer) -> dict[str, str]:
    return {"DISCORD_TOKEN": server.bot.token, "DISCORD_API_BASE_URL": server.url, "DISCORD_POLICY": "allow"}


# -- "Run for weeks" ----


RUN = """
from praisonaiagents import Agent
from praisonai.bots import Bot

agent = Agent(name="assistant", instructions="Be helpful")
bot = Bot("telegram", agent=agent)
bot.run()  # Bounded locks are active by default
"""

RUN_WITH_TTL = """
from praisonaiagents import Agent
from praisonaiagents.bots import BotConfig
from praisonai.bots import Bot

agent = Agent(name="assistant", instructions="Be helpful")
config = BotConfig(session_ttl=86400)  # Reap idle sessions after 24h

bot = Bot("telegram", agent=agent, config=config)
bot.run()
"""


@pytest.mark.parametrize("example", [RUN, RUN_WITH_TTL])
async def test_a_bot_runs(example: str, scripts: Scripts, openai: OpenAIServer) -> None:
    async with TelegramServer() as server:
        server.bot.say("hello", user=7)
        openai.say("Hello, 7!")
        async with scripts.running(ported(example), **telegram(server)):
            await until(lambda: texts(server, 7) == ["Hello, 7!"], seconds=60)
    assert openai.requests[0]["messages"][0]["content"].startswith("Be helpful")
    code, shown = await scripts.manage("bots", "list", "--json")
    assert (code, [bot["account"] for bot in json.loads(shown)]) == (0, ["telegram-assistant"])
    assert (await scripts.manage("ledger"))[0] == 0


async def test_a_missing_token_is_named(scripts: Scripts) -> None:
    assert "CredentialError: TELEGRAM_TOKEN is not set in the environment" in await scripts.fail(ported(RUN))


# -- "Cross-platform sessions" ----


BOTH = """
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import FileIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = FileIdentityResolver()  # ~/.praisonai/identity.json
resolver.link("telegram", "12345", "alice")
resolver.link("discord", "snowflake-1", "alice")

BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
).run()
"""

START = """
from praisonai.bots import Bot
from praisonaiagents import Agent

agent = Agent(name="assistant", instructions="Be helpful.")
bot = Bot("telegram", agent=agent)
await bot.start()
"""

START_BOTH = """
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import FileIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = FileIdentityResolver()
resolver.link("telegram", "12345", "alice")
resolver.link("discord", "snowflake-1", "alice")

botos = BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
)
await botos.start()
"""

IN_MEMORY = """
from praisonai.bots import BotOS
from praisonaiagents import Agent
from praisonaiagents.session import InMemoryIdentityResolver

agent = Agent(name="assistant", instructions="Be helpful.")

resolver = InMemoryIdentityResolver()  # Ephemeral for tests
resolver.link("telegram", "12345", "alice")
resolver.link("discord", "snowflake-1", "alice")

botos = BotOS(
    agent=agent,
    platforms=["telegram", "discord"],
    identity_resolver=resolver,
)
"""

TOOL = """
from praisonaiagents import Agent
from praisonaiagents.session import get_session_context

def whoami() -> str:
    ctx = get_session_context()
    return f"You are {ctx.user_name or ctx.user_id} on {ctx.platform}"

agent = Agent(name="assistant", instructions="Use whoami when asked.", tools=[whoami])
"""

MIRROR = """
from praisonai.bots import mirror_to_session

# After sending a notification programmatically
mirror_to_session(
    session_mgr=bot._session,
    user_id="alice",
    message_text="Reminder: your standup is in 5 minutes.",
    source_label="cron",
)
"""

PROTOCOL = """
from praisonaiagents.session import IdentityResolverProtocol

class DatabaseIdentityResolver:
    def resolve(self, platform: str, platform_user_id: str) -> str:
        # Query your database
        pass

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        # Store in your database
        pass
"""

#: An example that awaits at the top level, in a program: SIGTERM cancels it, as it cancels any program's main task.
PROGRAM = """
import asyncio, contextlib, signal

async def main():
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await example()

async def example():
    {example}

asyncio.run(main())
"""


def in_a_program(example: str) -> str:
    return PROGRAM.format(example=ported(example).strip().replace("\n", "\n    "))


@pytest.mark.parametrize("example", [BOTH, in_a_program(START_BOTH)])
async def test_one_person_has_one_conversation_on_two_platforms(
    example: str, scripts: Scripts, openai: OpenAIServer
) -> None:
    example = example.replace("snowflake-1", "54321")  # Discord's ids are numbers
    async with TelegramServer() as here, DiscordServer() as there:
        channel = there.dm_channel("54321").id
        openai.say("Noted.")
        openai.say("Blue.")
        async with scripts.running(ported(example), **telegram(here), **discord(there)):
            here.bot.say("My favourite colour is blue", user=12345)
            await until(lambda: texts(here, 12345) == ["Noted."], seconds=60)
            there.dm("What is my favourite colour?", user="54321")
            await until(lambda: [sent.text for sent in there.standing(channel)] == ["Blue."], seconds=60)
    asked = [message["content"] for message in openai.requests[1]["messages"]]
    assert "My favourite colour is blue" in asked
    assert "What is my favourite colour?" in asked[-1]
    links = json.loads((scripts.home / ".praisonai" / "identity.json").read_text())["links"]
    assert links == {"telegram::12345": "alice", "discord::54321": "alice"}


async def test_a_bot_starts_in_the_loop_of_a_program(scripts: Scripts, openai: OpenAIServer) -> None:
    async with TelegramServer() as server:
        server.bot.say("hello", user=7)
        openai.say("Hello!")
        async with scripts.running(in_a_program(START), **telegram(server)):
            await until(lambda: texts(server, 7) == ["Hello!"], seconds=60)


async def test_platforms_and_resolver_can_be_named_without_running(scripts: Scripts) -> None:
    await scripts.run(ported(IN_MEMORY) + "assert [bot.platform for bot in botos.bots] == ['telegram', 'discord']\n")


async def test_a_tool_knows_who_writes(scripts: Scripts, openai: OpenAIServer) -> None:
    async with TelegramServer() as server:
        server.bot.say("who am I?", user=501)
        openai.call("whoami")
        openai.say("You are Alice.")
        run = "from botsrt import Bot\nBot('telegram', agent=agent).run()\n"
        async with scripts.running(ported(TOOL) + run, **telegram(server)):
            await until(lambda: texts(server, 501) == ["You are Alice."], seconds=60)
    assert openai.requests[1]["messages"][-1]["content"] == "You are Alice on telegram"


async def test_what_only_a_script_has_waits_for_the_script(scripts: Scripts, openai: OpenAIServer) -> None:
    """Another process cannot call the script's function, and says nothing instead of answering without it."""
    async with TelegramServer() as server:
        run = "from botsrt import Bot\nBot('telegram', agent=agent).run()\n"
        server.bot.say("hello", user=7)
        async with scripts.running(ported(TOOL) + run, **telegram(server)):
            await until(lambda: texts(server, 7) == ["hello"], seconds=60)
        server.bot.say("and now?", user=7)
        runbots = (
            "import runpy, sys\nsys.argv = ['manage.py', 'runbots']\n"
            f"runpy.run_path({str(MANAGE)!r}, run_name='__main__')\n"
        )
        async with scripts.running(runbots, **telegram(server)):
            await until(lambda: turn_states(scripts) == ["cancelled", "finished"], seconds=60)
        assert texts(server, 7) == ["hello"]
    (entry,) = json.loads((await scripts.manage("journal", "list", "--state", "pending", "--json"))[1])
    assert entry["attempts"] == 0


def turn_states(scripts: Scripts) -> list[str]:
    connection = sqlite3.connect(scripts.folder / "praison" / "praisonweb.sqlite3")
    try:
        return sorted(state for (state,) in connection.execute("SELECT state FROM botsrt_turn"))
    finally:
        connection.close()


async def test_a_mirror_is_in_the_history(scripts: Scripts, openai: OpenAIServer) -> None:
    code = (
        ported(START.replace("await bot.start()", "")) + "import asyncio\n"
        "asyncio.run(bot._session.chat(agent, 'alice', 'hello'))\n" + ported(MIRROR) + "from botsrt import *\n"
        "assert mirror_to_session(bot._session, 'nobody', 'lost') is False\n"
        "asyncio.run(bot._session.chat(agent, 'alice', 'when?'))\n"
    )
    await scripts.run(code)
    asked = [message["content"] for message in openai.requests[1]["messages"]]
    assert any("Reminder: your standup is in 5 minutes." in content for content in asked)


async def test_a_resolver_of_ones_own_is_one(scripts: Scripts) -> None:
    check = "assert isinstance(DatabaseIdentityResolver(), IdentityResolverProtocol)\n"
    await scripts.run(ported(PROTOCOL) + check + "import sys\nassert 'django' not in sys.modules\n")


# -- "Session resume" ----


RESUME = """
from praisonaiagents import Agent

# First run - agent with memory and session
agent = Agent(
    name="Bot",
    memory={
        "db": "postgresql://postgres:praison123@localhost/praisonai",
        "session_id": "session-001"
    }
)
response = agent.start("My favorite color is blue")
print(response)

# Later run (same session_id) - automatically resumes
agent2 = Agent(
    name="Bot",
    memory={
        "db": "postgresql://postgres:praison123@localhost/praisonai",
        "session_id": "session-001"
    }
)
response = agent2.start("What's my favorite color?")
# Agent remembers: "Your favorite color is blue"
print(response)
"""

USER_BASED = """
from praisonaiagents import Agent

user_id = "user123"
agent = Agent(
    name="Assistant",
    memory={
        "db": "mydata.db",
        "session_id": f"user-{user_id}-main"
    }
)
"""

CONVERSATION_BASED = """
from praisonaiagents import Agent
import uuid

agent = Agent(
    name="Assistant",
    memory={
        "db": "conversations.db",
        "session_id": f"conv-{uuid.uuid4().hex[:8]}"
    }
)
"""

GENERATED = """
from praisonaiagents import Agent

agent = Agent(
    name="Assistant",
    memory={"db": "mydata.db"}  # session_id auto-generated
)
"""

_THEIR_SERVER = "postgresql://postgres:praison123@localhost/praisonai"


async def assert_resumed(scripts: Scripts, openai: OpenAIServer, database: str) -> None:
    openai.say("Noted.")
    openai.say("Your favorite color is blue")
    out = await scripts.run(ported(RESUME).replace(_THEIR_SERVER, database))
    assert out == "Noted.\nYour favorite color is blue\n"
    asked = [message["content"] for message in openai.requests[1]["messages"] if message["role"] != "system"]
    assert asked == ["My favorite color is blue", "Noted.", "What's my favorite color?"]

    # The same by the command line of the document.
    resume = ("sessions", "resume", "--session-id", "session-001", "--conversation-url", database)
    code, shown = await scripts.manage(*resume, "--show-history")
    assert code == 0
    assert shown.index("My favorite color is blue") < shown.index("Your favorite color is blue")
    openai.say("We discussed colors.")
    assert await scripts.manage(*resume, "--continue", "What did we discuss?") == (0, "We discussed colors.\n")
    assert len(openai.requests[2]["messages"]) == len(openai.requests[1]["messages"]) + 2
    code, shown = await scripts.manage(
        "sessions", "resume", "--session-id", "my-session", "--conversation-url", database
    )
    assert (code, "There is no session my-session" in shown) == (1, True)


async def test_the_same_session_id_resumes_in_a_file(scripts: Scripts, openai: OpenAIServer) -> None:
    await assert_resumed(scripts, openai, "deep/down/mydata.db")
    assert (scripts.folder / "deep" / "down" / "mydata.db").exists()
    assert not (scripts.folder / "praison" / "praisonweb.sqlite3").exists()


@pytest.mark.postgres
async def test_the_same_session_id_resumes_on_postgresql(
    scripts: Scripts, openai: OpenAIServer, postgres_url: str
) -> None:
    await assert_resumed(scripts, openai, postgres_url.replace("postgres://", "postgresql://"))


@pytest.mark.parametrize(
    ("example", "looks_like"),
    [
        (USER_BASED, lambda found: found == "user-user123-main"),
        (CONVERSATION_BASED, lambda found: found.startswith("conv-") and len(found) == 13),
        (GENERATED, lambda found: found.startswith("assistant-") and len(found) > 20),
    ],
)
async def test_session_ids_are_chosen_or_generated(
    example: str, looks_like: Callable[[str], bool], scripts: Scripts, openai: OpenAIServer
) -> None:
    out = await scripts.run(ported(example) + "agent.start('hello')\nprint(agent.session_id)\n")
    assert looks_like(out.strip())
    (database,) = scripts.folder.glob("*.db")
    code, shown = await scripts.manage(
        "sessions", "resume", "--session-id", out.strip(), "--show-history", "--database", str(database)
    )
    assert (code, "hello" in shown) == (0, True)


# -- "Inbound journal" ----


QUICK_START = """
from praisonaiagents import Agent
from praisonai.bots import InboundJournal, BotSessionManager

# 1. Create a journal that survives restarts
journal = InboundJournal(path="~/.praisonai/state/ingress.sqlite")
# 2. Plug it into the session manager
session = BotSessionManager(platform="telegram", ingress_journal=journal)

# 3. Use your agent normally — duplicates and crashes are now handled for you
agent = Agent(name="Support Bot", instructions="Help users with their questions")
"""

PER_PLATFORM = """
from praisonaiagents import Agent
from praisonai.bots import InboundJournal, BotSessionManager

journal = InboundJournal(path="~/.praisonai/telegram-journal.sqlite")
session = BotSessionManager(platform="telegram", ingress_journal=journal)

agent = Agent(
    name="Telegram Bot",
    instructions="Respond helpfully to Telegram users"
)
"""

HANDLER = """
# In your webhook handler:
response = await session.chat(
    agent=agent,
    user_id=update.effective_user.id,
    prompt=update.message.text,
    message_id=str(update.message.message_id),
    account="my_telegram_bot"
)
"""

DEDUP_ONLY = """
from praisonai.bots import InboundJournal, BotSessionManager

# Minimal setup for webhook deduplication
journal = InboundJournal(
    path="~/.praisonai/dedup.sqlite",
    claim_timeout=60  # Fast timeout for quick processing
)

session = BotSessionManager(platform="telegram", ingress_journal=journal)
# Duplicate webhooks now return empty string and skip agent execution
"""

RECOVERY = """
from praisonai.bots import InboundJournal, BotSessionManager

# Setup with crash recovery
journal = InboundJournal(
    path="~/.praisonai/durable.sqlite",
    claim_timeout=600  # 10 minutes for complex agent tasks
)

# On startup, replay any stale claimed entries
replayed_count = journal.replay()
print(f"Replayed {replayed_count} stale entries from previous crash")

session = BotSessionManager(platform="discord", ingress_journal=journal)
"""

FULL_STACK = """
from praisonai.bots import InboundJournal, InboundDLQ, BotSessionManager

# Both journal and DLQ for complete durability
journal = InboundJournal(path="~/.praisonai/journal.sqlite")
dlq = InboundDLQ(path="~/.praisonai/dlq.sqlite")

session = BotSessionManager(
    platform="slack",
    ingress_journal=journal,  # Handles dedup + crash recovery
    dlq=dlq                   # Handles agent failures
)

# Flow: webhook → journal.receive() → agent.chat() → dlq on exception
"""

STARTUP_HOOK = """
import logging
logger = logging.getLogger(__name__)

def startup_hook():
    # Replay any messages that were claimed but not completed
    replayed = journal.replay()
    logger.info(f"Startup replay: {replayed} messages recovered")

# Call this before starting your bot's event loop
startup_hook()
"""

#: The handler of the example, called with an update as python-telegram-bot gives it, twice with the same message.
CALLED_TWICE = """
import asyncio
from types import SimpleNamespace

async def handle(number):
    update = SimpleNamespace(
        effective_user=SimpleNamespace(id=12345), message=SimpleNamespace(text=f"message {{number}}", message_id=number)
    )
    {handler}
    return response

print([asyncio.run(handle(number)) for number in (1, 2, 1)])
"""


def called_twice() -> str:
    return CALLED_TWICE.format(handler=HANDLER.strip().replace("\n", "\n    "))


async def test_a_duplicate_is_silent_also_after_a_restart(scripts: Scripts, openai: OpenAIServer) -> None:
    script = ported(PER_PLATFORM) + called_twice()
    assert await scripts.run(script) == "['message 1', 'message 2', '']\n"
    assert await scripts.run(script) == "['', '', '']\n"
    assert [request["messages"][-1]["content"] for request in openai.requests] == ["message 1", "message 2"]
    assert (scripts.home / ".praisonai" / "telegram-journal.sqlite").exists()


async def test_the_quick_start_stores_where_it_says(scripts: Scripts) -> None:
    await scripts.run(ported(QUICK_START) + called_twice())
    code, shown = await scripts.manage(
        "sessions",
        "resume",
        "--session-id",
        "bot_telegram_12345",
        "--show-history",
        "--database",
        "~/.praisonai/state/ingress.sqlite",
    )
    assert (code, "message 2" in shown) == (0, True)


async def test_without_an_agent_of_the_library(scripts: Scripts) -> None:
    agent = "def agent(request):\n    return f'{len(request.history)}: {request.text}'\n"
    out = await scripts.run(ported(DEDUP_ONLY) + agent + called_twice())
    assert out == "['0: message 1', '2: message 2', '']\n"


async def test_what_a_crash_left_behind_is_answered_after_the_restart(scripts: Scripts) -> None:
    """A process is killed while its agent runs; the next one has the message answered, and no other one again."""
    crash = """
import asyncio, os
def agent(request):
    if request.text == "second":
        os._exit(9)
    return f"re: {request.text}"

asyncio.run(session.chat(agent, 7, "first", message_id="1", account="a"))
asyncio.run(session.chat(agent, 7, "second", message_id="2", account="a"))
"""
    recovery = ported(RECOVERY).replace("claim_timeout=600", "claim_timeout=2")
    assert not await scripts.fail(recovery + crash)
    time.sleep(2.5)  # the claim of a process that is gone becomes stale; nothing tells when
    recover = """
import asyncio
def agent(request):
    return f"{len(request.history)}: {request.text}"

async def send(message, text):
    print(message.sender.user_id, message.message_id, text)

print(asyncio.run(session.recover(agent, send)), asyncio.run(session.recover(agent, send)))
print(repr(asyncio.run(session.chat(agent, 7, "second", message_id="2", account="a"))))
"""
    out = await scripts.run(recovery + ported(STARTUP_HOOK) + recover)
    assert out.splitlines() == [
        "Replayed 1 stale entries from previous crash",
        "7 2 2: second",
        "1 0",
        "''",
    ]


async def test_a_failure_is_in_the_dead_letter_queue_and_can_be_replayed(scripts: Scripts) -> None:
    use = """
import asyncio
is_broken = True

def agent(request):
    if is_broken:
        raise LookupError("the order service does not answer")
    return f"re: {request.text}"

async def one():
    try:
        await session.chat(agent, "U1", "where is my order?", message_id="1", account="a", user_name="Ann")
    except Exception as error:
        print(type(error).__name__, error)

asyncio.run(one())
(entry,) = dlq.list()
print(entry.platform, entry.user_id, entry.user_name, entry.prompt, entry.error, entry.attempts)

async def handler(entry):
    print(await session.chat(agent, entry.user_id, entry.prompt))
    return True

print(asyncio.run(dlq.replay(handler)), [entry.attempts for entry in dlq.list()])
is_broken = False
print(asyncio.run(dlq.replay(handler)), dlq.list(), dlq.purge())
print(repr(asyncio.run(session.chat(agent, "U1", "where is my order?", message_id="1", account="a"))))
"""
    out = await scripts.run(ported(FULL_STACK) + use)
    assert out.splitlines() == [
        "AgentError LookupError: the order service does not answer",
        "slack U1 Ann where is my order? LookupError: the order service does not answer 1",
        "(0, 1) [2]",
        "re: where is my order?",
        "(1, 0) () 0",
        "''",
    ]


def test_the_package_costs_nothing() -> None:
    """Importing it loads neither Django nor anything else of ours."""
    import subprocess
    import sys

    check = "import botsrt, sys; print([name for name in sys.modules if name.startswith(('django', 'botsrt.'))])"
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"
