"""A rough day: hundreds of requests while upstream and clients fail in every way they can, and what is left after it.

The test knows what it made each request go through, so it knows what its record must say:

- ``ok``: the whole of a good reply was handed to the client's connection.
- ``error``: the upstream refused the request, with a status from 400 to 499.
- ``upstream_error``: it answered that it failed (5xx), broke off, kept silent, said no HTTP, or ended a reply that was
  not whole.
- ``cancelled``: the client left before the whole reply was handed to its connection.
- A client that leaves at the instant when the upstream ends: ``ok`` when the last byte was handed over first,
  ``cancelled`` otherwise; one record in either case.
- No record: the request never arrived whole, or asked for ``x-tutelage-learn: off``.
"""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from tests.flow.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from tests.flow.product import Product, Running, eventually
from tests.flow.raw import (
    BEARER,
    JSON_TYPE,
    Handler,
    Head,
    Memory,
    ScriptedUpstream,
    conversation,
    hold_little,
    open_sockets,
    send_until_blocked,
)
from tests.proxy.wire import STREAM_HEAD, Client, Peer, chunked, plain

SEED = 20261125
N_CLIENTS = 8
N_REQUESTS = 1500
N_WARM_UP = 200
MAX_IDLE = 4
FIRST_BYTE_S = 0.4
WAIT_S = 10.0
GROWTH_BYTES = 10_000_000  # 1.3 MB measured
STEADY, HASTY = "steady", "hasty"  # models; the second's upstream must begin to answer in time
WORDS = tuple(f"word-{number} " for number in range(8))
PAGE = b"<html>\xffbad gateway</html>"


@dataclass
class Request:
    """One request of the day; the two sides tell each other through it where they are."""

    number: int
    dialect: Dialect
    is_stream: bool
    has_tools: bool
    upstream: str
    client: str
    is_learned: bool = True
    arrived: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return f"request-{self.number}"

    @property
    def words(self) -> list[str]:
        return [f"{self.number}:", *WORDS]

    def question(self) -> bytes:
        model = HASTY if self.upstream == "keeps silent" else STEADY
        return self.dialect.question(self.name, model, is_stream=self.is_stream, has_tools=self.has_tools)

    def whole(self) -> bytes:
        return self.dialect.whole(self.name, "".join(self.words))

    def events(self) -> list[bytes]:
        return self.dialect.events(self.name, self.words)

    def body(self) -> bytes:
        return b"".join(self.events()) if self.is_stream else self.whole()

    def wire(self) -> bytes:
        """Return the good reply as it goes over the wire."""
        if self.is_stream:
            return STREAM_HEAD + chunked(*self.events()) + b"0\r\n\r\n"
        return plain(self.whole(), b"content-type: application/json")

    def first_half(self) -> bytes:
        """Return the reply up to a place behind its head, between two events of a stream."""
        if self.is_stream:
            return STREAM_HEAD + chunked(*self.events()[:3])
        wire = self.wire()
        return wire[: len(wire) - len(self.whole()) // 2]


# What an upstream does


def answers(peer: Peer, request: Request) -> None:
    peer.send(request.wire())


def answers_in_small_pieces(peer: Peer, request: Request) -> None:
    wire = request.wire()
    for start in range(0, len(wire), 97):
        peer.send(wire[start : start + 97])


def answers_and_closes(peer: Peer, request: Request) -> None:
    peer.send(request.wire())
    peer.close()


def closes(peer: Peer, _request: Request) -> None:
    peer.close()


def resets(peer: Peer, _request: Request) -> None:
    peer.reset()


def resets_in_the_head(peer: Peer, _request: Request) -> None:
    peer.send(STREAM_HEAD[:40])
    peer.close()


def closes_in_the_body(peer: Peer, request: Request) -> None:
    peer.send(request.first_half())
    peer.close()


def resets_in_the_body(peer: Peer, request: Request) -> None:
    peer.send(request.first_half())
    peer.reset()


def talks_nonsense(peer: Peer, _request: Request) -> None:
    peer.send(b"220 smtp ready\r\n\r\n")


def talks_nonsense_in_the_body(peer: Peer, request: Request) -> None:
    peer.send(STREAM_HEAD + chunked(*request.events()[:2]) + b"zz\r\n")


def keeps_silent(peer: Peer, _request: Request) -> None:
    peer.wait_closed()
    raise EOFError


def stops_after_half(peer: Peer, request: Request) -> None:
    peer.send(request.first_half())
    peer.wait_closed()
    raise EOFError


def floods(peer: Peer, request: Request) -> None:
    """Send a stream of 60 MB to a client that takes nothing; the connection ends under it."""
    peer.send(STREAM_HEAD)
    event = request.events()[1].replace(WORDS[0].encode(), b"x" * 60_000)
    left = send_until_blocked(peer.socket, iter([chunked(event)] * 1000))
    next(left)
    request.arrived.set()
    peer.wait_closed()
    raise EOFError


def refuses(status: bytes) -> Callable[[Peer, Request], None]:
    return lambda peer, _request: peer.send(plain(PAGE, b"content-type: text/html", b"retry-after: 1", status=status))


def ends_early(peer: Peer, request: Request) -> None:
    peer.send(STREAM_HEAD + chunked(*request.events()[:3]) + b"0\r\n\r\n")


def says_it_failed(peer: Peer, request: Request) -> None:
    peer.send(STREAM_HEAD + chunked(*request.events()[:3], request.dialect.failure()) + b"0\r\n\r\n")


UPSTREAMS: dict[str, Callable[[Peer, Request], None]] = {
    "answers": answers,
    "answers in small pieces": answers_in_small_pieces,
    "answers and closes": answers_and_closes,
    "closes": closes,
    "resets": resets,
    "resets in the head": resets_in_the_head,
    "closes in the body": closes_in_the_body,
    "resets in the body": resets_in_the_body,
    "talks nonsense": talks_nonsense,
    "talks nonsense in the body": talks_nonsense_in_the_body,
    "keeps silent": keeps_silent,
    "waits": keeps_silent,
    "stops after half": stops_after_half,
    "floods": floods,
    "refuses with 500": refuses(b"500 Oops"),
    "refuses with 429": refuses(b"429 Slow Down"),
    "refuses with a page": refuses(b"502 Bad Gateway"),
    "ends early": ends_early,
    "says it failed": says_it_failed,
}
GOOD = ("answers", "answers in small pieces", "answers and closes")
STREAMS_ONLY = ("talks nonsense in the body", "floods", "ends early", "says it failed")
# What a client that reads sees: the statuses it may see, and whether the reply ends as HTTP says.
SEES: dict[str, tuple[tuple[int, ...], bool]] = {
    **dict.fromkeys(GOOD, ((200,), True)),
    **dict.fromkeys(("closes", "resets", "resets in the head", "talks nonsense"), ((502,), True)),
    "keeps silent": ((504,), True),
    "closes in the body": ((200,), False),
    "resets in the body": ((200, 502), False),  # the reset may overtake the head
    "talks nonsense in the body": ((200,), False),
    "refuses with 500": ((500,), True),
    "refuses with 429": ((429,), True),
    "refuses with a page": ((502,), True),
    "ends early": ((200,), True),
    "says it failed": ((200,), True),
}


def outcomes(request: Request) -> set[str]:
    """Return what the one record of *request* may say; nothing when there must be none."""
    if request.client == "sends half" or not request.is_learned:
        return set()
    if request.client == "leaves at once":
        return {"ok", "cancelled"}
    if request.client != "reads":
        return {"cancelled"}
    if request.upstream in GOOD:
        return {"ok"}
    return {"error"} if request.upstream == "refuses with 429" else {"upstream_error"}


def plan(source: random.Random) -> list[Request]:
    """Return the day's requests."""
    requests = []
    for number in range(N_REQUESTS):
        client = source.choices(
            ("reads", "leaves while it waits", "leaves in the reply", "leaves at once", "sends half"), (75, 8, 8, 5, 4)
        )[0]
        upstream = {
            "reads": source.choice(GOOD) if source.random() < 0.45 else source.choice(tuple(SEES)),
            "leaves while it waits": "waits",
            "leaves in the reply": "stops after half",
        }.get(client, "answers")
        requests.append(
            Request(
                number,
                dialect=source.choices((CHAT, RESPONSES, MESSAGES), (60, 20, 20))[0],
                is_stream=upstream in STREAMS_ONLY or source.random() < 0.5,
                has_tools=source.random() < 0.3,
                upstream=upstream,
                client=client,
                is_learned=source.random() < 0.95,
            )
        )
    stopped = [
        Request(N_REQUESTS + index, CHAT, is_stream=True, has_tools=False, upstream="floods", client="stops reading")
        for index in range(3)
    ]
    return requests + stopped


# What a client does


class App:
    """A client that goes through its requests on one kept connection, opening another where one is gone."""

    def __init__(self, product: Product) -> None:
        self.port = product.proxy_port
        self.client: Client | None = None
        self.complaints: list[str] = []

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def run(self, requests: Sequence[Request]) -> list[str]:
        """Go through *requests* and return what was not as it should be."""
        for request in requests:
            if self.client is None:
                self.client = Client(self.port)
            try:
                CLIENTS[request.client](self, self.client, request)
            except (EOFError, OSError) as exc:
                self.complaints.append(f"{request}: {exc!r}")
                self.close()
        self.close()
        return self.complaints

    def send(self, client: Client, request: Request) -> None:
        learn = (b"x-tutelage-learn", b"on" if request.is_learned else b"off")
        headers = [JSON_TYPE, BEARER, conversation(request.name), learn]
        client.request(b"POST", request.dialect.path, request.question(), headers)

    def reads(self, client: Client, request: Request) -> None:
        self.send(client, request)
        status, body, is_whole = read(client)
        statuses, must_be_whole = SEES[request.upstream]
        is_right = status in statuses and (is_whole == must_be_whole or status == 502)
        if request.upstream in GOOD:
            is_right = is_right and body == request.body()
        elif request.upstream.startswith("refuses"):
            is_right = is_right and body == PAGE
        elif status == 200:
            is_right = is_right and body[:20] == request.body()[:20]
        if not is_right:
            self.complaints.append(f"{request} got {status} {is_whole} {body!r}")
        if not is_whole:
            self.close()

    def leaves_while_it_waits(self, client: Client, request: Request) -> None:
        hold_little(client.socket)
        self.send(client, request)
        if not request.arrived.wait(WAIT_S):
            self.complaints.append(f"{request} did not arrive")
        self.close()

    def leaves_in_the_reply(self, client: Client, request: Request) -> None:
        self.send(client, request)
        client.peer.read_head()
        client.peer.read_exactly(10)
        (client.peer.reset if request.number % 2 else client.close)()
        self.client = None

    def leaves_at_once(self, client: Client, request: Request) -> None:
        self.send(client, request)
        self.close()

    def sends_half(self, client: Client, request: Request) -> None:
        question = request.question()
        client.send(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
            % (request.dialect.path, len(question), question[: len(question) // 2])
        )
        self.close()


CLIENTS: dict[str, Callable[[App, Client, Request], None]] = {
    "reads": App.reads,
    "leaves while it waits": App.leaves_while_it_waits,
    "leaves in the reply": App.leaves_in_the_reply,
    "leaves at once": App.leaves_at_once,
    "stops reading": App.leaves_while_it_waits,
    "sends half": App.sends_half,
}


def read(client: Client) -> tuple[int, bytes, bool]:
    """Return the status, what came of the body and whether that was all of it."""
    line, headers = client.peer.read_head()
    lengths = [int(value) for name, value in headers if name == b"content-length"]
    body = b""
    try:
        if lengths:
            body = client.peer.read_exactly(lengths[0])
        else:
            while size := int(client.peer.read_line(), 16):
                body += client.peer.read_exactly(size)
                client.peer.read_exactly(2)
            client.peer.read_exactly(2)
    except (EOFError, ConnectionError):
        return int(line.split(b" ")[1]), body + client.peer.buffer, False
    return int(line.split(b" ")[1]), body, True


# The day


@dataclass
class Day:
    """What the day left behind."""

    product: Product
    running: Running
    requests: Sequence[Request]
    complaints: list[str]
    n_sockets: int  # before the first request
    n_tasks: int
    growth_bytes: int


def write_config(product: Product, base_url: str) -> None:
    shared = f'base_url = "{base_url}"\nmax_idle_connections = {MAX_IDLE}\n'
    product.config_path.write_text(
        f'[[upstream]]\nname = "{STEADY}"\nmodels = ["{STEADY}"]\n{shared}'
        f'[[upstream]]\nname = "{HASTY}"\nmodels = ["{HASTY}"]\nfirst_byte_timeout_s = {FIRST_BYTE_S}\n{shared}'
        f'[proxy]\nport = {product.proxy_port}\n[store]\nurl = "sqlite:///{product.database_path}"\n'
    )


def serve(requests: Sequence[Request]) -> Handler:
    """Return a handler that does to each request what is planned for it."""
    by_name = {request.name.encode(): request for request in requests}

    def handle(peer: Peer, head: Head) -> None:
        (name,) = re.findall(rb"request-\d+", head.read_body(peer))
        request = by_name[name]
        if request.upstream != "floods":
            request.arrived.set()
        UPSTREAMS[request.upstream](peer, request)

    return handle


def run_requests(product: Product, requests: Sequence[Request]) -> list[str]:
    """Send *requests* by several clients at a time and return what was not as it should be."""
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        shares = [requests[index::N_CLIENTS] for index in range(N_CLIENTS)]
        return [complaint for found in pool.map(lambda share: App(product).run(share), shares) for complaint in found]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    requests = plan(random.Random(SEED))
    with (
        ScriptedUpstream() as upstream,
        Product(tmp_path_factory.mktemp("soak"), upstream.base_url) as product,
    ):
        upstream.handle = serve(requests)
        write_config(product, upstream.base_url)
        running = product.start("proxy")
        n_sockets = open_sockets(running.pid)
        n_tasks = gauge(product, "event_loop_tasks")
        complaints = run_requests(product, requests[:N_WARM_UP])
        memory = Memory(running.pid)
        complaints += run_requests(product, requests[N_WARM_UP:])
        yield Day(product, running, requests, complaints, n_sockets, n_tasks, memory.growth_bytes())


def gauge(product: Product, name: str) -> int:
    """Return one number of the proxy's ``/metrics``, asked on a connection of its own."""
    text = httpx.get(f"{product.proxy_url}/metrics", timeout=WAIT_S).text
    (found,) = re.findall(rf"^tutelage_{name} (\S+)$", text, re.MULTILINE)
    return int(float(found))


def wrong_records(day: Day) -> list[str]:
    """Return what is wrong with the records, nothing when every request has the one that it should have."""
    rows = day.product.rows("SELECT conversation_id AS name, outcome FROM responses")
    found: dict[str, str] = {row["name"]: row["outcome"] for row in rows}
    wrong = [f"{name} has {n} records" for name, n in Counter(row["name"] for row in rows).items() if n > 1]
    wrong += [f"nobody sent {name}" for name in found.keys() - {request.name for request in day.requests}]
    for request in day.requests:
        allowed = outcomes(request)
        if found.get(request.name, "none") not in (allowed or {"none"}):
            wrong.append(f"{found.get(request.name)} instead of {allowed}: {request}")
    return wrong


def test_every_client_sees_its_own_reply_or_what_became_of_it(day: Day) -> None:
    assert day.complaints == []


def test_every_request_has_its_one_record_with_the_right_outcome(day: Day) -> None:
    deadline = time.monotonic() + WAIT_S  # records reach the database a moment after the replies
    while (wrong := wrong_records(day)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert wrong == []


def test_no_request_and_no_task_is_left(day: Day) -> None:
    assert eventually(lambda: gauge(day.product, "requests_in_flight") == 1)  # the one that asks
    assert eventually(lambda: gauge(day.product, "event_loop_tasks") <= day.n_tasks)


def test_no_connection_is_left_but_idle_ones_to_the_upstreams(day: Day) -> None:
    assert eventually(lambda: open_sockets(day.running.pid) <= day.n_sockets + 2 * MAX_IDLE)


def test_memory_does_not_grow_with_the_faults(day: Day) -> None:
    assert day.growth_bytes < GROWTH_BYTES


def test_the_proxy_still_serves(day: Day) -> None:
    again = next(request for request in day.requests if request.client == "reads" and request.upstream in GOOD)
    assert run_requests(day.product, [again]) == []


def test_no_fault_of_others_is_logged_with_a_traceback(day: Day) -> None:
    assert "Traceback" not in day.running.output()


def test_no_fault_of_others_is_logged_as_an_error_of_ours(day: Day) -> None:
    assert " ERROR " not in day.running.output()
