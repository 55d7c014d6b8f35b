"""What all tests share: a configuration and a migrated database in a folder of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from store.clock import parse_iso
from store.config import Config, load_config
from store.database import Database, open_database
from store.tenants import ensure_tenant
from store.vocabulary import DEFAULT_TENANT

pytest.register_assert_rewrite("tests.flow.compared")  # its assertions explain themselves as a test's own do

# How long an example takes is the machine's business: on a busy one any of them may take a second.
settings.register_profile("tutelage", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tutelage")

NOW_S = parse_iso("2026-11-21T12:00:00Z")
SECRET = b"the secret of the tests' tenants"  # the same draws in each run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The shipped settings with the database in a temporary folder, no entry held back by chance."""
    url = f"sqlite:///{tmp_path / 'tutelage.db'}"
    return load_config(None, {"store": {"url": url}, "contexts": {"hold_back": 0.0}})


@pytest.fixture
def db(config: Config) -> Iterator[Database]:
    """A migrated database that holds the default tenant."""
    with open_database(config.store) as database:
        ensure_tenant(database, DEFAULT_TENANT, NOW_S, secret=SECRET)
        yield database
