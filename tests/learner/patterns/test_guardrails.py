"""What speaks against a pattern that wins votes."""

import math

import numpy as np
import pytest

from learner.patterns.beliefs import Guardrails
from learner.patterns.guardrails import differences, objection
from store.config import load_config

SETTINGS = load_config().patterns


def of(difference: float, log_e: float, rates: dict[str, float]) -> Guardrails:
    return Guardrails(("rating",), {"rating": np.array([[difference]])}, {"rating": np.array([[log_e]])}, rates)


@pytest.mark.parametrize(
    ("difference", "log_e", "rates", "reason"),
    [
        (-0.02, math.log(150), {"rating": 0.1}, "guardrail: fewer replies are rated (-0.020, e-value 150 against "),
        (-0.02, math.log(150), {}, "guardrail: fewer replies are rated (-0.020, e-value 150 against "),
        (-0.02, math.log(90), {"rating": 0.1}, None),
        (-0.005, math.log(150), {"rating": 0.1}, None),
    ],
)
def test_only_a_change_that_is_sure_and_large_speaks_against_a_pattern(
    difference: float, log_e: float, rates: dict[str, float], reason: str | None
) -> None:
    found = objection(of(difference, log_e, rates), 0, 0, SETTINGS)

    assert found == (None if reason is None else f"{reason}no worsening)")


def test_a_rate_that_nothing_is_known_of_has_no_difference() -> None:
    assert differences(of(math.nan, -math.inf, {}), 0, 0) == {}
    assert differences(of(0.01, 0.0, {}), 0, 0) == {"rating": 0.01}
