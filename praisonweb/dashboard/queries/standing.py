"""How a row stands, in the words and the tone in which every page says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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


#: ``core.access.Reason``, as a sentence.
REASONS: Mapping[str, str] = {
    "blocked": "This contact is blocked.",
    "edit_ignored": "The bot ignores edited messages.",
    "not_addressed": "The bot was not addressed.",
    "observe_only": "The bot only reads along here.",
    "policy_deny": "The bot's policy denies people it does not know.",
    "pairing_in_direct_only": "Pairing is possible in a direct chat only.",
    "pairing_required": "This contact is not paired yet.",
}
