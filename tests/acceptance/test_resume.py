"""``sessions resume --continue`` beside a real ``runbots``: a person and two operators, and no turn is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.home import Home
from tests.acceptance.test_pairing_flow import manage, texts, until
from tests.fakes.telegram import TOKEN, TelegramServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SESSION = "bot_telegram_7"


async def test_an_operator_continues_while_the_person_writes(tmp_path: Path) -> None:
    home = Home(tmp_path, max_history="1000")
    home.prepare()
    async with TelegramServer() as server:
        home.manage(
            *("bots", "add", "shop", "--platform", "telegram", "--policy", "allow"),
            *("--credential", f"token={TOKEN}", "--setting", f"api_base_url={server.url}"),
        )
        async with home.runbots():
            server.bot.say("hello", user=7)
            await until(lambda: texts(server, 7) == ["hello"])
            said = [word for number in range(25) for word in ("--continue", f"operator {number}")]
            operators = [
                asyncio.create_task(manage(home, "sessions", "resume", "--session-id", SESSION, *said))
                for _ in range(2)
            ]
            for number in range(10):
                server.bot.say(f"person {number}", user=7)
                await asyncio.sleep(0.2)  # people pause between messages
            for done in await asyncio.gather(*operators):
                assert done.stdout.splitlines() == [f"operator {number}" for number in range(25)]
            await until(lambda: "person 9" in "\n".join(texts(server, 7)))
    shown = home.json("sessions", "resume", "--session-id", SESSION, "--show-history")
    asked = [message["text"] for message in shown["messages"] if message["role"] == "user"]
    assert [text for text in asked if text.startswith("person")] == [f"person {number}" for number in range(10)]
    assert sorted(asked) == sorted(
        ["hello", *(f"person {number}" for number in range(10)), *2 * [f"operator {number}" for number in range(25)]]
    )
    assert not any("operator" in text for text in texts(server, 7))
    assert home.manage("ledger", check=False).returncode == 0
