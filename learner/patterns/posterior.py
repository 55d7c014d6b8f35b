"""What is believed of a pattern's effect: clusters in the records, discounted, then the randomised evidence on top.

Effects are drawn from N(0, t^2), t a small share of the spread of a response's satisfaction and pooled over patterns of
one type; a cluster in the records is the effect plus a confounding bias that is as likely to be large.
Source: PATTERNS, sections 4.3 and 4.4.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from learner.patterns.evidence import Contrast
from learner.patterns.normal import cdf

ORG_SD: Final = 0.05  # of effects that hold for all questions, in standard deviations of a residual
TYPE_SD: Final = 0.025  # of what a question type adds
BIAS_SD: Final = 0.05  # of what confounding adds to a cluster
COMPLIANCE: Final = 0.85  # share of replies that do what a pattern says
CLUSTER_WEIGHT: Final = 0.5  # of a response in a cluster against one in a trial
MAX_CLUSTER_Z: Final = 1.0  # standard deviations: no cluster, however clear, makes a pattern more than likely to help
DESIGN_EFFECT: Final = 1.1  # of conversations and users on a variance
POOL_PRIOR: Final = 10.0  # patterns that the prior scale of a type is worth
TAIL_DF: Final = 4.0  # Student's: one strong pattern must not widen the prior of all


@dataclass(frozen=True, slots=True)
class Belief:
    """A normal distribution of the lift in satisfaction."""

    mean: float
    sd: float

    @property
    def confidence(self) -> float:
        """Return P(lift > 0); 0.5 = unknown."""
        return float(cdf(self.mean / self.sd))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Responses with a characteristic against others of the same question type, nothing instructed."""

    difference: float  # in satisfaction
    standard_error: float


def believe(
    *,
    contrast: Contrast,
    cluster: Cluster | None,
    variance: float,
    is_org_wide: bool,
    scale: float = 1.0,
) -> Belief:
    """Return the belief after the randomised *contrast*, with the *cluster* as a discounted prior.

    *variance* is that of a residual; *scale* widens the prior of effects, from ``pooled_scales``.
    """
    effect = scale * variance * (ORG_SD**2 + (0.0 if is_org_wide else TYPE_SD**2))
    mean, spread = 0.0, effect
    if cluster is not None:
        noise = BIAS_SD**2 * variance + cluster.standard_error**2 / CLUSTER_WEIGHT
        seen = effect / COMPLIANCE**2 + noise
        spread = effect - effect**2 / COMPLIANCE**2 / seen
        most = MAX_CLUSTER_Z * math.sqrt(spread)
        mean = min(max(effect / COMPLIANCE / seen * cluster.difference, -most), most)
    if contrast.lift is None:
        return Belief(mean, math.sqrt(spread))
    spread_of_score = max(contrast.variance(contrast.lift), DESIGN_EFFECT * variance * contrast.information)
    error = spread_of_score / contrast.information**2
    precision = 1 / spread + 1 / error
    return Belief((mean / spread + contrast.lift / error) / precision, math.sqrt(1 / precision))


def pooled_scales(beliefs: Sequence[Belief], groups: Sequence[Hashable], *, variance: float) -> dict[Hashable, float]:
    """Return by how much each group's effects are larger (or smaller) than the prior has them, as a variance ratio.

    One empirical-Bayes step with Student weights, worth ``POOL_PRIOR`` patterns of scale 1.
    """
    base = variance * ORG_SD**2
    scales: dict[Hashable, float] = {}
    for group in sorted(set(groups), key=str):
        ratios = np.array(
            [(b.mean**2 + b.sd**2) / base for b, g in zip(beliefs, groups, strict=True) if g == group], np.float64
        )
        weights = (TAIL_DF + 1) / (TAIL_DF + ratios)
        scales[group] = float((POOL_PRIOR + (weights * ratios).sum()) / (POOL_PRIOR + len(ratios)))
    return scales
