"""What the offline model knows: question-and-answer turns of given conversations, found by shared words."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_WORD = re.compile(r"[a-z0-9']+")
MAX_ANSWERS = 60  # kept for one question; the longest reply takes fewer
MAX_REMEMBERED = 4096  # questions whose answers are kept; a demo asks a few hundred different ones


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's turn and the answer that it got."""

    question: str
    answer: str
    intent: str
    chat_id: str


def exchanges(conversations: Iterable[Mapping[str, Any]]) -> list[Exchange]:
    """Return every user turn of *conversations* that an assistant's turn follows."""
    return [
        Exchange(asked["content"], answered["content"], asked.get("intent", ""), conversation["chatId"])
        for conversation in conversations
        for asked, answered in pairwise(conversation["messages"])
        if asked["role"] == "user" and answered["role"] == "assistant"
    ]


class Library:
    """Answers from given conversations: the nearest turn's answer first, then others that fit."""

    def __init__(self, conversations: Iterable[Mapping[str, Any]]) -> None:
        self.exchanges = exchanges(conversations)
        words = [set(_WORD.findall(exchange.question.lower())) for exchange in self.exchanges]
        frequency = Counter(word for found in words for word in found)
        self._weights = {word: math.log(len(words) / count) for word, count in frequency.items()}
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, found in enumerate(words):
            for word in found:
                self._rows[word].append(row)
        self._norms = [math.sqrt(sum(self._weights[word] ** 2 for word in found)) or 1.0 for found in words]
        self._remembered: dict[str, tuple[str, list[str]]] = {}

    def facts(self, question: str, count: int) -> list[str]:
        """Return *count* different answers: the nearest first, then others of its intent, then whatever there is."""
        return self._known(question)[1][:count]

    def intent(self, question: str) -> str:
        """Return the intent of the nearest exchange, '' when no word is known."""
        return self._known(question)[0]

    def _known(self, question: str) -> tuple[str, list[str]]:
        if question not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[question] = self._look_up(question)
        return self._remembered[question]

    def _look_up(self, question: str) -> tuple[str, list[str]]:
        ranked = self.nearest(question)
        if not ranked:
            return "", ["I have no answer to that."]
        intent = ranked[0].intent
        by_nearness = dict.fromkeys([*ranked, *self.exchanges])
        ordered = sorted(by_nearness, key=lambda exchange: exchange.intent != intent)  # stable: nearness within each
        return intent, list(dict.fromkeys(" ".join(exchange.answer.split()) for exchange in ordered))[:MAX_ANSWERS]

    def nearest(self, question: str) -> list[Exchange]:
        """Return the exchanges by similarity to *question* (cosine of idf weights), best first; ties in file order."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(_WORD.findall(question.lower())):
            for row in self._rows.get(word, ()):
                scores[row] += self._weights[word] ** 2 / self._norms[row]
        return [self.exchanges[row] for row in sorted(scores, key=lambda row: (-scores[row], row))]
