"""``tutelage up``: the proxy and the learner as two child processes, started, watched and stopped together."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from store.config import Config, database_path
from store.database import open_database
from store.errors import ConfigError
from tutelage.output import command_name, say, warn

POLL_S: Final = 0.1  # between looks at the children
START_TIMEOUT_S: Final = 60.0  # a cold disk and a busy machine; usually one or two seconds
PROBE_TIMEOUT_S: Final = 2.0
FIRST_BACKOFF_S: Final = 1.0  # before the first restart of a child; doubles with each further one ...
MAX_BACKOFF_S: Final = 30.0  # ... up to this
STEADY_S: Final = 60.0  # a child that lived this long starts anew at the first backoff
STOP_GRACE_S: Final = 20.0  # beyond the time that running replies get: the processes have bounds of their own
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


class StartError(ConfigError):
    """A process could not be started; the message says which and what to do."""


@dataclass
class Service:
    """One child process: how to start it and where it answers."""

    name: str
    command: Sequence[str]
    host: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    n_restarts: int = 0
    restart_at_s: float = field(default=0.0)

    def start(self) -> None:
        # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which stops its children in order.
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - ours
        self.started_s = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Return whether ``GET /healthz`` answers at all; what it says is for its reader."""
        connection = http.client.HTTPConnection(_reachable(self.host), self.port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Supervisor:
    """Keeps services running until told to stop."""

    def __init__(self, services: Sequence[Service], *, stop_timeout_s: float) -> None:
        self.services = services
        self.stop_timeout_s = stop_timeout_s
        self.n_stops = 0

    def request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Take a signal: the first one stops gently, a second one at once."""
        self.n_stops += 1

    def start(self) -> None:
        """Start all services and wait until each answers.

        Raises:
            StartError: a service ended or did not answer in time.
        """
        for service in self.services:
            service.start()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        waiting = list(self.services)
        while waiting and not self.n_stops:
            service = waiting[0]
            if service.answers():
                waiting.pop(0)
                continue
            if not service.is_running:
                raise StartError(f"the {service.name} ended with exit code {_exit_code(service)}; see its output above")
            if time.monotonic() > deadline_s:
                raise StartError(f"the {service.name} does not answer on port {service.port} after {START_TIMEOUT_S} s")
            time.sleep(POLL_S)

    def watch(self) -> None:
        """Restart what dies, ever more slowly, until a stop is asked for."""
        while not self.n_stops:
            for service in self.services:
                self._look_after(service)
            time.sleep(POLL_S)

    def _look_after(self, service: Service) -> None:
        now_s = time.monotonic()
        if service.is_running:
            return
        if service.restart_at_s == 0.0:
            if now_s - service.started_s > STEADY_S:
                service.n_restarts = 0
            wait_s = min(FIRST_BACKOFF_S * 2.0**service.n_restarts, MAX_BACKOFF_S)
            service.n_restarts += 1
            service.restart_at_s = now_s + wait_s
            warn(f"the {service.name} ended with exit code {_exit_code(service)}; starting it again in {wait_s:g} s")
        elif now_s >= service.restart_at_s:
            service.restart_at_s = 0.0
            service.start()

    def stop(self) -> None:
        """Ask all services to stop, let running replies end, and kill what is left after that."""
        processes = [service.process for service in self.services if service.process is not None]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + self.stop_timeout_s
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline_s or self.n_stops > 1:
                for process in processes:
                    process.kill()
            time.sleep(POLL_S / 2)


def check_port_free(service: Service) -> None:
    """Do nothing when the service's port can be had.

    Raises:
        StartError: it cannot; the message names the port and the setting.
    """
    if service.port == 0:
        raise StartError(f"[{service.name}] port = 0: tutelage up needs a port of its own choosing to print")
    family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.host, service.port))
        except OSError as exc:
            raise StartError(
                f"port {service.port} on {service.host} cannot be used ({exc.strerror}): "
                f"stop what uses it (another Tutelage?), or set [{service.name}] port to another"
            ) from exc


def check_database(config: Config) -> None:
    """Make the database where it is missing: one that cannot be had is then one line, not two processes that die.

    Raises:
        UnavailableError: it cannot be opened; the message names the file.
    """
    open_database(config.store).close()


def _exit_code(service: Service) -> int | None:
    return service.process.returncode if service.process is not None else None


def _reachable(host: str) -> str:
    """Return the address under which this machine reaches a service that listens on *host*."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _url(host: str, port: int) -> str:
    reachable = _reachable(host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def welcome(config: Config, environment: Mapping[str, str]) -> str:
    """Return what a person reads once both processes answer; *environment* may hold the upstreams' keys."""
    proxy = _url(config.proxy.host, config.proxy.port)
    console = _url(config.learner.host, config.learner.port)
    upstreams = ", ".join(f"{upstream.name} ({upstream.base_url or upstream.provider})" for upstream in config.upstream)
    lines = [
        "",
        "Tutelage is up. Ctrl-C stops it.",
        f"  proxy     {proxy}/v1  ->  {upstreams}",
        f"  console   {console}/",
        f"  database  {database_path(config.store).resolve()}",
        "Change this one line in your app:",
        f'  base_url="{proxy}/v1"',
        f'  base_url="{proxy}"  # Anthropic\'s SDK adds the /v1 itself',
    ]
    if config.tenancy.mode == "keys":
        lines.append(f"and its key, to one from:  {command_name()} keys create --tenant NAME --scope app")
        lines += [
            f"No key for upstream {upstream.name!r}: {upstream.api_key_env} is not set in the environment."
            for upstream in config.upstream
            if upstream.api_key_env and not environment.get(upstream.api_key_env)
        ]
    return "\n".join([*lines, ""])


def services_of(config_path: Path | None, config: Config) -> list[Service]:
    """Return the two processes, not yet started."""
    command = [sys.executable, "-m", "tutelage", *(["--config", str(config_path)] if config_path else [])]
    return [
        Service(
            "proxy", [*command, "proxy", "--workers", str(config.proxy.workers)], config.proxy.host, config.proxy.port
        ),
        Service("learner", [*command, "learner"], config.learner.host, config.learner.port),
    ]


def run(config_path: Path | None, config: Config, *, on_ready: Callable[[str], None] = say) -> int:
    """Run both processes until Ctrl-C or SIGTERM and return the exit code.

    Raises:
        StartError: a port is taken, or one of them could not be started; the other is stopped again.
        UnavailableError: the database cannot be opened.
    """
    stop_timeout_s = config.proxy.drain_timeout_s + STOP_GRACE_S
    supervisor = Supervisor(services_of(config_path, config), stop_timeout_s=stop_timeout_s)
    before = _take_signals(dict.fromkeys(STOP_SIGNALS, supervisor.request_stop))
    try:
        for service in supervisor.services:
            check_port_free(service)
        check_database(config)
        supervisor.start()
        if not supervisor.n_stops:
            on_ready(welcome(config, os.environ))
            sys.stdout.flush()
        supervisor.watch()
        warn("stopping")
    finally:
        supervisor.stop()
        _take_signals(before)
    return 0


def _take_signals(
    handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], object] | int | None],
) -> dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None]:
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}
