"""Scenarios of Node clients: scripts under tests/node that print their result as JSON."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.flow.compared import QUESTION, Endpoint

FOLDER = Path(__file__).parents[1] / "node"
STAMP = FOLDER / "node_modules" / ".installed"  # the Makefile's, like the log
NPM_LOG = FOLDER / "npm.log"
NODE = shutil.which("node")
SCENARIO_S = 60.0


def why_not() -> str:
    """Return why Node clients cannot be tested here; nothing when they can."""
    if NODE is None:
        return "Node.js is not installed"
    if STAMP.exists():
        return ""
    if not NPM_LOG.exists():
        return "the Node clients are not installed: make test does it"
    first, _, _ = NPM_LOG.read_text(errors="replace").partition("\n")
    return f"npm install failed: {first}"


needs_node = pytest.mark.skipif(bool(why_not()), reason=why_not())


class NodeClients:
    """One Node process that plays scenarios; ``with NodeClients() as node`` runs it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [NODE or "node", FOLDER / "serve.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def play(self, script: str, scenario: str, **more: Any) -> Callable[[Endpoint], Any]:
        """Return what asks an endpoint: *scenario* of ``tests/node/SCRIPT.mjs``."""

        def ask(endpoint: Endpoint) -> Any:
            told = {
                "root": endpoint.root,
                "apiKey": endpoint.api_key,
                "gpt": endpoint.gpt,
                "claude": endpoint.claude,
                "question": QUESTION,
                **more,
            }
            answer = self._exchange({"script": script, "scenario": scenario, "input": told})
            assert "error" not in answer, answer["error"]
            return answer.get("result")

        return ask

    def _exchange(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to *order*; a process that has none in time is ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(SCENARIO_S, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(f"{json.dumps(order)}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the Node process ended; see its stderr"}
        return answer
