"""What all runs together say: tables for the page, and the bars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.bars import Bar, at_least, at_most, table
from bench.simulation.scenarios import ORIGIN, ORIGIN_FIXED, PRODUCT, REFERENCE, Task

Figures = Mapping[str, Any]
Runs = Mapping[tuple[str, str], Sequence[Figures]]  # (scenario, learner) -> one per seed, in order of seeds

NAMES = {
    PRODUCT: "Tutelage",
    ORIGIN: "origin, as published",
    ORIGIN_FIXED: "origin, debiasing fixed",
    REFERENCE: "reference e",
}
MIN_ACTIVE_SIGNALS = {"one effect of 0.4": 8_000, "one effect of 0.2": 12_000}


def by_kind(results: Sequence[tuple[Task, Figures]]) -> Runs:
    """Return the figures of each scenario and learner, in order of seeds."""
    runs: dict[tuple[str, str], list[Figures]] = {}
    for task, figures in sorted(results, key=lambda result: result[0].seed):
        runs.setdefault((task.scenario.name, task.learner), []).append(figures)
    return runs


def mean(figures: Sequence[Figures], name: str) -> float:
    """Return the mean of a figure over the runs that have it; nan without any."""
    known = [one[name] for one in figures if one.get(name) is not None]
    return float(np.mean(known)) if known else float("nan")


def total(figures: Sequence[Figures], name: str) -> float:
    return float(sum(one[name] for one in figures))


def of_oracle(figures: Sequence[Figures], name: str) -> float:
    """Return the lift in percent of the oracle's, over all runs together; nan where there is none to gain."""
    reached = {"auc": "orc", "final": "orc_final"}[name]
    possible = total(figures, reached)
    return 100 * total(figures, name) / possible if possible else float("nan")


def share(figures: Sequence[Figures], part: str, whole: str) -> float:
    """Return the ratio of two sums in percent; nan where the whole is nothing."""
    return 100 * total(figures, part) / total(figures, whole) if total(figures, whole) else float("nan")


def shown(value: float, form: str = "{:.1f}") -> str:
    return "-" if np.isnan(value) else form.format(value)


def what_ran(wanted: Sequence[Task], results: Sequence[tuple[Task, Figures]]) -> str:
    """Return which of the worlds that belong to the whole were run, and that no other was."""
    done = {(task.scenario.name, task.learner, task.seed) for task, _ in results}
    counts: dict[tuple[str, str], list[bool]] = {}
    for task in wanted:
        key = (task.scenario.name, task.learner)
        counts.setdefault(key, []).append((*key, task.seed) in done)
    parts = [f"{name}, {NAMES[learner]}: {sum(ran)} of {len(ran)}" for (name, learner), ran in counts.items()]
    seeds = sorted({task.seed for task, _ in results})
    return f"Worlds that were run (seeds {', '.join(map(str, seeds))}): {'; '.join(parts)}.\n"


MAIN_HEADER = (
    "world",
    "learner",
    "worlds",
    "lift, % of oracle",
    "at the end",
    "precision of active cells",
    "active pattern-days false, %",
    "proven (false)",
    "helpers active by day 60, %",
    "served there, %",
    "harmful pattern-days per 90 d",
    "activations",
    "of them again",
    "alarms",
)


def main_table(runs: Runs) -> str:
    """Return the comparison of learners in worlds with planted effects."""
    return table(
        MAIN_HEADER,
        [
            (
                scenario,
                NAMES[learner],
                str(len(figures)),
                shown(of_oracle(figures, "auc")),
                shown(of_oracle(figures, "final")),
                shown(mean(figures, "precision"), "{:.2f}"),
                shown(share(figures, "active_false", "active")),
                f"{total(figures, 'proofs'):.0f} ({total(figures, 'proofs_false'):.0f})" if learner == PRODUCT else "-",
                shown(share(figures, "helpers_active", "helpers")),
                shown(share(figures, "helpers_served", "helpers")),
                shown(mean(figures, "harmful_days")),
                shown(mean(figures, "activations")),
                shown(mean(figures, "reactivations")),
                shown(mean(figures, "crashes")),
            )
            for (scenario, learner), figures in runs.items()
        ],
    )


def _per_seed(figures: Sequence[Figures], name: str) -> str:
    return ", ".join("-" if one.get(name) is None else f"{one[name]:g}" for one in figures)


def detail_table(runs: Runs) -> str:
    """Return what single worlds show: false activations, brevity, detection, all for the product."""
    rows = []
    for (scenario, learner), figures in runs.items():
        if scenario == "null":
            rows.append((scenario, NAMES[learner], "false activations, by tenant", _per_seed(figures, "activations")))
            if learner == PRODUCT:
                rows.append((scenario, NAMES[learner], "of them proven", _per_seed(figures, "proofs")))
        elif scenario.startswith("brevity"):
            rows.append((scenario, NAMES[learner], "days to under 25 % share", _per_seed(figures, "brev_days")))
            rows.append((scenario, NAMES[learner], "highest share", _per_seed(figures, "brev_max")))
        elif scenario.startswith("one effect"):
            rows.append((scenario, NAMES[learner], "signals until active", _per_seed(figures, "sig_on")))
        elif learner == PRODUCT and scenario == "mixed":
            rows.append((scenario, NAMES[learner], "lift by world, % of oracle", _oracle_by_seed(figures, "auc")))
            rows.append((scenario, NAMES[learner], "at the end", _oracle_by_seed(figures, "final")))
            rows += [(scenario, NAMES[learner], *line) for line in helper_lines(figures)]
    return table(("world", "learner", "what", "figures"), rows)


def _oracle_by_seed(figures: Sequence[Figures], name: str) -> str:
    return ", ".join(f"{of_oracle([one], name):.0f}" for one in figures)


def helper_lines(figures: Sequence[Figures]) -> list[tuple[str, str]]:
    """Return by kind of helper in how many worlds it became active and was served, at any time."""
    lines = []
    for way in ("active", "served"):
        days: dict[tuple[str, float], list[float | None]] = {}
        for one in figures:
            for what, effect, day in one[f"helper_days_{way}"]:
                days.setdefault((what, effect), []).append(day)
        parts = [
            f"{what} {effect:g}: {sum(day is not None for day in found)} of {len(found)}"
            for (what, effect), found in days.items()
        ]
        lines.append((f"helpers {way}, at any time", "; ".join(parts)))
    return lines


def bars(runs: Runs) -> list[Bar]:
    """Return the bars that the worlds run so far can say something about."""
    return [bar for bar in (*_mixed_bars(runs), *_other_bars(runs)) if bar.is_met is not None]


def _product(runs: Runs, scenario: str) -> Sequence[Figures]:
    return runs.get((scenario, PRODUCT), [])


def _mixed_bars(runs: Runs) -> list[Bar]:
    mixed, origin = _product(runs, "mixed"), runs.get(("mixed", ORIGIN_FIXED), [])
    if not mixed:
        return []
    proven = [f for (_, learner), figures in runs.items() if learner == PRODUCT for f in figures]
    false_share = share(proven, "proofs_false", "proofs")
    auc, final = of_oracle(mixed, "auc"), of_oracle(mixed, "final")
    found = [
        at_most(
            f"learning: proven patterns that do not help, all worlds ({total(proven, 'proofs'):.0f} proofs)",
            "at most 5 %",
            5.0,
            [] if np.isnan(false_share) else [false_share],
            "{:.1f} %",
        ),
        at_least("learning: precision of active cells, 12k signals", "at least .90", 0.90, [mean(mixed, "precision")]),
        at_least("learning: satisfaction lift over 90 days, % of the oracle's", "at least 45", 45.0, [auc], "{:.1f}"),
        at_least("learning: the same in the last 10 days", "at least 55", 55.0, [final], "{:.1f}"),
        at_most("learning: activations of what was removed, median world", "0", 0, [_median(mixed, "reactivations")]),
        at_most("learning: false crash alarms a year", "at most 1", 1.0, [_alarms_per_year(mixed)]),
    ]
    if origin:
        best = [of_oracle(origin, "auc"), of_oracle(origin, "final")]
        found.append(
            Bar(
                "learning: lift against the origin's with its debiasing fixed, 90 days / at the end",
                f"above {best[0]:.1f} / {best[1]:.1f}",
                f"{auc:.1f} / {final:.1f}",
                auc > best[0] and final > best[1],
            )
        )
    return found


def _median(figures: Sequence[Figures], name: str) -> float:
    return float(np.median([one[name] for one in figures]))


def _alarms_per_year(figures: Sequence[Figures]) -> float:
    """Return alarms on other days than the planted outage (day 60, seen for a day more), per 365 days."""
    false = sum(not 60 <= day <= 62 for one in figures for day in one["crash_days"])
    return false / len(figures) * 365 / 90


def _other_bars(runs: Runs) -> list[Bar]:
    mixed, null = _product(runs, "mixed"), _product(runs, "null")
    found = []
    if null:
        activations, proofs = mean(null, "activations"), mean(null, "proofs")
        found += [
            at_most("learning: false activations in 90 days where nothing helps", "at most 1", 1.0, [activations]),
            at_most("learning: false proofs there", "at most .1", 0.1, [proofs]),
            at_most(
                f"learning: e-values that ever pass 20 there, at any of 360 looks ({total(null, 'tested'):,.0f} keys)",
                "at most 5 %",
                5.0,
                [share(null, "tested_passed", "tested")],
                "{:.2f} %",
            ),
            at_most("learning: false crash alarms a year there", "at most 1", 1.0, [_alarms_per_year(null)]),
        ]
    for scenario, most in (("flooder", (5.0, 5.0)), ("five flooders", (6.0, 12.0))):
        flooded = _product(runs, scenario)
        if flooded and mixed:
            same = mixed[: len(flooded)]
            cost = [of_oracle(same, name) - of_oracle(flooded, name) for name in ("auc", "final")]
            found.append(
                Bar(
                    f"learning: what {scenario} cost in points of lift, 90 days / at the end",
                    f"at most {most[0]:g} / {most[1]:g}",
                    f"{cost[0]:.1f} / {cost[1]:.1f}",
                    cost[0] <= most[0] and cost[1] <= most[1],
                )
            )
    for scenario, average, worst in (("brevity", 10.0, 20.0), ("brevity 100k", 6.0, 6.0)):
        runs_there = _product(runs, scenario)
        if runs_there:
            days = [float("inf") if one["brev_days"] is None else one["brev_days"] for one in runs_there]
            figures = [float(np.mean(days)), max(days)]
            limit = f"at most {average:g} on average, {worst:g} at worst"
            is_met = figures[0] <= average and figures[1] <= worst
            found.append(
                Bar(
                    f"learning: {scenario}: days until a trap is left",
                    limit,
                    f"{figures[0]:.1f} / {figures[1]:.1f}",
                    is_met,
                )
            )
    for scenario, signals in MIN_ACTIVE_SIGNALS.items():
        runs_there = _product(runs, scenario)
        if runs_there:
            needed = [float("inf") if one["sig_on"] is None else one["sig_on"] for one in runs_there]
            found.append(
                at_most(
                    f"learning: signals until {scenario} is active", f"within {signals:,}", signals, needed, "{:,.0f}"
                )
            )
    all_runs = [one for (_, learner), figures in runs.items() if learner == PRODUCT for one in figures]
    if not all_runs:
        return []
    found += [
        at_most(
            "learning: tokens of a block, the largest",
            "at most 500",
            500,
            [max(o["block_tokens"] for o in all_runs)],
            "{:.0f}",
        ),
        at_most(
            "learning: drawn against logged shares, largest |z| of any instruction",
            "under 5",
            5.0,
            [max(one["draw_z"] for one in all_runs)],
        ),
    ]
    return found
