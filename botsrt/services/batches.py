"""Services that do the same for many callers in one go.

A service on the way of every message is written for a list of calls, and made callable for one::

    @batched(Ending, _finish_all)
    def finish(*, turn: ClaimedTurn, result: Result, …) -> bool:
        return only(_finish_all([Ending(turn=turn, result=result, …)]))

The bridge (``runtime.db``) gathers the calls that wait for the same service and makes them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Service = TypeVar("Service", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Together:
    """How many calls of one service are made as one."""

    call: Callable[..., Any]  # makes one call of the service's keyword arguments
    make: Callable[[Sequence[Any]], Sequence[Any]]  # makes them all: a result, or the error, for each

    def __call__(self, arguments: Sequence[dict[str, Any]]) -> Sequence[Any]:
        return self.make([self.call(**one) for one in arguments])


_TOGETHER: dict[Callable[..., Any], Together] = {}


def batched(call: Callable[..., Any], make: Callable[[Sequence[Any]], Sequence[Any]]) -> Callable[[Service], Service]:
    """Let calls of the decorated service be made together.

    Args:
        call: takes what the service takes; an item of what ``make`` gets.
        make: makes all of them, in one transaction of its caller. Returns a result for each, in order; an exception
            among the results is raised by the call that it belongs to, whose effects ``make`` has undone. What it
            raises itself is no call's: all are made again, one by one.
    """

    def mark(service: Service) -> Service:
        _TOGETHER[service] = Together(call, make)
        return service

    return mark


def together(service: Callable[..., Any]) -> Together | None:
    """How calls of ``service`` are made together; None: they are not."""
    return _TOGETHER.get(service)


def only(results: Sequence[T | Exception]) -> T:
    """The result of the one call that was made."""
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result
