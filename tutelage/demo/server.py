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


@contextmanager
def serve_in_thread(app: Any, name: str, *, port: int = 0) -> Iterator[int]:
    """Serve *app* on 127.0.0.1 while the block runs; yield its port (0 asks for a free one).

    Raises:
        DemoError: the port is taken or the server did not start.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as exc:
        listener.close()
        raise DemoError(f"port {port} is taken: {exc}") from exc
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, log_level="warning", lifespan="auto")
    )
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
