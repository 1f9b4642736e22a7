"""The one error tree. An exception's docstring is its message unless one is given.

Adapters and agents translate vendor errors into these and keep ``__cause__``. HTTP codes do not exist here.
"""

from __future__ import annotations

from datetime import timedelta


class BotsError(Exception):
    """Something went wrong."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


# -- what a person or a program asked for ----


class InvalidInput(BotsError):
    """The value of a field is not usable. Says the field and what to write instead."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(BotsError):
    """There is no such thing."""


class AlreadyExists(BotsError):
    """That name is taken."""


class Conflict(BotsError):
    """Somebody else was first. Says who did what, and when."""


class TooManyAttempts(BotsError):
    """Somebody guesses. Says until when they are locked out."""


class ConfigurationError(BotsError):
    """The settings of a bot or an agent cannot work. Says which setting, and what to write instead."""


class CredentialError(BotsError):
    """The platform refused the credentials, or they are missing."""


# -- inbound ----


class UnreadableUpdate(BotsError):
    """The platform sent an update that the adapter cannot read."""


class FileUnavailable(BotsError):
    """A file that came with a message cannot be had: it is gone, too large, or elsewhere."""


class ForgedRequest(BotsError):
    """A webhook request did not prove that it comes from the platform."""


# -- the database ----


class StorageUnavailable(BotsError):
    """The database did not take the work. Nothing was stored; the caller may try again later."""


# -- outbound: what became of one call to a platform ----


class SendError(BotsError):
    """The platform did not take a message."""


class RateLimited(SendError):
    """The platform asks to wait."""

    def __init__(self, retry_after: timedelta, *, whole_account: bool = False) -> None:
        super().__init__(f"The platform asks to wait {retry_after.total_seconds():.0f} s.")
        self.retry_after = retry_after
        self.whole_account = whole_account


class PlatformUnavailable(SendError):
    """The platform could not be reached, or said that it failed; the message was certainly not taken."""


class OutcomeUnknown(SendError):
    """The call was cut after the request went out: the message may have arrived, or not."""


class TargetGone(SendError):
    """The chat cannot be written to: blocked, left, or deleted."""


class MessageGone(SendError):
    """The message that was to be edited is gone, or can no longer be edited."""


class ChatMigrated(SendError):
    """The chat goes on under another id."""

    def __init__(self, new_channel_id: str) -> None:
        super().__init__(f"The chat moved to {new_channel_id}.")
        self.new_channel_id = new_channel_id


class MessageRefused(SendError):
    """The platform will never take this message."""


# -- agents ----


class AgentError(BotsError):
    """The agent failed, and would fail again: the message goes to the dead letter queue."""


class TransientAgentError(AgentError):
    """The agent failed in a way that may pass: it is tried again, after ``retry_after`` at the earliest."""

    def __init__(self, message: str = "", *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AgentUnavailable(AgentError):
    """The agent cannot run at all at present (no credentials, for one); the message waits and loses no attempt."""
