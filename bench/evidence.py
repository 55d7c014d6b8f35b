"""How often chance looks like an effect, and how soon an effect is proven, for the e-value's bets and others.

``python -m bench.evidence``: streams of rated responses, looked at every 10; a pattern is tried on half of them.
Residuals, weights, variances and e-values are made by the product's own functions, bets of other sizes too.
"""

import argparse
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from learner.patterns.axes import Axes
from learner.patterns.coded import Coded, chunks, encode
from learner.patterns.evidence import EFFECTS, LEVEL, log_bets
from learner.patterns.observations import (
    FAMILIES,
    Booleans,
    Column,
    Exposures,
    Floats,
    Integers,
    Natural,
    Observations,
)
from learner.patterns.residuals import Baselines

SIZES: Sequence[tuple[float, ...]] = ((0.05,), (0.05, 0.2), EFFECTS, (0.15, 0.45))
STEP = 10  # responses between two looks
MANY_USERS = 20
SHARE = 0.5
TRIED = Column("length", "short")
VOTE = FAMILIES.index("copy")  # no thumbs: their discount would make the true effect another one
MIN_SIGNALS = 10  # treated responses with a vote, as [patterns] min_signals


@dataclass(frozen=True, slots=True)
class World:
    """A stream of responses: one is rated with ``rate``, and a vote is up with ``up``, treated more by ``lift / 2``."""

    rate: float
    users: int  # 0: every response is somebody else's; up to 20: all alike; more: a few make most of the traffic
    up: float
    lift: float = 0.0  # in the mean vote, [-1, 1], of those who vote
    n: int = 2000


@dataclass(frozen=True, slots=True)
class Looks:
    """A stream at each of k looks, against an effect."""

    score: Floats  # (k,)
    variance: Floats  # (k,) of the score
    residual_variance: Floats  # (k,) of a residual
    n_rated: Integers  # (k,) treated responses with a vote


@dataclass(frozen=True, slots=True)
class Stream:
    """n responses as the product's statistics see them."""

    coded: Coded
    score: Floats  # (n,) residual
    weight: Floats  # (n,)
    variance: Floats  # (n,) of a residual, once the chunk was taken in


def simulate(world: World, seed: int) -> tuple[Looks, Looks]:
    """Return the looks at one stream against no effect and against the true one."""
    rng = np.random.default_rng(seed)
    user = _users(rng, world)
    mood = rng.normal(0, 0.1, world.n)[user]
    treated = rng.random(world.n) < 0.5
    up = np.clip(world.up + mood + world.lift * treated / 2, 0, 1)
    vote = np.where(rng.random(world.n) < up, 1.0, -1.0)
    has_voted = rng.random(world.n) < world.rate
    truth = float((np.clip(world.up + mood + world.lift / 2, 0, 1) - np.clip(world.up + mood, 0, 1)).mean() * 2)
    stream = take_in(observed(user, treated, np.where(has_voted, vote, 0.0)))
    return looks(stream), looks(stream, effect=truth * world.rate)


def observed(user: Integers, treated: Booleans, votes: Floats) -> Observations:
    """Return the stream as the product reads it from records, one response per conversation."""
    n = len(user)
    signals = np.zeros((n, len(FAMILIES)))
    signals[:, VOTE] = votes
    return Observations(
        created_s=np.arange(n, dtype=np.float64),
        users=[f"user-{code}" for code in user.tolist()],
        conversations=[f"conversation-{number}" for number in range(n)],
        question_types=["one"] * n,
        groups=[""] * n,
        is_holdout=np.zeros(n, np.bool_),
        signals=signals,
        thumb_voters=[""] * n,
        satisfaction=votes,
        is_rated=votes != 0,
        natural=Natural((), np.zeros((n, 0), np.bool_), {}),
        exposures=Exposures(np.arange(n), np.zeros(n, np.int64), np.full(n, SHARE), treated, ("pattern",), (TRIED,)),
    )


def take_in(observations: Observations) -> Stream:
    """Return the stream with its residuals, chunk by chunk from what came before, as ``Statistics`` takes it in."""
    axes = Axes()
    axes.meet(observations)
    coded, _, bounds = encode(observations, axes)
    baselines = Baselines(axes.sizes)
    weights = np.zeros(len(FAMILIES))
    weights[VOTE] = 1.0
    score, weight, variance = np.zeros(len(coded)), np.zeros(len(coded)), np.zeros(len(coded))
    for start, end in chunks(bounds, 0):
        found = baselines.take(coded.between(start, end), weights)
        score[start:end], weight[start:end] = found.score, found.weight
        variance[start:end] = baselines.variance(weights)
    return Stream(coded, score, weight, variance)


def _users(rng: np.random.Generator, world: World) -> Integers:
    if world.users == 0:
        return np.arange(world.n)
    if world.users <= MANY_USERS:
        return rng.integers(world.users, size=world.n)
    return np.minimum((rng.pareto(1.2, world.n) * world.users / 8).astype(np.int64), world.users - 1)


def looks(stream: Stream, effect: float = 0.0) -> Looks:
    """Return every look at *stream* against *effect*: what ``Ledger`` would hold then, from running sums."""
    coded, coin = stream.coded, stream.coded.draws.contrast
    psi = coin * stream.weight * (stream.score - effect * coin)
    order = np.argsort(coded.bucket, kind="stable")
    running = np.cumsum(psi[order])
    first = np.searchsorted(coded.bucket[order], coded.bucket[order])
    before = np.where(first > 0, running[first - 1], 0.0)
    by_user = np.empty_like(psi)
    by_user[order] = running - before  # the sum of the bucket of the user, this row included
    by_row = np.cumsum(psi**2)
    by_block = np.cumsum(2 * (by_user - psi) * psi + psi**2)
    n_rated = np.cumsum((coded.draws.treated & coded.is_rated).astype(np.int64))
    at = np.arange(STEP - 1, len(psi), STEP)
    return Looks(np.cumsum(psi)[at], np.maximum(by_row, by_block)[at], stream.variance[at], n_rated[at])


def first_proof(seen: Looks, sizes: Sequence[float]) -> int | None:
    """Return after how many responses the e-value reached 20 first, or None."""
    for index, (score, variance, residual_variance, n) in enumerate(
        zip(seen.score.tolist(), seen.variance.tolist(), seen.residual_variance.tolist(), seen.n_rated, strict=True)
    ):
        if n >= MIN_SIGNALS and log_bets(score, variance, residual_variance, sizes) >= math.log(LEVEL):
            return (index + 1) * STEP
    return None


def replicate(world: World, seed: int) -> list[tuple[int | None, bool, bool]]:
    """Return for each of ``SIZES`` when the effect was proven, and whether the low and the high end ever missed it."""
    none, true = simulate(world, seed)
    opposite = replace(true, score=-true.score)
    return [
        (
            first_proof(none, sizes),
            first_proof(true, sizes) is not None,
            first_proof(opposite, sizes) is not None,
        )
        for sizes in SIZES
    ]


def report(title: str, world: World, n: int, pool: ProcessPoolExecutor) -> None:
    """Print a line: for each of ``SIZES`` the share that was proven, when, and how often each end was wrong."""
    results = list(pool.map(partial(replicate, world), range(n), chunksize=10))
    cells = []
    for one in zip(*results, strict=True):
        proven = sorted(world.n + 1 if at is None else at for at, _, _ in one)
        share = sum(at <= world.n for at in proven) / n
        median = proven[n // 2]
        at = f"{median * world.rate:5.0f}" if world.lift and median <= world.n else "    -"
        low, high = (float(np.mean([missed[end] for missed in one])) for end in (1, 2))
        cells.append(f"{share:6.1%} {at} {low:5.1%} {high:5.1%}")
    print(f"{title:42}" + "   ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=__doc__)
    parser.add_argument("--streams", type=int, default=400, help="of each world; a quarter where there is an effect")
    arguments = parser.parse_args()
    print("share proven, median signals until then, share in which the interval's low and high end ever missed")
    print(f"{'bets, in standard deviations':42}" + "   ".join(f"{' '.join(map(str, one)):>25}" for one in SIZES))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for rate in (1.0, 0.3, 0.08):
            for users in (0, 10, 60, 150):
                for up in (0.5, 0.85):
                    title = f"nothing: {rate:.0%} vote, {users or 'new'} users, {up:.0%} up"
                    report(title, World(rate, users, up), arguments.streams, pool)
        for lift, rate, n in ((1.0, 1.0, 2000), (0.5, 1.0, 2000), (0.4, 0.3, 6000), (0.6, 0.08, 12000)):
            for users in (0, 10, 60, 150):
                title = f"+{lift} a vote: {rate:.0%} vote, {users or 'new'} users"
                report(title, World(rate, users, 0.5 - lift / 4, lift, n), arguments.streams // 4, pool)


if __name__ == "__main__":
    main()
