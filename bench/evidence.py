"""How often chance looks like an effect, and how soon an effect is proven, for the e-value's bets and others.

``python -m bench.evidence``: streams of rated responses, looked at every 10; a pattern is tried on half of them. The
e-value and the interval are the product's own functions, the bets of other sizes go through them too.
"""

import argparse
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from learner.patterns.evidence import EFFECTS, LEVEL, log_bets
from learner.patterns.outcomes import outcomes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SIZES: Sequence[tuple[float, ...]] = ((0.05,), (0.05, 0.2), EFFECTS, (0.15, 0.45))
STEP = 10  # responses between two looks
MANY_USERS = 20
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
    """A stream at each of k looks, against an effect: score and variance (k,), and how many voted on treated ones."""

    score: Floats
    variance: Floats
    n_rated: Integers


def simulate(world: World, seed: int) -> tuple[Looks, Looks, float]:
    """Return the looks at one stream against no effect and against the true one, and a residual's variance."""
    rng = np.random.default_rng(seed)
    n = world.n
    user = _users(rng, world)
    mood = rng.normal(0, 0.1, n)[user]
    treated = rng.random(n) < 0.5
    up = np.clip(world.up + mood + world.lift * treated / 2, 0, 1)
    vote = np.where(rng.random(n) < up, 1.0, -1.0)
    voted = np.nonzero(rng.random(n) < world.rate)[0]
    names = [str(code) for code in user]
    earned = outcomes(
        users=names,
        conversations=[str(number) for number in range(n)],
        question_types=["one"] * n,
        signal_response=voted,
        signal_weight=vote[voted],
        signal_families=["vote"] * len(voted),  # no thumbs: their discount would make the true effect another one
        signal_users=[names[index] for index in voted],
    )
    coin = treated - 0.5
    psi, information = coin * earned.weight * earned.residual, coin**2 * earned.weight
    n_rated = np.cumsum((treated & earned.is_rated).astype(np.int64))
    truth = float((np.clip(world.up + mood + world.lift / 2, 0, 1) - np.clip(world.up + mood, 0, 1)).mean() * 2)
    none = _looks(psi, earned.cluster, n_rated)
    true = _looks(psi - truth * world.rate * information, earned.cluster, n_rated)
    return none, true, earned.variance


def _users(rng: np.random.Generator, world: World) -> Integers:
    if world.users == 0:
        return np.arange(world.n)
    if world.users <= MANY_USERS:
        return rng.integers(world.users, size=world.n)
    return np.minimum((rng.pareto(1.2, world.n) * world.users / 8).astype(np.int64), world.users - 1)


def _looks(psi: Floats, cluster: Integers, n_rated: Integers) -> Looks:
    order = np.argsort(cluster, kind="stable")
    running = np.cumsum(psi[order])
    first = np.searchsorted(cluster[order], cluster[order])
    before = np.where(first > 0, running[first - 1], 0.0)
    by_user = np.empty_like(psi)
    by_user[order] = running - before  # the user's sum, this row included
    by_row = np.cumsum(psi**2)
    by_block = np.cumsum(2 * (by_user - psi) * psi + psi**2)
    looks = np.arange(STEP - 1, len(psi), STEP)
    return Looks(np.cumsum(psi)[looks], np.maximum(by_row, by_block)[looks], n_rated[looks])


def first_proof(looks: Looks, residual_variance: float, sizes: Sequence[float]) -> int | None:
    """Return after how many responses the e-value reached 20 first, or None."""
    for index, (score, variance, n) in enumerate(
        zip(looks.score.tolist(), looks.variance.tolist(), looks.n_rated.tolist(), strict=True)
    ):
        if n >= MIN_SIGNALS and log_bets(score, variance, residual_variance, sizes) >= math.log(LEVEL):
            return (index + 1) * STEP
    return None


def replicate(world: World, seed: int) -> list[tuple[int | None, bool, bool]]:
    """Return for each of ``SIZES`` when the effect was proven, and whether the low and the high end ever missed it."""
    none, true, variance = simulate(world, seed)
    opposite = Looks(-true.score, true.variance, true.n_rated)
    return [
        (
            first_proof(none, variance, sizes),
            first_proof(true, variance, sizes) is not None,
            first_proof(opposite, variance, sizes) is not None,
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
