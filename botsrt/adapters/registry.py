"""Find the adapter of a platform by the name of its module.

Modules are imported when first asked for: an SDK costs half a second that most commands need not pay.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

from botsrt.core.errors import InvalidInput
from botsrt.core.keys import PLATFORM_NAME
from botsrt.core.ports import Adapter

#: Modules of ``botsrt.adapters`` that are no platform.
_OTHERS = {"registry", "base", "downloads"}


def platforms(packages: Sequence[str]) -> list[str]:
    """The names of all platforms in ``packages``, sorted."""
    names: set[str] = set()
    for package in packages:
        module = importlib.import_module(package)
        names.update(info.name for info in pkgutil.iter_modules(module.__path__) if PLATFORM_NAME.fullmatch(info.name))
    return sorted(names - _OTHERS)


@cache
def adapter_class(platform: str, packages: tuple[str, ...]) -> type[Adapter]:
    """The adapter class of ``platform``: the first of ``packages`` that has it.

    Raises:
        InvalidInput: no package has that platform; the message lists those there are.
    """
    if PLATFORM_NAME.fullmatch(platform) and platform not in _OTHERS:
        for package in packages:
            if find_spec(f"{package}.{platform}"):
                found: type[Adapter] = importlib.import_module(f"{package}.{platform}").Adapter
                return found
    raise InvalidInput("platform", f"{platform!r} is not known; there are {', '.join(platforms(packages))}.")
