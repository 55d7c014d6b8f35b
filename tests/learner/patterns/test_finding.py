"""Which instructions deserve a trial."""

from dataclasses import replace

import numpy as np
import pytest

from learner.patterns.beliefs import Beliefs, Scope
from learner.patterns.finding import Find, find
from learner.patterns.observations import Column
from learner.patterns.readings import Readings
from learner.patterns.states import Situation
from store.clock import iso
from store.config import load_config
from store.patterns import PatternRow
from store.plan import Conditions
from store.vocabulary import PatternType
from tests.conftest import NOW_S
from tests.learner.patterns.believing import DAY_S, LIST, PROSE, TABLE, beliefs_of, learned, pattern

SITUATION = Situation(
    now_s=NOW_S,
    traffic_s=NOW_S,
    settings=replace(load_config().patterns, avoid=False),
    types={"response_format": "response_format", "strategy": "prompt_strategy"},
)
STEPS = Column("strategy", "steps")
REFUND = Conditions(question_type=("refund",))
BAD = learned(learned(beliefs_of([TABLE, LIST]), TABLE, lift=0.05), LIST, lift=-0.05)


def found(beliefs: Beliefs, *rows: PatternRow, situation: Situation = SITUATION) -> list[Find]:
    return find(rows, Readings(beliefs, situation.settings), situation, np.random.default_rng(3))


def columns(finds: list[Find]) -> list[Column]:
    return [one.column for one in finds]


def with_settings(**changes: object) -> Situation:
    return replace(SITUATION, settings=replace(SITUATION.settings, **changes))  # type: ignore[arg-type]


def test_what_may_be_the_best_is_found_and_what_cannot_be_is_not() -> None:
    (one,) = found(BAD)

    assert (one.column, one.type, one.conditions, one.revives) == (TABLE, "response_format", Conditions(), None)
    assert one.reason == (
        "replies with it please more: +0.050 (standard error 0.020) expected from 100 replies with signals, "
        "confidence 0.99 before any trial"
    )
    assert one.detail["n_rated"] == 100


def test_too_few_signals_or_users_or_an_unknown_dimension_is_not_enough() -> None:
    few = replace(BAD, n_observed=np.full(BAD.n_observed.shape, 2.0))
    one_account = replace(BAD, observed_users=np.full(BAD.key_mean.shape, 2.0))

    assert found(few) == []
    assert found(one_account) == []
    assert found(BAD, situation=replace(SITUATION, types={})) == []


def test_at_most_so_many_finds_are_expected_not_to_help() -> None:
    many = [Column("strategy", f"s{n}") for n in range(30)]
    beliefs = beliefs_of([TABLE, *many])
    for column in many:
        beliefs = learned(beliefs, column, lift=-0.01)
    beliefs = learned(beliefs, TABLE, lift=0.05)

    assert columns(found(beliefs, situation=with_settings(discovery_q=0.05))) == [TABLE]


def test_a_dimension_holds_no_more_than_its_arms_the_likeliest_best_first() -> None:
    many = [Column("strategy", f"s{n}") for n in range(6)]
    beliefs = beliefs_of(many)
    for n, column in enumerate(many):
        beliefs = learned(beliefs, column, lift=0.01 * n, sd=0.05)
    live = pattern("active", many[0], name="pat_live", share=0.5)

    assert columns(found(beliefs)) == [many[5], many[4], many[3], many[2]]
    assert columns(found(beliefs, live)) == [many[5], many[4], many[3]]
    assert columns(found(beliefs, situation=with_settings(max_candidates=2))) == [many[5], many[4]]


@pytest.mark.parametrize(
    ("type_", "conditions"),
    [("response_format", [Conditions(segment=("pro",))]), ("query_style", [Conditions()])],
)
def test_what_stands_out_in_a_group_is_tried_there_alone_if_its_type_can_depend_on_it(
    type_: PatternType, conditions: list[Conditions]
) -> None:
    beliefs = beliefs_of([TABLE], types=("refund",), groups=("free", "pro"), field="segment")
    beliefs = learned(beliefs, TABLE, lift=0.06, scope=Scope(group="pro"))

    finds = found(beliefs, situation=replace(with_settings(discovery_q=0.9), types={"response_format": type_}))

    assert [one.conditions for one in finds] == conditions


def test_what_stands_out_in_one_question_type_is_tried_there_alone() -> None:
    beliefs = learned(beliefs_of([TABLE], types=("refund", "comparison", "help")), TABLE, lift=0.0)
    beliefs = learned(beliefs, TABLE, lift=0.06, scope=Scope(question_type="refund"))

    assert [one.conditions for one in found(beliefs)] == [REFUND]


def test_what_helps_everywhere_is_tried_everywhere() -> None:
    beliefs = learned(beliefs_of([TABLE], types=("refund", "comparison", "help")), TABLE, lift=0.04)
    beliefs = learned(beliefs, TABLE, lift=0.06, scope=Scope(question_type="refund"))

    assert [one.conditions for one in found(beliefs)] == [Conditions()]


def test_what_was_seen_in_one_question_type_alone_is_tried_there() -> None:
    seen = np.zeros(BAD.n_observed.shape)
    seen[0] = 20.0

    assert [one.conditions for one in found(replace(BAD, n_observed=seen))] == [REFUND]


@pytest.mark.parametrize("state", ["candidate", "trial", "active", "warmdown", "pinned", "disabled"])
def test_what_is_there_is_not_found_again(state: str) -> None:
    assert found(BAD, pattern(state, share=0.1)) == []  # type: ignore[arg-type]


def test_what_helps_everywhere_is_found_although_one_question_type_has_it() -> None:
    unsure = learned(BAD, TABLE, lift=0.01)
    narrow = pattern("active", conditions=REFUND, share=0.5)

    assert [one.conditions for one in found(BAD, narrow)] == [Conditions()]
    assert found(unsure, narrow) == []


@pytest.mark.parametrize(
    ("confidence", "was_active", "days", "is_back"),
    [
        (0.6, False, 29, False),
        (0.6, False, 31, True),
        (0.04, False, 31, False),
        (0.04, False, 91, True),
        (0.6, True, 6, False),
        (0.6, True, 8, True),
    ],
)
def test_what_was_retired_comes_back_late_if_useless_later_if_harmful_and_soon_if_it_helped(
    confidence: float,
    was_active: bool,
    days: float,
    is_back: bool,
) -> None:
    gone = pattern("retired", confidence=confidence, removed_at=iso(NOW_S - days * DAY_S))
    situation = replace(SITUATION, activated_s={"pat_1": NOW_S - 100 * DAY_S} if was_active else {})

    assert [one.revives for one in found(BAD, gone, situation=situation)] == ([gone] if is_back else [])


def test_what_a_person_put_into_other_words_is_not_found_in_the_learners_again() -> None:
    edited = replace(pattern(), value="", reworded_at=iso(NOW_S), reworded_from="table")
    gone = replace(edited, state="retired", removed_at=iso(NOW_S - 31 * DAY_S))

    assert found(BAD, edited) == []
    assert found(BAD, replace(edited, state="disabled")) == []
    assert [(one.column, one.revives) for one in found(BAD, gone)] == [
        (TABLE, None)
    ]  # a row of its own, after its time


def test_what_always_comes_together_with_something_tried_is_left_out() -> None:
    beliefs = learned(beliefs_of([TABLE, STEPS]), STEPS, lift=0.05)
    together = replace(beliefs, together=np.array([[1.0, 0.95], [0.95, 1.0]]))

    assert columns(found(beliefs, pattern(share=0.3))) == [STEPS]
    assert found(together, pattern(share=0.3)) == []


def test_what_displeases_and_is_common_is_tried_to_be_avoided() -> None:
    beliefs = learned(beliefs_of([PROSE]), PROSE, lift=-0.05)
    avoiding = with_settings(avoid=True)
    rare = replace(beliefs, natural=np.full(beliefs.natural.shape, 0.1))

    (one,) = found(beliefs, situation=avoiding)

    assert one.column == Column("response_format", "avoid:prose")
    assert one.reason.startswith("replies without it please more: +0.050")
    assert found(beliefs) == []
    assert found(rare, situation=avoiding) == []


def test_what_every_reply_has_is_not_found_for_avoiding_it() -> None:
    beliefs = learned(beliefs_of([PROSE]), PROSE, lift=-0.05)
    always = replace(beliefs, natural=np.ones(beliefs.natural.shape))

    assert found(always, situation=with_settings(avoid=True)) == []


def test_what_displeases_in_one_question_type_that_it_is_common_in_is_avoided_there() -> None:
    types = ("refund", *(f"t{n}" for n in range(9)))
    beliefs = learned(beliefs_of([PROSE], types=types), PROSE, lift=-0.05, scope=Scope(question_type="refund"))
    natural = np.zeros(beliefs.natural.shape)
    natural[0] = 0.5
    unsure = learned(beliefs, PROSE, lift=-0.03, scope=Scope(question_type="refund"))

    def avoided(beliefs: Beliefs) -> list[Conditions]:
        finds = found(beliefs, situation=with_settings(avoid=True))
        return [one.conditions for one in finds if one.column == Column("response_format", "avoid:prose")]

    assert avoided(replace(beliefs, natural=natural)) == [REFUND]
    assert avoided(replace(unsure, natural=natural)) == []
    assert avoided(replace(beliefs, natural=np.zeros(natural.shape))) == []


def test_avoiding_one_of_two_values_is_not_tried_beside_the_other() -> None:
    beliefs = learned(learned(beliefs_of([PROSE, TABLE]), PROSE, lift=-0.05), TABLE, lift=0.05)
    only_two = replace(beliefs, together=np.array([[1.0, -0.97], [-0.97, 1.0]]))
    avoiding = with_settings(avoid=True)
    avoid = Column("response_format", "avoid:prose")

    assert columns(found(only_two, situation=avoiding)) == [TABLE]
    assert found(only_two, pattern("active", share=0.9), situation=avoiding) == []
    assert columns(found(replace(only_two, together=np.eye(2)), situation=avoiding)) == [TABLE, avoid]


def test_what_avoiding_did_in_its_own_trial_counts_more_than_what_replies_were_like() -> None:
    avoid = Column("response_format", "avoid:prose")
    beliefs = learned(learned(beliefs_of([PROSE, avoid]), PROSE, lift=-0.05), avoid, lift=-0.05)

    assert found(beliefs, situation=replace(with_settings(avoid=True, discovery_q=0.3))) == []
