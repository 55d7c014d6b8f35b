"""Puts text into a client's own bytes and leaves every other byte as it was."""

from collections.abc import Iterable

import msgspec

Edit = tuple[int, int, bytes]  # where it begins and ends in the body (equal: an insertion), and what stands there then


def splice(body: bytes, edits: Iterable[Edit]) -> bytes:
    """Return *body* with all *edits* made; they do not overlap.

    >>> splice(b"abc", [(2, 2, b"-"), (0, 1, b"+")])
    b'+b-c'
    """
    pieces: list[bytes | memoryview] = []
    view = memoryview(body)
    position = 0
    for start, end, text in sorted(edits):
        pieces += (view[position:start], text)
        position = end
    if not pieces:
        return body
    pieces.append(view[position:])
    return b"".join(pieces)


def escaped(text: str) -> bytes:
    r"""Return *text* as it stands inside a JSON string.

    >>> escaped('say "hi"\n')
    b'say \\"hi\\"\\n'
    """
    return msgspec.json.encode(text)[1:-1]
