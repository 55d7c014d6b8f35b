"""Which patterns a request gets: pure functions of a snapshot and the facts of its conversation.

The draw is an HMAC of the tenant's secret, the conversation and the dimension: stable for every turn, independent of
what the conversation says, unknown to clients. DESIGN section 6; PATTERNS.md section 4.2. All that does not depend on
the conversation is worked out once per plan: a draw costs a hash and a few look-ups.
"""

import hashlib
import hmac
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from store.blocks import PATTERN_FOOTER, PATTERN_HEADER, pattern_line
from store.config import PatternsSection
from store.plan import Conditions, Plan, ServedPattern, tool_of
from store.records import InjectionRecord, InjectionSet, make_set

PATTERN_FRAME_TOKENS: Final = 28  # of store.blocks' header and footer, cl100k_base; a test holds them equal
MAX_KNOWN_FACTS: Final = 1000  # combinations of facts kept per plan; more are worked out again
MIN_PRIORITY: Final = 1e-3  # of the largest: even one without promise comes first on some conversations
JOIN_TOKENS: Final = 4  # spare: where a block meets the app's own text, the two may encode otherwise than alone


@dataclass(frozen=True, slots=True)
class Facts:
    """What a conversation's patterns depend on; fixed at its first turn."""

    question_type: str
    data_source: str = ""
    prompt_template: str = ""
    segment: str = ""
    tools: tuple[str, ...] | None = None
    """Names of those offered; None: nobody knows any more, so any of them may be."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One pattern in play and its share: P(it is drawn) outside the holdout, scaled for the hold-back."""

    pattern: ServedPattern
    share: float
    line: str
    """As it stands in the block."""
    drawn: InjectionSet
    """All arms of its dimension when this one is drawn."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """The arms of one dimension whose conditions match, in order of ids."""

    name: str
    purpose: bytes
    """What its draw is hashed with."""
    arms: tuple[Arm, ...]
    untreated: InjectionSet
    """All arms when none is drawn."""
    dearest_tokens: int
    is_pinned: bool = False
    priority: float = 0.0
    """In the race for the budget; 0 where nobody has to race."""
    order_purpose: bytes = b""
    """What its place in that race is hashed with."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One block of text and the items in play for it."""

    block: str = ""
    tokens: int = 0
    """cl100k_base, of the whole block; 0 without one."""
    injections: tuple[InjectionRecord, ...] = ()
    """Contexts."""
    drawn: tuple[InjectionSet, ...] = ()
    """Patterns, by dimension."""


NOTHING: Final = Selection()


def conversation_seed(secret: bytes, conversation_id: str) -> bytes:
    """Return the 32 bytes from which all draws of one conversation come."""
    return hmac.digest(secret, conversation_id.encode("utf-8", "surrogatepass"), "sha256")


def is_holdout(seed: bytes, share: float) -> bool:
    """Return whether the conversation of *seed* belongs to the *share* that never gets patterns."""
    return uniform(seed, b"holdout") < share


def uniform(seed: bytes, purpose: bytes) -> float:
    """Return a number in [0, 1) that is fixed for its arguments and looks random without the secret."""
    return uniforms(seed)(purpose)


def uniforms(seed: bytes) -> Callable[[bytes], float]:
    """Return ``uniform`` of one *seed*, for several purposes: the key is taken in once."""
    # BLAKE2's keyed mode is a MAC like HMAC, at a third of its cost for so short a text (RFC 7693, section 2.9).
    keyed = hashlib.blake2b(key=seed, digest_size=8)

    def draw(purpose: bytes) -> float:
        digest = keyed.copy()
        digest.update(purpose)
        return (int.from_bytes(digest.digest(), "big") >> 11) * 2.0**-53

    return draw


class PlanIndex:
    """The dimensions of one plan by facts, worked out once for all facts that its conditions cannot tell apart."""

    def __init__(self, plan: Plan, section: PatternsSection) -> None:
        self._plan = plan
        self._section = section
        self._named = {
            name: frozenset(value for pattern in plan.patterns for value in getattr(pattern.conditions, name))
            for name in Conditions.__struct_fields__
        }
        for pattern in plan.patterns:
            self._named["question_type"] |= {cell.question_type for cell in pattern.cells}
            if plan.group_field:
                self._named[plan.group_field] |= {cell.group for cell in pattern.cells}
        self._tools = tuple(sorted({tool for pattern in plan.patterns if (tool := tool_of(pattern))}))
        self._known: dict[tuple[str | tuple[str, ...] | None, ...], tuple[Dimension, ...]] = {}

    def dimensions(self, facts: Facts) -> tuple[Dimension, ...]:
        """Return what ``matching_dimensions`` does."""
        if not self._plan.patterns:
            return ()
        told = [value if (value := getattr(facts, name)) in named else "" for name, named in self._named.items()]
        offered = facts.tools if facts.tools is None else tuple([tool for tool in self._tools if tool in facts.tools])
        key = (*told, offered)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_KNOWN_FACTS:
                self._known.clear()
            like = Facts(**dict(zip(self._named, told, strict=True)), tools=offered)
            found = self._known[key] = matching_dimensions(self._plan, like, self._section)
        return found


def matching_dimensions(plan: Plan, facts: Facts, section: PatternsSection) -> tuple[Dimension, ...]:
    """Return the dimensions with at least one arm whose conditions match, pinned ones first, in the order of the plan.

    Where the dearest arms of all of them together exceed the budget, those that are not pinned have a ``priority``.
    Shares of a dimension are scaled so that none of them keeps at least ``hold_back``; a pinned pattern (a
    person's word) takes its whole dimension.
    """
    group = getattr(facts, plan.group_field) if plan.group_field else ""
    arms: dict[str, list[tuple[ServedPattern, float]]] = {}
    for pattern in plan.patterns:
        if not is_offered(tool_of(pattern), facts):
            continue
        if matches(pattern.conditions, facts) and (share := share_in(pattern, facts.question_type, group)) > 0:
            arms.setdefault(pattern.dimension, []).append((pattern, share))
    dimensions = [_dimension(name, arms[name], section) for name in plan.dimensions if name in arms]
    dimensions.sort(key=lambda dimension: not dimension.is_pinned)
    if not plan.priorities or sum(dimension.dearest_tokens for dimension in dimensions) <= arm_budget(section):
        return tuple(dimensions)
    priorities = _priorities(plan)
    return tuple(
        dimension if dimension.is_pinned else replace(dimension, priority=priorities[dimension.name])
        for dimension in dimensions
    )


def arm_budget(section: PatternsSection) -> int:
    """Return how many tokens the lines of patterns may have together."""
    return section.max_tokens - PATTERN_FRAME_TOKENS - JOIN_TOKENS


def share_in(pattern: ServedPattern, question_type: str, group: str) -> float:
    """Return the pattern's share in the cell of *question_type* and *group*.

    The cell itself goes first, then the type over all groups without a cell of their own, the group over all types
    without one, what has neither, and last the pattern's own share. A pinned pattern has all of every cell.
    """
    if pattern.state == "pinned":
        return 1.0
    if not pattern.cells:
        return pattern.share
    shares = {(cell.question_type, cell.group): cell.share for cell in pattern.cells}
    cells = ((question_type, group), (question_type, ""), ("", group), ("", ""))
    return next((shares[cell] for cell in cells if cell in shares), pattern.share)


def _priorities(plan: Plan) -> dict[str, float]:
    """Return what each dimension is worth per token, above 0; one that nobody judged counts as a middling one."""
    known = dict(plan.priorities)
    largest = max(known.values())
    if largest <= 0:
        return dict.fromkeys(plan.dimensions, 1.0)
    middle = statistics.median(known.values())
    return {name: max(known.get(name, middle) / largest, MIN_PRIORITY) for name in plan.dimensions}


def matches(conditions: Conditions, facts: Facts) -> bool:
    """Return whether every restricted field holds one of its values."""
    return (
        (not conditions.question_type or facts.question_type in conditions.question_type)
        and (not conditions.data_source or facts.data_source in conditions.data_source)
        and (not conditions.prompt_template or facts.prompt_template in conditions.prompt_template)
        and (not conditions.segment or facts.segment in conditions.segment)
    )


def is_offered(tool: str, facts: Facts) -> bool:
    """Return whether *tool* is among the tools offered; '' is no tool, so nothing has to be."""
    return not tool or facts.tools is None or tool in facts.tools


def _dimension(name: str, shares: list[tuple[ServedPattern, float]], section: PatternsSection) -> Dimension:
    pinned = [pattern for pattern, _ in shares if pattern.state == "pinned"]
    if pinned:
        word = max(pinned, key=lambda pattern: (pattern.conditions.specificity, pattern.id))
        return _make_dimension(name, [(word, 1.0)], section.holdout, is_pinned=True)
    scale = min(1.0, (1.0 - section.hold_back) / sum(share for _, share in shares))
    shares.sort(key=lambda arm: arm[0].id)
    return _make_dimension(name, [(pattern, share * scale) for pattern, share in shares], section.holdout)


def _make_dimension(
    name: str, shares: Sequence[tuple[ServedPattern, float]], holdout: float, *, is_pinned: bool = False
) -> Dimension:
    def in_play(drawn: ServedPattern | None) -> InjectionSet:
        injections = tuple(
            InjectionRecord(
                "pattern", pattern.id, name, share * (1 - holdout), share, pattern is drawn, None, pattern.tokens
            )
            for pattern, share in shares
        )
        return make_set(injections)

    return Dimension(
        name=name,
        purpose=b"dimension " + name.encode(),
        arms=tuple(Arm(pattern, share, pattern_line(pattern.rule), in_play(pattern)) for pattern, share in shares),
        untreated=in_play(None),
        dearest_tokens=max(pattern.tokens for pattern, _ in shares),
        is_pinned=is_pinned,
        order_purpose=b"order " + name.encode(),
    )


def select_patterns(
    dimensions: Sequence[Dimension], seed: bytes, section: PatternsSection, *, holdout: bool
) -> Selection:
    """Return the patterns drawn for the conversation of *seed* and all arms that were in play, by dimension.

    A dimension whose dearest arm does not fit into what is left of the budget is not drawn at all. Whether it fits
    depends on its place and on what others drew, never on its own draw, so that propensities stay exact. A *holdout*
    conversation logs the same arms, all of them untreated.
    """
    budget = arm_budget(section)
    tokens_left = budget
    arms: list[Arm] = []
    drawn: list[InjectionSet] = []
    draw = uniforms(seed)
    if dimensions and dimensions[-1].priority:
        dimensions = _raced(dimensions, draw)
    for dimension in dimensions:
        if dimension.dearest_tokens > tokens_left:
            continue
        arm = _draw(dimension, draw(dimension.purpose))
        if arm is None:
            drawn.append(dimension.untreated)
            continue
        arms.append(arm)
        tokens_left -= arm.pattern.tokens
        drawn.append(dimension.untreated if holdout else arm.drawn)
    if holdout or not arms:
        return Selection(drawn=tuple(drawn))
    arms.sort(key=_arm_id)
    block = f"{PATTERN_HEADER}{''.join([arm.line for arm in arms])}{PATTERN_FOOTER}"
    return Selection(block, PATTERN_FRAME_TOKENS + budget - tokens_left, drawn=tuple(drawn))


def _raced(dimensions: Sequence[Dimension], draw: Callable[[bytes], float]) -> list[Dimension]:
    """Return *dimensions* in this conversation's order: pinned ones first, the others by perturbed priority."""

    # log(priority) plus Gumbel noise, largest first, is the same order as exponential times over priorities, smallest
    # first. Source: Yellott 1977, J. Math. Psychology 15(2).
    def time(dimension: Dimension) -> float:
        if not dimension.priority:
            return -1.0
        return -math.log1p(-draw(dimension.order_purpose)) / dimension.priority

    return sorted(dimensions, key=time)


_arm_id: Final = attrgetter("pattern.id")


def _draw(dimension: Dimension, point: float) -> Arm | None:
    for arm in dimension.arms:
        point -= arm.share
        if point < 0:
            return arm
    return None
