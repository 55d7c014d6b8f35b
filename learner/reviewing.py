"""What helps a reviewer to see: what a wording changed, word by word, and the passage that an answer came from."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from learner.knowledge import language

Kind = Literal["same", "removed", "added"]
_PIECE: Final = re.compile(r"\s+|\w+|[^\w\s]")
MAX_PIECES: Final = 20_000  # of both texts; beyond, they are shown as replaced as a whole
MIN_SHARED: Final = 0.3  # of an answer's words that a passage must hold


def word_diff(before: str, after: str) -> list[tuple[Kind, str]]:
    """Return *after* against *before* as runs of text; those that are the same or added make up *after* exactly.

    >>> word_diff("It takes five days.", "It takes ten days.")
    [('same', 'It takes '), ('removed', 'five'), ('added', 'ten'), ('same', ' days.')]
    """
    old, new = _PIECE.findall(before), _PIECE.findall(after)
    if len(old) + len(new) > MAX_PIECES:
        return [("removed", before), ("added", after)]
    runs: list[tuple[Kind, str]] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            runs.append(("same", "".join(new[k:m])))
            continue
        if j > i:
            runs.append(("removed", "".join(old[i:j])))
        if m > k:
            runs.append(("added", "".join(new[k:m])))
    return runs


def passage(messages: Sequence[Mapping[str, Any]], answer: str) -> int | None:
    """Return the index of the message that holds most of *answer*; None when none holds enough of it.

    Of several that hold as much, the shortest: the one that says it and little else.
    """
    wanted = set(language.content_words(answer))
    best: tuple[float, int, int] | None = None
    for index, message in enumerate(messages):
        text = _text(message)
        held = set(language.words(text))
        shared = len(wanted & held) / max(len(wanted), 1)
        if shared >= MIN_SHARED and (best is None or (shared, -len(text)) > best[:2]):
            best = (shared, -len(text), index)
    return None if best is None else best[2]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
