"""Commands, called as from a shell, with what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, ManagementUtility


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def manage(capsys: pytest.CaptureFixture[str], settings: Any) -> Callable[..., Ran]:
    """Run ``manage.py args`` in this process."""
    settings.ALLOWED_HOSTS = ["localhost"]  # the test client's host would be warned of

    def run(*args: str) -> Ran:
        capsys.readouterr()
        code = 0
        try:
            ManagementUtility(["manage.py", *args]).execute()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        except CommandError as error:
            pytest.fail(f"a command error must not leave the command line: {error}")
        printed = capsys.readouterr()
        return Ran(code=code, out=printed.out, err=printed.err)

    return run
