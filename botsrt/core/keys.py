"""Names that are computed, never chosen: session ids, and the groups of web chats."""

from __future__ import annotations

import hashlib
import re

#: A platform's name. Without an underscore, so that ``bot_{platform}_{user_id}`` can be read in one way only.
PLATFORM_NAME = re.compile(r"[a-z][a-z0-9]{0,29}")

#: The stable id of one configured bot.
ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}", re.IGNORECASE)

#: Platform of the sessions that belong to an ``Agent`` of the library; their account is the agent's name.
LIBRARY_PLATFORM = "library"

#: How the message ids begin of what a program said in a session: no platform gave one.
SAID = "said-"


def direct_session_id(platform: str, user_id: str) -> str:
    """The session of one contact's direct messages. Source: the session documents, kept bit for bit."""
    return f"bot_{platform}_{user_id}"


def group_session_id(platform: str, account: str, channel_id: str, thread_id: str = "") -> str:
    """The session that the members of a group chat (or of one thread in it) share with one bot."""
    base = f"{platform}:acct:{account}:chat:{channel_id}"
    return f"{base}:{thread_id}" if thread_id else base


def person_lane(unified_user_id: str) -> str:
    """The lane of a linked contact's direct messages. No session id looks like it."""
    return f"person:{unified_user_id}"


def is_person_lane(lane: str) -> bool:
    return lane.startswith("person:")


def unified_user_id(lane: str) -> str:
    """Who a lane of direct messages belongs to: the person, or the session id of an unlinked contact."""
    return lane.removeprefix("person:")


def group_name(account: str, channel_id: str) -> str:
    """The channel-layer group of one web chat. Hashed, because a group's name takes 99 characters of a small alphabet.

    An account has no line break, so no two chats share a name.
    """
    return "chat." + hashlib.sha256(f"{account}\n{channel_id}".encode()).hexdigest()


def library_profile(account: str) -> str:
    """The name of a library agent's profile: apart from those that staff made."""
    return f"{LIBRARY_PLATFORM}.{account}"
