"""How much memory a worker takes: with knowledge that it does not serve, over many requests, under slow readers.

Resident memory (``VmRSS``) of the serving process, shared pages included; the recorder is another process.
"""

import asyncio
import http.client
import json
import resource
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.bars import Bar, Part, at_most, table
from bench.gateway import HEADERS, LOAD_CORE, SERVER_CORE, build
from bench.installation import Installation, add_contexts, install, write_bodies, write_config
from bench.load import drive
from bench.machine import machine
from bench.measurement import CHAT_PATH, MODEL
from bench.processes import free_port, is_recorder, process_tree, running, tutelage_command
from store.config import load_config
from store.database import open_database
from store.tenants import ensure_tenant

N_OTHERS_CONTEXTS = 100_000
OTHER_TENANT = "elsewhere"
SETTLE_S = 2.0
CONNECTIONS = 16
WARM_REQUESTS, MEASURED_REQUESTS, SAMPLE_EVERY = 100_000, 100_000, 10_000
N_STREAMS = 1000
CHUNK = b"data: " + b'{"choices":[{"index":0,"delta":{"content":"' + b"x" * 8000 + b'"}}]}\n\n'
CHUNKS_PER_STREAM = 500  # 4 MB each; nobody takes them
CLIENT_BUFFER_BYTES = 4096
STALL_S = 15.0
MEMORY_LIMIT_MB = 200.0
GROWTH_LIMIT_MB = 2.0  # what the allocator moves by itself
TEXT = """Resident memory of the serving process, shared pages included, its recorder left out.

- With 1,000 patterns and 1,000 contexts of its own tenant: **{own:.0f} MB**. With {n_others:,} contexts more in the
  database, of a tenant that nobody asks for: **{others:.0f} MB**.
- Every request another conversation, {connections} connections. After {warm:,} requests (`[recording]
  conversation_cache` is full then and its table has grown once more), over {measured:,} more the fitted growth is
  **{growth:+.1f} MB**.
- {streams:,} streams at once, the upstream pushing {megabytes:.0f} MB into each; half of the clients read one byte a
  second, half nothing, through receive buffers of 4 KB. Before {before:.0f} MB; most {most:.0f} MB, **{each:.0f} KB a
  stream**; growth in the second half of {stall:.0f} s {late:+.1f} MB; {after:.0f} MB once they hung up. Other requests
  meanwhile: {served}.

Machine: {machine}.

"""


@dataclass(frozen=True)
class SlowStreams:
    """Megabytes while nobody reads: before, at each second, after."""

    before_mb: float
    samples_mb: list[float]
    after_mb: float
    is_serving: bool

    @property
    def most_mb(self) -> float:
        return max(self.samples_mb)

    @property
    def late_growth_mb(self) -> float:
        """Growth in the second half of the time."""
        return self.samples_mb[-1] - self.samples_mb[len(self.samples_mb) // 2]


def run(*, is_quick: bool) -> Part:
    """Return what a worker takes, and the bars on it."""
    scale = 50 if is_quick else 1
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        mock, driver = build(folder)
        port = free_port()
        stack.enter_context(running([mock, str(port)], core=LOAD_CORE, port=port, log=folder / "m.log"))
        made = install(folder / "proxy", free_port(), port, is_learning=True)
        with _proxy(made) as pid:
            own = _resident_once_served(made, pid)
            growth = _growth(made, pid, driver, folder, scale)
        with flood() as flood_port:
            write_config(made, flood_port, proxy=f"max_connections = {N_STREAMS + 100}")
            with _proxy(made) as pid:
                streams = _slow_streams(made, pid, N_STREAMS // scale, STALL_S / (3 if is_quick else 1))
        write_config(made, port)
        _add_others(made)
        with _proxy(made) as pid:
            others = _resident_once_served(made, pid)
    return part(own, others, growth, streams, N_STREAMS // scale)


@contextmanager
def _proxy(made: Installation) -> Iterator[int]:
    """Run the proxy; yields the id of its serving process."""
    command = tutelage_command(made.config_path)
    with running(command, core=SERVER_CORE, port=made.port, log=made.folder / "log") as process:
        yield process.pid


def resident_mb(pid: int) -> float:
    """Return the megabytes of the process and its descendants, recorders left out."""
    total = 0
    for current in process_tree(pid):
        if not is_recorder(current):
            status = Path(f"/proc/{current}/status").read_text(encoding="utf-8")
            total += int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    return total / 1024


def _ask(made: Installation) -> int:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Are you there?"}]})
    connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=30)
    connection.request(
        "POST", CHAT_PATH, body, {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
    )
    status = connection.getresponse().status
    connection.close()
    return status


def _resident_once_served(made: Installation, pid: int) -> float:
    if _ask(made) != 200:
        raise RuntimeError("the proxy does not serve")
    time.sleep(SETTLE_S)
    return resident_mb(pid)


def _add_others(made: Installation) -> None:
    """Put ``N_OTHERS_CONTEXTS`` approved entries of another tenant into the database: a few hundred, copied."""
    config = load_config(made.config_path)
    n_written = 500
    with open_database(config.store) as db:
        ensure_tenant(db, OTHER_TENANT, time.time())
        add_contexts(db, OTHER_TENANT, n_written, config)
        columns = [row["name"] for row in db.rows("PRAGMA table_info(ai_contexts)") if row["name"] != "id"]
        names = ", ".join(columns)
        with db.transaction():
            db.execute(
                f"""
                WITH RECURSIVE copies (number) AS
                  (SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < :n_copies)
                INSERT INTO ai_contexts (id, {names})
                SELECT id || '-' || number, {names} FROM ai_contexts, copies WHERE tenant_id = :tenant_id
                """,
                {"n_copies": N_OTHERS_CONTEXTS // n_written - 1, "tenant_id": OTHER_TENANT},
            )


def _growth(made: Installation, pid: int, driver: Path, folder: Path, scale: int) -> list[tuple[int, float]]:
    """Return requests so far and megabytes, every ``SAMPLE_EVERY`` requests, warm-up included."""
    bodies = folder / "bodies.jsonl"
    write_bodies(bodies, "whole", MODEL)
    samples, n_done, next_sample = [], 0, 0
    while n_done < (WARM_REQUESTS + MEASURED_REQUESTS) // scale:
        n_done += int(drive(driver, made.port, CHAT_PATH, bodies, CONNECTIONS, 2.0, HEADERS, core=LOAD_CORE)["total"])
        if n_done >= next_sample:
            samples.append((n_done, resident_mb(pid)))
            next_sample += SAMPLE_EVERY // scale
    return samples


def fitted_growth_mb(samples: Sequence[tuple[int, float]]) -> float:
    """Return by how many megabytes a straight line through the samples rises over ``MEASURED_REQUESTS`` requests."""
    warm = samples[-1][0] * WARM_REQUESTS / (WARM_REQUESTS + MEASURED_REQUESTS)
    late = [sample for sample in samples if sample[0] >= warm]
    if len(late) < 2:
        return 0.0
    slope = np.polyfit([number for number, _ in late], [megabytes for _, megabytes in late], 1)[0]
    return float(slope) * MEASURED_REQUESTS


@contextmanager
def flood() -> Iterator[int]:
    """Run an upstream that pushes megabytes into every stream as fast as they are taken; yields its port."""
    loop = asyncio.new_event_loop()
    port = free_port()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(size.split(b":")[1]))
                if b'"stream": true' not in body:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for _ in range(CHUNKS_PER_STREAM):
                    writer.write(b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", port, backlog=N_STREAMS))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _slow_streams(made: Installation, pid: int, n_streams: int, stall_s: float) -> SlowStreams:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = _resident_once_served(made, pid)
    body = json.dumps(
        {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Tell me everything."}]}
    )
    request = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer sk-bench\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    samples = []
    with ExitStack() as stack:
        clients = []
        for _ in range(n_streams):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CLIENT_BUFFER_BYTES)
            client.connect(("127.0.0.1", made.port))
            client.sendall(request)
            clients.append(client)
        _await_replies(clients)
        started = time.monotonic()
        while time.monotonic() - started < stall_s:
            for client in clients[::2]:
                client.recv(1)
            samples.append(resident_mb(pid))
            time.sleep(1.0)
        is_serving = _ask(made) == 200
    time.sleep(SETTLE_S)
    return SlowStreams(before, samples, resident_mb(pid), is_serving)


def _await_replies(clients: Sequence[socket.socket]) -> None:
    """Wait until the reply of every client has begun.

    Raises:
        RuntimeError: some got none.
    """
    deadline = time.monotonic() + 60.0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(1.0):
                selector.unregister(key.fileobj)
        if selector.get_map():
            raise RuntimeError(f"{len(selector.get_map())} streams did not begin")


def part(own: float, others: float, samples: list[tuple[int, float]], streams: SlowStreams, n_streams: int) -> Part:
    """Return the part of the page, with its bars."""
    growth = fitted_growth_mb(samples)
    text = TEXT.format(
        own=own,
        others=others,
        n_others=N_OTHERS_CONTEXTS,
        connections=CONNECTIONS,
        warm=WARM_REQUESTS,
        measured=MEASURED_REQUESTS,
        growth=growth,
        streams=n_streams,
        megabytes=len(CHUNK) * CHUNKS_PER_STREAM / 1e6,
        before=streams.before_mb,
        most=streams.most_mb,
        each=(streams.most_mb - streams.before_mb) * 1024 / n_streams,
        stall=len(streams.samples_mb),
        late=streams.late_growth_mb,
        after=streams.after_mb,
        served="yes" if streams.is_serving else "**no**",
        machine=machine(),
    )
    numbers = [f"{number:,}" for number, _ in samples]
    rows = [["MB", *(f"{megabytes:.1f}" for _, megabytes in samples)]]
    return Part(
        "memory", "Memory of a worker", text + table(["requests", *numbers], rows), bars(others, growth, streams)
    )


def bars(others_mb: float, growth_mb: float, streams: SlowStreams) -> list[Bar]:
    """Return the bars on memory."""
    return [
        at_most(
            "worker's memory, 100,000 contexts of another tenant in the database",
            "below 200 MB",
            MEMORY_LIMIT_MB,
            [others_mb],
            "{:.0f} MB",
        ),
        at_most(
            "its growth over 100,000 requests, after warm-up", "none (2 MB)", GROWTH_LIMIT_MB, [growth_mb], "{:+.1f} MB"
        ),
        Bar(
            "memory under 1,000 slow streams",
            "bounded",
            f"{streams.most_mb:.0f} MB, {streams.late_growth_mb:+.1f} MB as they stall on",
            streams.late_growth_mb <= GROWTH_LIMIT_MB,
        ),
    ]
