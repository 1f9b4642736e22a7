"""A server on loopback that speaks OpenAI's chat completions, as openai 3.52 and pydantic-ai 2.68 use them.

    async with OpenAIServer() as server:
        server.say("Hello!")
        agent = … base_url=server.url …
        assert server.requests[0]["messages"][-1]["content"] == "hello"

Answers are given in the order in which they were set; without one, the last message of the user comes back. A call
with ``stream`` gets server-sent events: a word or a piece of a tool call each, and at the end the usage, if asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(kw_only=True)
class _Answer:
    content: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    pause: float = 0  # between two words, in seconds, where the call streams
    end: Literal["whole", "hang", "cut", "error"] = "whole"  # what follows the words, where the call streams
    body: str | None = None  # instead of JSON

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"

    def pieces(self) -> Iterator[dict[str, Any]]:
        """What the message is made of, as the ``delta`` of one event each."""
        yield {"role": "assistant", "content": None if self.tool_calls else ""}
        for word in re.findall(r"\s*\S+\s*", self.content or ""):
            yield {"content": word}
        for index, call in enumerate(self.tool_calls):
            function = call["function"]
            yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
            for piece in re.findall(r".{1,5}", function["arguments"], re.DOTALL):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


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

    def say(self, text: str, *, seconds: float = 0, pause: float = 0) -> None:
        self._answers.append(_Answer(content=text, seconds=seconds, pause=pause))

    def begin(self, text: str, *, end: Literal["hang", "cut", "error"], pause: float = 0) -> None:
        """Stream a text without an end: nothing follows, or the connection breaks, or an error is told."""
        self._answers.append(_Answer(content=text, pause=pause, end=end))

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

    async def _complete(self, request: web.Request) -> web.StreamResponse:
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
        if asked.get("stream"):
            return await self._stream(request, asked, answer)
        message: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if answer.tool_calls:
            message["tool_calls"] = answer.tool_calls
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"]}
        return web.json_response({**body, "choices": [choice], "usage": _USAGE})

    async def _stream(self, request: web.Request, asked: dict[str, Any], answer: _Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            for delta in answer.pieces():
                await _send(response, asked, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
                await asyncio.sleep(answer.pause)
            await self._end(request, response, asked, answer)
        except (asyncio.CancelledError, ConnectionError):
            self.cut += 1
            raise
        return response

    async def _end(
        self, request: web.Request, response: web.StreamResponse, asked: dict[str, Any], answer: _Answer
    ) -> None:
        match answer.end:
            case "hang":
                await asyncio.Event().wait()
            case "cut":
                assert request.transport is not None
                request.transport.abort()
                return
            case "error":
                trouble = {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
                await response.write(f"data: {json.dumps(trouble)}\n\n".encode())
                return
        await _send(response, asked, choices=[{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}])
        if (asked.get("stream_options") or {}).get("include_usage"):
            await _send(response, asked, choices=[], usage=_USAGE)
        await response.write(b"data: [DONE]\n\n")


async def _send(response: web.StreamResponse, asked: dict[str, Any], **fields: Any) -> None:
    """One event of a stream."""
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], **fields}
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
