"""Keeps the garbage collector short: it stops every thread of the process while it looks."""

from __future__ import annotations

import gc

#: New containers before the young are looked at (Python: 700), and looks at a generation before the next older one's:
#: a turn makes hundreds that live for a few milliseconds, and looking at them took a twentieth of the processor's time.
_THRESHOLDS = (50_000, 20, 20)


def spare_what_stays() -> None:
    """Never look again at what is there now. Called once all is loaded: a full pass over Django, the SDKs and the site,
    which nobody ever releases, takes 50 to 100 ms, and the event loop stands still for it. What comes is looked at less
    often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
