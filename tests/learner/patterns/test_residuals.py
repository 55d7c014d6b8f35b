"""What a response earned: one voice per user, and nothing that was to be expected."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.axes import N_BUCKETS, Axes
from learner.patterns.coded import Coded, chunks, encode
from learner.patterns.observations import FAMILIES, Exposures, Floats, Natural, Observations
from learner.patterns.residuals import THUMB, Baselines

COPY = FAMILIES.index("copy")
WEIGHTS = np.where(np.arange(len(FAMILIES)) < 2, 1.0, 0.0)  # a thumb and a copy, each 1


@dataclass(frozen=True, slots=True)
class Taken:
    """n responses in order of time, as the statistics saw them."""

    coded: Coded
    expected: Floats  # (n,) what was foreseen of copies
    baselines: Baselines

    def next_thumbs(self) -> Floats:
        """Return what the same thumbs would count (n,) if they came now."""
        return self.baselines.amend(self.coded, WEIGHTS).outcomes[:, THUMB]


def take_in(
    users: Sequence[str],
    *,
    thumbs: Floats | None = None,
    voters: Sequence[str] | None = None,
    copies: Floats | None = None,
    question_types: Sequence[str] | None = None,
    conversations: Sequence[str] | None = None,
) -> Taken:
    """Take in one response per user and conversation, chunk by chunk as the statistics do."""
    n = len(users)
    signals = np.zeros((n, len(FAMILIES)))
    signals[:, THUMB] = 0.0 if thumbs is None else thumbs
    signals[:, COPY] = 0.0 if copies is None else copies
    observations = Observations(
        created_s=np.arange(n, dtype=np.float64),
        users=users,
        conversations=[f"c{i}" for i in range(n)] if conversations is None else conversations,
        question_types=["q"] * n if question_types is None else question_types,
        groups=[""] * n,
        is_holdout=np.zeros(n, np.bool_),
        signals=signals,
        thumb_voters=[""] * n if voters is None else voters,
        satisfaction=np.zeros(n),
        is_rated=(signals != 0).any(1),
        natural=Natural((), np.zeros((n, 0), np.bool_), {}),
        exposures=Exposures(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), (), ()),
    )
    axes = Axes()
    axes.meet(observations)
    coded, _, bounds = encode(observations, axes)
    baselines = Baselines(axes.sizes)
    expected = np.zeros(n)
    for start, end in chunks(bounds, 0):
        chunk = coded.between(start, end)
        expected[start:end] = chunk.signals[:, COPY] - baselines.take(chunk, WEIGHTS).outcomes[:, COPY]
    return Taken(coded, expected, baselines)


def first(n: int, of: int) -> Floats:
    """Return 1 for the first *n* of *of*, 0 for the others."""
    return np.where(np.arange(of) < n, 1.0, 0.0)


def test_a_thumb_of_someone_who_rates_everything_counts_less() -> None:
    users = ["eager"] * 40 + [f"u{i % 50}" for i in range(400)]

    thumbs = take_in(users, thumbs=first(60, of=440)).next_thumbs()

    assert thumbs[0] < 0.75
    assert thumbs[45] == 1.0


def test_a_voter_who_never_asked_counts_less_too() -> None:
    users = [f"u{i % 50}" for i in range(400)]
    voters = ["stranger" if i < 60 else "" for i in range(400)]

    assert take_in(users, thumbs=first(60, of=400), voters=voters).next_thumbs()[0] < 0.4


def test_a_response_of_nobody_known_belongs_to_its_voter() -> None:
    place = take_in(["", "", ""], thumbs=first(2, of=3), voters=["v", "v", ""]).coded.user

    assert place[0] == place[1] != place[2]


def test_no_user_weighs_more_than_the_cap() -> None:
    baselines = Baselines({"q": 1, "u": N_BUCKETS + 501})
    places = np.arange(N_BUCKETS, N_BUCKETS + 501)
    baselines.user_count[places] = 1
    baselines.user_energy[places] = [500.0, *[1.0] * 500]

    weight = baselines.user_weights(places)

    assert weight[0] * 500 == pytest.approx(0.02 * 1000)
    assert weight[1:].tolist() == [1.0] * 500


@given(st.integers(0, 199), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_what_is_foreseen_depends_on_earlier_conversations_alone(changed: int, value: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    users = [f"u{code}" for code in rng.integers(10, size=n)]
    types = [f"q{code}" for code in rng.integers(3, size=n)]
    conversation = rng.integers(80, size=n)
    copies = rng.uniform(-1, 1, n)
    other = copies.copy()
    other[changed] = value

    def foreseen(values: Floats) -> Taken:
        names = [f"c{code}" for code in conversation]
        return take_in(users, copies=values, question_types=types, conversations=names)

    before, after = foreseen(copies), foreseen(other)
    number = before.coded.created_s.astype(np.int64)
    upto = int(np.flatnonzero(conversation[number] == conversation[changed]).max())
    np.testing.assert_allclose(before.expected[: upto + 1], after.expected[: upto + 1], atol=1e-12)


def test_a_grumpy_user_and_a_bad_question_type_are_foreseen_in_time() -> None:
    n = 2000
    rng = np.random.default_rng(1)
    question_type, user = rng.integers(2, size=n), rng.integers(10, size=n)
    copies = np.where(question_type == 1, -0.4, 0.2) + np.where(user == 3, -0.5, 0.0)

    expected = take_in(
        [f"u{code}" for code in user], copies=copies, question_types=[f"q{code}" for code in question_type]
    ).expected

    assert np.abs((copies - expected)[-200:]).max() < 0.2
    assert np.abs(copies - copies.mean())[-200:].max() > 0.5
