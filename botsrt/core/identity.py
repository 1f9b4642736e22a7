"""Who is behind a platform's user: what an identity resolver is, and how its answer is read.

A resolver maps (platform, platform user id) to a unified user id, the name of a person. Links are explicit: nothing
here guesses a person from shown names.

Source: the cross-platform session documents (``resolve``, ``link``), and ``praisonaiagents.session`` (the answer for a
user without a link; ``unlink``, ``links_for``), whose resolvers can be used as they are.
"""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

from botsrt.core import keys
from botsrt.core.errors import InvalidInput
from botsrt.core.text import one_line

_UNIFIED_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")

#: How the session ids of unlinked contacts begin. A person of such a name would share the lane of a stranger.
_SESSION_PREFIX = "bot_"


@runtime_checkable
class IdentityResolverProtocol(Protocol):
    """Any object that knows who is who. Called from several threads at once."""

    def resolve(self, platform: str, platform_user_id: str) -> str:
        """The person's unified user id; for a user without a link, anything that ``is_linked`` says is none."""

    def link(self, platform: str, platform_user_id: str, unified_user_id: str) -> None:
        """Say that this user is that person, whatever was said before."""


@runtime_checkable
class ListsLinks(IdentityResolverProtocol, Protocol):
    """A resolver that can also take links back and name them. Test for it with ``isinstance``."""

    def unlink(self, platform: str, platform_user_id: str) -> bool | None:
        """End a link. True: there was one; False: there was none; None: the resolver does not tell."""

    def links_for(self, unified_user_id: str) -> list[tuple[str, str]]:
        """The (platform, platform user id) pairs of a person. Read it through ``links_of``."""


def unlinked_id(platform: str, platform_user_id: str) -> str:
    """What our resolvers answer for a user without a link. Source: ``praisonaiagents``, which asks for this form."""
    return f"{platform}:{platform_user_id}"


def is_linked(unified_user_id: str | None, platform: str, platform_user_id: str) -> bool:
    """Whether a resolver's answer names a person, and is not merely another way to write the user that was asked for.

    These count as "no link": nothing, ``platform:user``, ``bot_platform_user`` and the bare user id. So a person who is
    called like the user's own id cannot be told from a user without a link; our resolvers refuse to make such a link.
    """
    if not unified_user_id or not unified_user_id.strip():
        return False
    return unified_user_id not in (
        platform_user_id,
        unlinked_id(platform, platform_user_id),
        keys.direct_session_id(platform, platform_user_id),
    )


def links_of(resolver: object, unified_user_id: str) -> list[tuple[str, str]] | None:
    """The (platform, platform user id) pairs of a person, sorted; None if ``resolver`` cannot list them.

    Takes pairs, and the link objects of ``praisonaiagents`` with ``platform`` and ``platform_user_id``.
    """
    if not isinstance(resolver, ListsLinks):
        return None
    return sorted(_pair(link) for link in resolver.links_for(unified_user_id))


def _pair(link: object) -> tuple[str, str]:
    if isinstance(link, tuple | list):
        platform, platform_user_id = link
    else:
        platform, platform_user_id = link.platform, link.platform_user_id  # type: ignore[attr-defined]
    return platform, platform_user_id


def checked_unified_id(text: str) -> str:
    """``text``, if staff may give a person this id.

    Raises:
        InvalidInput: it is not a slug, or it could be taken for a session id.
    """
    if _UNIFIED_ID.fullmatch(text) is None:
        raise InvalidInput(
            "person",
            f"{one_line(repr(text), max_chars=80)}: write 1 to 63 lowercase letters, digits, '-', '_' and '.', "
            "beginning with a letter or a digit; alice, for example.",
        )
    if text.startswith(_SESSION_PREFIX):
        raise InvalidInput("person", f"{text!r}: do not begin with {_SESSION_PREFIX!r}, as session ids do.")
    return text
