"""``runbots`` that kills itself with SIGKILL at one step of a message's way.

The file ``crash`` in the data folder names the step; it is removed before the kill, so that one file kills once. The
product knows nothing of this: the steps are wrapped from outside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ORDER = Path(os.environ["PRAISON_HOME"]) / "crash"


def crash_at(step: str) -> None:
    """Die here, if this is the step that was ordered."""
    try:
        if _ORDER.read_text() != step:
            return
        _ORDER.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: Any, name: str, step: str) -> None:
    """Die when ``owner.name`` is called."""
    original: Callable[..., Any] = getattr(owner, name)

    def before(made: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            crash_at(step)
            return made(*args, **kwargs)

        return wrapped

    _replace(owner, name, original, before)


def _replace(
    owner: Any, name: str, original: Callable[..., Any], wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Put the wrapped service in its place; calls that are made together are wrapped as well."""
    from botsrt.services.batches import batched, together

    wrapped = wrap(original)
    if service := together(original):
        batched(service.call, wrap(service.make))(wrapped)
    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, step: str) -> None:
    """Die when ``owner.name`` has done its work and is about to return."""
    original: Callable[..., Any] = getattr(owner, name)
    if asyncio.iscoroutinefunction(original):

        async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs)
            crash_at(step)
            return result

        setattr(owner, name, wrapped_async)
        return

    def after(made: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = made(*args, **kwargs)
            crash_at(step)
            return result

        return wrapped

    _replace(owner, name, original, after)


def _in_the_middle(adapter_class: Any, name: str, step: str) -> None:
    """Die while the request is under way; the platform is slow and has not answered."""
    original = getattr(adapter_class, name)

    async def wrapped(self: Any, message: Any) -> Any:
        call = asyncio.ensure_future(original(self, message))
        await asyncio.wait({call}, timeout=0.05)
        crash_at(step)
        return await call

    setattr(adapter_class, name, wrapped)


def wrap_all() -> None:
    """Wrap every step; see ``crash.STEPS``, and ``test_streaming`` for edits. CRASH_PLATFORM names another platform."""
    from botsrt.adapters import registry
    from botsrt.agents.echo import Agent
    from botsrt.runtime import turn
    from botsrt.runtime.intake import Intake
    from botsrt.services import finishing, journal, outbox

    adapter_class = registry.adapter_class(os.environ.get("CRASH_PLATFORM", "telegram"), ("botsrt.adapters",))
    _after(journal, "receive", "before_receive_commit")
    _after(Intake, "receive", "after_receive_commit")
    _before(Agent, "run", "during_run")
    _before(finishing, "finish", "after_run")
    _after(finishing, "finish", "before_finish_commit")
    _after(turn, "_finish", "after_finish_commit")
    _in_the_middle(adapter_class, "send", "during_send")
    _after(adapter_class, "send", "after_platform_took_it")
    _in_the_middle(adapter_class, "edit", "during_edit")
    _after(adapter_class, "edit", "after_edit")
    _before(outbox, "mark_sent", "before_mark_sent")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
    import django
    from django.core.management import execute_from_command_line

    django.setup()
    wrap_all()
    execute_from_command_line(["manage.py", "runbots", *sys.argv[1:]])
