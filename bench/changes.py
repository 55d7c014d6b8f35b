"""How soon a pattern that stopped helping is seen, and how often one that goes on helping is taken for such.

``python -m bench.changes``: days of an active pattern (20 of trial, then nine of ten conversations have it), four
looks a day, with votes that are rare and skewed: 40 % of the responses have a signal, three of four are good. The
detector is the product's own function, with ``[patterns] change_years`` as configured.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.patterns.changes import WATCHED_DAYS, Days, find_change
from learner.patterns.normal import Floats
from store.config import load_config

TRIAL_DAYS, TRIAL_SHARE, ACTIVE_SHARE = 20, 0.5, 0.9
LOOKS = 4  # a day
RATED, GOOD = 0.4, 0.75  # share of the responses with a signal, and of those, of good ones
SERVICE_DAYS = 365  # in which false alarms are counted
CHANGE_DAY, PATIENCE_DAYS = 60, 120


@dataclass(frozen=True)
class Tenant:
    """Responses a day, and what the pattern does for them in standard deviations of a residual score."""

    per_day: int
    effect: float


TENANTS = (Tenant(213, 0.1), Tenant(213, 0.2), Tenant(213, 0.4), Tenant(2000, 0.1))


def first_alarm(tenant: Tenant, after: float, change_day: int, n_days: int, years: float, seed: int) -> int | None:
    """Return on which day a change is found, when from *change_day* on the effect is *after* times what it was."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((3, n_days))
    for day in range(n_days):
        share = TRIAL_SHARE if day < TRIAL_DAYS else ACTIVE_SHARE
        effect = tenant.effect * (after if day >= change_day else 1.0)
        for _ in range(LOOKS):
            rows[:, day] += _sums(rng, tenant.per_day / LOOKS, share, effect)
            if day >= TRIAL_DAYS and find_change(_days(rows[:, : day + 1]), 1.0, years) is not None:
                return day
    return None


def _sums(rng: np.random.Generator, expected: float, share: float, effect: float) -> Floats:
    """Return psi, information and psi^2 of one look's responses."""
    n = rng.poisson(expected)
    coin = (rng.random(n) < share) - share
    is_rated, is_good = rng.random(n) < RATED, rng.random(n) < GOOD
    score = np.where(is_rated, np.where(is_good, 1 - GOOD, -GOOD), 0.0) / math.sqrt(RATED * GOOD * (1 - GOOD))
    psi = coin * (score + effect * coin)
    return np.array([psi.sum(), (coin**2).sum(), (psi**2).sum()])


def _days(rows: Floats) -> Days:
    last = rows[:, -WATCHED_DAYS:]
    before = rows[:, : rows.shape[1] - last.shape[1]].sum(1)
    return Days(np.arange(last.shape[1]), last[0], last[1], last[2], np.asarray(before[0]), np.asarray(before[1]))


def alarms_a_year(tenant: Tenant, kept: float, years: float, n: int) -> float:
    """Return false alarms in a year of service of a pattern that does *kept* of what it did in its trial."""
    end = TRIAL_DAYS + SERVICE_DAYS
    found = [first_alarm(tenant, kept, TRIAL_DAYS, end, years, seed) for seed in range(n)]
    served = sum((end if day is None else day + 1) - TRIAL_DAYS for day in found)
    return sum(day is not None for day in found) / served * SERVICE_DAYS


def delays(tenant: Tenant, after: float, years: float, n: int) -> Sequence[float]:
    """Return the days until a change is found, in order; infinite beyond ``PATIENCE_DAYS``."""
    end = CHANGE_DAY + PATIENCE_DAYS
    found = [first_alarm(tenant, after, CHANGE_DAY, end, years, seed) for seed in range(n)]
    return sorted(math.inf if day is None else day - CHANGE_DAY for day in found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.changes", description=__doc__)
    parser.add_argument("--streams", type=int, default=40, help="of each kind")
    n = parser.parse_args().streams
    years = load_config().patterns.change_years
    print("responses a day, effect | false alarms a year: still all / half of it | median days: turned round / gone")
    for tenant in TENANTS:
        rates = " / ".join(f"{alarms_a_year(tenant, kept, years, n):.2f}" for kept in (1.0, 0.5))
        waits = " / ".join(f"{delays(tenant, after, years, n)[n // 2]:.0f}" for after in (-1.0, 0.0))
        print(f"{tenant.per_day}, {tenant.effect} | {rates} | {waits}", flush=True)


if __name__ == "__main__":
    main()
