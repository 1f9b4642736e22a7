"""Tell whether two failures are the same failure."""

from __future__ import annotations

import hashlib
import re
import traceback
from pathlib import PurePath

_NUMBERS_AND_IDS = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*|\d+|'[^']*'|\"[^\"]*\"", re.IGNORECASE)


def fingerprint(*, account: str, error_class: str, error_text: str, frame: str) -> str:
    """Equal for failures of one bot that differ only in numbers, ids and quoted values. 16 hex digits."""
    normal = _NUMBERS_AND_IDS.sub("#", error_text)[:300]
    return hashlib.sha256("\0".join((account, error_class, normal, frame)).encode()).hexdigest()[:16]


def top_frame(error: BaseException) -> str:
    """The innermost frame that is ours or the agent's, as ``file:function``; empty when there is none.

    Libraries are passed over, so that one cause keeps one name whichever depth of a library raised it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    return f"{PurePath(own[-1].filename).name}:{own[-1].name}" if own else ""
