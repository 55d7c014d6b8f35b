"""Takes what came through the proxy into the training data, in a thread of its own, off the request path."""

from collections.abc import Callable

from learner.watch import Watch
from store.clock import Clock
from store.config import Config
from store.database import Database
from store.traffic_examples import collect_traffic


def make_collector(config: Config, *, open_database: Callable[[], Database], clock: Clock) -> Watch:
    """Return what looks every ``[learner] poll_s`` for new records."""
    return Watch(
        "collector",
        lambda db: collect_traffic(db, config.training, now_s=clock.now_s()),
        open_database=open_database,
        poll_s=config.learner.poll_s,
        problem="the proxy's records could not be taken into the training data",
    )
