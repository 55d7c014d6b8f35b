"""Conversations that may teach something: accepted ones, in order of trust, as exchanges of a question and its answer.

What must not teach is left out here: failed replies, replies that users rejected, conversations said to be unresolved,
replies that rest on an injected entry, and echoes of our own frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from learner.knowledge.answers import Answer, read_answer
from learner.knowledge.judgement import TRUST, Verdict, judge, stands_alone
from learner.knowledge.language import content_words, is_against, is_thanks
from learner.knowledge.privacy import Placeholders, addressed_names, declared_names, remove_personal_data
from learner.knowledge.questions import core_question, is_wish
from learner.knowledge.safety import dangers, echoes_frame, is_order
from learner.knowledge.subjects import subject
from store.config import KnowledgeSection
from store.contexts import Provenance
from store.conversations import Transcript, transcript
from store.database import Database
from store.mining import ChangedConversation, ResponseFacts, response_facts

SUBJECT_LOOKBACK: Final = 3  # messages before a question that may name what it is about
MAX_CHOICES: Final = 1  # answers that ask back; who is asked more often is being served, not told
MIN_USER_NAME: Final = 4  # characters of a user's id that is looked for in what was said
ECHO_SHARE: Final = 0.6  # of an answer's words that an injected reply before it had; another matter's answer has a few
LOOKED_AT_PER_TAKEN: Final = 4  # transcripts read for each candidate wanted; the rest waits for the next run


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and the answer that was accepted; personal data and courtesies removed."""

    question: str
    answer: str  # the sentences that hold for everybody, verbatim
    provenance: Provenance
    verdict: Verdict  # of rules
    subject: str = ""  # a name in what was said before, when the question leans on it


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation that may teach; its best exchanges have the trust *provenance*."""

    conversation_id: str
    user_id: str
    tags: tuple[str, ...]
    changed_at: str
    exchanges: tuple[Exchange, ...]  # the best first: clear by itself, trusted and informative
    injected_ids: frozenset[str]  # entries that were injected into it: it cannot support them
    text: str  # the whole conversation as a model may read it, personal data removed

    @property
    def provenance(self) -> Provenance:
        return min((exchange.provenance for exchange in self.exchanges), key=TRUST.index)


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates, best first; *unfit* can teach nothing as they are; *n_left* were not looked at."""

    candidates: tuple[Candidate, ...]
    unfit: tuple[ChangedConversation, ...]
    n_left: int


def find_candidates(
    db: Database, tenant_id: str, changed: Sequence[ChangedConversation], section: KnowledgeSection
) -> Found:
    """Return up to ``max_candidates`` of the *changed* conversations that may teach, the most trusted first."""
    ordered = sorted(changed, key=_expected_trust)
    candidates: list[Candidate] = []
    unfit: list[ChangedConversation] = []
    n_looked_at = 0
    for conversation in ordered[: LOOKED_AT_PER_TAKEN * section.max_candidates]:
        if len(candidates) == section.max_candidates:
            break
        n_looked_at += 1
        facts = response_facts(db, tenant_id, conversation.id)
        found = read_candidate(
            transcript(db, tenant_id, conversation.id),
            facts,
            conversation,
            is_unconfirmed_taken=section.learn_unconfirmed,
        )
        if found is None:
            unfit.append(conversation)
        else:
            candidates.append(found)
    # The whole ranking can only be told from the texts: thanks and tool results are in them.
    candidates.sort(key=lambda candidate: TRUST.index(candidate.provenance))
    return Found(tuple(candidates), tuple(unfit), len(ordered) - n_looked_at)


def _expected_trust(conversation: ChangedConversation) -> tuple[bool, bool, bool, bool, float, str]:
    return (
        conversation.n_corrections == 0,
        conversation.n_human == 0,
        conversation.n_confirmations == 0,
        conversation.is_resolved is not True,
        -conversation.satisfaction,
        conversation.id,
    )


def read_candidate(
    conversation: Transcript,
    facts: Mapping[str, ResponseFacts],
    changed: ChangedConversation,
    *,
    is_unconfirmed_taken: bool,
) -> Candidate | None:
    """Return what may be learned from a conversation, or None when nothing may."""
    if conversation.is_resolved is False:
        return None
    if changed.satisfaction < 0 and not changed.n_corrections:
        return None
    reading = _read(conversation, facts)
    # Who gives the model orders has a reason to make it say something: nothing that it said after them teaches.
    if any(m["role"] == "user" and is_order(text) for m, text in zip(reading.messages, reading.texts, strict=True)):
        return None
    exchanges = [
        exchange
        for index in _answers(reading)
        if (exchange := _exchange(reading, index)) is not None
        and (exchange.provenance != "answer" or is_unconfirmed_taken)
    ]
    if not exchanges:
        return None
    exchanges.sort(key=lambda exchange: (not exchange.verdict.is_kept, -exchange.verdict.score))
    return Candidate(
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        tags=tuple(tag.lower() for tag in conversation.tags),
        changed_at=changed.changed_at,
        exchanges=tuple(exchanges),
        injected_ids=frozenset(item for fact in facts.values() for item in fact.context_ids),
        text=_readable(reading.messages, reading.texts),
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """A conversation as it is read: its texts without personal data, what is known about each reply."""

    messages: Sequence[Mapping[str, Any]]
    texts: Sequence[str]
    answers: Sequence[Answer]  # what each message says to everybody; of a user's nothing
    names: frozenset[str]
    facts: Mapping[str, ResponseFacts]
    is_accepted: bool
    is_at_desk: bool  # it is about what the desk itself does, not about something to be found or done for its user

    def fact(self, index: int) -> ResponseFacts | None:
        return self.facts.get(str(self.messages[index].get("response_id", "")))

    def is_human(self, index: int) -> bool:
        return self.messages[index].get("agent") == "human"


def _read(conversation: Transcript, facts: Mapping[str, ResponseFacts]) -> _Reading:
    texts = [message_text(message) for message in conversation.messages]
    names = names_in(conversation)
    placeholders = Placeholders()
    texts = [remove_personal_data(text, names, placeholders) for text in texts]
    said = zip(conversation.messages, texts, strict=True)
    answers = [read_answer(text if message["role"] == "assistant" else "") for message, text in said]
    return _Reading(
        conversation.messages,
        texts,
        answers,
        names,
        facts,
        _is_accepted(conversation, texts),
        _is_at_desk(conversation.messages, texts, answers),
    )


def _exchange(reading: _Reading, index: int) -> Exchange | None:
    """Return the exchange that the answer at *index* closes, or None when it must not teach."""
    provenance = _provenance(reading, index)
    asked = _question_before(reading, index)
    if provenance is None or not asked:
        return None
    fact = reading.fact(index)
    correction = fact.correction if fact is not None and provenance == "correction" else None
    said, answer = reading.texts[index], reading.answers[index]
    if correction is not None:
        said = remove_personal_data(correction, reading.names)
        answer = read_answer(said)
    told = "\n".join(reading.texts[row] for row in asked)
    if echoes_frame(said) or dangers(said, may_link=provenance == "human_answer") or dangers(told):
        return None
    question = core_question(told, is_whole=reading.is_at_desk)
    is_alone = stands_alone(question, is_at_desk=reading.is_at_desk)
    about = "" if is_alone else _subject_before(reading, asked[0])
    if about and about.partition(" in ")[0].lower() in question.lower():
        is_alone, about = True, ""  # it names its subject itself
    verdict = judge(question, answer, provenance, subject=about, is_alone=is_alone)
    # What rules find nothing in may still be of use to a model, which reads the whole conversation.
    return Exchange(question or " ".join(told.split()), answer.text or said, provenance, verdict, about)


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message in OpenAI's shape, of all its text parts; nothing when it holds none."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def names_in(conversation: Transcript) -> frozenset[str]:
    """Return the names of people that a conversation declares: by fields, by introductions, by who is greeted."""
    messages, texts = conversation.messages, [message_text(message) for message in conversation.messages]
    names = {str(message["name"]) for message in messages if message.get("name") and message["role"] == "user"}
    for message, text in zip(messages, texts, strict=True):
        names.update(addressed_names(text) if message["role"] == "assistant" else declared_names(text))
    user = conversation.user_id
    # The app's name for the user, where nothing else reads like it: no plain word, no plain number.
    if len(user) >= MIN_USER_NAME and any(map(str.isalpha, user)) and not user.isalpha():
        names.add(user)
    return frozenset(names)


def _answers(reading: _Reading) -> list[int]:
    return [
        index
        for index, message in enumerate(reading.messages)
        if message["role"] == "assistant" and reading.texts[index].strip() and not message.get("tool_calls")
    ]


def _question_before(reading: _Reading, index: int) -> list[int]:
    """Return the user's messages, in a row, that the answer at *index* answers; nothing when there are none.

    A person who answers a complaint about an answer answers what had been asked before it.
    """
    row = index - 1
    while row >= 0 and not _is_said(reading, row):
        row -= 1
    asked: list[int] = []
    while row >= 0 and reading.messages[row]["role"] == "user":
        asked.insert(0, row)
        row -= 1
    if not asked:
        return []  # it goes on talking: not an answer to the question
    is_reaction = row >= 0 and _is_said(reading, row) and any(is_against(reading.texts[row]) for row in asked)
    if not is_reaction:
        return asked
    # A model that gives way to a user's word says what the user says.
    return _question_before(reading, row) if reading.is_human(index) else []


def _is_said(reading: _Reading, row: int) -> bool:
    """Return whether a message is a turn of its own: not a tool's, nor "let me check" before the answer."""
    message = reading.messages[row]
    if message["role"] == "assistant":
        return not message.get("tool_calls") and bool(reading.answers[row].text)
    return message["role"] == "user" and bool(reading.texts[row].strip())


def _is_at_desk(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], answers: Sequence[Answer]) -> bool:
    """Return whether a conversation asks and tells, and nothing is found, chosen or done for its user alone."""
    if sum("asks" in answer.left_out for answer in answers) > MAX_CHOICES:
        return False
    return not any(m["role"] == "user" and is_wish(text) for m, text in zip(messages, texts, strict=True))


def _subject_before(reading: _Reading, asked: int) -> str:
    """Return the name in the newest answer that held one, of the last few before the question.

    It counts when the conversation keeps to it, or when the question comes right after it and nothing else was named:
    a name in passing is not what a question is about.
    """
    for row in range(asked - 1, max(asked - 1 - SUBJECT_LOOKBACK, -1), -1):
        if reading.messages[row]["role"] == "assistant" and (found := subject(reading.texts[row])):
            n_mentions = sum(found.name.lower() in text.lower() for text in reading.texts)
            return found.text if n_mentions > 1 or (row == asked - 1 and found.is_only) else ""
    return ""


def _is_accepted(conversation: Transcript, texts: Sequence[str]) -> bool:
    """Return whether the conversation as a whole ended well: said to be resolved, or with thanks at its end."""
    said = [text for message, text in zip(conversation.messages, texts, strict=True) if message["role"] == "user"]
    return conversation.is_resolved is True or bool(said and len(said) > 1 and is_thanks(said[-1]))


def _provenance(reading: _Reading, index: int) -> Provenance | None:
    """Return how far the answer at *index* can be trusted; None when it must not teach."""
    fact = reading.fact(index)
    if fact is not None and fact.correction is not None:
        return "correction"
    reaction = _reaction(reading, index)
    is_human = reading.is_human(index)
    is_refused = fact is not None and (not fact.is_ok or fact.is_rejected or fact.satisfaction < 0)
    # What rests on an injected entry says what we said before.
    is_echo = not is_human and (_is_injected(reading, index) or _repeats_injected(reading, index))
    if is_refused or is_echo or is_against(reaction):
        return None
    if is_human:
        return "human_answer"
    if not (reading.is_accepted or is_thanks(reaction) or (fact is not None and fact.is_confirmed)):
        return "answer"
    is_from_tool = index > 0 and reading.messages[index - 1]["role"] in ("tool", "function")
    return "tool_result" if is_from_tool else "confirmed_answer"


def _is_injected(reading: _Reading, index: int) -> bool:
    fact = reading.fact(index)
    return fact is not None and bool(fact.context_ids)


def _repeats_injected(reading: _Reading, index: int) -> bool:
    """Return whether an answer says again, to whatever question, what a reply before it said with an entry at hand."""
    said = set(content_words(reading.texts[index]))
    before = [row for row in range(index) if _is_injected(reading, row)]
    held = {word for row in before for word in content_words(reading.texts[row])}
    return len(said & held) >= ECHO_SHARE * len(said) > 0


def _reaction(reading: _Reading, index: int) -> str:
    following = index + 1
    is_user = following < len(reading.messages) and reading.messages[following]["role"] == "user"
    return reading.texts[following] if is_user else ""


def _readable(messages: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> str:
    speakers = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}
    lines = []
    for message, text in zip(messages, texts, strict=True):
        if message["role"] in speakers and text.strip() and not echoes_frame(text):
            speaker = "Person" if message.get("agent") == "human" else speakers[message["role"]]
            lines.append(f"{speaker}: {text.strip()}")
    return "\n".join(lines)
