"""Times as text: of one form, and what the standard library says."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from store.clock import iso, parse_iso


@given(moment_s=st.floats(0, 4e9, allow_nan=False))
def test_a_moment_reads_as_the_standard_library_writes_it(moment_s: float) -> None:
    expected = datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")

    assert iso(moment_s) == expected.replace("+00:00", "Z")


@given(milliseconds=st.integers(0, 4 * 10**12))
def test_a_moment_survives_its_text(milliseconds: int) -> None:
    assert parse_iso(iso(milliseconds / 1000)) == milliseconds / 1000


def test_the_last_half_microsecond_of_a_second_is_the_next_second() -> None:
    assert iso(1_000_000_000.9999999) == "2001-09-09T01:46:41.000Z"
