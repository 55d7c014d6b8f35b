"""The product from outside: its processes on free ports, its command, its database file, and nothing else of it."""

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

COMMAND = Path(sys.executable).with_name("tutelage")
START_S = 30.0  # generous: a loaded machine with two cores
STOP_S = 20.0
COMMAND_S = 90.0
EVENTUALLY_S = 8.0
CLIENT_S = 30.0
APP_KEY = "sk-app-secret-0123456789"

Value = TypeVar("Value")


def free_port() -> int:
    """Return a port that nothing listens on, below the range that the system gives to outgoing connections."""
    for _ in range(200):
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


def eventually(look: Callable[[], Value], timeout_s: float = EVENTUALLY_S, poll_s: float = 0.02) -> Value:
    """Return the first truthy answer of *look*.

    Raises:
        TimeoutError: there was none in time; the message holds the last answer.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {found!r} after {timeout_s} s")
        time.sleep(poll_s)


@dataclass
class Running:
    """One process of the product, its output in a file; its children are known by a mark in their environment."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """``kill -9`` the process and all of its children, whatever sessions they are in."""
        for pid in [self.pid, *self.living()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def kill_alone(self) -> None:
        """``kill -9`` the process, not its children."""
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """Ask the process to stop and return its exit code; whatever is left is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
        self.kill()
        return self.process.returncode

    def living(self) -> list[int]:
        """Return the living processes that this one started, itself included."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if self.mark.encode() in _environment_of(pid)]


def _environment_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@dataclass
class Product:
    """One installation: a settings file and a database in *folder*, and every process started from it."""

    folder: Path
    upstream_url: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Sequence[str] = ("*",)
    environment: Mapping[str, str] = field(default_factory=dict)
    api_key_env: str = ""
    proxy_port: int = field(default_factory=free_port)
    learner_port: int = field(default_factory=free_port)
    running: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_config()
        self.client = httpx.Client(timeout=CLIENT_S, headers={"authorization": f"Bearer {APP_KEY}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        for running in self.running:
            running.stop()
        for running in self.running:
            print(f"----- {running.log.name}\n{running.output()}")

    @property
    def config_path(self) -> Path:
        return self.folder / "tutelage.toml"

    @property
    def database_path(self) -> Path:
        return self.folder / "tutelage.db"

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def learner_url(self) -> str:
        return f"http://127.0.0.1:{self.learner_port}"

    def write_config(self) -> None:
        """Write the settings file: what DESIGN section 10 shows, and ``settings`` beside it."""
        sections: dict[str, dict[str, Any]] = {
            "proxy": {"port": self.proxy_port},
            "learner": {"port": self.learner_port},
            "store": {"url": f"sqlite:///{self.database_path}"},
            "contexts": {"hold_back": 0.0},  # no entry is left out by chance
        }
        for name, values in self.settings.items():
            sections.setdefault(name, {}).update(values)
        upstream = {"name": "local", "base_url": self.upstream_url, "models": list(self.models)}
        if self.api_key_env:
            upstream["api_key_env"] = self.api_key_env
        lines = ["[[upstream]]", *_toml(upstream)]
        for name, values in sections.items():
            lines += [f"[{name}]", *_toml(values)]
        self.config_path.write_text(
            "\n".join([*lines, '[learner.models]\nprescreen = ""\nextract = ""\nwording = ""\n'])
        )

    def start(self, command: str, *, wait: bool = True) -> Running:
        """Start ``tutelage COMMAND`` and wait until it answers."""
        log = self.folder / f"{command}-{len(self.running)}.log"
        mark = f"FLOW_TEST_MARK={log}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [COMMAND, "--config", self.config_path, command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**self.child_environment(), "FLOW_TEST_MARK": str(log)},
                start_new_session=True,
            )
        running = Running(process, log, mark)
        self.running.append(running)
        if wait:
            ports = {"proxy": [self.proxy_port], "learner": [self.learner_port]}
            for port in ports.get(command, [self.proxy_port, self.learner_port]):
                self.wait_ready(running, port)
        return running

    def wait_ready(self, running: Running, port: int) -> None:
        """Wait until ``/readyz`` (proxy) or any page (learner) answers on *port*."""
        path = "/readyz" if port == self.proxy_port else "/api/runs"

        def is_ready() -> bool:
            if running.process.poll() is not None:
                raise AssertionError(f"ended with {running.process.returncode}:\n{running.output()}")
            try:
                return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code in (200, 401)
            except httpx.TransportError:
                return False

        try:
            eventually(is_ready, START_S)
        except TimeoutError as exc:
            raise AssertionError(f"not ready on {port}{path}:\n{running.output()}") from exc

    def child_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TUTELAGE", "OPENAI"))}
        return {**kept, "PYTHONUNBUFFERED": "1", **self.environment}

    def command(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``tutelage ARGUMENTS`` to its end."""
        done = subprocess.run(
            [COMMAND, "--config", self.config_path, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            cwd=self.folder,
            env=self.child_environment(),
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"tutelage {arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def command_json(self, *arguments: str | Path) -> Any:
        """Return what a command with ``--json`` prints; a list that stands in an object is taken out of it."""
        printed = json.loads(self.command(*arguments, "--json").stdout)
        lists = [value for value in printed.values() if isinstance(value, list)] if isinstance(printed, dict) else []
        return lists[0] if len(lists) == 1 else printed

    def learn(self, kind: str, *, now: str = "", tenant: str = "default") -> str:
        """Run the learner once and return what it printed."""
        moment = ["--now", now] if now else []
        return self.command("learn", "--tenant", tenant, "--kind", kind, *moment).stdout

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the database file as an outsider would."""
        with contextlib.closing(sqlite3.connect(self.database_path, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    def rows(self, sql: str, **parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts; nothing while the table is not there."""
        with self.database() as connection:
            try:
                return [dict(row) for row in connection.execute(sql, parameters)]
            except sqlite3.OperationalError as exc:
                if "no such table" in str(exc):
                    return []
                raise

    def row(self, sql: str, **parameters: object) -> dict[str, Any]:
        """Return the one row of a query, waiting for it."""
        return eventually(lambda: self.rows(sql, **parameters))[0]

    def response_row(self, response: httpx.Response) -> dict[str, Any]:
        """Return the record of a response, waiting for it."""
        return self.row("SELECT * FROM responses WHERE id = :id", id=response.headers["x-tutelage-response-id"])

    def chat(
        self,
        content: str = "How do I reset my password?",
        *,
        headers: Mapping[str, str] | None = None,
        client: httpx.Client | None = None,
        **body: Any,
    ) -> httpx.Response:
        """Send one chat request through the proxy; ``body`` adds to or replaces its fields."""
        request = {"model": "gpt-test", "messages": [{"role": "user", "content": content}], **body}
        return (client or self.client).post(
            f"{self.proxy_url}/v1/chat/completions", json=request, headers=dict(headers or {})
        )

    def feedback(self, signal_: object, *, key: str = APP_KEY, client: httpx.Client | None = None) -> httpx.Response:
        """Send one signal or a list of them."""
        return (client or self.client).post(
            f"{self.proxy_url}/v1/feedback", json=signal_, headers={"authorization": f"Bearer {key}"}
        )

    def health(self) -> httpx.Response:
        return self.client.get(f"{self.proxy_url}/healthz")


def _toml(values: Mapping[str, Any]) -> list[str]:
    # JSON's text, numbers, booleans and lists of them are TOML too.
    return [f"{name} = {json.dumps(value)}" for name, value in values.items()]
