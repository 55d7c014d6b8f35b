"""What speaks against a pattern that wins votes: fewer people rate, more ask again, more regenerate.

A rate is watched apart from the score. Only a change that is both sure (an e-value) and large (a part of the rate
itself) keeps a pattern out.
"""

import math
from collections.abc import Mapping
from typing import Final

from learner.patterns.beliefs import Guardrails
from learner.patterns.evidence import e_value_of
from store.config import PatternsSection

WORDS: Final = (
    ("rating", "fewer replies are rated"),
    ("follow_up", "more replies need a follow-up"),
    ("regenerate", "more replies are regenerated"),
)


def differences(guardrails: Guardrails, scope: int, column: int) -> dict[str, float]:
    """Return treated minus control in each rate of one key, those left out that nothing is known of."""
    found = {metric: float(guardrails.difference[metric][scope, column]) for metric in guardrails.metrics}
    return {metric: value for metric, value in found.items() if math.isfinite(value)}


def objection(guardrails: Guardrails, scope: int, column: int, settings: PatternsSection) -> str | None:
    """Return why one key must not be served widely, in words with figures, or None."""
    words = dict(WORDS)
    for metric in guardrails.metrics:
        log_e = float(guardrails.log_e_worse[metric][scope, column])
        difference = float(guardrails.difference[metric][scope, column])
        if log_e >= math.log(settings.guardrail_e_value) and _is_material(metric, difference, guardrails, settings):
            what = words.get(metric, f"{metric} is worse")
            return f"guardrail: {what} ({difference:+.3f}, e-value {e_value_of(log_e):.3g} against no worsening)"
    return None


def _is_material(metric: str, difference: float, guardrails: Guardrails, settings: PatternsSection) -> bool:
    rates: Mapping[str, float] = guardrails.rates
    return metric not in rates or abs(difference) >= settings.guardrail_change * rates[metric]
