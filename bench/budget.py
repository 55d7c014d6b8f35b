"""What choosing by worth per token loses against the best choice within the budget of tokens.

``python -m bench.budget`` prints a section of RESULTS.md. Plans are random but always the same: more dimensions than
the budget holds, arms under conditions, seen from conversations of different facts. Greedy choice (each dimension's
arm of most lift, most lift per token first, whatever still fits) is compared with the exact solution of the same
knapsack, at most one arm of each dimension, which is found here by going through every number of tokens. The noise that
``proxy.selection`` adds to the order, so that all dimensions are tried, is not part of this.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.bars import at_least, print_bar, table
from proxy.selection import Dimension, Facts, arm_budget, matching_dimensions, select_patterns
from store.config import load_config
from store.plan import Conditions, Plan, ServedPattern, build_plan

N_PLANS = 200
N_DIMENSIONS = 24
QUESTION_TYPES = ("refund", "howto", "code")
MIN_MEAN, MIN_WORST = 0.97, 0.80  # of the exact lift
SEED = b"b" * 32


def random_plan(chance: np.random.Generator) -> Plan:
    """Return a plan in which every second arm holds for one question type alone."""
    patterns = [
        ServedPattern(
            id=f"pat-{number:03}",
            type="response_format",
            dimension=f"bench:{number // 2}",
            rule="Rule.",
            conditions=Conditions(question_type=(str(chance.choice(QUESTION_TYPES)),) if number % 2 else ()),
            state="active",
            tokens=int(chance.integers(10, 70)),
            share=0.45,
            lift=float(chance.exponential(0.05)),
        )
        for number in range(2 * N_DIMENSIONS)
    ]
    return build_plan(patterns)


def certain(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Return *dimensions*, each with its arm of most lift alone and always drawn, best worth per token first."""
    best = []
    for dimension in dimensions:
        arm = max(dimension.arms, key=lambda arm: arm.pattern.lift)
        best.append(replace(dimension, arms=(replace(arm, share=1.0),), dearest_tokens=arm.pattern.tokens))
    return sorted(best, key=lambda dimension: -dimension.arms[0].pattern.lift / dimension.dearest_tokens)


def exact_lift(dimensions: Sequence[Dimension], budget: int) -> float:
    """Return the largest sum of lifts of at most one arm of each dimension within *budget* tokens."""
    best = np.zeros(budget + 1)  # by tokens
    for dimension in dimensions:
        without = best
        for arm in dimension.arms:
            tokens = arm.pattern.tokens
            if tokens <= budget:
                taken = np.full(budget + 1, -np.inf)
                taken[tokens:] = without[: budget + 1 - tokens] + arm.pattern.lift
                best = np.maximum(best, taken)
    return float(best[budget])


def main() -> None:
    """Print the section."""
    section = load_config().patterns
    chance = np.random.default_rng(4)
    ratios = []
    for _ in range(N_PLANS):
        plan = random_plan(chance)
        lifts = {pattern.id: pattern.lift for pattern in plan.patterns}
        for question_type in QUESTION_TYPES:
            dimensions = matching_dimensions(plan, Facts(question_type), section)
            chosen = select_patterns(certain(dimensions), SEED, section, holdout=False)
            got = sum(lifts[item.item_id] for drawn in chosen.drawn for item in drawn.items if item.treated)
            ratios.append(got / exact_lift(dimensions, arm_budget(section)))
    mean, worst, equal = float(np.mean(ratios)), min(ratios), float(np.mean(np.array(ratios) > 1 - 1e-9))
    print("## The choice within the budget against the best one\n")
    print(f"{len(ratios)} choices on {N_PLANS} random plans of {N_DIMENSIONS} dimensions.\n")
    print(table(("mean", "worst", "equal"), [(f"{mean:.4f}", f"{worst:.4f}", f"{equal:.0%}")]))
    what = "lift of the choice by worth per token, of the exact one"
    print_bar(at_least(f"{what}, mean", f"at least {MIN_MEAN:.2f}", MIN_MEAN, [mean], "{:.4f}"))
    print_bar(at_least(f"{what}, worst", f"at least {MIN_WORST:.2f}", MIN_WORST, [worst], "{:.4f}"))


if __name__ == "__main__":
    main()
