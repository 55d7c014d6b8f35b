"""An ASGI application served on a free loopback port by a thread of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tutelage.demo.client import DemoError

START_TIMEOUT_S = 20.0  # seconds; a server that takes longer will not come
STOP_TIMEOUT_S = 20.0  # seconds for running replies to end


def plain_config(app: Any) -> uvicorn.Config:
    """Return uvicorn's settings for an application without a lifespan."""
    return uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)


@contextmanager
def serve_in_thread(config: uvicorn.Config, name: str) -> Iterator[int]:
    """Serve on a free port of 127.0.0.1 while the block runs; yield the port.

    Raises:
        DemoError: the server did not start.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
    thread.start()
    try:
        _wait_until_started(server, thread, name)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(STOP_TIMEOUT_S)
        listener.close()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread, name: str) -> None:
    waiting = threading.Event()
    for _ in range(int(START_TIMEOUT_S / 0.01)):
        if server.started:
            return
        if not thread.is_alive():
            raise DemoError(f"the {name} did not start")
        waiting.wait(0.01)
    raise DemoError(f"the {name} did not start within {START_TIMEOUT_S:.0f} s")
