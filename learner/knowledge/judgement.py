"""Whether an exchange of a question and its answer would help somebody else, as far as rules can tell."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from learner.knowledge import language, questions
from learner.knowledge.answers import Answer
from store.contexts import Provenance

TRUST: Final[tuple[Provenance, ...]] = (
    "person",
    "correction",
    "human_answer",
    "tool_result",
    "confirmed_answer",
    "answer",
)  # best first
KEEP_FROM: Final = 0.5  # least score of a conversation that goes on
MIN_ANSWER_WORDS: Final = 2  # that carry meaning
MAX_QUESTION_CHARS: Final = 300
MAX_ANSWER_CHARS: Final = 2000
_DIGITS: Final = re.compile(r"(?:\d[ .-]?){7}")
_CONTACT: Final = frozenset(
    ("phone", "number", "address", "email", "e-mail", "mail", "contact", "reach", "call", "telephone")
)
CRITERIA: Final = ("resolved", "professional", "generalisable", "no_personal_data")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the pre-screen thinks of one conversation, or rules of one exchange; *score* in [0, 1]."""

    resolved: bool
    professional: bool
    generalisable: bool
    no_personal_data: bool
    score: float
    by: str  # "model" or "rules"

    @property
    def is_kept(self) -> bool:
        return all(getattr(self, name) for name in CRITERIA) and self.score >= KEEP_FROM

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def verdict_from_json(value: Mapping[str, Any]) -> Verdict:
    """Return the verdict that ``as_json`` gave."""
    return Verdict(**value)


def judge(question: str, answer: Answer, provenance: Provenance, *, subject: str, is_alone: bool) -> Verdict:
    """Return the verdict that rules give on one exchange.

    *question* is what was asked (``questions.core_question``), *is_alone*: clear to somebody who read nothing else;
    when it is not, *subject* is what it leans on, as far as that is known.
    """
    said = language.content_words(answer.text)
    asked = language.content_words(question)
    depth = min(len(set(said)), 30) / 30
    overlap = len(set(asked) & set(said)) / max(len(set(asked)), 1)
    trust = 1 - TRUST.index(provenance) / len(TRUST)
    return Verdict(
        resolved=True,  # accepted, or the settings take answers that nobody confirmed
        professional=not (language.is_offensive(question) or language.is_offensive(answer.text)),
        generalisable=_is_question(question)
        and (is_alone or (_is_about(question, subject) and "asks" not in answer.left_out))
        and _is_answer(question, answer, len(said)),
        # What is left when something personal is gone may be a whole answer, but not to who asked for just that.
        no_personal_data=not ("personal" in answer.left_out or _DIGITS.search(answer.text))
        or _CONTACT.isdisjoint(language.words(question)),
        score=round(0.4 + 0.25 * depth + 0.1 * overlap + 0.15 * trust + 0.1 * is_alone, 4),
        by="rules",
    )


def stands_alone(question: str, *, is_at_desk: bool) -> bool:
    """Return whether a question is clear to somebody who did not read what came before it."""
    return is_at_desk and not questions.leans_on_before(question)


def _is_question(question: str) -> bool:
    return (
        0 < len(question) <= MAX_QUESTION_CHARS
        and questions.is_request(question)
        and questions.has_substance(question)
        and not questions.is_search(question)
        and not questions.asks_for_more(question)
        and not language.is_passing(question)
    )


def _is_about(question: str, subject: str) -> bool:
    """Return whether a question about something else than the desk is clear once its subject is named."""
    return (
        bool(subject)
        and question.endswith("?")
        and not questions.is_command(question)
        and not questions.is_of_one_visit(question)
    )


def _is_answer(question: str, answer: Answer, n_words: int) -> bool:
    if n_words < MIN_ANSWER_WORDS or len(answer.text) > MAX_ANSWER_CHARS:
        return False
    # Who wanted something done got it, or an offer; what was said beside it is no answer.
    is_at_work = {"reports", "asks"} <= answer.left_out
    is_done = not {"reports", "asks"}.isdisjoint(answer.left_out) and questions.is_command(question)
    is_repeated = language.normal_form(answer.text) == language.normal_form(question)
    return not (is_at_work or is_done or is_repeated) and {"instance", "broken"}.isdisjoint(answer.left_out)
