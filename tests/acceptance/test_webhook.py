"""The signed webhook through the real ``runbots --web``: answers in the response, and at the callback."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from botsrt.conf import RuntimeConfig
from tests.acceptance.crash import STEPS
from tests.acceptance.home import ROOT, Home
from tests.acceptance.test_flood import check
from tests.fakes.webhook import SECRET, Partner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LABEL = RuntimeConfig().resend_label
PEOPLE = 10
ROUNDS = 5

_OPEN = "SELECT state, text, error FROM botsrt_outboxmessage WHERE state IN ('pending', 'sending', 'unknown')"
_ENDED = "SELECT count(*) FROM botsrt_journalentry WHERE outcome = 'answered'"


@pytest.fixture
async def partner() -> AsyncIterator[Partner]:
    async with Partner() as partner:
        yield partner


@pytest.fixture
def port(partner: Partner) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    partner.hook_url = f"http://127.0.0.1:{port}/hooks/webhook/erp/"
    return port


async def make_home(tmp_path: Path, *settings: str) -> Home:
    """An installation with one webhook bot, answered by the echo agent."""
    options = [word for setting in settings for word in ("--setting", setting)]
    home = Home(tmp_path)
    bot = ("bots", "add", "erp", "--platform", "webhook", "--policy", "allow", "--credential", f"secret={SECRET}")
    await asyncio.to_thread(home.prepare, (*bot, *options))
    return home


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    return await make_home(tmp_path)


@pytest.fixture
async def home_with_callback(tmp_path: Path, partner: Partner) -> Home:
    callback = (f"callback_url={partner.callback_url}", f"callback_hosts={partner.host}")
    return await make_home(tmp_path, "answers=callback", *callback)


async def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def assert_settled(home: Home, *, answered: int) -> None:
    await until(lambda: home.rows(_ENDED) == [(answered,)] and not home.rows(_OPEN))
    report = await asyncio.to_thread(home.json, "ledger")
    assert not report["open"], report


async def test_the_example_of_the_page_works_as_it_stands(home: Home, port: int) -> None:
    page = (ROOT / "docs" / "webhook.md").read_text("utf-8")
    (script,) = [block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "curl" in block]
    env = {"PATH": home.env["PATH"], "WEBHOOK_SECRET": SECRET, "SITE": f"http://127.0.0.1:{port}"}
    async with home.runbots("--web", str(port)):
        process = await asyncio.create_subprocess_exec(
            "sh", "-eu", "-c", script, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    answer = json.loads(out)
    assert (answer["status"], answer["replies"]) == ("answered", ["Where is my parcel?"])


async def test_every_call_gets_its_answer_and_a_repeated_one_the_same(home: Home, partner: Partner, port: int) -> None:
    async with home.runbots("--web", str(port)):
        calls = [
            partner.say(f"{number} from {user}", user=f"user-{user}")
            for number in range(ROUNDS)
            for user in range(PEOPLE)
        ]
        await partner.until(lambda: all(call.is_taken for call in calls), seconds=90)
        again = [partner.call_again(call) for call in calls[:PEOPLE]]
        await partner.until(lambda: all(call.is_taken for call in again), seconds=60)
        await assert_settled(home, answered=PEOPLE * ROUNDS)
    assert [call.answers[-1]["replies"] for call in calls] == [[json.loads(call.body)["text"]] for call in calls]
    assert [call.answers[-1] for call in again] == [call.answers[-1] for call in calls[:PEOPLE]]
    assert home.rows("SELECT sum(duplicates) FROM botsrt_journalentry") == [(PEOPLE,)]


async def test_a_stranger_gets_the_pairing_code_in_the_response(home: Home, partner: Partner, port: int) -> None:
    await asyncio.to_thread(home.manage, "bots", "set", "erp", "--policy", "pair")
    async with home.runbots("--web", str(port)):
        call = partner.say("May I come in?")
        await partner.until(lambda: call.is_taken, seconds=60)
        answer = call.answers[-1]
        assert answer["status"] == "held"
        (notice,) = answer["replies"]
        code = re.search(r"[A-Z2-9]{4}-?[A-Z2-9]{4}", notice)
        assert code is not None, notice
        await asyncio.to_thread(home.manage, "pairing", "verify", "erp", code[0])
        await until(lambda: home.rows(_ENDED) == [(1,)])
        again = partner.call_again(call)
        await partner.until(lambda: again.is_taken, seconds=60)
    assert again.answers[-1]["status"] == "answered"
    assert "May I come in?" in again.answers[-1]["replies"]


async def test_answers_reach_the_callback_once_each_and_in_order_through_faults(
    home_with_callback: Home, partner: Partner, port: int
) -> None:
    home = home_with_callback
    async with home.runbots("--web", str(port)):
        said: dict[str, list[str]] = defaultdict(list)
        for number in range(ROUNDS):
            for person in range(PEOPLE):
                user = f"user-{person}"
                said[user].append(f"{number} from {user}")
                partner.say(said[user][-1], user=user)
            partner.fail_next("status", status=503)
            partner.fail_next("cut_after")
            partner.fail_next("status", status=429, headers={"Retry-After": "1"})
        await assert_settled(home, answered=PEOPLE * ROUNDS)
    got = [(one.content["channel_id"], one.content["text"]) for one in partner.got]
    check(got, said)
    assert not [text for _, text in got if text.startswith(LABEL)], "The callback takes a key once."
    assert any(one.times > 1 for one in partner.got), "What was cut was sent again."


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_costs_no_answer(
    home_with_callback: Home, partner: Partner, port: int, step: str
) -> None:
    home = home_with_callback
    (home.path / "crash").write_text(step)
    program = ("-m", "tests.acceptance.crashing_runbots")
    async with home.runbots("--web", str(port), program=program, CRASH_PLATFORM="webhook") as process:
        if step == "during_send":
            partner.fail_next("slow", seconds=0.4)
        partner.say("Where is my parcel?")
        await process.wait(seconds=40)
    async with home.runbots("--web", str(port)):
        await assert_settled(home, answered=1)
    (got,) = partner.got
    assert got.content["text"].removeprefix(LABEL) == "Where is my parcel?"
    if STEPS.index(step) < STEPS.index("during_send"):
        assert (got.content["text"], got.times) == ("Where is my parcel?", 1)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "during_send"])
async def test_a_caller_that_repeats_its_call_gets_the_answer_after_a_crash_at_any_step(
    home: Home, partner: Partner, port: int, step: str
) -> None:
    (home.path / "crash").write_text(step)
    program = ("-m", "tests.acceptance.crashing_runbots")
    async with home.runbots("--web", str(port), program=program, CRASH_PLATFORM="webhook") as process:
        call = partner.say("Where is my parcel?")
        await process.wait(seconds=40)
    async with home.runbots("--web", str(port)):
        await partner.until(lambda: call.is_taken, seconds=60)
        await assert_settled(home, answered=1)
    assert call.answers[-1]["replies"] == ["Where is my parcel?"]
