"""People at the site, and websockets to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, User
from django.test import AsyncClient, Client

from botsrt.models import AuditEvent, Bot
from botsrt.runtime.db import database
from praisonweb.asgi import application
from praisonweb.dashboard.access import Role
from tests.factories import a_bot

PASSWORD = "correct horse battery staple"
HOST = "localhost:8000"

#: How long a test waits for what should come at once, in seconds.
PATIENCE_SECONDS = 10.0


def a_user(name: str, *roles: Role, is_staff: bool = True, **fields: Any) -> User:
    """An account with roles."""
    user = User.objects.create_user(name, password=PASSWORD, is_staff=is_staff, **fields)
    user.groups.set(Group.objects.filter(name__in=roles))
    return user


@pytest.fixture
def staff(transactional_db: None) -> User:
    """Somebody who may do everything."""
    return a_user("alice", is_superuser=True, first_name="Alice", last_name="Ng")


@pytest.fixture
def plain(transactional_db: None) -> User:
    """Somebody who can sign in, and nothing else."""
    return User.objects.create_user("mallory", password=PASSWORD)


@pytest.fixture
def bot(transactional_db: None) -> Bot:
    return a_bot("shop")


@pytest.fixture
def staff_client(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    AuditEvent.objects.all().delete()  # tests look at what comes after the sign-in
    return client


def confirmed(client: Client) -> Client:
    """``client``, whose person has just confirmed that it is them."""
    session = client.session
    session["sudo_until"] = int(time.time()) + 600
    session.save()
    return client


@pytest.fixture
async def bridge(transactional_db: None) -> AsyncIterator[None]:
    """The process-wide bridge and channel layer, made anew for this test's event loop."""
    database.cache_clear()
    channel_layers.backends.clear()
    yield
    await database().close()
    database.cache_clear()
    channel_layers.backends.clear()


@pytest.fixture
async def browser(staff: User, bridge: None) -> AsyncClient:
    """Alice, signed in, without script."""
    return await signed_in(staff)


async def signed_in(user: User | None) -> AsyncClient:
    """A browser of ``user``; None: of a stranger."""
    client = AsyncClient()
    if user is not None:
        await client.aforce_login(user)
    return client


# -- websockets ----


class Page(WebsocketCommunicator):
    """An open page's end of the websocket."""

    async def say(self, message_id: str, text: str) -> None:
        await self.send_to(text_data=json.dumps({"id": message_id, "text": text}))

    async def hears(self) -> dict[str, Any]:
        """The next event."""
        event: dict[str, Any] = json.loads(await self.receive_from(timeout=PATIENCE_SECONDS))
        return event

    async def hears_type(self, kind: str) -> dict[str, Any]:
        """The next event of ``kind``; others are passed over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                event = await self.hears()
                if event["type"] == kind:
                    return event

    async def is_closed_with(self) -> int:
        """The code with which the server closes; what it says before is passed over."""
        while True:
            output = await self.receive_output(timeout=PATIENCE_SECONDS)
            if output["type"] == "websocket.close":
                return int(output["code"])


def page(client: AsyncClient, path: str, *, origin: str | None = f"http://{HOST}", host: str = HOST) -> Page:
    """The websocket that a page of ``client`` opens, not yet connected."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    headers = [(b"host", host.encode()), (b"cookie", cookies.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    return Page(application, path, headers=headers)


async def is_let_in(communicator: Page) -> bool:
    is_connected, _ = await communicator.connect(timeout=PATIENCE_SECONDS)
    await communicator.disconnect(timeout=PATIENCE_SECONDS)
    return is_connected


@asynccontextmanager
async def open_page(client: AsyncClient, path: str) -> AsyncIterator[Page]:
    communicator = page(client, path)
    is_connected, _ = await communicator.connect(timeout=PATIENCE_SECONDS)
    assert is_connected
    yield communicator
    await communicator.disconnect(timeout=PATIENCE_SECONDS)
