"""From what is stored of each reply to columns that stay the same from batch to batch."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.natural import natural_of
from learner.patterns.observations import Column

TABLE = '{"response_format":["table"],"tools":[]}'
PROSE = '{"response_format":["prose"]}'
SEARCHED = '{"tools":["search","lookup"]}'


def test_every_reply_has_its_values_and_the_dimensions_that_fit_it() -> None:
    natural = natural_of([TABLE, PROSE, PROSE, SEARCHED], [""] * 4, ["u"] * 4)

    assert natural.columns == [
        Column("response_format", "prose"),
        Column("response_format", "table"),
        Column("tools", "lookup"),
        Column("tools", "search"),
    ]
    assert natural.has.tolist() == [
        [False, True, False, False],
        [True, False, False, False],
        [True, False, False, False],
        [False, False, True, True],
    ]
    assert natural.applies["response_format"].tolist() == [True, True, True, False]
    assert natural.applies["tools"].tolist() == [True, False, False, True]
    assert natural.applies["terminology"].tolist() == [True, True, True, False]
    assert not natural.applies["query"].any()


def test_known_columns_come_first_in_their_order_and_absent_ones_are_left_out() -> None:
    known = [
        Column("response_format", "table"),
        Column("response_format", "json"),
        Column("person:pat_1", "pat_1"),
        Column("response_format", "prose"),
    ]

    natural = natural_of([TABLE, PROSE, SEARCHED], [""] * 3, ["u"] * 3, known)

    assert natural.columns[:2] == [Column("response_format", "table"), Column("response_format", "prose")]
    assert [one.dimension for one in natural.columns[2:]] == ["tools", "tools"]


def test_a_known_term_is_told_in_a_batch_too_small_to_find_it() -> None:
    known = [Column("terminology", "chargeback")]

    natural = natural_of([PROSE] * 3, ["escrow", "chargeback escrow", ""], ["a", "b", "c"], known)

    assert natural.columns == [*known, Column("response_format", "prose")]
    assert natural.has[:, 0].tolist() == [False, True, False]


def test_a_reply_that_was_not_searched_for_terms_is_not_compared_in_them() -> None:
    natural = natural_of([PROSE] * 90, ["chargeback"] * 30 + ["?"] * 60, [f"u{i}" for i in range(90)])
    searched = natural_of([PROSE] * 30 + [TABLE] * 60, ["chargeback"] * 10 + ["?"] * 20 + [""] * 60, ["u"] * 90)

    assert natural.columns == [Column("response_format", "prose")]  # in all replies that were searched: language
    assert natural.applies["terminology"].tolist() == [True] * 30 + [False] * 60
    assert searched.applies["terminology"].tolist() == [True] * 10 + [False] * 20 + [True] * 60


def test_a_new_term_needs_many_users() -> None:
    batch = ([PROSE] * 90, ["chargeback"] * 30 + [""] * 60)

    many = natural_of(*batch, [f"u{i}" for i in range(90)])
    few = natural_of(*batch, [f"u{i % 15}" for i in range(90)])

    assert Column("terminology", "chargeback") in many.columns
    assert Column("terminology", "chargeback") not in few.columns


def test_the_most_used_tools_are_looked_at_and_known_ones_keep_their_place() -> None:
    forms = [json.dumps({"tools": [f"t{i}"]}) for i in range(40) for _ in range(i + 1)]
    known = [Column("tools", "t0")]

    natural = natural_of(forms, [""] * len(forms), [""] * len(forms), known)

    assert natural.columns == [*known, *(Column("tools", f"t{i}") for i in range(39, 20, -1))]


def test_no_replies_have_no_columns() -> None:
    natural = natural_of([], [], [], [Column("length", "short")])

    assert (natural.columns, natural.has.shape) == ([], (0, 0))


def test_batches_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        natural_of([PROSE], [], [])


FORMS = st.lists(
    st.dictionaries(
        st.sampled_from(["response_format", "length", "tools", "strategy"]),
        st.lists(st.sampled_from("abcd"), max_size=2, unique=True),
    ),
    max_size=12,
)


@given(FORMS, FORMS)
def test_batches_told_apart_say_the_same_as_told_at_once(first: list[object], second: list[object]) -> None:
    forms = [json.dumps(form) for form in [*first, *second]]
    blank = [""] * len(forms)
    cut = len(first)

    whole = natural_of(forms, blank, blank)
    parts = [
        natural_of(forms[:cut], blank[:cut], blank[:cut], whole.columns),
        natural_of(forms[cut:], blank[cut:], blank[cut:], whole.columns),
    ]

    for index, column in enumerate(whole.columns):
        rows = [
            part.has[:, part.columns.index(column)] if column in part.columns else np.zeros(len(part.has), np.bool_)
            for part in parts
        ]
        assert np.concatenate(rows).tolist() == whole.has[:, index].tolist()
