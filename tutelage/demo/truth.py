"""What only the demo can know: whether a learned pattern really helps, from the hidden preferences themselves."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from store.patterns import PatternRow
from tutelage.demo.library import Library
from tutelage.demo.model import FACTS, natural_style, render
from tutelage.demo.style import Style, obey, read_style
from tutelage.demo.users import PREFERENCES, TRAFFIC_SHARES, Preference

Verdict = Literal["helps", "does nothing", "hurts"]

N_DRAWS = 200  # questions per type over which an effect is averaged
CONTRASTS = (Style("prose", "medium", False), Style("table", "long", True), Style("list", "short", True))
NEGLIGIBLE = 0.1  # effects under this count as none: the planted ones are 0.6 and more


@dataclass(frozen=True, slots=True)
class Effect:
    """The average change in liking that a rule causes in the conversations it is meant for."""

    liking: float
    verdict: Verdict


def effect_of(pattern: PatternRow, pool: Mapping[str, Sequence[str]], library: Library) -> Effect:
    """Return what *pattern* truly does: the model's answers with and without its rule, read by an average user.

    It depends on the rule and its conditions alone, not on anything that was learned.
    """
    types = [name for name in TRAFFIC_SHARES if name in (pattern.conditions.question_type or TRAFFIC_SHARES)]
    if not types:
        return Effect(0.0, "does nothing")
    weight = sum(TRAFFIC_SHARES[name] for name in types)
    mean = sum(TRAFFIC_SHARES[name] * _effect(pattern.rule, name, pool[name], library) for name in types) / weight
    return Effect(mean, "helps" if mean > NEGLIGIBLE else "hurts" if mean < -NEGLIGIBLE else "does nothing")


def _effect(rule: str, question_type: str, questions: Sequence[str], library: Library) -> float:
    draw = random.Random(question_type)  # noqa: S311 - a repeatable draw, nothing secret
    total = 0.0
    for number in range(N_DRAWS):
        question = questions[number % len(questions)]
        natural = natural_style(question, library.intent(question), draw)
        obeyed = obey(natural, [rule])
        total += _liking(question_type, _seen(question, obeyed, library))
        total -= _liking(question_type, _seen(question, natural, library))
    return total / N_DRAWS


def _seen(question: str, style: Style, library: Library) -> Style:
    return read_style(render(library.facts(question, FACTS[style.length]), style))


def _liking(question_type: str, style: Style) -> float:
    return sum(preference.effect for preference in PREFERENCES if preference.holds(question_type, style))


def asks_for(pattern: PatternRow, preference: Preference) -> bool:
    """Return whether *pattern* makes the model do what *preference* speaks of, for its type of question."""
    types = pattern.conditions.question_type
    if types and preference.question_type not in types:
        return False
    others = [style for style in CONTRASTS if str(getattr(style, preference.trait)) != preference.value]
    return all(str(getattr(obey(style, [pattern.rule]), preference.trait)) == preference.value for style in others)


def wish(preference: Preference) -> Preference:
    """Return what a pattern should ask for: the preference itself, or the opposite of a dislike."""
    if preference.effect >= 0:
        return preference
    opposite = {"True": "False", "False": "True"}[preference.value]
    return Preference(preference.question_type, preference.trait, opposite, -preference.effect)


def best_match(patterns: Iterable[PatternRow], preference: Preference) -> PatternRow | None:
    """Return the pattern that asks for *preference* and got furthest in its life, None when there is none."""
    order = ("active", "pinned", "warmdown", "trial", "candidate", "retired", "disabled")
    found = [pattern for pattern in patterns if asks_for(pattern, preference)]
    return min(found, key=lambda pattern: (order.index(pattern.state), -(pattern.lift or 0.0)), default=None)
