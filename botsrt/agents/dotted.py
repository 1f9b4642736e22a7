"""What a setting names as ``package.module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any

from botsrt.core.errors import ConfigurationError

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def named(name: str, *, setting: str) -> Any:
    """The object that ``name`` stands for.

    Raises:
        ConfigurationError: there is none; begins with ``setting`` and says what to write.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigurationError(
            f"{setting}: {name!r} is not of the form package.module:attribute; write, for example, my_agents:answer."
        )
    module, attribute = match.groups()
    return _attribute(_module(module, setting), module, attribute, setting)


def _module(name: str, setting: str) -> Any:
    importlib.invalidate_caches()  # the file may be newer than this process
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"{setting}: there is no module {error.name}; put it beside manage.py, install it, or add its folder "
                "to PYTHONPATH."
            ) from error
        raise ConfigurationError(f"{setting}: {name} needs the module {error.name}, which is not installed.") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{setting}: importing {name} failed: {type(error).__name__}: {error}") from error


def _attribute(module: Any, module_name: str, path: str, setting: str) -> Any:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, [known for known in dir(found) if known[0] != "_"], n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"{setting}: {module_name} has no {path}.{hint}")
        found = getattr(found, name)
    return found
