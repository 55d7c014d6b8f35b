"""The real proxy and learner in one process, around a clock that the replay moves."""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from learner.models import no_models
from learner.report import Collaborators
from learner.run import Kind, run_once
from proxy.data_plane import DataPlane
from proxy.server import server_config
from store.clock import Clock, ManualClock
from store.config import Config, segment_directory
from store.conversations import import_conversations
from store.database import Database, open_database
from store.embedding import load_local_embedder
from store.generations import current_number
from store.segments import SegmentReader, reader_lock
from store.tenants import ensure_tenant
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT
from tutelage.demo.client import DemoError, ProxyClient
from tutelage.demo.options import DemoOptions
from tutelage.demo.sample import load_sample
from tutelage.demo.server import serve_in_thread

SWAP_TIMEOUT_S = 10.0  # for the proxy to serve a new generation; it takes a few hundredths
SWAP_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Installation:
    """What the demo drives. The recorder's work is done by ``record``, when the replay says so."""

    config: Config
    db: Database
    clock: ManualClock
    client: ProxyClient
    plane: DataPlane
    reader: SegmentReader
    collaborators: Collaborators
    start_s: float
    end_s: float

    def record(self) -> None:
        """Move all finished responses into the database, as the recorder process does all the time."""
        self.reader.move(self.db)

    def learn(self, kind: Kind) -> int:
        """Let the learner run at the simulated time, wait until its result is served, and return how many runs."""
        reports = run_once(
            self.db,
            self.config,
            DEFAULT_TENANT,
            kind,
            collaborators=self.collaborators,
            now_s=self.clock.now_s(),
        )
        self.wait_for_generation()
        return len(reports)

    def wait_for_generation(self) -> None:
        """Return once the proxy serves the newest generation.

        Raises:
            DemoError: it does not within ten seconds.
        """
        newest = current_number(self.db, DEFAULT_TENANT)
        deadline_s = time.monotonic() + SWAP_TIMEOUT_S
        while self.plane.generations().get(DEFAULT_TENANT, -1) < newest:
            if time.monotonic() > deadline_s:
                raise DemoError(f"the proxy does not serve generation {newest}")
            time.sleep(SWAP_POLL_S)


@contextmanager
def install(config: Config, options: DemoOptions, clock: Clock) -> Iterator[Installation]:
    """Start the proxy on a free port with a new database that holds the sample conversations.

    Simulated time ends with the day before the one that *clock* tells, so that a console opened afterwards shows
    the demo's last days. One seed always draws the same patterns for the same conversations.

    Raises:
        DemoError: the proxy did not start.
    """
    today = datetime.fromtimestamp(clock.now_s(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=options.days)
    simulated = ManualClock(start)
    with ExitStack() as stack:
        stack.enter_context(_quiet_logs())
        db = stack.enter_context(open_database(config.store))
        secret = hashlib.blake2b(f"demo {options.seed}".encode(), digest_size=32).digest()
        ensure_tenant(db, DEFAULT_TENANT, start.timestamp(), "demo", secret=secret)
        import_conversations(db, DEFAULT_TENANT, load_sample(), now_s=start.timestamp())
        directory = segment_directory(config)
        if not stack.enter_context(reader_lock(directory)):
            raise DemoError(f"another recorder works in {directory}")
        plane = DataPlane(config, clock=simulated, recorder=None, environment={})
        port = stack.enter_context(serve_in_thread(server_config(plane.app, config.proxy), "proxy"))
        yield Installation(
            config=config,
            db=db,
            clock=simulated,
            client=stack.enter_context(ProxyClient("127.0.0.1", port)),
            plane=plane,
            reader=SegmentReader(directory),
            collaborators=Collaborators(
                embedder=load_local_embedder(config.embedding),
                tokens=load_token_counter(),
                models=no_models(),
                rng=np.random.default_rng(options.seed),
                clock=simulated,
            ),
            start_s=start.timestamp(),
            end_s=(start + timedelta(days=options.days)).timestamp(),
        )


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep notes of servers and runs out of the progress bar; warnings and errors still come."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.setLevel(before)
