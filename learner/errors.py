"""Errors of the learner.

LearnerError
└── ModelError              a model gave no usable answer
    ├── BudgetExceededError the run may not spend more
    └── UnusableDraftError  a model's drafts did not pass the checks
"""


class LearnerError(Exception):
    """Base of all errors that the learner raises."""


class ModelError(LearnerError):
    """A model gave no usable answer: refused, unreachable after all tries, or its answer is no answer."""


class BudgetExceededError(ModelError):
    """The run has spent what ``max_cost_usd_per_run`` or ``max_tokens_per_run`` allows; no call was made."""


class UnusableDraftError(ModelError):
    """The model answered, and none of its drafts passed the checks."""
