"""One learning run for whoever starts it by hand or by job: the collaborators made, the run done."""

import numpy as np

from learner.authoring import Author
from learner.models import load_models
from learner.report import Collaborators, RunReport
from learner.run import Kind, run_once
from store.clock import Clock, SystemClock
from store.config import Config
from store.database import Database


def learn(
    db: Database,
    config: Config,
    tenant_id: str,
    kind: Kind,
    *,
    now_s: float,
    author: Author | None = None,
    clock: Clock | None = None,
    dataset_id: str | None = None,
) -> list[RunReport]:
    """Return what one run did; *author* lends its embedder and token counter when they are loaded already.

    *dataset_id* is what nlu trains on, None for the configured one.

    Raises:
        StoreError: as ``run_once``.
    """
    author = author or Author(config.embedding)
    collaborators = Collaborators(
        embedder=author.embedder,
        tokens=author.tokens,
        models=load_models(config.learner.models),
        rng=np.random.default_rng(),
        clock=clock or SystemClock(),
    )
    return run_once(db, config, tenant_id, kind, collaborators=collaborators, now_s=now_s, dataset_id=dataset_id)
