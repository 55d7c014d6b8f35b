"""One learning run for whoever starts it by hand or by job: the collaborators made, the run done."""

import numpy as np

from learner.authoring import Author
from learner.knowledge.pipeline import Period
from learner.models import load_models
from learner.report import Collaborators, RunReport
from learner.run import Kind, run_once
from store.clock import Clock, SystemClock
from store.config import Config
from store.database import Database
from store.traffic_examples import collect_traffic


def learn(
    db: Database,
    config: Config,
    tenant_id: str,
    kind: Kind,
    *,
    now_s: float,
    author: Author | None = None,
    clock: Clock | None = None,
    period: Period | None = None,
    dataset_id: str | None = None,
) -> list[RunReport]:
    """Return what one run did; *author* lends its embedder and token counter when they are loaded already.

    *period*: the conversations that a knowledge run looks at; None: what is new. *dataset_id*: what nlu trains on;
    None: the configured one.

    Raises:
        StoreError: as ``run_once``.
    """
    author = author or Author(config.embedding)
    collaborators = Collaborators(
        embedder=author.embedder,
        tokens=author.tokens,
        models=load_models(config.learner.models, config.prices),
        rng=np.random.default_rng(),
        clock=clock or SystemClock(),
    )
    collect_traffic(db, config.training, now_s=collaborators.clock.now_s())
    return run_once(
        db,
        config,
        tenant_id,
        kind,
        collaborators=collaborators,
        now_s=now_s,
        period=period,
        dataset_id=dataset_id,
    )
