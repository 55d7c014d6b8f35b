"""Which hypothesis a pattern stands for."""

import pytest

from learner.patterns.beliefs import GroupField, Key, Scope
from learner.patterns.keys import conditions_of, key_of, scope_of
from learner.patterns.observations import Column
from store.plan import Conditions
from tests.learner.patterns.believing import TABLE, pattern


@pytest.mark.parametrize(
    ("conditions", "field", "scope"),
    [
        (Conditions(), None, Scope()),
        (Conditions(question_type=("refund",)), None, Scope(question_type="refund")),
        (Conditions(segment=("pro",)), "segment", Scope(group="pro")),
        (Conditions(segment=("pro",)), "data_source", None),
        (Conditions(question_type=("refund", "help")), "segment", None),
        (Conditions(question_type=("refund",), segment=("pro",)), "segment", None),
    ],
)
def test_conditions_that_name_one_value_of_one_axis_are_a_scope(
    conditions: Conditions, field: GroupField | None, scope: Scope | None
) -> None:
    assert scope_of(conditions, field) == scope


@pytest.mark.parametrize("field", ["segment", "data_source", "prompt_template"])
def test_the_conditions_of_a_scope_are_those_of_the_scope(field: GroupField) -> None:
    for scope in (Scope(), Scope(question_type="refund"), Scope(group="pro")):
        assert scope_of(conditions_of(scope, field), field) == scope


def test_a_group_without_a_second_stratum_is_refused() -> None:
    with pytest.raises(ValueError, match="'pro'"):
        conditions_of(Scope(group="pro"), None)


def test_what_is_shared_has_a_common_column_and_what_is_a_persons_own_has_its_own() -> None:
    narrow = Conditions(question_type=("refund",))
    odd = Conditions(question_type=("refund", "help"))

    assert key_of(pattern(conditions=narrow), None) == Key(Scope(question_type="refund"), TABLE)
    assert key_of(pattern(conditions=odd), None) == Key(Scope(), Column("response_format", "pat_1"))
    assert key_of(pattern(conditions=narrow, value=""), None) == Key(Scope(), Column("response_format", "pat_1"))
