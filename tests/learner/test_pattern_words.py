"""A pattern's evidence in words: what a reader may conclude, and nothing more."""

from dataclasses import replace

import pytest

from learner.pattern_words import explained, grade_in_words, lift_in_words, rates, shares_in_words
from store.patterns import PatternRow, new_pattern
from store.plan import CellShare, Conditions
from tests.conftest import NOW_S

ROW: PatternRow = new_pattern(
    "pat-a",
    "default",
    type="response_format",
    dimension="shape",
    value="table",
    rule="Use a table.",
    conditions=Conditions(),
    tokens=5,
    origin="learned",
    now_s=NOW_S,
)


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"state": "active", "grade": "proven"}, "proven: randomised traffic shows"),
        ({"state": "active", "grade": "provisional"}, "provisional: the evidence so far favours it"),
        ({"state": "pinned", "grade": "provisional"}, "provisional: a person wants it used"),
        ({"state": "pinned"}, "none: a person pinned it"),
        ({"state": "trial"}, "none yet: it is being tried"),
        ({"state": "candidate"}, "none yet: it was seen in the records"),
        ({"state": "retired"}, "none: it is not in use"),
    ],
)
def test_a_grade_says_why(changes: dict[str, str], begins: str) -> None:
    assert grade_in_words(replace(ROW, **changes)).startswith(begins)  # type: ignore[arg-type]


def test_what_is_pinned_without_a_grade_is_not_said_to_be_measured_further() -> None:
    assert "nothing is left to compare" in grade_in_words(replace(ROW, state="pinned"))


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [(0.01, 0.2, "it raises satisfaction"), (-0.2, -0.01, "it lowers satisfaction"), (-0.1, 0.1, "or do nothing")],
)
def test_a_lift_says_no_more_than_its_interval(low: float, high: float, ends: str) -> None:
    assert lift_in_words(replace(ROW, lift=0.05, lift_low=low, lift_high=high)).endswith(ends)


def test_shares_are_told_cell_by_cell_the_largest_first() -> None:
    cells = (CellShare("price", "", 0.0), CellShare("refund", "pro", 0.85), CellShare("", "free", 0.1))
    assert shares_in_words(replace(ROW, share=0.4, cells=cells), "segment") == [
        "85 % of question type refund, segment pro",
        "10 % of other question types, segment free",
        "0 % of question type price, any other segment",
        "40 % of all other conversations that match",
    ]
    assert shares_in_words(replace(ROW, share=0.4), "") == ["40 % of the conversations that match"]
    assert shares_in_words(ROW, "") == ["no conversation gets it"]


def test_a_rate_is_worse_or_better_by_what_it_counts() -> None:
    row = replace(ROW, guardrails={"regenerate": 0.02, "rating": -0.031, "follow_up": -0.001})
    assert [(rate.words, rate.is_worse) for rate in rates(row)] == [
        ("replies that people rate: 3.1 in 100 fewer (worse)", True),
        ("replies that need a follow-up: no difference", False),
        ("replies that are regenerated: 2.0 in 100 more (worse)", True),
    ]
    assert not rates(replace(ROW, guardrails={"rating": 0.02}))[0].is_worse


def test_nothing_is_claimed_of_a_pattern_without_evidence() -> None:
    assert explained(ROW, "") == {
        "words": "the learner's",
        "grade": "none yet: it was seen in the records, where other causes are possible, and was not tried so far",
        "lift": "no randomised evidence yet",
        "shares": ["no conversation gets it"],
        "guardrails": [],
    }
