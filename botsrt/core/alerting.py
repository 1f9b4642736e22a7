"""When staff are told of trouble, where, and when not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from botsrt.core.quiet import QuietHours

#: Where mail goes; every other target is a chat of a bot.
MAIL = "mail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The thresholds and the manners of alerts."""

    targets: tuple[str, ...]  # MAIL, or "account/chat" or "account/chat/thread"
    adapter_down_after: timedelta
    backlog_age: timedelta  # of the oldest unanswered message
    full_entries: int  # unfinished ones
    dlq_growth: int  # failures within an hour
    unknown_sends: int
    watches_silence: bool
    clear_after: timedelta  # of being well
    remind_after: timedelta
    quiet: QuietHours | None = None


def chat(target: str) -> tuple[str, str, str]:
    """Account, chat and thread of a target that is no mail.

    Raises:
        ValueError: it is not of that form.
    """
    account, _, rest = target.partition("/")
    channel_id, _, thread_id = rest.partition("/")
    if not account or not channel_id:
        raise ValueError(f"{target!r} is no chat; write the bot's name and the chat's id: shop/-100200300.")
    return account, channel_id, thread_id
