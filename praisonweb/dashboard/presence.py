"""Who has a conversation open: signs of life that staff's pages pass to each other over the channel layer.

Nothing is stored. A page repeats its sign as long as it holds; one that is not repeated is forgotten by the others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from channels.layers import get_channel_layer
from django.contrib.auth.models import User

from botsrt.core.text import one_line
from praisonweb.dashboard.access import Act

#: What a page may say that its person does, and the act that it needs.
SIGNS: Mapping[str, Act] = {"reading": Act.READ, "typing": Act.REPLY}

#: Told by the server for a page that was closed.
GONE = "gone"

#: Signs of one kind that come sooner after each other than this are passed over, in seconds.
MIN_APART_SECONDS = 0.5

#: Longest frame that is looked at, in characters.
_MAX_FRAME_CHARS = 200

_MAX_NAME_CHARS = 60

logger = logging.getLogger(__name__)


def group(conversation: int) -> str:
    """The group of the channel layer that pages of one conversation join."""
    return f"site.talk.{conversation}"


def read(frame: str | None) -> str:
    """The sign in a frame; empty when it is none."""
    if frame is None or len(frame) > _MAX_FRAME_CHARS:
        return ""
    try:
        data = json.loads(frame)
    except (ValueError, RecursionError):
        return ""
    doing = data.get("doing") if isinstance(data, dict) and data.get("type") == "sign" else None
    return doing if isinstance(doing, str) and doing in SIGNS else ""


async def tell(conversation: int, *, user: User, doing: str) -> None:
    """Pass a sign on. Where the layer is full or away nobody hears it; the next one comes in a few seconds."""
    layer = get_channel_layer()
    if layer is None:
        return
    name = one_line(user.get_full_name() or user.get_username(), max_chars=_MAX_NAME_CHARS)
    event = {"type": "colleague.signed", "by": user.pk, "who": name, "doing": doing}
    try:
        await layer.group_send(group(conversation), event)
    except Exception as error:  # noqa: BLE001  any failure of the layer costs one sign only
        logger.debug("a sign of presence was not delivered: %s", type(error).__name__)
