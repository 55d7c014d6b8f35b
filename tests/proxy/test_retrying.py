"""What an upstream says of when to come back, and what is made of it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Header
from proxy.retrying import backoff_s, is_retriable, retry_after_s

NOON_S = 1_795_262_400.0  # Sat, 21 Nov 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"Retry-After", b" 3 ")], 3.0),
        ([(b"retry-after", b"0.5")], 0.5),
        ([(b"retry-after", b"0")], 0.0),
        ([(b"retry-after", b"20"), (b"Retry-After-Ms", b"1500")], 1.5),
        ([(b"retry-after-ms", b"x"), (b"retry-after", b"2")], 2.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 12:00:30 GMT")], 30.0),
        ([(b"retry-after", b"Sat, 21 Nov 2026 11:59:30 GMT")], 0.0),
        ([(b"retry-after", b"-5")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"\xff\xfe")], None),
        ([(b"retry-after", b"")], None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_milliseconds_go_first(
    headers: list[Header], seconds: float | None
) -> None:
    assert retry_after_s(headers, NOON_S) == seconds


@given(st.binary())
def test_whatever_retry_after_holds_it_is_read_or_left(value: bytes) -> None:
    seconds = retry_after_s([(b"retry-after", value)], NOON_S)

    assert seconds is None or seconds >= 0


def test_a_success_is_never_tried_again_whatever_its_headers_say() -> None:
    assert not is_retriable(200, [(b"x-should-retry", b"true")])


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 1000), st.integers())
def test_a_wait_lies_between_0_and_its_doubled_base_and_never_beyond_the_longest(
    n_failed: int, base_s: float, max_s: float, seed: int
) -> None:
    seconds = backoff_s(n_failed, base_s, max_s, Random(seed))

    assert 0 <= seconds <= max_s
    assert seconds <= base_s * 2.0 ** min(n_failed - 1, 64)


def test_waits_spread_over_their_whole_range() -> None:
    rng = Random(1)
    waits = [backoff_s(4, 0.5, 8, rng) for _ in range(1000)]

    assert min(waits) < 0.1
    assert max(waits) > 3.9
