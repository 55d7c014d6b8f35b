"""uvicorn as the data plane needs it: nothing added to replies, drained at shutdown, connections bounded."""

import sys
from functools import partial

import uvicorn

from proxy.app import DataPlaneApp
from proxy.client import Client, send_error
from proxy.client_connection import ClientConnection
from proxy.dialect import dialect_of
from proxy.errors import unavailable
from store.config import ProxySection


async def overloaded(client: Client) -> None:
    """Answer 503: more connections are open than ``[proxy] max_connections`` allows."""
    error = unavailable("Too many open connections.", "overloaded")
    send_error(client, error, dialect_of(client.path, client.headers))


def server_config(app: DataPlaneApp, section: ProxySection) -> uvicorn.Config:
    """Return uvicorn's settings for *app*."""
    return uvicorn.Config(
        app,
        host=section.host,
        port=section.port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=partial(  # type: ignore[arg-type]
            ClientConnection, serve=app.serve, max_connections=section.max_connections, overloaded=overloaded
        ),
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(section.drain_timeout_s)),
    )
