"""WhatsApp through the real ``runbots --web``: calls of the webhook come in, answers and their ticks come out."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from botsrt.conf import RuntimeConfig
from tests.acceptance.crash import STEPS
from tests.acceptance.home import Home
from tests.acceptance.test_flood import check
from tests.fakes.whatsapp import (
    ACCESS_TOKEN,
    APP_SECRET,
    NUMBER_ID,
    PHONE,
    TEMPLATE,
    USER_ID,
    VERIFY_TOKEN,
    WhatsAppServer,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LABEL = RuntimeConfig().resend_label
PEOPLE = 20
ROUNDS = 5

_OPEN = "SELECT state, text, error FROM botsrt_outboxmessage WHERE state IN ('pending', 'sending', 'unknown')"
_ENDED = "SELECT count(*) FROM botsrt_journalentry WHERE outcome = 'answered'"


@pytest.fixture
async def server() -> AsyncIterator[WhatsAppServer]:
    async with WhatsAppServer() as server:
        yield server


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
async def home(tmp_path: Path, server: WhatsAppServer) -> Home:
    """An installation with one bot on WhatsApp, answered by the echo agent."""
    given = {"access_token": ACCESS_TOKEN, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN}
    settings = {"phone_number_id": NUMBER_ID, "api_base_url": server.url}
    options = [word for name, value in given.items() for word in ("--credential", f"{name}={value}")]
    options += [word for name, value in settings.items() for word in ("--setting", f"{name}={value}")]
    home = Home(tmp_path)
    bot = ("bots", "add", "line", "--platform", "whatsapp", "--policy", "allow", *options)
    await asyncio.to_thread(home.prepare, bot)
    return home


def address(port: int) -> str:
    return f"http://127.0.0.1:{port}/hooks/whatsapp/line/"


async def until(condition: Callable[[], object], *, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def assert_balanced(home: Home) -> None:
    report = await asyncio.to_thread(home.json, "ledger")
    assert not report["open"], report


async def test_a_message_is_answered_and_its_ticks_are_stored(home: Home, server: WhatsAppServer, port: int) -> None:
    server.statuses_of = ("sent", "delivered", "read")
    async with home.runbots("--web", str(port)):
        assert await server.subscribe(address(port))
        server.say("Where is my parcel?", user_id=USER_ID)
        await server.until(lambda: server.sent, seconds=40)
        await until(lambda: home.rows("SELECT 1 FROM botsrt_outboxmessage WHERE read_at IS NOT NULL"))
        server.say("Without my number", phone="", user_id=USER_ID)
        await server.until(lambda: len(server.sent) == 2, seconds=40)
        await assert_balanced(home)
    assert [(sent.to, sent.text) for sent in server.sent] == [
        (PHONE, "Where is my parcel?"),
        (USER_ID, "Without my number"),
    ]
    assert len(home.rows("SELECT DISTINCT lane FROM botsrt_journalentry")) == 1, "Both ids are one human."


async def test_after_24_hours_an_answer_is_refused_with_the_reason(
    home: Home, server: WhatsAppServer, port: int
) -> None:
    """The answer itself is taken; that it never arrived is told by a status, and the row says why."""
    async with home.runbots("--web", str(port)):
        assert await server.subscribe(address(port))
        server.fail_next("rate_limit", retry_after=2)
        server.say("Are you there?")
        await server.until(lambda: server.calls["send"] == 1, seconds=40)
        server.let_pass(25 * 3600)
        await until(lambda: home.rows("SELECT 1 FROM botsrt_outboxmessage WHERE state = 'dead'"))
    ((error,),) = home.rows("SELECT error FROM botsrt_outboxmessage")
    assert "24 hours" in error


@pytest.mark.parametrize("template", ["", TEMPLATE])
async def test_what_is_known_to_come_too_late_is_refused_here_or_goes_as_the_template(
    home: Home, server: WhatsAppServer, port: int, template: str
) -> None:
    if template:
        await asyncio.to_thread(home.manage, "bots", "set", "line", "--setting", f"template={template}")
    async with home.runbots("--web", str(port)):
        assert await server.subscribe(address(port))
        server.say("Are you there?")
        await server.until(lambda: server.sent, seconds=40)
        await until(lambda: home.rows("SELECT 1 FROM botsrt_outboxmessage WHERE state = 'sent'"))
        home.change("UPDATE botsrt_journalentry SET received_at = '2026-01-01 00:00:00'")
        server.let_pass(25 * 3600)
        await asyncio.to_thread(home.manage, "journal", "replay", "1", "--mode", "again", "--reason", "once more")
        await until(lambda: home.rows("SELECT 1 FROM botsrt_outboxmessage WHERE id = 2 AND state IN ('dead', 'sent')"))
    ((state, error),) = home.rows("SELECT state, error FROM botsrt_outboxmessage WHERE id = 2")
    if template:
        assert (state, error) == ("sent", "")
        assert server.sent[1].text.startswith("We have an answer for you: ")
    else:
        assert state == "dead"
        assert "24 hours" in error
        assert server.calls["send"] == 1, "WhatsApp is not asked."


async def test_a_flood_with_faults_is_answered_once_each_and_in_order(
    home: Home, server: WhatsAppServer, port: int
) -> None:
    async with home.runbots("--web", str(port)):
        assert await server.subscribe(address(port))
        server.chaos(fault_rate=0.05, duplicate_rate=0.1, seed=7)
        said: dict[str, list[str]] = defaultdict(list)
        for number in range(ROUNDS):
            for person in range(PEOPLE):
                phone = str(16_500_000_000 + person)
                said[phone].append(f"{number} from {phone}")
                server.say(said[phone][-1], phone=phone)
        await until(lambda: home.rows(_ENDED) == [(PEOPLE * ROUNDS,)] and not home.rows(_OPEN), seconds=90)
        server.chaos()
        await assert_balanced(home)
    check([(sent.to, sent.text) for sent in server.sent], said)


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_costs_no_message(home: Home, server: WhatsAppServer, port: int, step: str) -> None:
    (home.path / "crash").write_text(step)
    program = ("-m", "tests.acceptance.crashing_runbots")
    async with home.runbots("--web", str(port), program=program, CRASH_PLATFORM="whatsapp") as process:
        assert await server.subscribe(address(port))
        if step == "during_send":
            server.fail_next("slow", seconds=0.4)
        server.say("Where is my parcel?")
        await process.wait(seconds=40)
    async with home.runbots("--web", str(port)):
        await until(lambda: home.rows(_ENDED) == [(1,)] and not home.rows(_OPEN))
        await assert_balanced(home)
    (text,) = [sent.text for sent in server.sent]
    assert text.removeprefix(LABEL) == "Where is my parcel?"
    assert step == "during_send" or text == "Where is my parcel?", "WhatsApp tells what it has: nothing is sent twice."
