"""The real ``praisonaiagents.Agent`` as the object of a bot, against a server that speaks OpenAI's protocol.

A program of its own, because the package changes how its process warns: prints what happened, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from unittest import mock

from botsrt.core.errors import AgentError
from tests.agents import targets
from tests.agents.world import a_request, python_agent
from tests.fakes.openai import OpenAIServer

PEOPLE = 50


def _talk(request: dict[str, Any]) -> list[str]:
    """What a call of the model is about, without what the package itself says."""
    return [message["content"] for message in request["messages"] if message["role"] != "system"]


_sleep = asyncio.sleep


async def _no_pause(_seconds: float) -> None:
    """The package tries a model that is away several times, with pauses of up to half a minute."""
    await _sleep(0)


async def _main() -> dict[str, Any]:
    async with OpenAIServer() as server:
        os.environ |= {"OPENAI_API_KEY": "a-key", "OPENAI_BASE_URL": server.url, "OPENAI_API_BASE": server.url}
        import praisonaiagents

        foreign = praisonaiagents.Agent(name="helper", instructions="Be brief.", model="gpt-5-mini")
        vars(targets)["foreign"] = foreign  # as a module of somebody's own has it
        agent = python_agent("foreign")

        server.say("Blue.")
        one = await agent.run(a_request("What is it?", earlier=("My favourite colour is blue.", "Noted.")))
        asked = _talk(server.requests.pop())

        async def ask(person: int) -> str:
            earlier = (f"I am person {person:02}.", f"Hello, person {person:02}!")
            return (await agent.run(a_request(f"Who am I? {person:02}", earlier=earlier))).text

        answers = await asyncio.gather(*map(ask, range(PEOPLE)))
        talks = [_talk(request) for request in server.requests]
    with mock.patch("asyncio.sleep", _no_pause):
        try:
            await agent.run(a_request())
        except AgentError as error:
            away = type(error).__name__
    return {
        "answer": one.text,
        "asked": asked,
        "kept": foreign.chat_history,
        "answers": answers,
        "talks": talks,
        "away": away,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main())))
