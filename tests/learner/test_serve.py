"""The learner as a process: it answers, does the jobs it is given, and stops when told to."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.product import free_port

START_S = 30.0
STOP_S = 20.0


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    port = free_port()
    settings = tmp_path / "tutelage.toml"
    settings.write_text(
        f'[learner]\nport = {port}\npoll_s = 0.1\n[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n'
    )
    command = [sys.executable, "-m", "tutelage", "--config", str(settings), "learner"]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_S) as client,
    ):
        yield process, client
        process.kill()


def eventually(client: httpx.Client, path: str) -> Any:
    """Return the first good answer whose ``status``, if it has one, is an end."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        try:
            answer = client.get(path)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code == 200 and answer.json().get("status") not in ("pending", "processing"):
            return answer.json()
        time.sleep(0.05)
    raise AssertionError(f"{path} did not answer in time")


@pytest.mark.parametrize("kind", ["patterns", "knowledge"])
def test_a_job_is_run_and_the_process_ends_cleanly(
    learner: tuple[subprocess.Popen[str], httpx.Client], kind: str
) -> None:
    process, client = learner
    assert eventually(client, "/healthz") == {"status": "ok"}
    job = client.post("/api/training/jobs", json={"kind": kind}).json()
    done = eventually(client, f"/api/training/jobs/{job['id']}")
    assert (done["status"], done["attempts"], done["error"]) == ("completed", 1, None)
    run = client.get(f"/api/runs/{done['run_id']}").json()
    assert (run["kind"], run["status"]) == (kind, "completed")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=STOP_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
