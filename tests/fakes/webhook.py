"""A program on loopback that uses the signed webhook: it calls, and has an address that answers go to.

In a test::

    async with Partner() as partner:
        partner.hook_url = f"{site}/hooks/webhook/erp/"
        call = partner.say("hello")
        await partner.until(lambda: partner.got)

A call that is not taken is made again, signed anew, with the same nonce and body; calls of one user come in order. The
callback checks signatures and ages, takes a key once, and can misbehave.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import aiohttp
from aiohttp import web

from tests.fakes.loopback import LoopbackServer

SECRET = "0123456789abcdef-of-the-erp-and-the-shop"

#: The first pause before a call is repeated, and the longest, in seconds.
RETRY_SECONDS = (0.02, 0.5)

Json = dict[str, Any]

FaultKind = Literal["status", "cut_before", "cut_after", "hang_after", "slow"]


@dataclass(kw_only=True)
class Fault:
    """What happens to the next calls of the callback that are no pings."""

    kind: FaultKind
    status: int = 500
    times: int = 1
    seconds: float = 1.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class Call:
    """One call of the hook, and what the site said to it."""

    user: str
    nonce: str
    body: bytes
    statuses: list[int] = field(default_factory=list)
    answers: list[Json] = field(default_factory=list)

    @property
    def is_taken(self) -> bool:
        return bool(self.statuses) and 200 <= self.statuses[-1] < 300


@dataclass(kw_only=True)
class Got:
    """An answer that came to the callback."""

    message_id: str
    key: str
    content: Json
    times: int = 1


def signature(timestamp: str, nonce: str, body: bytes, secret: str = SECRET) -> str:
    signed = f"{timestamp}.{nonce}.".encode() + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def signed(body: bytes, *, nonce: str, secret: str = SECRET, age: float = 0.0) -> dict[str, str]:
    """The headers of a call."""
    timestamp = str(int(time.time() - age))
    return {
        "Content-Type": "application/json",
        "X-Webhook-Timestamp": timestamp,
        "X-Webhook-Nonce": nonce,
        "X-Webhook-Signature": signature(timestamp, nonce, body, secret),
    }


class Partner(LoopbackServer):
    """The program. ``async with`` starts and stops it; ``lose_network`` and ``restore_network`` keep what was said."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.secret = SECRET
        self.hook_url = ""
        self.got: list[Got] = []
        self.pings = 0
        self.requests: list[dict[str, str]] = []  # headers of the callback's calls
        self._numbers = itertools.count(1)
        self._faults: deque[Fault] = deque()
        self._queues: dict[str, deque[Call]] = {}
        self._couriers: dict[str, asyncio.Task[None]] = {}
        self._http: aiohttp.ClientSession | None = None

    @property
    def callback_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/answers"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await self.restore_network()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        couriers = list(self._couriers.values())
        for courier in couriers:
            courier.cancel()
        await asyncio.gather(*couriers, return_exceptions=True)
        await self.lose_network()
        if self._http:
            await self._http.close()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/answers", self._callback)

    def so_far(self) -> str:
        return f"got {len(self.got)}"

    # -- calls of the hook ----

    def say(self, text: str = "hello", *, user: str = "customer-7", **more: Any) -> Call:
        """One of the program's users writes."""
        message_id = f"order-{next(self._numbers)}"
        return self.call({"user_id": user, "text": text, "message_id": message_id, **more}, user=user)

    def call(self, content: Any, *, user: str = "") -> Call:
        """Call the hook until it takes ``content``, behind the other calls for this user."""
        call = Call(user=user, nonce=f"nonce-{next(self._numbers):08d}", body=json.dumps(content).encode())
        self._queue(call)
        return call

    def call_again(self, call: Call) -> Call:
        """The same call once more: same nonce and body, signed anew."""
        again = Call(user=call.user, nonce=call.nonce, body=call.body)
        self._queue(again)
        return again

    def _queue(self, call: Call) -> None:
        self._queues.setdefault(call.user, deque()).append(call)
        courier = self._couriers.get(call.user)
        if courier is None or courier.done():
            self._couriers[call.user] = asyncio.get_running_loop().create_task(self._carry(call.user))

    async def _carry(self, user: str) -> None:
        queue = self._queues[user]
        pause, longest_pause = RETRY_SECONDS
        while queue:
            call = queue[0]
            await self._make(call)
            if call.is_taken or 400 <= call.statuses[-1] < 500:
                queue.popleft()
                pause = RETRY_SECONDS[0]
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest_pause)

    async def _make(self, call: Call) -> None:
        status = 0
        answer: Json = {}
        if self.hook_url and self.is_reachable:
            status, answer = await self.post(call.body, headers=signed(call.body, nonce=call.nonce, secret=self.secret))
        call.answers.append(answer)
        call.statuses.append(status)

    async def post(self, body: bytes, *, headers: dict[str, str]) -> tuple[int, Json]:
        """One request; status 0 where nobody answers."""
        assert self._http is not None
        try:
            async with self._http.post(self.hook_url, data=body, headers=headers) as response:
                text = await response.text()
                is_json = response.content_type == "application/json"
                return response.status, json.loads(text) if is_json else {}
        except (aiohttp.ClientError, TimeoutError):
            return 0, {}

    # -- the callback ----

    def fail_next(self, kind: FaultKind, **details: Any) -> None:
        self._faults.append(Fault(kind=kind, **details))

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        timestamp, nonce = request.headers["X-Webhook-Timestamp"], request.headers["X-Webhook-Nonce"]
        expected = signature(timestamp, nonce, body, self.secret)
        if request.headers["X-Webhook-Signature"] != expected or abs(time.time() - int(timestamp)) > 300:
            return web.json_response({"error": "signature"}, status=403)
        content = json.loads(body)
        if content["type"] == "ping":
            self.pings += 1
            return web.json_response({})
        fault = self._next_fault()
        if fault is None:
            return self._take(request, content)
        return await self._misbehave(request, fault, content)

    def _next_fault(self) -> Fault | None:
        if not self._faults:
            return None
        fault = self._faults[0]
        fault.times -= 1
        if fault.times <= 0:
            self._faults.popleft()
        return fault

    def _take(self, request: web.Request, content: Json) -> web.Response:
        key = request.headers["Idempotency-Key"]
        got = next((one for one in self.got if one.key == key), None)
        if got is None:
            got = Got(message_id=f"erp-{next(self._numbers)}", key=key, content=content)
            self.got.append(got)
        else:
            got.times += 1
        return web.json_response({"id": got.message_id})

    async def _misbehave(self, request: web.Request, fault: Fault, content: Json) -> web.StreamResponse:
        match fault.kind:
            case "status":
                return web.json_response({"error": "no"}, status=fault.status, headers=fault.headers)
            case "slow":
                await asyncio.sleep(fault.seconds)
                return self._take(request, content)
            case "cut_after":
                self._take(request, content)
            case "hang_after":
                self._take(request, content)
                await asyncio.sleep(fault.seconds)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
