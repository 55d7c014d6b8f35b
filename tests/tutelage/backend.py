"""A server that takes messages in over real HTTP, and fails as it is told to, answer by answer."""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Backend:
    """What came, and what is answered: a script of steps, then always well."""

    def __init__(self) -> None:
        self.steps: deque[str] = deque()
        self.deliveries: list[list[dict[str, Any]]] = []  # every request's items, as they came
        self.stored: dict[str, dict[str, Any]] = {}
        self.new = Counter[str]()  # how often an id was stored anew: more than once would be twice
        self.keys: set[str | None] = set()
        self.times: list[float] = []
        self.url = ""
        self.released = threading.Event()  # ends what hangs

    def store(self, items: list[dict[str, Any]]) -> tuple[int, str]:
        """Take items in but for those that are poison; return the status and body of the answer."""
        self.deliveries.append(items)
        good = [item for item in items if item.get("messageText") != "poison"]
        for item in good:
            self.new[item["id"]] += item["id"] not in self.stored
            self.stored[item["id"]] = item
        bad = [{"index": 0, "field": "messageText", "message": "bad"}] * (len(items) - len(good))
        if not good:
            return 400, json.dumps({"error": {"message": "bad", "param": "conversations[0].messageText"}})
        answer = {"success": True, "count": len(good), "flaggedForReview": 0, "datasetId": "ds"}
        return 200, json.dumps({**answer, "errors": bad} if bad else answer)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.times.append(time.monotonic())
        self.keys.add(handler.headers["x-api-key"])
        step = self.steps.popleft() if self.steps else "ok"
        status, text, headers = 200, "", {}
        match step.split():
            case ["ok" | "lost" | "slow", *rest]:
                status, text = self.store(json.loads(body)["conversations"])
                if step == "lost":
                    handler.close_connection = True
                    return
                time.sleep(float(rest[0]) if rest else 0)
            case ["status", number, *rest]:
                status, text = int(number), "<html>no</html>"
                headers = {"retry-after": rest[0]} if rest else {}
            case ["garbage", *words]:
                text = " ".join(words)
            case ["cut"]:
                handler.wfile.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"succ')
                handler.close_connection = True
                return
            case ["noise"]:
                handler.wfile.write(b"\x00\xff not http at all\r\n\r\n")
                handler.close_connection = True
                return
            case ["drip"]:
                while not self.released.wait(0.05):
                    handler.wfile.write(b"H")
                return
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text.encode())


@contextmanager
def backend(port: int = 0) -> Iterator[Backend]:
    """Serve until the block ends."""
    state = Backend()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server's name
            try:
                state.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
