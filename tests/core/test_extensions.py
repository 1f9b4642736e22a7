"""Commands of one's own: found where they are named, and left out, with the reason, where they cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from botsrt import checks, conf, extensions
from botsrt.core import commands
from botsrt.core.commands import Command, parse, runs_aside
from botsrt.core.context import SessionContext

TOYS = "tests.toys.chat_commands"
DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    commands.find_own_with(extensions.usable)


def name_commands(settings: Any, *names: str) -> None:
    settings.BOTSRT = {"COMMANDS": ",".join(f"{TOYS}:{name}" for name in names)}
    conf.load.cache_clear()
    commands.find_own_with(extensions.usable)


def problems() -> list[str]:
    return [found.problem for found in extensions.named() if found.command is None]


def install(folder: Path, name: str, code: str, points: str) -> None:
    """A package with entry points, as an installer leaves it."""
    (folder / f"{name}.py").write_text(code)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)


def test_without_any_there_are_the_runtime_s_own():
    assert commands.kinds() == commands.KINDS


def test_a_dotted_path_in_the_settings_adds_a_command(settings):
    name_commands(settings, "hours", "stock")
    assert parse("/hours tomorrow") == Command(name="hours", argument="tomorrow")
    assert parse("/Hours@shop_bot") == Command(name="hours")
    assert runs_aside("hours")
    assert [kind.name for kind in commands.kinds()][-2:] == ["hours", "stock"]
    assert ("hours", "when we are open") in commands.menu()
    assert "stock" not in dict(commands.menu()), "it is for owners"
    assert problems() == []
    assert checks.check_commands(None) == []


def test_an_installed_package_adds_a_command_as_the_document_says(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (points,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    group = re.search(r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', points)
    assert group is not None
    module = group[3].partition(":")[0]
    install(tmp_path, module, code, f"[{group[1]}]\n{group[2]} = {group[3]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    commands.find_own_with(extensions.usable)
    assert parse("/hours") == Command(name="hours")
    call = commands.CommandCall(
        name="hours",
        argument="",
        context=SessionContext(user_name="Ann"),
        is_owner=False,
        account="shop",
        session_id="s",
        entry_id=1,
    )
    assert commands.own()["hours"].answer(call) == "Ann, we are open from 9 to 5."


def test_a_package_that_cannot_be_imported_harms_no_other(tmp_path, monkeypatch, settings):
    install(
        tmp_path, "brokenpackage", "raise RuntimeError('half an update')", "[praisonweb.commands]\nx = brokenpackage:x"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name_commands(settings, "hours")
    assert list(commands.own()) == ["hours"]
    assert problems() == ["RuntimeError: half an update"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "has no missing"),
        ("LET_GO", "must be a botsrt.ChatCommand"),
        ("taken", "/stop has a meaning already"),
        ("shouting", "is not 1 to 20 of a-z"),
        ("helpless", "the help of /helpless is not one line"),
        ("twin", "/hours comes from BOTSRT_COMMANDS tests.toys.chat_commands:hours already"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(settings, caplog, name, said):
    name_commands(settings, "hours", name, "later")
    assert list(commands.own()) == ["hours", "later"]
    (problem,) = problems()
    assert said in problem
    (warning,) = checks.check_commands(None)
    assert warning.id == "botsrt.W004"
    assert said in warning.msg
    assert said in caplog.text


def test_a_name_that_is_no_command_is_a_message_for_the_agent(settings):
    name_commands(settings, "hours")
    assert parse("/hours2") is None
    assert parse("/order_12 now") is None
