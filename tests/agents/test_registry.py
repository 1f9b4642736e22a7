"""Kinds are found by the names of their files."""

from __future__ import annotations

import pytest

from botsrt.agents import echo, python, registry
from botsrt.core.errors import ConfigurationError, InvalidInput

PACKAGES = ("botsrt.agents",)


def test_the_kinds_are_those_that_answer():
    assert {"echo", "python"} <= set(registry.kinds(PACKAGES))
    assert not {"registry", "base", "failures", "objects", "threads"} & set(registry.kinds(PACKAGES))


def test_a_kind_is_found_by_its_name():
    assert issubclass(registry.agent_class("echo", PACKAGES), echo.Agent)
    assert issubclass(registry.agent_class("python", PACKAGES), python.Agent)


def test_a_package_that_is_not_there_is_named_with_its_setting():
    for ask in (lambda: registry.kinds(("no_such_package",)), lambda: registry.agent_class("x", ("no_such_package",))):
        with pytest.raises(ConfigurationError, match="BOTSRT_AGENT_PACKAGES: no_such_package"):
            ask()


@pytest.mark.parametrize("kind", ["", "parrot", "registry", "failures", "../echo", "Echo", "echo.Agent", "os"])
def test_an_unknown_kind_is_refused_with_those_there_are(kind: str):
    with pytest.raises(InvalidInput, match=r"there are .*echo"):
        registry.agent_class(kind, PACKAGES)
