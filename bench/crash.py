"""How often the crash alarm rings for nothing, and how soon for a fall: ``python -m bench.crash [--quick]``.

Streams of signals with weekly and daily seasons, users who differ in mood and diligence, and days that are better or
worse than others for no reason. Compared: 30 % below the run before (the published rule), 24 h against 7 days beyond
30 % and 3.5 standard errors (the simulated world's), a CUSUM over runs, and ours.
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from bench.bars import at_most, print_bar, table
from learner.patterns.crash import find_crash
from learner.patterns.history import History
from learner.patterns.observations import Booleans, Floats
from store.config import PatternsSection, load_config

RUN_S = 21_600.0
RUNS_PER_DAY = 4
DAY_S = 86_400.0
WARM_RUNS = 35 * RUNS_PER_DAY
YEAR_RUNS = 365 * RUNS_PER_DAY
VOLUMES = (33, 130, 1000)  # signals a run
FALLS = (0.10, 0.18, 0.30)  # of the index, relative
WITHIN = 3  # runs
WATCHED = 12  # runs after a fall
BASE_LOGIT = 1.0  # of a good signal: an index of about .74
GOOD_WEIGHTS, BAD_WEIGHTS = (1.0, 0.3), (1.0, 0.2)  # thumbs and what people do
TREATED = 0.8
HOLDOUT = 0.05
QUIET_S = 7 * DAY_S  # an alarm that rings on counts once


@dataclass(frozen=True)
class Signals:
    """One run's signals."""

    end_s: float
    created_s: Floats
    users: list[str]
    weights: Floats
    is_holdout: Booleans
    is_treated: Booleans


@dataclass
class Stream:
    """A tenant's traffic; *fall* is how much of the index is lost, for all or for the treated alone."""

    volume: int
    seed: int
    fall: float = 0.0
    is_treated_alone: bool = False
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        n_users = max(60, self.volume * 6)
        self._mood = self._rng.normal(0, 0.8, n_users)
        activity = self._rng.lognormal(0, 1, n_users)
        self._activity = activity / activity.sum()
        self._day_shock = 0.0

    def run(self, number: int) -> Signals:
        """Return the signals of run *number*; call it in order."""
        rng, start_s = self._rng, 20_000 * DAY_S + number * RUN_S
        if number % RUNS_PER_DAY == 0:
            self._day_shock = rng.normal(0, 0.12)
        weekday, quarter = number // RUNS_PER_DAY % 7, number % RUNS_PER_DAY
        is_weekend = weekday in (5, 6)
        busy = (0.4, 1.0, 1.6, 1.0)[quarter] * (0.5 if is_weekend else 1.2)
        n = int(rng.poisson(self.volume * busy * rng.gamma(10, 0.1)))
        user = rng.choice(len(self._mood), n, p=self._activity)
        shift = (
            self._day_shock + rng.normal(0, 0.08) + (-0.15 if is_weekend else 0.06) + (0.08, 0.0, -0.04, 0.0)[quarter]
        )
        chance = 1 / (1 + np.exp(-(BASE_LOGIT + shift + self._mood[user])))
        is_holdout = user % 20 == 0
        is_treated = ~is_holdout & (rng.random(n) < TREATED)
        is_hit = is_treated if self.is_treated_alone else np.ones(n, bool)
        chance = np.where(is_hit, _fallen(chance, self.fall), chance)
        is_good = rng.random(n) < chance
        is_thumb = rng.random(n) < 0.5
        good = np.where(is_thumb, GOOD_WEIGHTS[0], GOOD_WEIGHTS[1])
        bad = np.where(is_thumb, BAD_WEIGHTS[0], BAD_WEIGHTS[1])
        return Signals(
            start_s + RUN_S - 1,
            start_s + rng.random(n) * RUN_S,
            [str(one) for one in user],
            np.where(is_good, good, -bad),
            is_holdout,
            is_treated,
        )


def _fallen(chance: Floats, fall: float) -> Floats:
    """Return the chances of a good signal at which each one's index is *fall* lower."""
    good, bad = statistics.mean(GOOD_WEIGHTS), statistics.mean(BAD_WEIGHTS)
    index = (1 - fall) * chance * good / (chance * good + (1 - chance) * bad)
    return np.asarray(index * bad / (index * bad + (1 - index) * good), np.float64)


def add(history: History, signals: Signals) -> None:
    """Take one run's signals into *history*."""
    ones = np.ones(len(signals.users))
    history.add(
        created_s=signals.created_s,
        users=signals.users,
        conversations=signals.users,
        is_holdout=signals.is_holdout,
        is_treated=signals.is_treated,
        n_rated=ones,
        good=np.maximum(signals.weights, 0),
        bad=np.maximum(-signals.weights, 0),
        n_pleased=(signals.weights > 0).astype(np.float64),
        n_displeased=(signals.weights < 0).astype(np.float64),
    )


class Published:
    """30 % below the run before."""

    def __init__(self) -> None:
        self._last: float | None = None

    def is_alarm(self, signals: Signals) -> bool:
        good = float(np.maximum(signals.weights, 0).sum())
        total = float(np.abs(signals.weights).sum())
        before, self._last = self._last, good / total if total else self._last
        return before is not None and self._last is not None and self._last < 0.7 * before


class Window:
    """24 h against the 7 days before: more than 30 % and 3.5 standard errors, design effect 1.5."""

    def __init__(self) -> None:
        self._runs: list[Floats] = []

    def is_alarm(self, signals: Signals) -> bool:
        good, bad = np.maximum(signals.weights, 0), np.maximum(-signals.weights, 0)
        self._runs.append(np.array([good.sum(), bad.sum(), (good**2).sum(), (bad**2).sum()]))
        del self._runs[: -8 * RUNS_PER_DAY]
        if len(self._runs) < 8 * RUNS_PER_DAY:
            return False
        (now, now_variance), (before, before_variance) = (
            self._index(self._runs[-RUNS_PER_DAY:]),
            self._index(self._runs[:-RUNS_PER_DAY]),
        )
        z = (now - before) / math.sqrt(now_variance + before_variance)
        return before - now > 0.3 * before and z < -3.5

    @staticmethod
    def _index(runs: Sequence[Floats]) -> tuple[float, float]:
        good, bad, good2, bad2 = np.sum(runs, axis=0)
        total = good + bad + 2
        p, n = good + 1, bad + 1
        return float(p / total), 1.5 * float((n**2 * (good2 + 1) + p**2 * (bad2 + 1)) / total**4)


class Cusum:
    """S = max(0, S + z - .5) over runs, alarm at 5.5; the baseline moves slowly and only while all is well."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._sum = 0.0

    def is_alarm(self, signals: Signals) -> bool:
        n = len(signals.weights)
        if n < 2:
            return False
        mean = float(signals.weights.mean())
        if self._mean is None:
            self._mean = mean
        z = (self._mean - mean) * math.sqrt(n) / max(float(signals.weights.std()), 1e-9)
        self._sum = max(0.0, self._sum + z - 0.5)
        if self._sum == 0.0:
            self._mean += 0.02 * (mean - self._mean)
        if self._sum > 5.5:
            self._sum = 0.0
            return True
        return False


class Ours:
    """``find_crash``."""

    def __init__(self, settings: PatternsSection) -> None:
        self.history = History()
        self._settings = settings
        self.blame_z: float | None = None

    def is_alarm(self, signals: Signals) -> bool:
        self.learn(signals)
        crash = find_crash(self.history, signals.end_s, self._settings)
        self.blame_z = None if crash is None else crash.blame_z
        return crash is not None

    def learn(self, signals: Signals) -> None:
        add(self.history, signals)
        self.history.trim(signals.end_s)


Rule = Published | Window | Cusum | Ours


def rules(settings: PatternsSection) -> dict[str, Rule]:
    """Return the rules that are compared, new."""
    return {
        "30 % below the last run": Published(),
        "24 h against 7 days": Window(),
        "CUSUM": Cusum(),
        "ours": Ours(settings),
    }


def false_alarms(volume: int, seed: int, settings: PatternsSection) -> dict[str, int]:
    """Return how often each rule rang in a year in which nothing happened, after five weeks of warming up."""
    stream, contest = Stream(volume, seed), rules(settings)
    rang: dict[str, list[float]] = {name: [] for name in contest}
    for number in range(WARM_RUNS + YEAR_RUNS):
        signals = stream.run(number)
        for name, rule in contest.items():
            if isinstance(rule, Ours) and number < WARM_RUNS:
                rule.learn(signals)
                continue
            is_new = not rang[name] or signals.end_s - rang[name][-1] > QUIET_S
            if rule.is_alarm(signals) and number >= WARM_RUNS and is_new:
                rang[name].append(signals.end_s)
    return {name: len(times) for name, times in rang.items()}


@dataclass
class Scene:
    """A stream and the rules that watched it for five weeks, at any time of the week."""

    stream: Stream
    contest: dict[str, Rule]
    number: int  # of the next run

    def fall(self, size: float, *, is_treated_alone: bool = False) -> tuple[dict[str, int | None], float | None]:
        """Return after how many runs each rule sees a fall (None: not in 12), and how surely ours blames learning."""
        seen: dict[str, int | None] = dict.fromkeys(self.contest)
        blame: float | None = None
        self.stream.fall, self.stream.is_treated_alone = size, is_treated_alone
        for wait in range(1, WATCHED + 1):
            signals = self.stream.run(self.number + wait - 1)
            for name, rule in self.contest.items():
                if seen[name] is None and rule.is_alarm(signals):
                    seen[name] = wait
                    blame = rule.blame_z if isinstance(rule, Ours) else blame
        return seen, blame


def scene(volume: int, seed: int, settings: PatternsSection) -> Scene:
    """Return a tenant before its fall."""
    made = Scene(Stream(volume, seed), rules(settings), WARM_RUNS + seed % (7 * RUNS_PER_DAY))
    for number in range(made.number):
        signals = made.stream.run(number)
        for rule in made.contest.values():
            if isinstance(rule, Ours):
                rule.learn(signals)
            else:
                rule.is_alarm(signals)
    return made


def _share(waits: Sequence[int | None], within: int) -> float:
    return sum(wait is not None and wait <= within for wait in waits) / len(waits)


def _median(waits: Sequence[int | None]) -> float:
    return sorted(math.inf if wait is None else wait for wait in waits)[len(waits) // 2]


def _shown(median: float) -> str:
    return f"> {WATCHED}" if math.isinf(median) else f"{median:.0f}"


@dataclass(frozen=True)
class Score:
    """What one rule did at one volume."""

    volume: int
    rule: str
    alarms_a_year: float
    waits: dict[float, list[int | None]]  # fall -> runs until it was seen

    @property
    def line(self) -> list[str]:
        cells = [f"{_share(waits, WITHIN):.2f} ({_shown(_median(waits))})" for waits in self.waits.values()]
        return [str(self.volume), self.rule, f"{self.alarms_a_year:.2f}", *cells]


def scores(volume: int, years: int, scenes: Sequence[Scene], settings: PatternsSection) -> list[Score]:
    """Return the score of each rule."""
    alarms = [false_alarms(volume, 1000 + seed, settings) for seed in range(years)]
    seen = {fall: [deepcopy(one).fall(fall)[0] for one in scenes] for fall in FALLS}
    return [
        Score(
            volume,
            rule,
            sum(year[rule] for year in alarms) / years,
            {fall: [waits[rule] for waits in found] for fall, found in seen.items()},
        )
        for rule in alarms[0]
    ]


def blames(volume: int, scenes: Sequence[Scene], settings: PatternsSection) -> list[list[str]]:
    """Return the lines about how often learning was held to blame for a fall of 40 %."""
    lines = []
    for is_treated_alone in (True, False):
        found = [deepcopy(one).fall(0.4, is_treated_alone=is_treated_alone) for one in scenes]
        said = [blame for waits, blame in found if waits["ours"] is not None]
        n_blamed = sum(blame is not None and blame < -settings.blame_z for blame in said)
        lines.append([str(volume), "treated alone" if is_treated_alone else "all", str(len(said)), str(n_blamed)])
    return lines


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--years", type=int, default=8)
    parser.add_argument("--falls", type=int, default=56)
    parser.add_argument("--volumes", type=int, nargs="*", default=VOLUMES)
    arguments = parser.parse_args()
    years, n_falls = (1, 8) if arguments.quick else (arguments.years, arguments.falls)
    settings = load_config().patterns
    found: list[Score] = []
    blamed: list[list[str]] = []
    for volume in arguments.volumes:
        scenes = [scene(volume, seed, settings) for seed in range(n_falls)]
        found += scores(volume, years, scenes, settings)
        blamed += blames(volume, scenes, settings)
    print("## The crash alarm\n")
    print(
        f"{years} years of runs every 6 h in which nothing happened, {n_falls} falls of each size per volume. Share "
        f"caught within {WITHIN} runs (median runs until caught).\n"
    )
    header = ["signals a run", "rule", "false alarms a year", *(f"fall of {fall:.0%}" for fall in FALLS)]
    print(table(header, [score.line for score in found]))
    print(f"\nFalls of 40 % seen within {WATCHED} runs, and how often learning was held to blame at that moment:\n")
    print(table(["signals a run", "who fell", "seen", "learning blamed"], blamed))
    ours = [score for score in found if score.rule == "ours"]
    at = " / ".join(map(str, arguments.volumes))
    rates, medians = [one.alarms_a_year for one in ours], [_median(one.waits[0.30]) for one in ours]
    print_bar(at_most(f"false crash alarms a year at {at} signals a run", "at most 1", 1.0, rates))
    print_bar(at_most(f"runs until a fall of 30 % is seen, median, at {at}", "at most 3", 3.0, medians, "{:.0f}"))


if __name__ == "__main__":
    main()
