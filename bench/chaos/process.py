"""``manage.py`` for a process of the chaos harness: ``python -m bench.chaos.process runbots``.

It writes down which tasks its event loop has when SIGUSR2 comes (into CHAOS_TASKS), and has the bug that CHAOS_PLANT
names. Nothing else is different.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType


def write_tasks(number: int, frame: FrameType | None) -> None:
    with suppress(RuntimeError):  # no event loop runs yet, or any more
        names = sorted(task.get_name() for task in asyncio.all_tasks())
        path = Path(os.environ["CHAOS_TASKS"])
        path.with_suffix(".new").write_text(json.dumps(names))
        path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "praisonweb.settings")
    signal.signal(signal.SIGUSR2, write_tasks)
    import django
    from django.core.management import execute_from_command_line

    django.setup()
    if plant := os.environ.get("CHAOS_PLANT"):
        from bench.chaos import plants

        plants.PLANTS[plant].install()
    execute_from_command_line(["manage.py", *sys.argv[1:]])
