"""Find the class of an agent kind by the name of its module."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from botsrt.core.errors import ConfigurationError, InvalidInput
from botsrt.core.ports import Agent

_KIND_NAME = re.compile(r"[a-z][a-z0-9]{0,29}")

#: Modules of ``botsrt.agents`` that are no kind.
_OTHERS = {"base", "dotted", "failures", "objects", "registry", "threads"}


def kinds(packages: Sequence[str]) -> list[str]:
    """The names of all kinds in ``packages``, sorted.

    Raises:
        ConfigurationError: there is no such package.
    """
    names: set[str] = set()
    for package in packages:
        module = _package(package)
        names.update(info.name for info in pkgutil.iter_modules(module.__path__) if _KIND_NAME.fullmatch(info.name))
    return sorted(names - _OTHERS)


@cache
def agent_class(kind: str, packages: tuple[str, ...]) -> type[Agent]:
    """The class of ``kind``: the first of ``packages`` that has it.

    Raises:
        InvalidInput: no package has that kind; the message lists those there are.
        ConfigurationError: there is no such package.
    """
    if _KIND_NAME.fullmatch(kind) and kind not in _OTHERS:
        for package in packages:
            if find_spec(f"{_package(package).__name__}.{kind}"):
                found: type[Agent] = importlib.import_module(f"{package}.{kind}").Agent
                return found
    raise InvalidInput("kind", f"{kind!r} is not known; there are {', '.join(kinds(packages))}.")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"BOTSRT_AGENT_PACKAGES: {name} cannot be imported: {error}.") from error
