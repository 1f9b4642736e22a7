"""A server on loopback that speaks OpenAI's chat completions, as openai 3.52 and pydantic-ai 2.68 use them.

    async with OpenAIServer() as server:
        server.say("Hello!")
        agent = … base_url=server.url …
        assert server.requests[0]["messages"][-1]["content"] == "hello"

Answers are given in the order in which they were set; without one, the last message of the user comes back.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web


@dataclass(kw_only=True)
class _Answer:
    content: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    body: str | None = None  # instead of JSON


class OpenAIServer:
    """``url`` ends in ``/v1``. ``requests`` are the bodies of the calls, ``keys`` what they were authorised with."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.cut = 0  # calls whose client went away before the answer
        self._answers: deque[_Answer] = deque()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # -- what it will answer ----

    def say(self, text: str, *, seconds: float = 0) -> None:
        self._answers.append(_Answer(content=text, seconds=seconds))

    def call(self, name: str, **arguments: Any) -> None:
        """The model wants a tool."""
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"call_{len(self._answers)}", "type": "function", "function": function}
        self._answers.append(_Answer(tool_calls=[call]))

    def fail(self, status: int, *, times: int = 1, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        for _ in range(times):
            self._answers.append(_Answer(status=status, headers=names))

    def babble(self, body: str) -> None:
        """Something that is no answer."""
        self._answers.append(_Answer(body=body))

    async def _complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.requests.append(asked)
        self.keys.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        answer = self._answers.popleft() if self._answers else _Answer(content=asked["messages"][-1]["content"])
        try:
            await asyncio.sleep(answer.seconds)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        if answer.body is not None:
            return web.Response(text=answer.body, content_type="application/json")
        if answer.status != 200:
            error = {"error": {"message": f"trouble {answer.status}", "type": "trouble", "code": None}}
            return web.json_response(error, status=answer.status, headers=answer.headers)
        message: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if answer.tool_calls:
            message["tool_calls"] = answer.tool_calls
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tool_calls else "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"]}
        return web.json_response({**body, "choices": [choice], "usage": usage})
