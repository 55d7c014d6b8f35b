"""The watch on a client, driven without a task."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from proxy.disconnect import ClientWatch

DISCONNECT = {"type": "http.disconnect"}
MORE = {"type": "http.request", "body": b"", "more_body": False}


class Server:
    """Gives messages the way a server's ``receive`` does."""

    def __init__(self, *messages: MutableMapping[str, Any]) -> None:
        self.messages = list(messages)
        self.arrived = asyncio.Event()
        self.n_waiting = 0

    async def receive(self) -> MutableMapping[str, Any]:
        self.n_waiting += 1
        try:
            await self.arrived.wait()
            await asyncio.sleep(0)  # a bare yield, as some servers do
        finally:
            self.n_waiting -= 1
        return self.messages.pop(0)


def test_a_client_that_leaves_is_told_to_the_listener_once() -> None:
    async def run() -> list[str]:
        server, told = Server(MORE, DISCONNECT), list[str]()
        watch = ClientWatch(server.receive)
        watch.listen(lambda: told.append("gone"))
        watch.start()
        server.arrived.set()
        while not watch.is_cancelled:
            await asyncio.sleep(0)
        watch.cancel()
        watch.stop()
        return told

    assert asyncio.run(run()) == ["gone"]


def test_nobody_is_told_after_the_watch_stopped() -> None:
    async def run() -> tuple[bool, int]:
        server = Server(DISCONNECT)
        watch = ClientWatch(server.receive)
        watch.start()
        watch.stop()
        server.arrived.set()
        await asyncio.sleep(0.01)
        return watch.is_cancelled, server.n_waiting

    assert asyncio.run(run()) == (False, 0)


def test_a_listener_that_comes_late_is_told_at_once() -> None:
    async def run() -> list[str]:
        told = list[str]()
        watch = ClientWatch(Server().receive)
        watch.cancel()
        watch.listen(lambda: told.append("gone"))
        return told

    assert asyncio.run(run()) == ["gone"]
