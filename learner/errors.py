"""Errors of the learner.

LearnerError
└── ModelError              a model gave no usable answer
    └── BudgetExceededError the run may not spend more
"""


class LearnerError(Exception):
    """Base of all errors that the learner raises."""


class ModelError(LearnerError):
    """A model gave no usable answer: refused, unreachable after all tries, or its answer is no answer."""


class BudgetExceededError(ModelError):
    """The run has spent what ``max_cost_usd_per_run`` allows; no call was made."""
