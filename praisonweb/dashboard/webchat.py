"""A member of staff as somebody who writes to a web bot. Their messages take the same way as any platform's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from botsrt.core.errors import InvalidInput, NotFound
from botsrt.core.messages import InboundMessage, Sender
from botsrt.runtime.db import database
from botsrt.runtime.intake import Intake
from botsrt.services import workers
from praisonweb.dashboard import access
from praisonweb.dashboard.queries import try_it

PLATFORM = "web"

#: Longest message of a person, in characters.
MAX_TEXT_CHARS = 20_000

_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the page sends. The id is made there, and is the same when it sends the message again."""

    id: str
    text: str


def read(data: Mapping[str, Any]) -> Draft:
    """The draft in what a page sent.

    Raises:
        InvalidInput: a field is missing or cannot be used; says which.
    """
    message_id, text = data.get("id"), data.get("text")
    if not isinstance(message_id, str) or not _MESSAGE_ID.fullmatch(message_id):
        raise InvalidInput("id", "write 8 to 64 letters, digits or '-', the same when the message is sent again.")
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput("text", "is empty; write something.")
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidInput("text", f"has {len(text):,} characters; {MAX_TEXT_CHARS:,} are possible.")
    return Draft(id=message_id, text=text)


def user_id(user: User) -> str:
    """The contact that a member of staff is; also the chat in which they write."""
    return f"staff-{user.pk}"


async def receive(draft: Draft, *, account: str, user: User) -> bool:
    """Store what ``user`` wrote to the bot. Returns after the commit; False: it was stored already.

    Raises:
        NotFound: there is no enabled web bot of this name that ``user`` sees.
        StorageUnavailable: not stored; the page should send it again.
    """
    scope = await access.ascope(user)
    if not await database().call(try_it.takes_messages, account=account, scope=scope):
        raise NotFound(f"The bot {account} does not exist, or is disabled.")
    is_new = await Intake(database(), platform=PLATFORM, account=account).receive(_message(draft, account, user))
    await database().call(
        workers.report_traffic, account=account, last_inbound_at=timezone.now(), last_outbound_at=None
    )
    return is_new


def _message(draft: Draft, account: str, user: User) -> InboundMessage:
    return InboundMessage(
        platform=PLATFORM,
        account=account,
        channel_id=user_id(user),
        message_id=draft.id,
        sender=Sender(user_id=user_id(user), user_name=user.get_username(), display_name=user.get_full_name()),
        text=draft.text,
        is_mentioned=True,
        sent_at=timezone.now(),
    )
