"""What ``deploy/`` says fits this project: commands, options, settings, addresses, times. Nothing is built or run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.urls import resolve
from prometheus_client.core import Metric

from botsrt.conf import RuntimeConfig, from_mapping
from botsrt.runtime.site import DRAIN_SECONDS
from praisonweb.dashboard.queries import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}

CONFIG = RuntimeConfig()

#: When ``runbots`` and ``serve`` end by themselves, in seconds; see ``runtime.shutdown.on_signal`` and who calls it.
RUNBOTS_ENDS = CONFIG.drain_seconds + CONFIG.send_timeout_seconds + 15
SERVE_ENDS = DRAIN_SECONDS + 10


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, each with its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def command_of(path: Path) -> list[str]:
    (line,) = unit(path)["ExecStart"]
    words = shlex.split(line.replace("%i", "1"))
    assert words[1] == "manage.py"
    return words[2:]


def image() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def commands() -> Iterator[Any]:
    for path in UNITS:
        yield pytest.param(command_of(path), id=path.name)
    for name, service in OURS.items():
        yield pytest.param(service["command"], id=f"compose {name}")
    (line,) = re.findall(r"^CMD (\[.*\])$", image(), re.MULTILINE)
    yield pytest.param(yaml.safe_load(line), id="Dockerfile")


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_can_be_given(command: list[str]) -> None:
    name, *arguments = command
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    parser.parse_args(arguments)  # ends the process on what it does not know


def test_all_processes_are_there() -> None:
    assert {command_of(path)[0] for path in UNITS} == {"runbots", "serve", "qcluster"}
    assert {service["command"][0] for service in OURS.values()} == {"migrate", "runbots", "serve", "qcluster"}


def test_every_setting_of_the_example_is_one_that_is_read() -> None:
    text = (DEPLOY / "env.example").read_text()
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "praisonweb/settings.py").read_text()))
    read |= {f"BOTSRT_{field.name.upper()}" for field in fields(RuntimeConfig)}
    assert given.keys() - read == {"POSTGRES_PASSWORD"}, "That one is for compose.yaml."
    from_mapping({name.removeprefix("BOTSRT_"): value for name, value in given.items() if name.startswith("BOTSRT_")})
    secrets = ("SECRET_KEY", "POSTGRES_PASSWORD", "PRAISONWEB_METRICS_TOKEN")
    assert [given[name] for name in secrets] == ["", "", ""], "An example holds no secret that somebody might keep."
    assert set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text())) <= {*given, "PRAISONWEB_TAG"}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_gives_time_to_drain_and_little_else(path: Path) -> None:
    settings = unit(path)
    (seconds,) = settings["TimeoutStopSec"]
    ends = {"runbots": RUNBOTS_ENDS, "serve": SERVE_ENDS, "qcluster": 0}[command_of(path)[0]]
    assert int(seconds) > ends
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["User"] != ["root"]
    for name, value in (("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("CapabilityBoundingSet", "")):
        assert settings[name] == [value]


def test_containers_have_time_to_drain() -> None:
    def seconds(service: dict[str, Any]) -> int:
        return int(str(service["stop_grace_period"]).removesuffix("s"))

    assert seconds(OURS["runbots"]) > RUNBOTS_ENDS
    assert seconds(OURS["site"]) > SERVE_ENDS


def test_the_image_is_pinned_checked_and_nobody_s_root() -> None:
    text = image()
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert "--require-hashes" in text
    assert text.rindex("\nUSER 10001") > text.rindex("\nRUN ")
    (address,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", text)
    assert resolve(address).url_name == "ready"
    for source in re.findall(r"^COPY (?!--from)(\S+) /app", text, re.MULTILINE):
        assert (ROOT / source).exists()
        assert f"!{source}" in (DEPLOY / "Dockerfile.dockerignore").read_text()
    for folder in ("botsrt", "praisonweb", "static", "templates"):
        assert f"COPY {folder} /app/{folder}\n" in text


def test_the_image_can_make_a_backup_of_the_server_beside_it() -> None:
    (installed,) = re.findall(r"apt-get install [^&]*", image())
    assert "postgresql-client" in installed.split()
    (debian,) = re.findall(r"^ARG PYTHON=python:\S+-slim-(\w+)$", image(), re.MULTILINE)
    client = {"bookworm": 15, "trixie": 17}[debian]  # what Debian calls postgresql-client; it refuses newer servers
    server = re.fullmatch(r"postgres:(\d+)-\w+", COMPOSE["services"]["postgres"]["image"])
    assert server
    assert int(server[1]) <= client


@pytest.mark.django_db
def test_the_rules_of_prometheus_name_numbers_that_are_given() -> None:
    from django.utils import timezone

    families: list[Metric] = list(metrics._Numbers(timezone.now()).collect())
    given = {f"{family.name}{'_total' if family.type == 'counter' else ''}" for family in families}
    (group,) = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())["groups"]
    used = {name for rule in group["rules"] for name in re.findall(r"praisonweb_\w+", rule["expr"])}
    assert len(used) >= 8
    assert used - given == set()
