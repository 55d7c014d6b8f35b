"""Fixtures of the learner's tests."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from learner.authoring import Author
from store.clock import ManualClock
from store.config import Config, load_config
from store.database import Database
from tests.learner.api import client_of


@pytest.fixture(scope="session")
def author() -> Author:
    """The real counter and embedder, loaded once."""
    return Author(load_config().embedding)


@pytest.fixture
def thread_loop() -> Iterator[None]:
    """An event loop of this thread: litellm asks for one, and one that it made itself would never be closed.

    The warning of that would fail whichever test runs when it is collected.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))


@pytest.fixture
def client(config: Config, db: Database, clock: ManualClock, author: Author) -> Iterator[TestClient]:
    """The learner's port in open mode, as a program on this machine sees it."""
    with client_of(config, clock, author) as opened:
        yield opened
