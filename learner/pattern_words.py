"""A pattern's evidence in plain words, for API, command and console; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from store.pattern_evidence import Arm
from store.patterns import PatternRow
from store.plan import CellShare, Conditions

RATES: Final = (
    ("rating", "replies that people rate", 1),
    ("follow_up", "replies that need a follow-up", -1),
    ("regenerate", "replies that are regenerated", -1),
)
ARM_WORDS: Final[Mapping[Arm, str]] = {
    "treated": "With it",
    "control": "Without it, by lot",
    "natural": "As it asks, by themselves",
}
SLIGHT: Final = 0.005  # a difference in a rate that reads as none
FIGURES: Final = (
    ("difference", "difference seen {:+.3f}"),
    ("standard_error", "standard error {:.3f}"),
    ("n_rated", "{:,} rated replies"),
    ("confidence", "P(helps) {:.2f}"),
    ("e_value", "e-value {:.3g}"),
    ("signal_count", "{:,} signals"),
    ("share", "share {:.2f}"),
)


@dataclass(frozen=True, slots=True)
class RateDifference:
    """How a rate is with the pattern, against the conversations that did without it by lot."""

    name: str
    difference: float  # treated minus control
    is_worse: bool
    words: str


def explained(row: PatternRow, group_field: str) -> dict[str, Any]:
    """Return words, grade, lift, shares and guardrails of a pattern in words, as the API shows them."""
    return {
        "words": words_in_words(row),
        "grade": grade_in_words(row),
        "lift": lift_in_words(row),
        "shares": shares_in_words(row, group_field),
        "guardrails": [rate.words for rate in rates(row)],
    }


def words_in_words(row: PatternRow) -> str:
    """Return whose words the rule is made of, and from when on they were measured."""
    if row.reworded_at is not None:
        return f"a person's since {row.reworded_at}; what was measured before was of other words and does not count"
    return "a person's" if row.origin == "person" else "the learner's"


def grade_in_words(row: PatternRow) -> str:
    """Return what the pattern's grade says, and why it has none."""
    if row.grade == "proven":
        return (
            "proven: randomised traffic shows that it helps; of all patterns called proven, at most about one in "
            "twenty is expected to be there by chance, however often anyone looks"
        )
    if row.grade == "provisional":
        why = "a person wants it used" if row.state == "pinned" else "the evidence so far favours it"
        return f"provisional: {why}, but the strict test has not confirmed it; it is measured further"
    if row.state == "pinned":
        return "none: a person pinned it, so it is used everywhere and nothing is left to compare it with"
    if row.state == "trial":
        return "none yet: it is being tried on a random share of the traffic"
    if row.state == "candidate":
        return "none yet: it was seen in the records, where other causes are possible, and was not tried so far"
    return "none: it is not in use"


def lift_in_words(row: PatternRow) -> str:
    """Return the lift with its interval and what that means."""
    if row.lift is None or row.lift_low is None or row.lift_high is None:
        return "no randomised evidence yet"
    figures = f"{row.lift:+.3f}, 95 % interval {row.lift_low:+.3f} to {row.lift_high:+.3f}"
    if row.lift_low > 0:
        return f"{figures}: it raises satisfaction"
    if row.lift_high < 0:
        return f"{figures}: it lowers satisfaction"
    return f"{figures}: it may help, harm or do nothing"


def conditions_in_words(conditions: Conditions) -> str:
    """Return when a pattern applies.

    >>> conditions_in_words(Conditions(question_type=("refund", "price"), segment=("pro",)))
    'question type refund or price, segment pro'
    """
    named = {name: getattr(conditions, name) for name in conditions.__struct_fields__}
    return ", ".join(f"{name.replace('_', ' ')} {' or '.join(values)}" for name, values in named.items() if values) or (
        "always"
    )


def shares_in_words(row: PatternRow, group_field: str) -> list[str]:
    """Return which share of the matching conversations gets the pattern, where it differs cell by cell.

    Args:
        row: the pattern.
        group_field: what a cell's group is a value of (``segment``, ...); '' when there are none.
    """
    if not row.cells and row.share == 0:
        return ["no conversation gets it"]
    if not row.cells:
        return [f"{row.share * 100:.0f} % of the conversations that match"]
    cells = sorted(row.cells, key=lambda cell: (-cell.share, cell.question_type, cell.group))
    lines = [f"{cell.share * 100:.0f} % {_cell_in_words(cell, group_field)}" for cell in cells]
    return [*lines, f"{row.share * 100:.0f} % of all other conversations that match"]


def _cell_in_words(cell: CellShare, group_field: str) -> str:
    name = group_field.replace("_", " ") or "group"
    where = f"of question type {cell.question_type}" if cell.question_type else "of other question types"
    if cell.group:
        return f"{where}, {name} {cell.group}"
    return f"{where}, any other {name}" if group_field else where


def rates(row: PatternRow) -> list[RateDifference]:
    """Return what else changed with the pattern, those rates that are known."""
    return [_rate(name, row.guardrails[metric], wanted) for metric, name, wanted in RATES if metric in row.guardrails]


def _rate(name: str, difference: float, wanted: int) -> RateDifference:
    is_worse = difference * wanted < 0 and abs(difference) >= SLIGHT
    if abs(difference) < SLIGHT:
        words = f"{name}: no difference"
    else:
        how = "more" if difference > 0 else "fewer"
        words = f"{name}: {abs(difference) * 100:.1f} in 100 {how} ({'worse' if is_worse else 'better'})"
    return RateDifference(name, difference, is_worse, words)


def figures_in_words(detail: Mapping[str, Any]) -> str:
    """Return the figures of an event, those that it has.

    >>> figures_in_words({"lift": 0.1, "lift_low": 0.02, "lift_high": 0.18, "signal_count": 1200, "share": None})
    'lift +0.10 (+0.02 to +0.18), 1,200 signals'
    """
    lift: Sequence[Any] = [detail.get(name) for name in ("lift", "lift_low", "lift_high")]
    words = [] if None in lift else ["lift {:+.2f} ({:+.2f} to {:+.2f})".format(*lift)]
    words += [form.format(detail[name]) for name, form in FIGURES if isinstance(detail.get(name), (int, float))]
    words += [f'before: "{detail["rule_before"]}"'] if "rule_before" in detail else []
    return ", ".join(words)
