from dataclasses import replace

import pytest

from store.patterns import PatternRow, new_pattern
from store.plan import Conditions
from store.vocabulary import PatternState
from tutelage.demo.library import Library
from tutelage.demo.sample import load_sample
from tutelage.demo.truth import asks_for, best_match, effect_of, wish
from tutelage.demo.users import FALSE_FRIENDS, PREFERENCES, Preference, question_pool

LIBRARY = Library(load_sample())
POOL = question_pool(LIBRARY.exchanges)
TABLES, _, SHORT, DISLIKED_QUESTION = PREFERENCES


def pattern(rule: str, *types: str, state: PatternState = "trial") -> PatternRow:
    row = new_pattern(
        f"pat_{rule}",
        "default",
        type="response_format",
        dimension="format",
        value="",
        rule=rule,
        conditions=Conditions(question_type=types),
        tokens=10,
        origin="learned",
        now_s=0.0,
    )
    return replace(row, state=state)


@pytest.mark.parametrize(
    ("rule", "question_type", "verdict"),
    [
        ("Answer as a Markdown table.", "compare_travel", "helps"),
        ("Answer as a bulleted list.", "how_to_book", "helps"),
        ("Keep the answer short: at most three sentences.", "account", "helps"),
        ("End with a follow-up question.", "calendar", "hurts"),
        ("Do not end with a follow-up question.", "calendar", "helps"),
        ("Answer as a Markdown table.", "how_to_book", "hurts"),
        ("Answer as a bulleted list.", "media", "does nothing"),
        ("Answer as a bulleted list.", "find_places", "does nothing"),
        ("Mention the weather.", "calendar", "does nothing"),
        ("Answer as a Markdown table.", "a type that nobody asks about", "does nothing"),
    ],
)
def test_the_demo_knows_what_a_rule_truly_does(rule: str, question_type: str, verdict: str) -> None:
    assert effect_of(pattern(rule, question_type), POOL, LIBRARY).verdict == verdict


def test_a_pattern_without_conditions_is_judged_over_all_types() -> None:
    table = pattern("Answer as a Markdown table.")
    own = effect_of(pattern(table.rule, "compare_travel"), POOL, LIBRARY).liking
    assert effect_of(table, POOL, LIBRARY).liking < own


def test_a_pattern_meets_a_preference_by_what_it_makes_the_model_do() -> None:
    assert asks_for(pattern("Use a table.", "compare_travel"), TABLES)
    assert asks_for(pattern("Use a table."), TABLES)
    assert not asks_for(pattern("Use a table.", "account"), TABLES)
    assert not asks_for(pattern("Use a list.", "compare_travel"), TABLES)
    assert asks_for(pattern("Be concise.", "account"), SHORT)


def test_a_dislike_wishes_for_the_opposite() -> None:
    assert wish(DISLIKED_QUESTION) == Preference("calendar", "asks_back", "False", 0.8)
    assert wish(TABLES) == TABLES
    assert wish(FALSE_FRIENDS[0]) == FALSE_FRIENDS[0]


def test_the_match_that_got_furthest_counts() -> None:
    waiting = pattern("Use a table.", "compare_travel", state="candidate")
    active = pattern("Answer as a table.", "compare_travel", state="active")
    assert best_match([waiting, active], TABLES) == active
    assert best_match([waiting], SHORT) is None
