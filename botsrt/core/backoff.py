"""How long to wait before the next try."""

from __future__ import annotations

import random
from datetime import timedelta

#: Wait before attempt 1, 2, 3, … of a message, in seconds. Spaced, so that a short outage does not use up all of them.
#: Source: features, "Inbound journal".
TURN_DELAYS_SECONDS = (0, 5, 300, 1_800, 7_200)

#: Each wait is stretched by up to this fraction, so that what failed together is not retried together.
JITTER = 0.2


def before_turn(attempt: int) -> timedelta:
    """The wait before attempt number ``attempt`` (1-based) of a journal entry."""
    seconds = TURN_DELAYS_SECONDS[min(attempt, len(TURN_DELAYS_SECONDS)) - 1]
    return timedelta(seconds=_jittered(seconds))


def exponential(failures: int, *, first_seconds: float = 1.0, max_seconds: float = 60.0) -> timedelta:
    """The wait after ``failures`` failures in a row (1-based): doubled each time, up to ``max_seconds``."""
    seconds = min(first_seconds * 2 ** min(failures - 1, 30), max_seconds)
    return timedelta(seconds=_jittered(seconds))


def _jittered(seconds: float) -> float:
    return seconds * (1 + random.uniform(0, JITTER))
