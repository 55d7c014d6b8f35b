"""The plan: the patterns of one generation as the proxy serves them.

Derived from rows; written by the learner's side, read by the proxy's; an immutable value.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from store.vocabulary import AVOID, PatternState, PatternType


class Conditions(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a pattern applies: every named field must hold one of its values; an empty one holds always."""

    question_type: tuple[str, ...] = ()
    data_source: tuple[str, ...] = ()
    prompt_template: tuple[str, ...] = ()
    segment: tuple[str, ...] = ()

    @property
    def specificity(self) -> int:
        """Return how many fields are restricted."""
        return sum(bool(getattr(self, name)) for name in self.__struct_fields__)


class CellShare(msgspec.Struct, frozen=True, array_like=True):
    """A pattern's share in one cell of the learner's model, where it differs from the pattern's own."""

    question_type: str
    group: str
    """Value of the plan's ``group_field``; '' when the plan has none."""
    share: float


class ServedPattern(msgspec.Struct, frozen=True):
    """One pattern of a plan; ``share`` is P(injected | its conditions match, not holdout, nothing competes)."""

    id: str
    type: PatternType
    dimension: str
    rule: str
    conditions: Conditions
    state: PatternState
    tokens: int  # of its rendered line, cl100k_base
    share: float  # 0 .. 1; pinned: 1; for conversations in no cell of ``cells``
    lift: float  # expected, for the order of dimensions
    cells: tuple[CellShare, ...] = ()
    value: str = ""
    """What it asks for of its dimension; '' when its words are a person's own."""


def tool_of(pattern: ServedPattern) -> str:
    """Return the tool that a pattern speaks of, '' for none: it can only hold where that is offered."""
    return pattern.value.removeprefix(AVOID) if pattern.type == "tool_preference" else ""


class Plan(msgspec.Struct, frozen=True):
    """All patterns of one generation, dimensions in the order in which they draw on the token budget."""

    patterns: tuple[ServedPattern, ...] = ()
    dimensions: tuple[str, ...] = ()
    group_field: str = ""
    """Field of the facts whose value is a cell's group: segment, data_source or prompt_template; '' for none."""
    priorities: tuple[tuple[str, float], ...] = ()
    """Dimension -> how much it is worth per token, for the order in which conversations draw on the budget."""


EMPTY_PLAN = Plan()


def build_plan(
    patterns: Iterable[ServedPattern], *, group_field: str = "", priorities: Mapping[str, float] | None = None
) -> Plan:
    """Return the plan of *patterns*: pinned dimensions first, then by expected lift per token, best first.

    The order of patterns and of dimensions depends on their values alone, so that the same rows always make the
    same plan (and the proxy the same block). Of *priorities*, those of dimensions without a pattern are left out.
    """
    ordered = sorted(patterns, key=lambda pattern: pattern.id)
    dimensions = sorted({pattern.dimension for pattern in ordered})
    return Plan(
        patterns=tuple(ordered),
        dimensions=tuple(sorted(dimensions, key=lambda name: _priority([p for p in ordered if p.dimension == name]))),
        group_field=group_field,
        priorities=tuple((name, (priorities or {})[name]) for name in dimensions if name in (priorities or {})),
    )


def _priority(patterns: Sequence[ServedPattern]) -> tuple[bool, float, str]:
    is_pinned = any(pattern.state == "pinned" for pattern in patterns)
    density = max(max(pattern.lift, 0.0) / max(pattern.tokens, 1) for pattern in patterns)
    return (not is_pinned, -density, patterns[0].dimension)


def encode_plan(plan: Plan) -> str:
    """Return *plan* as JSON text, the form of ``generations.plan_json``."""
    return msgspec.json.encode(plan).decode()


def decode_plan(text: str) -> Plan:
    """Return the plan in *text*.

    Raises:
        ValueError: *text* is not an encoded plan.
    """
    return msgspec.json.decode(text, type=Plan)


def decode_conditions(text: str) -> Conditions:
    """Return the conditions in *text* (``conditions_json``); a single value may stand without its list.

    Raises:
        ValueError: an unknown field or a value that is no text.

    >>> decode_conditions('{"question_type": "refund"}')
    Conditions(question_type=('refund',), data_source=(), prompt_template=(), segment=())
    """
    raw = msgspec.json.decode(text)
    if isinstance(raw, dict):
        raw = {key: [value] if isinstance(value, str) else value for key, value in raw.items() if value is not None}
    return msgspec.convert(raw, type=Conditions)


def encode_conditions(conditions: Conditions) -> str:
    """Return *conditions* as JSON text, fields that always hold left out.

    >>> encode_conditions(Conditions(question_type=("refund",)))
    '{"question_type":["refund"]}'
    """
    return msgspec.json.encode(conditions).decode()


def decode_cells(text: str) -> tuple[CellShare, ...]:
    """Return the shares in *text* (``cells_json``).

    Raises:
        ValueError: *text* is not the JSON of cells.
    """
    return msgspec.json.decode(text, type=tuple[CellShare, ...])


def encode_cells(cells: tuple[CellShare, ...]) -> str:
    """Return *cells* as JSON text.

    >>> encode_cells((CellShare("refund", "", 0.25),))
    '[["refund","",0.25]]'
    """
    return msgspec.json.encode(cells).decode()


def digest(*parts: str) -> str:
    """Return 16 hex characters that stand for *parts* (a template's or a tool set's name in records)."""
    return hashlib.blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
