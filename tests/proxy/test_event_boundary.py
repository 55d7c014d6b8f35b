"""A stream stands between two events after an empty line, and before its first byte."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from proxy.event_boundary import EventBoundary

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def is_here(*pieces: bytes) -> bool:
    boundary = EventBoundary()
    for piece in pieces:
        boundary.feed(piece)
    return boundary.is_here


@given(LINE_ENDS, st.lists(st.integers(0, 60), max_size=6))
def test_it_is_known_wherever_the_bytes_are_cut(line_end: bytes, places: list[int]) -> None:
    data = b": ping\n\nevent: x\ndata: {}\n\n".replace(b"\n", line_end)
    bounds = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    assert is_here(*[data[a:b] for a, b in itertools.pairwise(bounds)])
    assert not is_here(data[: -len(line_end)])
    assert not is_here(data, b"data: {")


def test_before_the_first_byte_an_event_may_begin() -> None:
    assert is_here()
    assert is_here(b"")
