"""Scenarios of Node clients: scripts under tests/node that print their result as JSON."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flow.compared import QUESTION, Endpoint

FOLDER = Path(__file__).parents[1] / "node"
STAMP = FOLDER / "node_modules" / ".installed"  # the Makefile's, like the log
NPM_LOG = FOLDER / "npm.log"
NODE = shutil.which("node")
SCRIPT_S = 60.0


def why_not() -> str:
    """Return why Node clients cannot be tested here; nothing when they can."""
    if NODE is None:
        return "Node.js is not installed"
    if STAMP.exists():
        return ""
    lines = NPM_LOG.read_text(errors="replace").splitlines() if NPM_LOG.exists() else []
    return f"npm install failed: {lines[0] if lines else 'no log'}" if NPM_LOG.exists() else "`make test` installs them"


needs_node = pytest.mark.skipif(bool(why_not()), reason=why_not())


def script(name: str, scenario: str, **more: Any) -> Callable[[Endpoint], Any]:
    """Return what asks an endpoint: *scenario* of ``tests/node/NAME.mjs``."""

    def ask(endpoint: Endpoint) -> Any:
        told = {
            "root": endpoint.root,
            "apiKey": endpoint.api_key,
            "gpt": endpoint.gpt,
            "claude": endpoint.claude,
            "question": QUESTION,
            **more,
        }
        done = subprocess.run(
            [NODE or "node", FOLDER / f"{name}.mjs", scenario, json.dumps(told)],
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask
