"""Which patterns and contexts a request gets: pure functions of a snapshot and the facts of its conversation.

The draw is an HMAC of the tenant's secret, the conversation and the dimension: stable for every turn, independent of
what the conversation says, unknown to clients. DESIGN section 6; PATTERNS.md section 4.2.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.blocks import context_block, pattern_block
from store.config import ContextsSection, PatternsSection
from store.plan import Conditions, Plan, ServedPattern
from store.records import InjectionRecord
from store.snapshot import ServedContexts

PATTERN_FRAME_TOKENS: Final = 28  # of store.blocks' header and footer, cl100k_base; a test holds them equal
CONTEXT_FRAME_TOKENS: Final = 54
MAX_KNOWN_FACTS: Final = 1000  # combinations of facts kept per plan; more are worked out again
JOIN_TOKENS: Final = 4  # spare: where a block meets the app's own text, the two may encode otherwise than alone


@dataclass(frozen=True, slots=True)
class Facts:
    """What a conversation's patterns depend on; fixed at its first turn."""

    question_type: str
    data_source: str = ""
    prompt_template: str = ""
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Arm:
    """One pattern in play and P(it is drawn), scaled for the hold-back."""

    pattern: ServedPattern
    propensity: float


@dataclass(frozen=True, slots=True)
class Dimension:
    """The arms of one dimension whose conditions match, in order of ids."""

    name: str
    arms: tuple[Arm, ...]
    dearest_tokens: int


@dataclass(frozen=True, slots=True)
class Selection:
    """One block of text and the items in play for it."""

    block: str = ""
    tokens: int = 0
    """cl100k_base, of the whole block; 0 without one."""
    injections: tuple[InjectionRecord, ...] = ()


NOTHING: Final = Selection()


def is_holdout(secret: bytes, conversation_id: str, share: float) -> bool:
    """Return whether the conversation belongs to the *share* that never gets patterns."""
    return uniform(secret, "holdout", conversation_id) < share


def uniform(secret: bytes, purpose: str, conversation_id: str) -> float:
    """Return a number in [0, 1) that is fixed for its arguments and looks random without the secret."""
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    message = f"{len(purpose)}:{purpose}{conversation_id}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(hmac.digest(secret, message, "sha256")[:8], "big") >> 11) * 2.0**-53


class PlanIndex:
    """The dimensions of one plan by facts, worked out once for all facts that its conditions cannot tell apart."""

    def __init__(self, plan: Plan, hold_back: float) -> None:
        self._plan = plan
        self._hold_back = hold_back
        self._named = {
            name: frozenset(value for pattern in plan.patterns for value in getattr(pattern.conditions, name))
            for name in Conditions.__struct_fields__
        }
        self._known: dict[tuple[str, ...], tuple[Dimension, ...]] = {}

    def dimensions(self, facts: Facts) -> tuple[Dimension, ...]:
        """Return what ``matching_dimensions`` does."""
        if not self._plan.patterns:
            return ()
        key = tuple(value if (value := getattr(facts, name)) in named else "" for name, named in self._named.items())
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_KNOWN_FACTS:
                self._known.clear()
            found = self._known[key] = matching_dimensions(self._plan, Facts(*key), self._hold_back)
        return found


def matching_dimensions(plan: Plan, facts: Facts, hold_back: float) -> tuple[Dimension, ...]:
    """Return the dimensions with at least one arm whose conditions match, in the order of the plan.

    Propensities of a dimension are scaled so that none of them keeps at least *hold_back*; a pinned pattern (a
    person's word) takes its whole dimension.
    """
    arms: dict[str, list[ServedPattern]] = {}
    for pattern in plan.patterns:
        if matches(pattern.conditions, facts) and pattern.share > 0:
            arms.setdefault(pattern.dimension, []).append(pattern)
    return tuple(_dimension(name, arms[name], hold_back) for name in plan.dimensions if name in arms)


def matches(conditions: Conditions, facts: Facts) -> bool:
    """Return whether every restricted field holds one of its values."""
    return (
        (not conditions.question_type or facts.question_type in conditions.question_type)
        and (not conditions.data_source or facts.data_source in conditions.data_source)
        and (not conditions.prompt_template or facts.prompt_template in conditions.prompt_template)
        and (not conditions.segment or facts.segment in conditions.segment)
    )


def _dimension(name: str, patterns: list[ServedPattern], hold_back: float) -> Dimension:
    pinned = [pattern for pattern in patterns if pattern.state == "pinned"]
    if pinned:
        word = max(pinned, key=lambda pattern: (pattern.conditions.specificity, pattern.id))
        return Dimension(name, (Arm(word, 1.0),), word.tokens)
    total = sum(pattern.share for pattern in patterns)
    scale = min(1.0, (1.0 - hold_back) / total)
    arms = tuple(Arm(pattern, pattern.share * scale) for pattern in sorted(patterns, key=lambda pattern: pattern.id))
    return Dimension(name, arms, max(pattern.tokens for pattern in patterns))


def select_patterns(
    dimensions: Sequence[Dimension], secret: bytes, conversation_id: str, section: PatternsSection, *, holdout: bool
) -> Selection:
    """Return the patterns drawn for a conversation and all arms that were in play.

    A dimension whose dearest arm does not fit into what is left of the budget is not drawn at all, so that
    propensities stay exact. A *holdout* conversation logs the same arms, all of them untreated.
    """
    tokens_left = section.max_tokens - PATTERN_FRAME_TOKENS - JOIN_TOKENS
    tokens_before = tokens_left
    drawn: list[ServedPattern] = []
    injections: list[InjectionRecord] = []
    for dimension in dimensions:
        if dimension.dearest_tokens > tokens_left:
            continue
        chosen = _draw(dimension, uniform(secret, f"dimension {dimension.name}", conversation_id))
        if chosen is not None:
            drawn.append(chosen)
            tokens_left -= chosen.tokens
        for arm in dimension.arms:
            pattern = arm.pattern
            is_treated = pattern is chosen and not holdout
            injections.append(
                InjectionRecord("pattern", pattern.id, dimension.name, arm.propensity, is_treated, None, pattern.tokens)
            )
    if holdout or not drawn:
        return Selection(injections=tuple(injections))
    drawn.sort(key=lambda pattern: pattern.id)
    block = pattern_block(pattern.rule for pattern in drawn)
    return Selection(block, PATTERN_FRAME_TOKENS + tokens_before - tokens_left, tuple(injections))


def _draw(dimension: Dimension, point: float) -> ServedPattern | None:
    for arm in dimension.arms:
        point -= arm.propensity
        if point < 0:
            return arm.pattern
    return None


def select_contexts(contexts: ServedContexts, question: NDArray[np.float32], section: ContextsSection) -> Selection:
    """Return the entries most similar to the question, best first, whole ones only.

    Args:
        contexts: what the tenant approved.
        question: (256,), unit length, or all zero for a question without words.
        section: threshold, number and tokens.
    """
    if not contexts.ids:
        return NOTHING
    similarities = contexts.vectors @ question
    near = np.flatnonzero(similarities >= section.similarity_threshold)
    tokens_left = section.max_tokens - CONTEXT_FRAME_TOKENS - JOIN_TOKENS
    tokens_before = tokens_left
    chosen: list[int] = []
    for index in near[np.argsort(-similarities[near], kind="stable")].tolist():
        if contexts.tokens[index] <= tokens_left and len(chosen) < section.max_items:
            chosen.append(index)
            tokens_left -= contexts.tokens[index]
    if not chosen:
        return NOTHING
    return Selection(
        context_block(contexts.entries[index] for index in chosen),
        CONTEXT_FRAME_TOKENS + tokens_before - tokens_left,
        tuple(
            InjectionRecord(
                "context",
                contexts.ids[index],
                "",
                1.0,
                True,
                round(float(similarities[index]), 6),
                contexts.tokens[index],
            )
            for index in chosen
        ),
    )
