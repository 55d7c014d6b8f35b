"""All that one run learns from a window of records before it decides anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.patterns.characteristics import Membership, memberships
from learner.patterns.discovery import ALL_TYPES, Found, Records, compare
from learner.patterns.ema import score_of
from learner.patterns.evidence import Contrast, Rows, contrast, decay, harm_z, lift_interval, log_e_value
from learner.patterns.exposure import Exposure, expose, instructed
from learner.patterns.lifecycle import Reading
from learner.patterns.normal import Floats
from learner.patterns.outcomes import Outcomes, codes_of, outcomes
from learner.patterns.posterior import Belief, Cluster, believe, pooled_scales
from learner.patterns.terminology import term_memberships
from store.clock import parse_iso
from store.config import PatternsSection
from store.patterns import PatternRow
from store.windows import Window

HARM_HALF_LIFE_DAYS = 3.0  # Source: PATTERNS, section 4.7


@dataclass(frozen=True, slots=True)
class Study:
    """Outcomes, exposure and comparisons of n responses."""

    created_s: Floats  # (n,)
    outcomes: Outcomes
    exposure: Exposure
    members: Sequence[Membership]
    comparisons: Sequence[Found]


def study(window: Window) -> Study:
    """Return what the records of *window* say."""
    responses, signals, injections = window.responses, window.signals, window.injections
    earned = outcomes(
        users=responses.users,
        conversations=responses.conversations,
        question_types=responses.question_types,
        signal_response=signals.response,
        signal_weight=signals.weight,
        signal_families=signals.families,
        signal_users=signals.users,
    )
    members = [*memberships(responses.characteristics), *term_memberships(responses.terms, earned.cluster)]
    question_types, stratum = codes_of(responses.question_types)
    records = Records(
        earned=earned.earned,
        weight=earned.weight,
        is_rated=earned.is_rated,
        cluster=earned.cluster,
        stratum=stratum,
        question_types=question_types,
        instructed=instructed(
            response=injections.response,
            dimension=injections.dimension,
            dimensions=injections.dimensions,
            treated=injections.treated,
            n_responses=len(responses.ids),
        ),
    )
    return Study(
        created_s=responses.created_s,
        outcomes=earned,
        exposure=expose(
            response=injections.response,
            item=injections.item,
            items=injections.items,
            dimension=injections.dimension,
            propensity=injections.share,
            treated=injections.treated,
            is_holdout=responses.is_holdout,
        ),
        members=members,
        comparisons=compare(records, members),
    )


def read_patterns(
    rows: Sequence[PatternRow], found: Study, settings: PatternsSection, *, now_s: float
) -> dict[str, Reading]:
    """Return the reading of each of *rows*; the spread of effects is pooled over patterns of one type."""
    evidence = {row.id: _rows(row, found) for row in rows}
    first = [
        _belief(row, _decayed(evidence[row.id], settings, now_s), cluster_of(row, found.comparisons), found, 1.0)
        for row in rows
    ]
    scales = pooled_scales(first, [row.type for row in rows], variance=found.outcomes.variance)
    return {row.id: _read(row, evidence[row.id], found, settings, now_s=now_s, scale=scales[row.type]) for row in rows}


def _rows(row: PatternRow, found: Study) -> Rows:
    # Before its trial began, or after it was taken out and found again, a pattern has no evidence.
    since_s = parse_iso(row.trial_since) if row.trial_since else math.inf
    return found.exposure.rows(row.id, found.outcomes, found.created_s, since_s)


def cluster_of(row: PatternRow, comparisons: Sequence[Found]) -> Cluster | None:
    """Return what the records say of a pattern's characteristic where it applies, or None."""
    types = row.conditions.question_type or (ALL_TYPES,)
    matching = [
        one.cluster
        for one in comparisons
        if row.value and (one.dimension, one.value) == (row.dimension, row.value) and one.question_type in types
    ]
    return matching[0] if len(matching) == 1 else None


def _belief(row: PatternRow, about: Contrast, cluster: Cluster | None, found: Study, scale: float) -> Belief:
    return believe(
        contrast=about,
        cluster=cluster,
        variance=found.outcomes.variance,
        is_org_wide=not row.conditions.question_type,
        scale=scale,
    )


def _decayed(rows: Rows, settings: PatternsSection, now_s: float) -> Contrast:
    return contrast(rows, decay(rows.created_s, now_s, settings.half_life_days))


def _read(
    row: PatternRow, rows: Rows, found: Study, settings: PatternsSection, *, now_s: float, scale: float
) -> Reading:
    total = contrast(rows)
    cluster = cluster_of(row, found.comparisons)
    variance = found.outcomes.variance
    used = found.exposure.used(row.id)
    rated = used[found.outcomes.is_rated[used]]
    return Reading(
        belief=_belief(row, _decayed(rows, settings, now_s), cluster, found, scale),
        prior=_belief(row, contrast(rows.only(np.zeros(len(rows.treated), np.bool_))), cluster, found, scale),
        contrast=total,
        log_e=log_e_value(total, variance),
        interval=lift_interval(total, variance),
        harm_z=harm_z(rows, now_s, HARM_HALF_LIFE_DAYS),
        score=score_of(
            found.outcomes.satisfaction[rated],
            start=settings.ema_alpha_start,
            end=settings.ema_alpha_end,
            over=settings.ema_alpha_signals,
        ),
        n_used=len(used),
        n_signals=len(rated),
        n_users=len(np.unique(found.outcomes.cluster[rated])),
        last_used_s=float(found.created_s[used].max()) if len(used) else None,
    )
