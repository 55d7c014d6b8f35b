"""What helps a reviewer to see: what a wording changed, word by word, and the passage that an answer came from."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from learner.knowledge import language
from store.contexts import RevisionRow
from store.conversations import Transcript

Kind = Literal["same", "removed", "added"]
_PIECE: Final = re.compile(r"\s+|\w+|[^\w\s]")
MAX_PIECES: Final = 20_000  # of both texts; beyond, they are shown as replaced as a whole
BEFORE, AFTER = 2, 1  # messages shown around the one that an answer came from
_SENTENCE: Final = re.compile(r".+?(?:[.!?]+(?=\s)|\n|\Z)\s*", re.DOTALL)
MIN_SAID: Final = 0.5  # of a sentence's words that an answer must hold for it to be the source
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

    Of several that hold as much: one that holds it word for word, one that is not the user's question, the shortest.
    """
    wanted = set(language.content_words(answer))
    best: tuple[tuple[bool, float, bool, int], int] | None = None
    for index, message in enumerate(messages):
        text = _text(message)
        held = set(language.words(text))
        shared = len(wanted & held) / max(len(wanted), 1)
        is_verbatim = bool(answer.strip()) and answer.strip() in text
        rank = (is_verbatim, shared, message.get("role") != "user", -len(text))
        if (shared >= MIN_SHARED or is_verbatim) and (best is None or rank > best[0]):
            best = (rank, index)
    return None if best is None else best[1]


def marked(text: str, answer: str) -> list[tuple[bool, str]]:
    """Return *text* in runs, each with whether *answer* came from it: word for word, else the sentences that say it.

    >>> marked("Hello! It takes five days. Bye.", "It takes five days.")
    [(False, 'Hello! '), (True, 'It takes five days.'), (False, ' Bye.')]
    """
    whole = answer.strip()
    if whole and whole in text:
        before, _, after = text.partition(whole)
        return [run for run in ((False, before), (True, whole), (False, after)) if run[1]]
    wanted = set(language.content_words(answer))
    runs: list[tuple[bool, str]] = []
    for sentence in _SENTENCE.findall(text):
        said = set(language.content_words(sentence))
        is_source = bool(said) and len(said & wanted) >= MIN_SAID * len(said)
        if runs and runs[-1][0] is is_source:
            runs[-1] = (is_source, runs[-1][1] + sentence)
        else:
            runs.append((is_source, sentence))
    return runs if any(is_source for is_source, _ in runs) else [(True, text)]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a conversation around the message that an answer came from; *marked* is its place in the part."""

    conversation_id: str
    answer: str
    messages: Sequence[Mapping[str, Any]]
    marked: int | None
    n_before: int  # messages of the conversation that are left out
    n_after: int


def excerpt(source: Transcript, answer: str) -> Excerpt:
    """Return the message of *source* that *answer* came from and those around it; the last ones when none is known."""
    said = [message for message in source.messages if message.get("role") in ("user", "assistant", "tool")]
    place = passage(said, answer)
    centre = len(said) - 1 if place is None else place
    first, last = max(centre - BEFORE, 0), min(centre + AFTER, len(said) - 1)
    return Excerpt(
        conversation_id=source.id,
        answer=answer,
        messages=said[first : last + 1],
        marked=None if place is None else place - first,
        n_before=first,
        n_after=len(said) - 1 - last,
    )


def with_diffs(revisions: Sequence[RevisionRow]) -> list[tuple[RevisionRow, list[tuple[Kind, str]]]]:
    """Return *revisions*, newest first, each with its answer against that of the one before, word by word."""
    before = [*(revision.answer for revision in revisions[1:]), ""]
    return [(revision, word_diff(answer, revision.answer)) for revision, answer in zip(revisions, before, strict=False)]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
