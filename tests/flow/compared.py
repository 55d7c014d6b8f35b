"""What a client library does at the provider itself and through the proxy, side by side.

Every scenario is played twice with the same answers of the provider. The library's results must be equal, and so must
all that it sent, but for the two learned texts; where those stand is what the tests look at.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.flow.product import APP_KEY, Product, eventually
from tests.provider.answers import Answer, Failure
from tests.provider.script import Provider
from tests.upstream import SeenRequest, Upstream

QUESTION = "How do I reset my password?"
PHRASINGS = [QUESTION, "I forgot my password, what now?", "Where can I change my password?"]
KNOWLEDGE = "Open Settings, then Security, and choose Reset."
RULE = "Answer in at most three steps."
OF_THE_HOP = ("host", "connection", "content-length", "transfer-encoding")
BLOCKS = {"<learned_guidance>": ("rule", RULE), "<reference_material>": ("knowledge", KNOWLEDGE)}


@dataclass(frozen=True)
class Endpoint:
    """Where a library is pointed at, and the names of the models it asks for: of this play alone."""

    root: str
    case: str
    api_key: str = APP_KEY

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    @property
    def gpt(self) -> str:
        # A fine-tuned model's name: libraries that look a model up in a table of their own know its parts.
        return f"ft:gpt-4o-mini-2024-07-18:example:{self.case}"

    @property
    def claude(self) -> str:
        return f"claude-sonnet-4-5-{self.case}"


@dataclass(frozen=True)
class Compared:
    """One scenario played twice; what the library got was equal."""

    product: Product
    case: str
    result: Any
    plain: list[SeenRequest]  # as the library sent it to the provider itself
    sent: list[SeenRequest]  # as it reached the provider through the proxy

    @property
    def injected(self) -> list[dict[str, str]]:
        """Return, for each request, where a learned text was put: ``{"messages[0].content": "rule"}``.

        Raises:
            AssertionError: anything else differs from what the library sent.
        """
        return [
            {place: _block_name(text) for place, text in insertions(plain.json, sent.json)}
            for plain, sent in zip(self.plain, self.sent, strict=True)
        ]

    def records(self, n: int) -> list[dict[str, Any]]:
        """Return the records of the responses, oldest first; there are *n*."""
        sql = "SELECT * FROM responses WHERE model LIKE '%' || :case ORDER BY seq"
        eventually(lambda: len(self.product.rows(sql, case=self.case)) >= n)
        rows = self.product.rows(sql, case=self.case)
        assert len(rows) == n
        return rows

    def assert_one_conversation(self, n: int) -> list[dict[str, Any]]:
        """Return the *n* records after a look at what every good turn has: recorded once, ok, one conversation."""
        rows = self.records(n)
        assert [row["outcome"] for row in rows] == ["ok"] * n
        assert len({row["conversation_id"] for row in rows}) == 1
        assert all(row["injected_tokens"] > 0 for row in rows)
        return rows

    def assert_retried(self, n_busy: int) -> None:
        """Assert that each try is recorded, *n_busy* that the provider put off and a good one.

        A client that tries again may hang up on the body of an error: then its try counts as cancelled.
        """
        rows = self.records(n_busy + 1)
        assert [row["status"] for row in rows] == [429] * n_busy + [200]
        assert {row["outcome"] for row in rows[:-1]} <= {"error", "cancelled"}
        assert rows[-1]["outcome"] == "ok"


@dataclass
class Compare:
    """Plays scenarios: ``compare(ask, *answers)`` calls *ask* with each of the two endpoints."""

    product: Product
    upstream: Upstream
    name: str
    _numbers: Iterator[int] = field(default_factory=count)

    def __call__(self, ask: Callable[[Endpoint], Any], *answers: Answer | Failure) -> Compared:
        case = f"{self.name}{next(self._numbers)}"
        direct, plain = self._play(ask, Endpoint(self.upstream.base_url.removesuffix("/v1"), case), answers)
        proxied, sent = self._play(ask, Endpoint(self.product.proxy_url, case), answers)
        assert proxied == direct
        # Sorted: what a scenario asks at the same time arrives in any order.
        assert sorted(map(app_headers, sent)) == sorted(map(app_headers, plain))
        return Compared(self.product, case, proxied, plain, sent)

    def _play(
        self, ask: Callable[[Endpoint], Any], endpoint: Endpoint, answers: tuple[Answer | Failure, ...]
    ) -> tuple[Any, list[SeenRequest]]:
        self.upstream.script = Provider(endpoint.case, answers)
        self.upstream.requests.clear()
        result = ask(endpoint)
        return result, list(self.upstream.requests)


def app_headers(seen: SeenRequest) -> list[tuple[str, str]]:
    """Return the headers that are the app's own: not those of the connection, the length or the body's boundary."""
    headers = [(name.decode(), value.decode("latin-1").partition("; boundary=")[0]) for name, value in seen.headers]
    return [(name, value) for name, value in headers if name not in OF_THE_HOP]


def insertions(plain: Any, sent: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield what *sent* has beyond *plain* and where: text after a text, a new key, a new item at either end.

    Raises:
        AssertionError: they differ in any other way, the order of keys included.

    >>> list(insertions({"a": ["x", 1]}, {"a": ["x and y", 1]}))
    [('a[0]', ' and y')]
    >>> list(insertions({"a": []}, {"s": "new", "a": [{"b": "c"}]}))
    [('s', 'new'), ('a[0]', 'c')]
    """
    if isinstance(plain, dict) and isinstance(sent, dict):
        assert [key for key in sent if key in plain] == list(plain), place
        for key, value in sent.items():
            inner = f"{place}.{key}".removeprefix(".")
            yield from insertions(plain[key], value, inner) if key in plain else _new(value, inner)
    elif isinstance(plain, list) and isinstance(sent, list):
        yield from _in_list(plain, sent, place)
    elif isinstance(plain, str) and isinstance(sent, str) and sent.startswith(plain) and sent != plain:
        yield place, sent.removeprefix(plain)
    else:
        assert sent == plain, place


def _in_list(plain: list[Any], sent: list[Any], place: str) -> Iterator[tuple[str, str]]:
    n_new = len(sent) - len(plain)
    assert n_new in (0, 1), place
    n_before = n_new if not plain or _is_like(plain[0], sent[n_new]) else 0
    for index, value in enumerate(sent):
        inner, twin = f"{place}[{index}]", index - n_before
        is_twin = 0 <= twin < len(plain)
        yield from insertions(plain[twin], value, inner) if is_twin else _new(value, inner)


def _is_like(plain: Any, sent: Any) -> bool:
    try:
        return bool(list(insertions(plain, sent))) or plain == sent
    except AssertionError:
        return False


def _new(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the one text in what was added as a whole."""
    texts = [value] if isinstance(value, str) else list(_texts(value))
    yield place, max(texts, key=len)


def _texts(value: Any) -> Iterator[str]:
    inner: Mapping[Any, Any] = value if isinstance(value, dict) else dict(enumerate(value))
    for item in inner.values():
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict | list):
            yield from _texts(item)


def _block_name(text: str) -> str:
    (name,) = [name for frame, (name, item) in BLOCKS.items() if text.lstrip("\n").startswith(frame) and item in text]
    return name
