"""What tests of the learner's port share: the app over a test client, on a database of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from learner.app import create_app
from learner.authoring import Author
from learner.services import Services
from store.clock import ManualClock
from store.config import Config
from store.database import open_database

BASE_URL = "http://127.0.0.1:8485"


@dataclass
class Wakings:
    """Counts how often the scheduler was woken."""

    number: int = 0

    def __call__(self) -> None:
        self.number += 1


@contextmanager
def client_of(
    config: Config, clock: ManualClock, author: Author, wakings: Wakings | None = None
) -> Iterator[TestClient]:
    services = Services(config, lambda: open_database(config.store), clock, author, wakings or Wakings())
    with TestClient(create_app(services), base_url=BASE_URL, follow_redirects=False) as client:
        yield client


def error_of(answer: Any) -> dict[str, Any]:
    """Return the error body's content; it must have exactly the fields that OpenAI's has."""
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
