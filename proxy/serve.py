"""The proxy as processes: one that serves, or several that share the port; and the recorder beside them."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import time
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import uvicorn

from proxy.data_plane import RECORDER_CHECK_S, RECORDER_STOP_S, DataPlane, environment
from proxy.recorder import start_recorder
from proxy.recorder_keeper import RecorderKeeper
from proxy.server import server_config
from proxy.siblings import Siblings, Sockets
from store.clock import SystemClock
from store.config import Config, ProxySection
from store.errors import ConfigError
from store.logs import configure_logging

BACKLOG: Final = 2048  # connections that wait to be accepted
STOP_GRACE_S: Final = 15.0  # beyond the drain timeout, before a worker is killed
MIN_RESTART_S: Final = 1.0  # between starts of a worker

logger = logging.getLogger(__name__)


def serve(_config_path: Path | None, config: Config) -> None:
    """Serve until SIGINT or SIGTERM, then let running replies end for at most ``drain_timeout_s``.

    Raises:
        ConfigError: the port cannot be listened on.
    """
    configure_logging(config.log)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal that stopped it once more, after its shutdown: that should end in exit code 0.
        signal.signal(number, _exit)
    keeper = RecorderKeeper(partial(start_recorder, config))
    if config.proxy.workers > 1:
        Workers(config, keeper).run()
    else:
        run_worker(config, listen(config.proxy, is_shared=False), keeper)


def listen(section: ProxySection, *, is_shared: bool) -> socket.socket:
    """Return a listening socket; *is_shared*: one of several on the same port, among which the kernel chooses.

    Raises:
        ConfigError: somebody else has the port, or the host is not ours.
    """
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    try:
        return socket.create_server((section.host, section.port), family=family, backlog=BACKLOG, reuse_port=is_shared)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {section.host}:{section.port} ([proxy] host, port): {exc}") from exc


def run_worker(
    config: Config,
    listener: socket.socket,
    recorder: RecorderKeeper | None,
    parent_fd: int | None = None,
    siblings: Siblings | None = None,
) -> None:
    """Serve on *listener* until a signal, or until the other end of *parent_fd* is closed."""
    plane = DataPlane(config, clock=SystemClock(), recorder=recorder, environment=environment(), siblings=siblings)
    server = uvicorn.Server(server_config(plane.app, config.proxy))

    async def run() -> None:
        if parent_fd is not None:
            asyncio.get_running_loop().add_reader(parent_fd, server.handle_exit, signal.SIGTERM, None)
        await server.serve([listener])

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


class Workers:
    """Several processes on one port, started again when they die; one recorder for all."""

    def __init__(self, config: Config, recorder: RecorderKeeper) -> None:
        self._config = config
        self._recorder = recorder
        # fork: settings reach the workers as they are. Nothing runs in this process that a fork could break.
        self._context = multiprocessing.get_context("fork")
        self._workers: list[BaseProcess] = []
        self._sockets = Sockets(config.proxy.workers)
        self._read_end, self._write_end = os.pipe()  # its end tells the workers that this process is gone

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            ConfigError: the port cannot be listened on.
        """
        listen(self._config.proxy, is_shared=False).close()  # a shared port would silently join a running proxy's
        try:
            self._recorder.check()
            self._workers = [self._start(number) for number in range(self._config.proxy.workers)]
            while True:
                time.sleep(RECORDER_CHECK_S)
                self._recorder.check()
                self._workers = [self._kept(number, worker) for number, worker in enumerate(self._workers)]
        finally:
            self._stop()

    def _start(self, number: int) -> BaseProcess:
        worker = self._context.Process(target=self._work, args=(number,), daemon=False)
        worker.start()
        return worker

    def _work(self, number: int) -> None:
        os.close(self._write_end)
        listener = listen(self._config.proxy, is_shared=True)
        run_worker(self._config, listener, None, self._read_end, self._sockets.of(number))

    def _kept(self, number: int, worker: BaseProcess) -> BaseProcess:
        if worker.is_alive():
            return worker
        logger.error("worker %s died with exit code %s; another is started", worker.pid, worker.exitcode)
        time.sleep(MIN_RESTART_S)
        return self._start(number)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + self._config.proxy.drain_timeout_s + STOP_GRACE_S
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
        self._sockets.close()
        self._recorder.stop(RECORDER_STOP_S)
