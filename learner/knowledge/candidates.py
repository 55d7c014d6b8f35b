"""Conversations that may teach something: accepted ones, in order of trust, as exchanges of a question and its answer.

What must not teach is left out here: failed replies, replies that users rejected, conversations said to be unresolved,
replies that rest on an injected entry, and echoes of our own frame.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from learner.knowledge.language import content_words, core_answer, is_against, is_thanks, subject
from learner.knowledge.privacy import declared_names, remove_personal_data
from learner.knowledge.safety import echoes_frame
from store.config import KnowledgeSection
from store.contexts import Provenance
from store.conversations import Transcript, transcript
from store.database import Database
from store.mining import ChangedConversation, ResponseFacts, response_facts

TRUST: Final[tuple[Provenance, ...]] = (
    "person",
    "correction",
    "human_answer",
    "tool_result",
    "confirmed_answer",
    "answer",
)  # best first
SUBJECT_LOOKBACK: Final = 3  # messages before a question that may name what it is about
LOOKED_AT_PER_TAKEN: Final = 4  # transcripts read for each candidate wanted; the rest waits for the next run


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and the answer that was accepted; personal data removed."""

    question: str
    answer: str
    provenance: Provenance
    is_first: bool  # nothing was said before it
    subject: str = ""  # names in what was said before, that a later question leans on


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation that may teach; its best exchanges have the trust *provenance*."""

    conversation_id: str
    user_id: str
    tags: tuple[str, ...]
    changed_at: str
    exchanges: tuple[Exchange, ...]
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
    texts = [message_text(message) for message in conversation.messages]
    names = _names(conversation.messages, texts)
    texts = [remove_personal_data(text, names) for text in texts]
    is_accepted = _is_accepted(conversation, texts)
    exchanges = []
    for index in _answers(conversation.messages, texts):
        provenance = _provenance(conversation.messages, texts, facts, index, is_accepted=is_accepted)
        asked = _question_before(conversation.messages, texts, index)
        if provenance is None or asked is None or (provenance == "answer" and not is_unconfirmed_taken):
            continue
        fact = facts.get(str(conversation.messages[index].get("response_id", "")))
        correction = fact.correction if fact is not None and provenance == "correction" else None
        answer = texts[index] if correction is None else remove_personal_data(correction, names)
        if not echoes_frame(answer):
            is_first = _is_first(conversation.messages, texts, asked)
            said_before = "" if is_first else _subject_before(conversation.messages, texts, asked)
            exchanges.append(Exchange(texts[asked].strip(), core_answer(answer), provenance, is_first, said_before))
    if not exchanges:
        return None
    return Candidate(
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        tags=tuple(tag.lower() for tag in conversation.tags),
        changed_at=changed.changed_at,
        exchanges=tuple(exchanges),
        injected_ids=frozenset(item for fact in facts.values() for item in fact.context_ids),
        text=_readable(conversation.messages, texts),
    )


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message in OpenAI's shape, of all its text parts; nothing when it holds none."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _names(messages: Iterable[Mapping[str, Any]], texts: Iterable[str]) -> set[str]:
    names = {str(message["name"]) for message in messages if message.get("name") and message["role"] == "user"}
    return names.union(*(declared_names(text) for text in texts))


def _answers(messages: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[int]:
    return [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and texts[index].strip() and not message.get("tool_calls")
    ]


def _question_before(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], index: int) -> int | None:
    for before in range(index - 1, -1, -1):
        if messages[before]["role"] == "user":
            return before if texts[before].strip() else None
        if messages[before]["role"] == "assistant" and not messages[before].get("tool_calls"):
            return None  # it goes on talking: not an answer to the question
    return None


def _is_first(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], asked: int) -> bool:
    """Return whether the user said nothing but greetings before."""
    return not any(messages[index]["role"] == "user" and content_words(texts[index]) for index in range(asked))


def _subject_before(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], asked: int) -> str:
    """Return the names in the newest answer that held any, of the last few before the question."""
    for index in range(asked - 1, max(asked - 1 - SUBJECT_LOOKBACK, -1), -1):
        if messages[index]["role"] == "assistant" and (found := subject(texts[index])):
            return found
    return ""


def _is_accepted(conversation: Transcript, texts: Sequence[str]) -> bool:
    """Return whether the conversation as a whole ended well: said to be resolved, or with thanks at its end."""
    said = [text for message, text in zip(conversation.messages, texts, strict=True) if message["role"] == "user"]
    return conversation.is_resolved is True or bool(said and len(said) > 1 and is_thanks(said[-1]))


def _provenance(
    messages: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    facts: Mapping[str, ResponseFacts],
    index: int,
    *,
    is_accepted: bool,
) -> Provenance | None:
    """Return how far the answer at *index* can be trusted; None when it must not teach."""
    message = messages[index]
    fact = facts.get(str(message.get("response_id", "")))
    if fact is not None and fact.correction is not None:
        return "correction"
    reaction = _reaction(messages, texts, index)
    is_refused = fact is not None and (not fact.is_ok or fact.is_rejected or fact.satisfaction < 0)
    is_human = message.get("agent") == "human"
    # What rests on an injected entry says what we said before.
    is_echo = not is_human and fact is not None and bool(fact.context_ids)
    if is_refused or is_echo or is_against(reaction):
        return None
    if is_human:
        return "human_answer"
    if not (is_accepted or is_thanks(reaction) or (fact is not None and fact.is_confirmed)):
        return "answer"
    is_from_tool = index > 0 and messages[index - 1]["role"] in ("tool", "function")
    return "tool_result" if is_from_tool else "confirmed_answer"


def _reaction(messages: Sequence[Mapping[str, Any]], texts: Sequence[str], index: int) -> str:
    following = index + 1
    return texts[following] if following < len(messages) and messages[following]["role"] == "user" else ""


def _readable(messages: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> str:
    speakers = {"user": "User", "assistant": "Assistant", "tool": "Tool", "function": "Tool"}
    lines = []
    for message, text in zip(messages, texts, strict=True):
        if message["role"] in speakers and text.strip() and not echoes_frame(text):
            speaker = "Person" if message.get("agent") == "human" else speakers[message["role"]]
            lines.append(f"{speaker}: {text.strip()}")
    return "\n".join(lines)
