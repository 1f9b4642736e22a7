"""What functions that agents may call say about themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "botsrt_is_dangerous"


def dangerous(function: Function) -> Function:
    """Decorator of a tool that changes or reveals what matters: agents get it only where their profile allows that."""
    setattr(function, _MARK, True)
    return function


def is_dangerous(function: object) -> bool:
    return bool(getattr(function, _MARK, False))
