import random

import pytest

from tutelage.demo.library import Library
from tutelage.demo.sample import load_sample
from tutelage.demo.style import Style
from tutelage.demo.users import (
    FALSE_FRIENDS,
    PREFERENCES,
    QUESTION_TYPES,
    Preference,
    Reaction,
    liking,
    make_users,
    make_visits,
    question_pool,
    react,
)

POOL = question_pool(Library(load_sample()).exchanges)
TABLE = "| # | Answer |\n| --- | --- |\n| 1 | A flight at noon. |"
PROSE = "There is a flight at noon, and another in the evening."


def test_the_same_seed_makes_the_same_users_and_visits() -> None:
    def world(seed: int) -> object:
        users = make_users(seed, 50)
        return users, make_visits(seed, users, POOL, count=100, days=7)

    assert world(1) == world(1)
    assert world(1) != world(2)


def test_visits_come_in_the_order_of_time_within_the_days() -> None:
    moments = [visit.at_s for visit in make_visits(3, make_users(3, 20), POOL, count=200, days=7)]
    assert moments == sorted(moments)
    assert 0 <= moments[0] <= moments[-1] < 7 * 86400


def test_a_few_users_talk_a_lot() -> None:
    shares = sorted((user.activity for user in make_users(0, 150)), reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert sum(shares[:30]) > 0.35
    assert shares[0] < 0.1


def test_every_question_type_has_real_questions() -> None:
    assert set(POOL) == set(QUESTION_TYPES)
    assert all(len(questions) >= 10 for questions in POOL.values())


@pytest.mark.parametrize("preference", PREFERENCES)
def test_a_preference_moves_liking_by_its_effect_for_its_type_alone(preference: Preference) -> None:
    user = make_users(0, 1)[0]
    neutral = Style("prose", "medium", asks_back=False)
    styles = {
        "format": Style("table" if preference.value == "table" else "list", "medium", asks_back=False),
        "length": Style("prose", "short", asks_back=False),
        "asks_back": Style("prose", "medium", asks_back=True),
    }
    seen = styles[preference.trait]

    def difference(question_type: str) -> float:
        return liking(user, question_type, "q", seen) - liking(user, question_type, "q", neutral)

    assert difference(preference.question_type) == pytest.approx(preference.effect)
    assert difference("media") == pytest.approx(0)


def test_a_false_friend_does_nothing() -> None:
    assert all(friend.effect == 0 for friend in FALSE_FRIENDS)
    assert not {(friend.question_type, friend.trait) for friend in FALSE_FRIENDS} & {
        (preference.question_type, preference.trait) for preference in PREFERENCES
    }


def test_users_vote_for_what_they_like() -> None:
    users = make_users(0, 150)

    def votes(reply: str) -> list[str | None]:
        draws = [random.Random(number) for number in range(2000)]
        return [react(users[i % 150], "compare_travel", "q", reply, draw).thumb for i, draw in enumerate(draws)]

    assert votes(TABLE).count("thumbs_up") > 1.2 * votes(PROSE).count("thumbs_up")


def test_a_reaction_becomes_the_signals_that_an_app_would_send() -> None:
    reaction = Reaction("thumbs_down", is_copied=True, dwell_s=75.0, next_step="ask_again")
    assert reaction.signals("r-1", "u-1") == [
        {"response_id": "r-1", "user": "u-1", "signal": "thumbs_down"},
        {"response_id": "r-1", "user": "u-1", "signal": "copy"},
        {"response_id": "r-1", "user": "u-1", "signal": "dwell_time", "value": 75.0},
    ]
    assert Reaction(None, is_copied=False, dwell_s=10.0, next_step="leave").signals("r-1", "u-1") == []
