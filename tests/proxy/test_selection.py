"""Assignment is exact, stable, independent of content and never over budget."""

from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.selection import (
    PATTERN_FRAME_TOKENS,
    Facts,
    PlanIndex,
    Selection,
    conversation_seed,
    is_holdout,
    matching_dimensions,
    select_patterns,
    uniform,
)
from store import blocks
from store.config import load_config
from store.plan import CellShare, Conditions, Plan, ServedPattern, build_plan
from store.records import InjectionRecord
from store.tokens import TokenCounter, load_token_counter
from store.vocabulary import PatternState

SECRET = b"s" * 32
FACTS = Facts("refund", "crm", "template", "gold")
SECTION = load_config().patterns


@pytest.fixture(scope="module")
def counter() -> TokenCounter:
    return load_token_counter()


def pattern(
    pattern_id: str,
    *,
    dimension: str = "shape",
    share: float = 0.5,
    state: PatternState = "trial",
    tokens: int = 10,
    conditions: Conditions | None = None,
    rule: str = "Use a table.",
    cells: tuple[CellShare, ...] = (),
) -> ServedPattern:
    return ServedPattern(
        id=pattern_id,
        type="response_format",
        dimension=dimension,
        rule=rule,
        conditions=conditions or Conditions(),
        state=state,
        tokens=tokens,
        share=share,
        lift=0.1,
        cells=cells,
    )


def in_play(selection: Selection) -> list[InjectionRecord]:
    return [injection for drawn in selection.drawn for injection in drawn.items]


def test_the_frame_costs_what_the_constant_says(counter: TokenCounter) -> None:
    assert counter.count(blocks.PATTERN_HEADER) + counter.count(blocks.PATTERN_FOOTER) == PATTERN_FRAME_TOKENS


@settings(max_examples=100)
@given(rules=st.lists(st.text(max_size=200), max_size=30), conversation=st.text(max_size=10), shared=st.booleans())
def test_the_whole_block_never_exceeds_the_budget(
    counter: TokenCounter, rules: list[str], conversation: str, shared: bool
) -> None:
    patterns = [
        pattern(
            f"pat_{index:02d}",
            dimension=f"d{index // 2 if shared else index}",
            tokens=counter.count(blocks.pattern_line(rule)),
            rule=rule,
            share=0.5 if shared else 0.9,
        )
        for index, rule in enumerate(rules)
    ]
    dimensions = matching_dimensions(build_plan(patterns), FACTS, SECTION)
    selection = select_patterns(dimensions, conversation_seed(SECRET, conversation), SECTION, holdout=False)
    assert counter.count(selection.block) <= selection.tokens <= SECTION.max_tokens
    assert counter.count("Be kind. " + selection.block) - counter.count("Be kind. ") <= SECTION.max_tokens
    drawn = {injection.item_id for injection in in_play(selection) if injection.treated}
    assert selection.block == blocks.pattern_block(p.rule for p in patterns if p.id in drawn)


def test_realised_shares_outside_the_holdout_are_the_planned_ones() -> None:
    plan = build_plan([pattern("a", share=0.3), pattern("b", share=0.2), pattern("c", dimension="length", share=0.9)])
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    n = 20_000
    counts: Counter[tuple[str, ...]] = Counter()
    for index in range(n):
        selection = select_patterns(dimensions, conversation_seed(SECRET, f"conv_{index}"), SECTION, holdout=False)
        counts[tuple(injection.item_id for injection in in_play(selection) if injection.treated)] += 1
    expected = {(): 0.05, ("a",): 0.03, ("b",): 0.02, ("c",): 0.45, ("c", "a"): 0.27, ("c", "b"): 0.18}
    for drawn, share in expected.items():
        assert abs(counts[drawn] / n - share) < 5 * np.sqrt(share * (1 - share) / n)


@settings(max_examples=20)
@given(
    secret=st.binary(min_size=32, max_size=32),
    shares=st.lists(st.floats(0.02, 0.3), min_size=1, max_size=3),
)
def test_assignment_is_balanced_whatever_the_secret_and_the_shares(secret: bytes, shares: list[float]) -> None:
    plan = build_plan([pattern(f"pat_{index}", share=share) for index, share in enumerate(shares)])
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    n = 2_000
    counts: Counter[str] = Counter()
    for index in range(n):
        selection = select_patterns(dimensions, conversation_seed(secret, f"conv_{index}"), SECTION, holdout=False)
        counts.update(one.item_id for one in in_play(selection) if one.treated)
    for index, share in enumerate(shares):
        assert abs(counts[f"pat_{index}"] / n - share) < 6 * np.sqrt(share * (1 - share) / n)


@given(
    one=st.builds(Facts, *[st.text(max_size=9)] * 4),
    other=st.builds(Facts, *[st.text(max_size=9)] * 4),
    conversation=st.text(max_size=20),
)
def test_assignment_is_independent_of_what_a_conversation_is_about(one: Facts, other: Facts, conversation: str) -> None:
    plan = build_plan([pattern(name, dimension=f"d{name}", share=0.5) for name in "abcdefgh"])
    seed = conversation_seed(SECRET, conversation)

    first, second = (
        select_patterns(PlanIndex(plan, SECTION).dimensions(facts), seed, SECTION, holdout=False)
        for facts in (one, other)
    )

    assert first == second


def test_a_draw_is_the_same_in_every_process_and_version() -> None:
    seed = conversation_seed(SECRET, "conv")

    assert seed.hex() == "9b6c27194af9f79fae185c7840c74f006bb7a5e61d70ebcd91688e9fc2cc06bb"
    assert uniform(seed, b"dimension shape") == 0.12220211865247077


def test_over_all_conversations_the_logged_propensities_are_the_realised_shares() -> None:
    plan = build_plan([pattern("a", share=0.9), pattern("p", dimension="length", state="pinned", share=1.0)])
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    n = 20_000
    treated: Counter[str] = Counter()
    expected = {"a": 0.0, "p": 0.0}
    for index in range(n):
        seed = conversation_seed(SECRET, f"conv_{index}")
        selection = select_patterns(dimensions, seed, SECTION, holdout=is_holdout(seed, SECTION.holdout))
        treated.update(injection.item_id for injection in in_play(selection) if injection.treated)
        for injection in in_play(selection):
            expected[injection.item_id] += injection.propensity
    for item in ("a", "p"):
        p = expected[item] / n
        assert abs(treated[item] / n - p) < 5 * np.sqrt(p * (1 - p) / n)


def test_the_holdout_is_its_share_of_conversations_and_independent_of_the_draws() -> None:
    held = [is_holdout(conversation_seed(SECRET, f"conv_{index}"), 0.05) for index in range(20_000)]
    points = np.array(
        [uniform(conversation_seed(SECRET, f"conv_{index}"), b"dimension shape") for index in range(20_000)]
    )
    assert abs(np.mean(held) - 0.05) < 0.008
    assert abs(points[np.array(held)].mean() - 0.5) < 0.05


def test_every_dimension_keeps_its_hold_back() -> None:
    plan = build_plan([pattern(name, share=0.6) for name in "abc"])
    (dimension,) = matching_dimensions(plan, FACTS, SECTION)
    assert [arm.share for arm in dimension.arms] == pytest.approx([0.3, 0.3, 0.3])


def test_a_pinned_pattern_takes_its_dimension_outside_the_holdout() -> None:
    plan = build_plan([pattern("a"), pattern("b", state="pinned", share=1.0)])
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    for index in range(50):
        selection = select_patterns(dimensions, conversation_seed(SECRET, str(index)), SECTION, holdout=False)
        assert [(i.item_id, i.propensity, i.share, i.treated) for i in in_play(selection)] == [("b", 0.95, 1.0, True)]


def test_of_two_pinned_patterns_the_more_specific_then_the_newer_wins() -> None:
    general_new = pattern("z", state="pinned", share=1.0)
    specific = Conditions(question_type=("refund",))
    specific_old = pattern("a", state="pinned", share=1.0, conditions=specific)
    specific_new = pattern("b", state="pinned", share=1.0, conditions=specific)
    (dimension,) = matching_dimensions(build_plan([general_new, specific_old, specific_new]), FACTS, SECTION)
    assert [arm.pattern.id for arm in dimension.arms] == ["b"]


def test_a_holdout_conversation_logs_the_same_arms_untreated() -> None:
    dimensions = matching_dimensions(build_plan([pattern("a"), pattern("b", dimension="x", share=0.4)]), FACTS, SECTION)
    treated = select_patterns(dimensions, conversation_seed(SECRET, "conv"), SECTION, holdout=False)
    held = select_patterns(dimensions, conversation_seed(SECRET, "conv"), SECTION, holdout=True)
    assert (held.block, held.tokens) == ("", 0)
    assert [(i.item_id, i.propensity) for i in in_play(held)] == [(i.item_id, i.propensity) for i in in_play(treated)]
    assert not any(i.treated for i in in_play(held))


def test_a_dimension_whose_dearest_arm_does_not_fit_is_not_drawn_and_the_next_still_is() -> None:
    plan = build_plan(
        [
            pattern("big", dimension="a", state="pinned", share=1.0, tokens=5_000),
            pattern("fits", dimension="b", state="pinned", share=1.0, tokens=20),
            pattern("c1", dimension="c", share=0.4, tokens=500),
            pattern("c2", dimension="c", share=0.4, tokens=5),
        ]
    )
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    selection = select_patterns(dimensions, conversation_seed(SECRET, "conv"), SECTION, holdout=False)
    assert [i.item_id for i in in_play(selection)] == ["fits"]


@pytest.mark.parametrize("name", ["question_type", "data_source", "prompt_template", "segment"])
def test_a_pattern_is_in_play_only_where_all_its_conditions_hold(name: str) -> None:
    yes = pattern("yes", conditions=Conditions(**{name: (getattr(FACTS, name), "other")}))
    no = pattern("no", conditions=Conditions(**{name: ("other",)}))
    (dimension,) = matching_dimensions(build_plan([yes, no]), FACTS, SECTION)
    assert [arm.pattern.id for arm in dimension.arms] == ["yes"]


CELLS = (
    CellShare("refund", "gold", 0.7),
    CellShare("refund", "", 0.6),
    CellShare("", "gold", 0.4),
    CellShare("code", "gold", 0.0),
)


@pytest.mark.parametrize(
    ("facts", "shares"),
    [
        (Facts("refund", segment="gold"), [0.7]),
        (Facts("refund", segment="silver"), [0.6]),
        (Facts("howto", segment="gold"), [0.4]),
        (Facts("code", segment="gold"), []),
        (Facts("howto", segment="silver"), [0.2]),
    ],
)
def test_a_share_is_the_cells_else_a_pooled_ones_else_the_patterns_own(facts: Facts, shares: list[float]) -> None:
    plan = build_plan([pattern("a", share=0.2, cells=CELLS)], group_field="segment")
    dimensions = PlanIndex(plan, SECTION).dimensions(facts)
    assert [arm.share for dimension in dimensions for arm in dimension.arms] == shares


def test_facts_that_no_cell_tells_apart_share_one_entry() -> None:
    index = PlanIndex(build_plan([pattern("a", cells=CELLS)], group_field="segment"), SECTION)
    first = index.dimensions(Facts("greeting", "crm", "one", "silver"))
    assert index.dimensions(Facts("howto", "erp", "two", "bronze")) is first
    assert index.dimensions(Facts("howto", "erp", "two", "gold")) is not first


def tool_pattern(pattern_id: str, value: str) -> ServedPattern:
    return msgspec.structs.replace(pattern(pattern_id, dimension="tools"), type="tool_preference", value=value)


@pytest.mark.parametrize(
    ("tools", "ids"),
    [
        ((), ["person"]),
        (("search",), ["avoided", "person", "wanted"]),
        (("read", "search"), ["avoided", "other", "person", "wanted"]),
        (("searching",), ["person"]),
        (None, ["avoided", "other", "person", "wanted"]),
    ],
)
def test_a_pattern_about_a_tool_is_in_play_only_where_that_is_offered(
    tools: tuple[str, ...] | None, ids: list[str]
) -> None:
    named = {"wanted": "search", "avoided": "avoid:search", "other": "read", "person": ""}
    index = PlanIndex(build_plan([tool_pattern(*one) for one in named.items()]), SECTION)

    dimensions = index.dimensions(replace(FACTS, tools=tools))

    assert [arm.pattern.id for dimension in dimensions for arm in dimension.arms] == ids
    unread = None if tools is None else (*tools, "unread")  # a tool that no pattern speaks of changes nothing
    assert index.dimensions(replace(FACTS, tools=unread)) is dimensions


def crowded(n: int = 8) -> Plan:
    patterns = [pattern(f"p{index}", dimension=f"d{index}", tokens=100, share=0.8) for index in range(n)]
    return build_plan(patterns, priorities={f"d{index}": float(index) for index in range(n)})


def test_where_the_budget_is_short_every_dimension_is_eligible_on_some_conversations_dear_ones_more_often() -> None:
    dimensions = matching_dimensions(crowded(), FACTS, SECTION)
    n = 5_000
    eligible: Counter[str] = Counter()
    for index in range(n):
        selection = select_patterns(dimensions, conversation_seed(SECRET, f"conv_{index}"), SECTION, holdout=False)
        eligible.update(injection.dimension for injection in in_play(selection))
        assert selection.tokens <= SECTION.max_tokens
    assert set(eligible) == {f"d{index}" for index in range(8)}
    assert eligible["d7"] > eligible["d2"] > eligible["d0"]


def test_given_that_a_dimension_is_eligible_its_arm_is_drawn_with_its_share() -> None:
    dimensions = matching_dimensions(crowded(), FACTS, SECTION)
    eligible: Counter[str] = Counter()
    treated: Counter[str] = Counter()
    for index in range(20_000):
        selection = select_patterns(dimensions, conversation_seed(SECRET, f"conv_{index}"), SECTION, holdout=False)
        eligible.update(injection.item_id for injection in in_play(selection))
        treated.update(injection.item_id for injection in in_play(selection) if injection.treated)
    for item, n in eligible.items():
        assert abs(treated[item] / n - 0.8) < 5 * np.sqrt(0.16 / n)


def test_a_pinned_dimension_comes_before_all_others_where_the_budget_is_short() -> None:
    crowd = crowded()
    plan = build_plan(
        [*crowd.patterns, pattern("z", dimension="z", state="pinned", tokens=400)], priorities=dict(crowd.priorities)
    )
    dimensions = matching_dimensions(plan, FACTS, SECTION)
    for index in range(50):
        selection = select_patterns(dimensions, conversation_seed(SECRET, str(index)), SECTION, holdout=False)
        assert [i.item_id for i in in_play(selection)] == ["z"]


def test_where_everything_fits_the_order_is_the_plans() -> None:
    dimensions = matching_dimensions(crowded(4), FACTS, SECTION)
    assert [dimension.priority for dimension in dimensions] == [0.0] * 4


@given(secret=st.binary(min_size=32, max_size=32), conversation=st.text(max_size=20))
def test_a_conversation_gets_the_same_on_every_turn_and_in_every_process(secret: bytes, conversation: str) -> None:
    first, second = (
        select_patterns(
            PlanIndex(crowded(), SECTION).dimensions(FACTS),
            conversation_seed(secret, conversation),
            SECTION,
            holdout=False,
        )
        for _ in range(2)
    )
    assert first == second
