"""Plans: the same rows make the same plan, and its text reads back as the same value."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.plan import (
    EMPTY_PLAN,
    Conditions,
    Plan,
    ServedPattern,
    build_plan,
    decode_conditions,
    decode_plan,
    digest,
    encode_conditions,
    encode_plan,
)
from store.vocabulary import SERVED_STATES, PatternType

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
values = st.lists(texts, max_size=3).map(tuple)
conditions = st.builds(Conditions, question_type=values, data_source=values, prompt_template=values, segment=values)
served = st.builds(
    ServedPattern,
    id=st.uuids().map(str),
    type=st.sampled_from(get_args(PatternType)),
    dimension=st.sampled_from(["shape", "length", "tone"]),
    rule=texts,
    conditions=conditions,
    state=st.sampled_from(SERVED_STATES),
    tokens=st.integers(0, 500),
    share=st.floats(0, 1),
    lift=st.floats(-1, 1),
)


def pattern(id: str, dimension: str, *, state: str = "active", tokens: int = 10, lift: float = 0.1) -> ServedPattern:  # noqa: A002
    return msgspec.convert(
        {
            "id": id,
            "type": "response_format",
            "dimension": dimension,
            "rule": "Use a table.",
            "conditions": {},
            "state": state,
            "tokens": tokens,
            "share": 0.9,
            "lift": lift,
        },
        ServedPattern,
    )


@given(patterns=st.lists(served, max_size=8, unique_by=lambda item: item.id), data=st.data())
def test_a_plan_does_not_depend_on_the_order_of_its_rows(patterns: list[ServedPattern], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(patterns))

    assert build_plan(shuffled) == build_plan(patterns)


@given(patterns=st.lists(served, max_size=8, unique_by=lambda item: item.id))
def test_a_plan_reads_back_from_its_text(patterns: list[ServedPattern]) -> None:
    plan = build_plan(patterns)

    assert decode_plan(encode_plan(plan)) == plan


def test_dimensions_stand_pinned_first_then_by_lift_per_token() -> None:
    plan = build_plan(
        [
            pattern("a", "dear", tokens=100, lift=0.5),
            pattern("b", "cheap", tokens=10, lift=0.2),
            pattern("c", "harmful", lift=-0.3),
            pattern("d", "by_hand", state="pinned", lift=0.0),
            pattern("e", "same", tokens=10, lift=0.2),
        ]
    )

    assert plan.dimensions == ("by_hand", "cheap", "same", "dear", "harmful")
    assert [item.id for item in plan.patterns] == ["a", "b", "c", "d", "e"]


def test_a_dimension_stands_where_its_best_pattern_belongs() -> None:
    plan = build_plan([pattern("a", "x", lift=0.1), pattern("b", "y", lift=-1), pattern("c", "y", lift=0.3)])

    assert plan.dimensions == ("y", "x")


def test_no_patterns_make_the_empty_plan() -> None:
    assert build_plan([]) == EMPTY_PLAN == Plan()


@pytest.mark.parametrize("text", ["", "[]", '{"patterns": [{}]}', '{"patterns": 1}', "not json"])
def test_a_text_that_is_no_plan_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library words it
        decode_plan(text)


@given(value=conditions)
def test_conditions_read_back_from_their_text(value: Conditions) -> None:
    assert decode_conditions(encode_conditions(value)) == value


def test_a_field_that_always_holds_is_left_out_of_the_text() -> None:
    assert encode_conditions(Conditions()) == "{}"
    assert Conditions().specificity == 0
    assert Conditions(question_type=("order",), segment=("vip", "new")).specificity == 2


def test_conditions_by_hand_may_name_one_value_or_null() -> None:
    assert decode_conditions('{"segment": "vip", "question_type": ["a", "b"], "data_source": null}') == Conditions(
        segment=("vip",), question_type=("a", "b")
    )


@pytest.mark.parametrize("text", ['{"colour": "red"}', '{"segment": [1]}', '{"segment": 1}', "[]", "{"])
def test_conditions_that_make_no_sense_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library words it
        decode_conditions(text)


def test_a_digest_tells_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert len(digest("\ud800")) == 16


def test_a_plan_carries_its_group_field_and_the_priorities_of_its_own_dimensions() -> None:
    plan = build_plan(
        [pattern("b", "y"), pattern("a", "x")], group_field="segment", priorities={"y": 2.0, "gone": 9.0, "x": 1.0}
    )
    assert (plan.group_field, plan.priorities) == ("segment", (("x", 1.0), ("y", 2.0)))
    assert decode_plan(encode_plan(plan)) == plan
