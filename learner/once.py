"""One learning run or refit for whoever starts it by hand or by job: the collaborators made, the work done."""

import os

import numpy as np

from learner.authoring import Author
from learner.embedding_server import make_server
from learner.knowledge.pipeline import Period
from learner.knowledge.refitting import Refitting
from learner.models import load_models
from learner.report import Collaborators, RunReport
from learner.run import Kind, run_once
from store.clock import Clock, SystemClock
from store.config import LOCAL_MODEL, Config
from store.database import Database
from store.prices import PriceBook
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


def teaches(config: Config) -> bool:
    """Return whether there is an embedding model that the local table is fitted to."""
    return config.refit.enabled and config.embedding.model != LOCAL_MODEL


def make_refitting(config: Config, author: Author | None = None) -> Refitting:
    """Return what a refit works with; *author* lends its embedder when it is loaded already."""
    prices = PriceBook(config.prices)
    prices.load()
    return Refitting(
        config,
        teacher=make_server(config.embedding, os.environ),
        embedder=(author or Author(config.embedding)).embedder,
        prices=prices,
        clock=SystemClock(),
    )
