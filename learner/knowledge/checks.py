"""What every draft must pass before it is stored, whoever wrote it."""

import re
from typing import Final

from learner.knowledge import language
from learner.knowledge.extraction import N_QUESTIONS, Draft, Group
from learner.knowledge.judgement import MAX_ANSWER_CHARS, MAX_QUESTION_CHARS
from learner.knowledge.privacy import find_personal_data
from learner.knowledge.safety import dangers, echoes_frame
from store.embedding import Embedder, entry_embedding

SUPPORT: Final = 0.75  # share of an answer's content words that its source must hold
MIN_OWN_SIMILARITY: Final = 0.35  # cosine of each phrasing to the mean of the others: unrelated texts stay under .32
_INSTRUCTION: Final = re.compile(r"</?INSTRUCTION>")


def problems(draft: Draft, group: Group, embedder: Embedder) -> list[str]:
    """Return what is wrong with a draft, in words that its writer can act on; nothing when it may be stored."""
    found = _shape(draft)
    if found:
        return found
    return [*_phrasings(draft, embedder), *_contents(draft, group), *_support(draft, group)]


def _shape(draft: Draft) -> list[str]:
    found = []
    if len({language.normal_form(question) for question in draft.questions}) != N_QUESTIONS:
        found.append(f"{N_QUESTIONS} different phrasings are needed")
    if any(len(question) > MAX_QUESTION_CHARS for question in draft.questions):
        found.append(f"a phrasing may have {MAX_QUESTION_CHARS} characters")
    if len(draft.answer) > MAX_ANSWER_CHARS:
        found.append(f"the answer may have {MAX_ANSWER_CHARS} characters")
    if not language.content_words(draft.answer):
        found.append("the answer says nothing")
    return found


def _phrasings(draft: Draft, embedder: Embedder) -> list[str]:
    found = []
    for question in draft.questions:
        others = [other for other in draft.questions if other != question]
        if float(embedder.embed_one(question) @ entry_embedding(embedder, others)) < MIN_OWN_SIMILARITY:
            found.append(f"the phrasing {question!r} asks something else than the others")
    return found


def _contents(draft: Draft, group: Group) -> list[str]:
    answer = _INSTRUCTION.sub("", draft.answer)
    found = []
    if draft.answer.count("<INSTRUCTION>") != draft.answer.count("</INSTRUCTION>"):
        found.append("an <INSTRUCTION> tag is not closed")
    for name, texts in (("question", draft.questions), ("answer", (answer,)), ("tag", draft.tags)):
        for text in texts:
            may_link = name == "answer" and group.representative.provenance == "human_answer"
            found += [f"{danger} in the {name}" for danger in dangers(text, may_link=may_link)]
            if find_personal_data(text) or language.has_placeholder(text):
                found.append(f"personal data in the {name}")
            if echoes_frame(text):
                found.append(f"an echo of injected text in the {name}")
    return found


def _support(draft: Draft, group: Group) -> list[str]:
    """Return what the answer says beyond its source: words, numbers and names that the conversation does not hold."""
    answer = _INSTRUCTION.sub(" ", draft.answer)
    exchanges = [exchange for candidate in group.members for exchange in candidate.exchanges]
    source = "\n".join([group.representative.text, *(f"{e.question}\n{e.answer}" for e in exchanges)])
    held = set(language.words(source))
    said = language.content_words(answer)
    share = sum(word in held for word in said) / max(len(said), 1)
    unknown_numbers = sorted(language.numbers(answer) - language.numbers(source))
    found = []
    if share < SUPPORT:
        found.append(f"only {share:.0%} of the answer's words are in the conversation: say only what it says")
    if unknown_numbers:
        found.append(f"the numbers {', '.join(unknown_numbers)} are not in the conversation")
    return found
