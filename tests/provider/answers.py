"""What a model answers, before any API gives it a form."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

N_PROMPT, N_COMPLETION, N_CACHED = 120, 9, 64  # tokens, as every reply's usage says


@dataclass(frozen=True)
class Call:
    """One call of a function that the request offered."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_json(self) -> str:
        return json.dumps(self.arguments)


@dataclass(frozen=True)
class Answer:
    """One turn of the model: text, calls or a refusal; ``end`` says what becomes of it on its way.

    ``cut`` closes the connection in the middle, ``error`` sends the API's own error event there.
    """

    text: str | None = None
    calls: tuple[Call, ...] = ()
    refusal: str | None = None
    others: tuple[str, ...] = ()  # texts of the further choices that ``n`` asks for
    end: Literal["complete", "cut", "error"] = "complete"
    delay_s: float = 0.0  # before the first byte


@dataclass(frozen=True)
class Failure:
    """An error before the first byte, in the API's own form."""

    status: int
    message: str = "scripted failure"
    headers: tuple[tuple[str, str], ...] = ()


def words(text: str) -> Iterator[str]:
    """Yield *text* in the pieces that a stream sends, none of them lost.

    >>> list(words("to be,  so"))
    ['to', ' be,', ' ', ' so']
    """
    starts = [0, *(index for index, letter in enumerate(text) if letter == " " and index)]
    yield from (text[start:stop] for start, stop in pairwise([*starts, len(text)]))
