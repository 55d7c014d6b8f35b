"""What the admin API and the console work with: settings, database, clock, and the texts' counter and embedder."""

from collections.abc import Callable
from dataclasses import dataclass

from learner.authoring import Author
from store.clock import Clock
from store.config import Config
from store.database import Database


def _nobody() -> None:
    return


@dataclass(frozen=True, slots=True)
class Services:
    """Collaborators of all handlers; each request opens its own connection."""

    config: Config
    open_database: Callable[[], Database]
    clock: Clock
    author: Author
    wake_scheduler: Callable[[], None] = _nobody
