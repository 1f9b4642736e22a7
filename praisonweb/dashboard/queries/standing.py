"""How a row stands, in the words and the tone in which every page says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from botsrt.core.access import MEANINGS


class Tone(StrEnum):
    """What a state asks of the reader. Colour says it too, never alone."""

    GOOD = "good"
    BUSY = "busy"  # goes on by itself
    WARN = "warn"  # may need somebody
    BAD = "bad"  # needs somebody
    IDLE = "idle"  # of no concern


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A state as a badge shows it."""

    word: str
    tone: Tone
    text: str = ""  # one sentence that explains it; empty: the word is enough
    ticks: str = ""  # how messengers draw it, for the eye alone


#: Why an entry ended as it did, or waits, as a sentence: the gate's reasons, and what else can stand in their place.
REASONS: Mapping[str, str] = {
    **{reason.value: meaning for reason, meaning in MEANINGS.items()},
    "pairing_denied": "Staff refused the request that this message began.",
    "pairing_expired": "Nobody decided about the request that this message began while its code was valid.",
    "pairing_full": "The bot had as many requests as it may have; the sender was asked to try again later.",
    "answered_by_staff": "Staff answered it themselves.",
    "stopped": "The person stopped it.",
    "completed_by_program": "A program took it, and said that it is done.",
    "returned_to_caller": "The program that asked has the answer; it was sent to nobody.",
    "linked": "It proved that two accounts are one human.",
}
