"""Records as observations: what people see as satisfaction."""

import numpy as np

from learner.patterns.batches import observations_of
from learner.patterns.observations import Natural
from store.config import Config
from store.database import Database
from store.tenants import ensure_default_tenant
from tests.conftest import NOW_S
from tests.store.test_windows import batches, span, vote, write


def test_satisfaction_is_the_sum_of_weights_within_bounds(db: Database, config: Config) -> None:
    ensure_default_tenant(db, NOW_S)
    first, second, _ = (write(db, number) for number in range(3))
    vote(db, config, first, "thumbs_up")
    vote(db, config, first, "copy")
    vote(db, config, second, "follow_up")

    (batch,) = batches(db, span())
    found = observations_of(batch, {}, lambda _: Natural((), np.zeros((3, 0), np.bool_), {}))

    assert found.satisfaction.tolist() == [1.0, config.feedback.weights["follow_up"], 0.0]
    assert found.is_rated.tolist() == [True, True, False]
