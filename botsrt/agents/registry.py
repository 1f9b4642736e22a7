"""Find the class of an agent kind by the name of its module."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

from botsrt.core.errors import InvalidInput
from botsrt.core.ports import Agent

_KIND_NAME = re.compile(r"[a-z][a-z0-9]{0,29}")

#: Modules of ``botsrt.agents`` that are no kind.
_OTHERS = {"base", "failures", "objects", "registry", "threads"}


def kinds(packages: Sequence[str]) -> list[str]:
    """The names of all kinds in ``packages``, sorted."""
    names: set[str] = set()
    for package in packages:
        module = importlib.import_module(package)
        names.update(info.name for info in pkgutil.iter_modules(module.__path__) if _KIND_NAME.fullmatch(info.name))
    return sorted(names - _OTHERS)


@cache
def agent_class(kind: str, packages: tuple[str, ...]) -> type[Agent]:
    """The class of ``kind``: the first of ``packages`` that has it.

    Raises:
        InvalidInput: no package has that kind; the message lists those there are.
    """
    if _KIND_NAME.fullmatch(kind) and kind not in _OTHERS:
        for package in packages:
            if find_spec(f"{package}.{kind}"):
                found: type[Agent] = importlib.import_module(f"{package}.{kind}").Agent
                return found
    raise InvalidInput("kind", f"{kind!r} is not known; there are {', '.join(kinds(packages))}.")
