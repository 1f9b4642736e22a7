"""Keeps the garbage collector short: it stops every thread of the process while it looks."""

from __future__ import annotations

import gc


def spare_what_stays() -> None:
    """Never look again at what is there now. Called once all is loaded: a full pass over Django, the SDKs and the site,
    which nobody ever releases, takes 50 to 100 ms, and the event loop stands still for it."""
    gc.collect()
    gc.freeze()
