"""The command on the database of the fixture ``db``, as a person and as a script call it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tutelage.cli import app


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Return what runs a command and checks its exit code."""
    path = tmp_path / "tutelage.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n')

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["--config", str(path), *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def listed(run: Callable[..., Result]) -> Callable[..., Any]:
    """Return what runs a command with ``--json`` and reads what it prints."""
    return lambda *arguments: json.loads(run(*arguments, "--json").stdout)
