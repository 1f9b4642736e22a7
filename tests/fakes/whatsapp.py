"""WhatsApp on loopback: the Graph API of the Cloud API, and its calls of the site's webhook.

Try it from a shell; all that a bot needs is printed at the start::

    python -m tests.fakes.whatsapp --port 9300
    curl -s localhost:9300/control/subscribe -d '{"url": "http://127.0.0.1:8000/hooks/whatsapp/line/"}'
    curl -s localhost:9300/control/say -d '{"text": "hello"}'
    curl -s localhost:9300/control/fail_next -d '{"kind": "rate_limit", "times": 3}'
    curl -s localhost:9300/control/sent

In a test::

    async with WhatsAppServer() as server:
        await server.subscribe(f"{site}/hooks/whatsapp/line/")
        server.say("hello")
        await server.until(lambda: server.sent)

Kept from the real one: an address is proved with a challenge before it is used; calls are signed over their raw bytes;
what was not answered with 200 comes again; ids of messages are ``wamid…``, times are digits in a text; errors are
Graph's, with code and details; texts have 4,096 characters, reply buttons 1,024; what was sent is told again as
statuses, with the sender's own data; after 24 hours only templates arrive, and whether a text does is told by a status,
not by the call.
Different: a failed call is repeated within fractions of a second and for ever, calls for one person come in order, and
clocks stand still unless ``let_pass`` moves them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import itertools
import json
import random
import signal
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from tests.fakes.loopback import LoopbackServer

NUMBER_ID = "106540352242922"
DISPLAY_NUMBER = "+1 555-078-3881"
ACCESS_TOKEN = "EAAGfake-access-token-of-the-shop-line"
APP_SECRET = "fake-app-secret-of-the-shop-line"
VERIFY_TOKEN = "fake-verify-token-of-the-shop-line"

#: The one template there is; its body has one variable.
TEMPLATE = "answer_ready"

#: Alice, by phone number and by Meta's id.
PHONE = "16505551234"
USER_ID = "US.13491208655302741918"

#: The first pause before a call is repeated, and the longest, in seconds.
RETRY_SECONDS = (0.02, 1.0)

WINDOW_SECONDS = 24 * 3600

Json = dict[str, Any]

FaultKind = Literal[
    "rate_limit", "pair_limit", "gone", "window", "refused", "error", "bare", "cut_before", "cut_after", "slow",
    "hang_after",
]  # fmt: skip

_CODES: dict[str, tuple[int, int, str]] = {  # kind → HTTP status, code, words
    "rate_limit": (429, 130429, "Rate limit hit"),
    "pair_limit": (400, 131056, "Pair rate limit hit"),
    "gone": (400, 131026, "Message undeliverable"),
    "window": (400, 131047, "Re-engagement message"),
    "refused": (400, 131009, "Parameter value is not valid"),
    "error": (500, 131016, "Service unavailable"),
}

#: What ``chaos`` chooses from.
CHAOS_KINDS: tuple[FaultKind, ...] = ("rate_limit", "error", "bare", "cut_before", "cut_after")


class Refused(Exception):
    """A call of the Graph API is answered with an error."""

    def __init__(self, status: int, code: int, message: str, *, details: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.body: Json = {
            "error": {
                "message": f"(#{code}) {message}",
                "type": "OAuthException",
                "code": code,
                "error_data": {"messaging_product": "whatsapp", "details": details or message},
                "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam",
            }
        }


@dataclass(kw_only=True)
class Fault:
    """What happens to the next sends, in the order in which the faults were set."""

    kind: FaultKind
    times: int = 1
    retry_after: int = 1  # seconds, for limits
    status: int = 502  # for bare: a page, as of a proxy
    seconds: float = 1.0  # for slow and hang_after


@dataclass(kw_only=True)
class Sent:
    """A message of the business as it stands in a chat."""

    to: str
    message_id: str
    kind: str
    text: str
    reply_to: str = ""
    buttons: tuple[tuple[str, str], ...] = ()  # label and id
    data: str = ""  # biz_opaque_callback_data
    is_delivered: bool = True


@dataclass(kw_only=True, eq=False)
class Delivery:
    """One call of the webhook."""

    person: str
    body: bytes
    is_taken: bool = False
    statuses: list[int]  # what the site answered; 0: nothing


class WhatsAppServer(LoopbackServer):
    """The platform. ``async with`` starts and stops it; ``lose_network`` and ``restore_network`` keep what was said."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.token = ACCESS_TOKEN
        self.webhook_url = ""
        self.sent: list[Sent] = []
        self.deliveries: list[Delivery] = []
        self.shown_typing: list[str] = []  # ids of the messages that were marked as read
        self.calls: Counter[str] = Counter()
        self.last_send: Json = {}
        self.statuses_of: tuple[str, ...] = ("sent", "delivered")  # what is told of each message
        self.last_heard: dict[str, float] = {}  # person → when they last wrote
        self.duplicate_rate = 0.0
        self._passed = 0.0  # seconds that ``let_pass`` moved the clock
        self._files: dict[str, tuple[str, bytes]] = {}
        self._ids = itertools.count(1)
        self._faults: deque[Fault] = deque()
        self._fault_rate = 0.0
        self._random = random.Random(0)
        self._queues: dict[str, deque[Delivery]] = {}
        self._couriers: dict[str, asyncio.Task[None]] = {}
        self._http: aiohttp.ClientSession | None = None

    # -- life cycle ----

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
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
        router.add_route("*", "/control/{verb}", self._control)
        router.add_get("/files/{media}", self._file)
        router.add_post("/{version}/{number}/messages", self._messages)
        router.add_get("/{version}/{node}", self._node)

    def so_far(self) -> str:
        return f"sent {len(self.sent)}, calls {dict(self.calls)}"

    # -- the world ----

    async def subscribe(self, url: str, *, verify_token: str = VERIFY_TOKEN) -> bool:
        """Prove an address with a challenge, and use it from then on. Returns whether it answered as it must."""
        assert self._http is not None
        challenge = str(self._random.randrange(10**9))
        query = {"hub.mode": "subscribe", "hub.verify_token": verify_token, "hub.challenge": challenge}
        async with self._http.get(f"{url}?{urlencode(query)}") as response:
            if response.status != 200 or await response.text() != challenge:
                return False
        self.webhook_url = url
        return True

    def revoke(self) -> None:
        """The access token is refused from now on."""
        self.token = "EAAGanother-token"

    def let_pass(self, seconds: float) -> None:
        """Time goes by for the 24 hours that people may be written to."""
        self._passed += seconds

    def fail_next(self, kind: FaultKind, **details: Any) -> None:
        self._faults.append(Fault(kind=kind, **details))

    def chaos(self, *, fault_rate: float = 0.0, duplicate_rate: float = 0.0, seed: int = 0) -> None:
        """From now on fail sends, and deliver calls again, by chance."""
        self._fault_rate, self.duplicate_rate = fault_rate, duplicate_rate
        self._random = random.Random(seed)

    def add_file(self, content: bytes, mime_type: str) -> Json:
        media_id = str(1_000_000_000 + next(self._ids))
        self._files[media_id] = (mime_type, content)
        return {"id": media_id, "mime_type": mime_type, "sha256": hashlib.sha256(content).hexdigest()}

    # -- what people do ----

    def say(self, text: str = "hello", *, phone: str = PHONE, user_id: str = "", **more: Any) -> Delivery:
        """Somebody writes. Without a phone number they are known by ``user_id`` alone."""
        return self.message({"type": "text", "text": {"body": text}, **more}, phone=phone, user_id=user_id)

    def edit(self, message_id: str, text: str, *, phone: str = PHONE) -> Delivery:
        message = {"type": "text", "text": {"body": text}}
        return self.message(
            {"type": "edit", "edit": {"original_message_id": message_id, "message": message}}, phone=phone
        )

    def press(self, sent: Sent, data: str, *, phone: str = PHONE) -> Delivery:
        """Somebody presses a button of a message, or chooses a row of its list."""
        label = next(label for label, known in sent.buttons if known == data)
        kind = "list_reply" if sent.kind == "list" else "button_reply"
        answer = {"type": kind, kind: {"id": data, "title": label}}
        context = {"from": DISPLAY_NUMBER, "id": sent.message_id}
        return self.message({"type": "interactive", "interactive": answer, "context": context}, phone=phone)

    def send_file(self, kind: str, content: bytes, mime_type: str, *, phone: str = PHONE, **more: Any) -> Delivery:
        file = {**self.add_file(content, mime_type), **more}
        return self.message({"type": kind, kind: file}, phone=phone)

    def message(self, fields: Json, *, phone: str = PHONE, user_id: str = "") -> Delivery:
        """A message of any kind: ``fields`` are what comes beside sender, id and time."""
        said: Json = {"id": self.next_id(), "timestamp": str(int(time.time()))}
        contact: Json = {"profile": {"name": "Alice"}}
        if phone:
            said["from"], contact["wa_id"] = phone, phone
        if user_id:
            said["from_user_id"], contact["user_id"] = user_id, user_id
        self.last_heard[phone or user_id] = self._now()
        return self.event({"contacts": [contact], "messages": [{**said, **fields}]}, person=phone or user_id)

    def status(self, message_id: str, name: str, *, data: str = "", to: str = PHONE, **more: Any) -> Delivery:
        """Tell what became of a message."""
        told: Json = {"id": message_id, "status": name, "timestamp": str(int(time.time())), "recipient_id": to}
        if data:
            told["biz_opaque_callback_data"] = data
        return self.event({"statuses": [{**told, **more}]}, person=f"statuses of {to}")

    def event(self, value: Json, *, field: str = "messages", person: str = "") -> Delivery:
        """Any event, as it is."""
        metadata = {"display_phone_number": DISPLAY_NUMBER, "phone_number_id": NUMBER_ID}
        full = {"messaging_product": "whatsapp", "metadata": metadata, **value}
        change = {"value": full, "field": field}
        payload = {"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": [change]}]}
        return self.call(json.dumps(payload).encode(), person=person)

    def call(self, body: bytes, *, person: str = "") -> Delivery:
        """Call the webhook with ``body``, behind the others for this person, until it is taken."""
        delivery = Delivery(person=person, body=body, statuses=[])
        self.deliveries.append(delivery)
        self._queue(delivery)
        return delivery

    def deliver_again(self, delivery: Delivery) -> Delivery:
        return self.call(delivery.body, person=delivery.person)

    def next_id(self) -> str:
        return f"wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQz{next(self._ids):012X}"

    def _now(self) -> float:
        return time.time() + self._passed

    # -- delivery ----

    def _queue(self, delivery: Delivery) -> None:
        self._queues.setdefault(delivery.person, deque()).append(delivery)
        courier = self._couriers.get(delivery.person)
        if courier is None or courier.done():
            self._couriers[delivery.person] = asyncio.get_running_loop().create_task(self._carry(delivery.person))

    async def _carry(self, person: str) -> None:
        """Make one person's calls in order, each until it is taken."""
        queue = self._queues[person]
        pause, longest_pause = RETRY_SECONDS
        while queue:
            delivery = queue[0]
            status = await self.post(delivery.body)
            delivery.statuses.append(status)
            if status == 200:
                queue.popleft()
                delivery.is_taken = True
                pause = RETRY_SECONDS[0]
                if self.duplicate_rate and self._random.random() < self.duplicate_rate:
                    queue.append(delivery)
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest_pause)

    async def post(self, body: bytes, *, secret: str = APP_SECRET) -> int:
        """One signed call; 0 where nobody answers."""
        if not self.webhook_url or not self.is_reachable:
            return 0
        assert self._http is not None
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature(body, secret)}
        try:
            async with self._http.post(self.webhook_url, data=body, headers=headers) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    # -- the Graph API ----

    def _check_token(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, 190, "Invalid OAuth access token - Cannot parse access token")

    async def _node(self, request: web.Request) -> web.Response:
        """The number, or a file's whereabouts."""
        node = request.match_info["node"]
        self.calls["node"] += 1
        try:
            self._check_token(request)
            if node == NUMBER_ID:
                number = {"verified_name": "Shop", "display_phone_number": DISPLAY_NUMBER, "id": NUMBER_ID}
                return web.json_response(number)
            if node not in self._files:
                raise Refused(400, 100, f"Unsupported get request. Object with ID '{node}' does not exist")
            mime_type, content = self._files[node]
            place = f"{self.url}/files/{node}"
            return web.json_response({"url": place, "mime_type": mime_type, "file_size": len(content), "id": node})
        except Refused as refused:
            return _error(refused)

    async def _file(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        mime_type, content = self._files[request.match_info["media"]]
        return web.Response(body=content, content_type=mime_type)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request)
            if request.match_info["number"] != NUMBER_ID:
                raise Refused(400, 100, "Unsupported post request. Object does not exist")
            body: Json = await request.json()
            if body.get("status") == "read":
                self.calls["read"] += 1
                self.shown_typing.append(body["message_id"])
                return web.json_response({"success": True})
            self.calls["send"] += 1
            fault = self._next_fault()
            if fault is not None:
                return await self._misbehave(request, fault, body)
            return web.json_response(self._take(body))
        except Refused as refused:
            return _error(refused)

    def _take(self, body: Json) -> Json:
        sent = _read(body, message_id=self.next_id())
        heard = self.last_heard.get(sent.to)
        sent.is_delivered = heard is None or self._now() - heard <= WINDOW_SECONDS or sent.kind == "template"
        self.last_send = body
        self.sent.append(sent)
        self._tell(sent)
        contact = {"input": sent.to, "wa_id": sent.to}
        return {"messaging_product": "whatsapp", "contacts": [contact], "messages": [{"id": sent.message_id}]}

    def _tell(self, sent: Sent) -> None:
        if sent.is_delivered:
            for name in self.statuses_of:
                self.status(sent.message_id, name, data=sent.data, to=sent.to)
            return
        details = "Message failed to send because more than 24 hours have passed since the customer last replied."
        problem = {"code": 131047, "title": "Re-engagement message", "error_data": {"details": details}}
        self.status(sent.message_id, "failed", data=sent.data, to=sent.to, errors=[problem])

    # -- faults ----

    def _next_fault(self) -> Fault | None:
        if self._faults:
            fault = self._faults[0]
            fault.times -= 1
            if fault.times <= 0:
                self._faults.popleft()
            return fault
        if self._fault_rate and self._random.random() < self._fault_rate:
            return Fault(kind=self._random.choice(CHAOS_KINDS))
        return None

    async def _misbehave(self, request: web.Request, fault: Fault, body: Json) -> web.StreamResponse:
        if fault.kind in _CODES:
            status, code, words = _CODES[fault.kind]
            is_limit = fault.kind.endswith("limit")
            headers = {"Retry_After": str(fault.retry_after)} if is_limit else {}
            raise Refused(status, code, words, **headers)
        match fault.kind:
            case "bare":
                page = f"<html><head><title>{fault.status}</title></head><body>proxy</body></html>"
                return web.Response(status=fault.status, text=page, content_type="text/html")
            case "slow":
                await asyncio.sleep(fault.seconds)
                return web.json_response(self._take(body))
            case "cut_after":
                self._take(body)
            case "hang_after":
                self._take(body)
                await asyncio.sleep(fault.seconds)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    # -- for other processes ----

    async def _control(self, request: web.Request) -> web.Response:
        """Verbs: the arguments are a JSON object, the answer is JSON."""
        verb = request.match_info["verb"]
        arguments = json.loads(await request.read() or b"{}")
        if verb == "sent":
            return web.json_response([asdict(sent) for sent in self.sent])
        if verb == "subscribe":
            return web.json_response(await self.subscribe(**arguments))
        if verb not in VERBS:
            return web.json_response({"error": "no such verb", "verbs": sorted(VERBS)}, status=404)
        result = getattr(self, verb)(**arguments)
        return web.json_response(json.loads(result.body) if isinstance(result, Delivery) else result)


#: What ``POST /control/<verb>`` may call.
VERBS = frozenset({"say", "message", "status", "event", "revoke", "fail_next", "chaos", "let_pass"})


def signature(body: bytes, secret: str = APP_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def message_of(delivery: Delivery) -> Json:
    """The message that a call tells of."""
    value = json.loads(delivery.body)["entry"][0]["changes"][0]["value"]
    message: Json = value["messages"][0]
    return message


def _read(body: Json, *, message_id: str) -> Sent:
    """A call of ``/messages``, checked as WhatsApp does."""
    to = body.get("to") or body.get("recipient")
    if body.get("messaging_product") != "whatsapp" or not isinstance(to, str) or not to:
        raise Refused(400, 100, "Invalid parameter", details="messaging_product and a recipient are required")
    if ("to" in body) != to.isdecimal():
        raise Refused(400, 100, "Invalid parameter", details="to is a phone number, recipient a user id")
    data = body.get("biz_opaque_callback_data", "")
    if len(data) > 512:
        raise Refused(400, 131009, "Parameter value is not valid", details="biz_opaque_callback_data is too long")
    sent = Sent(to=to, message_id=message_id, kind=body.get("type", "text"), text="", data=data)
    sent.reply_to = (body.get("context") or {}).get("message_id", "")
    match sent.kind:
        case "text":
            sent.text = _within(body["text"]["body"], 4_096)
        case "template":
            _read_template(sent, body["template"])
        case "interactive":
            _read_interactive(sent, body["interactive"])
        case _:
            raise Refused(400, 131051, "Unsupported message type")
    return sent


def _read_template(sent: Sent, template: Json) -> None:
    if template["name"] != TEMPLATE or template["language"]["code"] != "en":
        raise Refused(404, 132001, "Template does not exist in the translation")
    ((parameter,),) = [component["parameters"] for component in template["components"]]
    text = parameter["text"]
    if "\n" in text or "\t" in text or "     " in text:
        raise Refused(400, 132018, "Template parameter has line breaks, tabs or more than four spaces")
    sent.text = f"We have an answer for you: {_within(text, 1_024)}"


def _read_interactive(sent: Sent, interactive: Json) -> None:
    if interactive["type"] == "button":
        sent.text = _within(interactive["body"]["text"], 1_024)
        replies = [button["reply"] for button in interactive["action"]["buttons"]]
        longest, most = 20, 3
    else:
        sent.kind = "list"
        sent.text = _within(interactive["body"]["text"], 4_096)
        _within(interactive["action"]["button"], 20)
        replies = [row for section in interactive["action"]["sections"] for row in section["rows"]]
        longest, most = 24, 10
    if not 1 <= len(replies) <= most:
        raise Refused(400, 131009, "Parameter value is not valid", details="number of buttons")
    sent.buttons = tuple((_within(reply["title"], longest), _within(reply["id"], 200)) for reply in replies)


def _within(text: str, most: int) -> str:
    if not 1 <= len(text) <= most:
        raise Refused(400, 131009, "Parameter value is not valid", details=f"length must be 1 to {most}")
    return text


def _error(refused: Refused) -> web.Response:
    return web.json_response(refused.body, status=refused.status, headers=refused.headers)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.whatsapp", description="WhatsApp on loopback.")
    parser.add_argument("--port", type=int, default=9300)
    options = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with WhatsAppServer(port=options.port) as server:
        print(f"credentials access_token={ACCESS_TOKEN} app_secret={APP_SECRET} verify_token={VERIFY_TOKEN}")
        print(f"settings phone_number_id={NUMBER_ID} api_base_url={server.url}")
        print(f"POST {server.url}/control/<verb>: subscribe sent {' '.join(sorted(VERBS))}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
