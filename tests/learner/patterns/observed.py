"""Made-up observations of a tenant whose truth is known."""

from dataclasses import dataclass, replace

import numpy as np

from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Column, Exposures, Integers, Natural, Observations

DAY_S = 86_400.0
START_S = 1_700_000_000.0
COLUMNS = (Column("length", "short"), Column("length", "long"), Column("format", "table"), Column("tone", "formal"))
DIMENSIONS = ("length", "format", "tone")


@dataclass(frozen=True, slots=True)
class Truth:
    """What instructions and nature do; a share is P(treated) of each of ``COLUMNS``."""

    shares: tuple[float, ...] = (0.3, 0.2, 0.5, 0.4)
    effects: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # on the chance scale of a thumb, both ways
    clash: float = 0.0  # of short and table together
    confounding: float = 0.0  # an unseen mood makes replies tabular and people content
    n_users: int = 60
    n_types: int = 2
    n_groups: int = 2
    rating: float = 0.5
    days: float = 30.0
    holdout: float = 0.05


def observe(n: int, seed: int, truth: Truth | None = None) -> Observations:
    """Return n responses, one conversation each, in order of time."""
    truth = truth or Truth()
    rng = np.random.default_rng(seed)
    users = rng.integers(truth.n_users, size=n)
    is_holdout = rng.random(n) < truth.holdout
    treated = _assign(rng, n, truth.shares) & ~is_holdout[:, None]
    mood = rng.normal(0, 1, n)
    has = rng.random((n, len(COLUMNS))) < 0.3
    has[:, 2] = rng.random(n) < 1 / (1 + np.exp(1 - truth.confounding * mood))
    tabular = has[:, 2] & ~treated[:, 2]
    clash = truth.clash * (treated[:, 0] & treated[:, 2])
    lift = treated @ np.array(truth.effects) + clash + truth.confounding * 0.2 * mood + 0.0 * tabular
    rated = rng.random(n) < truth.rating
    up = rng.random(n) < np.clip(0.5 + lift / 2, 0.0, 1.0)
    signals = np.zeros((n, len(FAMILIES)))
    signals[:, 0] = np.where(rated, np.where(up, 1.0, -1.0), 0.0)
    signals[:, 1] = rng.random(n) < np.clip(0.2 + 0.1 * lift, 0, 1)
    signals[:, 2] = rng.random(n) < np.clip(0.3 - 0.1 * lift, 0, 1)
    names = [f"user-{user}" for user in users.tolist()]
    response = np.repeat(np.arange(n), len(COLUMNS))
    return Observations(
        created_s=START_S + np.arange(n) * truth.days * DAY_S / max(n, 1),
        users=names,
        conversations=[f"conversation-{seed}-{i}" for i in range(n)],
        question_types=[f"type-{code}" for code in rng.integers(truth.n_types, size=n).tolist()],
        groups=[f"group-{user % truth.n_groups}" if truth.n_groups > 1 else "" for user in users.tolist()],
        is_holdout=is_holdout,
        signals=signals,
        thumb_voters=[name if thumb else "" for name, thumb in zip(names, signals[:, 0].tolist(), strict=True)],
        satisfaction=np.clip(signals @ np.array([1.0, 0.3, -0.2, 0, 0, 0, 0]), -1, 1),
        is_rated=(signals != 0).any(1),
        natural=Natural(COLUMNS, has, {name: np.ones(n, np.bool_) for name in DIMENSIONS}),
        exposures=Exposures(
            response=response,
            pattern=np.tile(np.arange(len(COLUMNS)), n),
            share=np.tile(np.array(truth.shares), n),
            treated=treated.ravel(),
            pattern_ids=[f"pattern-{column.value}" for column in COLUMNS],
            columns=COLUMNS,
        ),
    )


def _assign(
    rng: np.random.Generator, n: int, shares: tuple[float, ...]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    draw = rng.random((n, len(DIMENSIONS)))
    lengths, table, formal = draw.T
    return np.column_stack(
        [
            lengths < shares[0],
            (lengths >= shares[0]) & (lengths < shares[0] + shares[1]),
            table < shares[2],
            formal < shares[3],
        ]
    )


def part(observations: Observations, rows: Integers) -> Observations:
    """Return the *rows* of *observations*."""
    place = np.full(len(observations.created_s), -1)
    place[rows] = np.arange(len(rows))
    exposures = observations.exposures
    kept = np.flatnonzero(place[exposures.response] >= 0)
    natural = observations.natural
    return Observations(
        created_s=observations.created_s[rows],
        users=[observations.users[i] for i in rows],
        conversations=[observations.conversations[i] for i in rows],
        question_types=[observations.question_types[i] for i in rows],
        groups=[observations.groups[i] for i in rows],
        is_holdout=observations.is_holdout[rows],
        signals=observations.signals[rows],
        thumb_voters=[observations.thumb_voters[i] for i in rows],
        satisfaction=observations.satisfaction[rows],
        is_rated=observations.is_rated[rows],
        natural=replace(
            natural, has=natural.has[rows], applies={name: mask[rows] for name, mask in natural.applies.items()}
        ),
        exposures=replace(
            exposures,
            response=place[exposures.response[kept]],
            pattern=exposures.pattern[kept],
            share=exposures.share[kept],
            treated=exposures.treated[kept],
        ),
    )


def with_signals(observations: Observations, signals: Floats) -> Observations:
    """Return *observations* with other signals."""
    return replace(observations, signals=signals, is_rated=(signals != 0).any(1))
