"""A simulated tenant's learning, by the product: rows -> plan -> draws of the proxy -> observations -> run -> rows.

Only the edges are the world's: who asks what, what is answered, and what an instruction costs in tokens. It has the
interface of the world's own learners, so that all are measured by the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.simulation.watching import Dimensions
from learner.patterns.beliefs import Key, Scope
from learner.patterns.deciding import Decisions, Split, decide
from learner.patterns.finding import Find
from learner.patterns.history import History
from learner.patterns.kept import family_weights
from learner.patterns.lifecycle import started
from learner.patterns.observations import FAMILIES, Column, Exposures, Natural, Observations
from learner.patterns.safety import Safety, detail_of, safety_of
from learner.patterns.states import Situation
from learner.patterns.statistics import Statistics
from proxy.selection import Facts, PlanIndex, conversation_seed, is_holdout, select_patterns
from store.alerts import Alert
from store.clock import iso
from store.config import Config
from store.patterns import PatternRow, new_pattern, plan_of
from store.plan import Conditions
from store.records import InjectionSet

DAY_S = 86_400.0
RUN_S = DAY_S / 4
START_S = 1_750_000_000.0
TENANT = "simulated"
SECRET = b"simulated world's secret of 32 b"
# The world's signals in the order of FAMILIES; the others never come.
SIGNALS = {"copy": "copy", "follow_up": "follow", "dwell_time": "dwell"}
POSITIVE, NEGATIVE = {"up": 1.0, "copy": 0.3}, {"down": 1.0, "follow": 0.2, "dwell": 0.1}


class ProductLearner:
    """The product's learner in the place of one of the world's.

    Attributes:
        events: (run, "on" or "off", key) of every activation and its end, key = (scope, dimension, value) as the
            world numbers them: question types, then all, then segments.
        crashes: runs that raised an alert.
        proofs: (run, key) of every pattern that became proven.
    """

    name = "product"

    def __init__(self, world: Any, names: Dimensions, config: Config) -> None:
        self._world = world
        self._settings = replace(config.patterns, avoid=False)  # the world has no instruction against a value
        self._names = names
        self._place = {
            (name, value): (d, v) for d, (name, _, values) in enumerate(names) for v, value in enumerate(values)
        }
        self._natural = [Column(*pair) for pair in self._place]
        self._statistics = Statistics(self._settings, family_weights(config.feedback), "segment")
        self._seed = int(world.cfg.seed)
        self.rows: dict[str, PatternRow] = {}
        self.run = 0
        self.events: list[tuple[int, str, tuple[int, int, int]]] = []
        self.crashes: list[int] = []
        self.proofs: list[tuple[int, tuple[int, int, int]]] = []
        self.reasons: list[tuple[int, str, str, str, str]] = []
        self.max_tokens = 0
        self.draws: dict[tuple[str, str], list[float]] = {}  # column -> conversations treated, expected, variance
        self._drawn: list[tuple[InjectionSet, ...]] = []
        self._holdout: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._sets: dict[str, tuple[list[str], list[float], list[bool]]] = {}
        self._activated_s: dict[str, float] = {}
        self._history = History()
        self._alerts: list[Alert] = []
        self._priorities: Mapping[str, float] = {}
        self._decreed: str | None = None  # pattern that was let in by decree, while it is active
        self.beliefs: Any = None
        self._publish()

    # What the proxy does.

    def assign(self, ctx: Mapping[str, Any]) -> NDArray[np.int64]:
        """Return the instructions of each response (n, D); -1 = none."""
        n = int(ctx["n"])
        instructions = np.full((n, len(self._names)), -1)
        self._drawn = []
        self._holdout = np.zeros(n, np.bool_)
        known: dict[int, tuple[Any, bool]] = {}  # a conversation keeps what its first turn drew
        for i in range(n):
            conversation = int(ctx["conv"][i])
            found = known.get(conversation)
            if found is None:
                seed = conversation_seed(SECRET, f"{self._seed}-{conversation}")
                holdout = is_holdout(seed, self._settings.holdout)
                facts = Facts(_type(ctx["q"][i]), segment=_segment(ctx["seg"][i]))
                chosen = select_patterns(self._index.dimensions(facts), seed, self._settings, holdout=holdout)
                found = known[conversation] = (chosen, holdout)
                self.max_tokens = max(self.max_tokens, chosen.tokens)
                if not holdout:
                    self._count_draws(chosen.drawn)
            chosen, self._holdout[i] = found
            self._drawn.append(chosen.drawn)
            for drawn in chosen.drawn:
                for item in drawn.items:
                    if item.treated:
                        d, v = self._place[self._column_of(item.item_id)]
                        instructions[i, d] = v
        return instructions

    def _count_draws(self, drawn: Sequence[InjectionSet]) -> None:
        for one in drawn:
            for item in one.items:
                sums = self.draws.setdefault(self._column_of(item.item_id), [0.0, 0.0, 0.0])
                sums[0] += item.treated
                sums[1] += item.share
                sums[2] += item.share * (1 - item.share)

    def _column_of(self, pattern_id: str) -> tuple[str, str]:
        row = self.rows[pattern_id]
        return row.dimension, row.value

    # What a run does.

    def update(self, log: Mapping[str, Any]) -> None:
        """Learn from one batch of responses, then decide and publish, as a pattern run does."""
        self.run = int(log["run"]) + 1
        now_s = START_S + self.run * RUN_S
        observations = self._observations(log)
        self._statistics.absorb(observations)
        self.beliefs = self._statistics.refit(now_s)
        safety = self._safety(log, observations, now_s)
        situation = Situation(
            now_s=now_s,
            traffic_s=now_s,
            settings=self._settings,
            crash=safety.crash,
            is_frozen=safety.is_frozen,
            activated_s=self._activated_s,
            types={name: type_ for name, type_, _ in self._names},
        )
        rng = np.random.default_rng([self._seed, self.run])
        self._apply(decide(list(self.rows.values()), self.beliefs, situation, rng), now_s)
        self._publish()

    def _observations(self, log: Mapping[str, Any]) -> Observations:
        n = int(log["n"])
        up, down = np.minimum(log["up"], 1.0), np.minimum(log["down"], 1.0)  # a later vote replaces the earlier one
        signals = np.zeros((n, len(FAMILIES)))
        signals[:, FAMILIES.index("thumb")] = up - down
        for family, name in SIGNALS.items():
            signals[:, FAMILIES.index(family)] = log[name]
        users = [f"u{user}" for user in log["user"]]
        good, bad = _good_and_bad(log)
        return Observations(
            created_s=START_S + (self.run - 1) * RUN_S + (np.arange(n) + 0.5) * RUN_S / max(n, 1),
            users=users,
            conversations=[str(conversation) for conversation in log["conv"]],
            question_types=[_type(q) for q in log["q"]],
            groups=[_segment(s) for s in log["seg"]],
            is_holdout=self._holdout,
            signals=signals,
            thumb_voters=[user if thumb else "" for user, thumb in zip(users, up + down > 0, strict=True)],
            satisfaction=np.clip(good - bad, -1.0, 1.0),
            is_rated=good + bad > 0,
            natural=Natural(
                columns=self._natural,
                has=np.stack([log["val"][:, d] == v for d, v in self._place.values()], axis=1),
                applies={name: np.ones(n, np.bool_) for name, _, _ in self._names},
            ),
            exposures=self._exposures(),
        )

    def _exposures(self) -> Exposures:
        number = {pattern_id: i for i, pattern_id in enumerate(self.rows)}
        responses: list[int] = []
        patterns: list[int] = []
        shares: list[float] = []
        treated: list[bool] = []
        for i, drawn in enumerate(self._drawn):
            for one in drawn:
                for item in one.items:
                    responses.append(i)
                    patterns.append(number[item.item_id])
                    shares.append(item.share)
                    treated.append(item.treated)
        return Exposures(
            response=np.array(responses, np.int64),
            pattern=np.array(patterns, np.int64),
            share=np.array(shares, np.float64),
            treated=np.array(treated, np.bool_),
            pattern_ids=list(self.rows),
            columns=[Column(row.dimension, row.value) for row in self.rows.values()],
        )

    def _safety(self, log: Mapping[str, Any], observations: Observations, now_s: float) -> Safety:
        """Return what the run must keep to; no generation is ever put back: what a crash suspects is enough here."""
        good, bad = _good_and_bad(log)
        treated = np.zeros(len(good), np.bool_)
        treated[observations.exposures.response[observations.exposures.treated]] = True
        self._history.add(
            created_s=observations.created_s,
            users=observations.users,
            conversations=observations.conversations,
            is_holdout=observations.is_holdout,
            is_treated=treated,
            n_rated=observations.is_rated.astype(np.float64),
            good=good,
            bad=bad,
            n_pleased=(good > bad).astype(np.float64),
            n_displeased=(good < bad).astype(np.float64),
        )
        self._history.trim(now_s)
        safety = safety_of(self._history, self._alerts, self._activated_s, (), now_s, self._settings)
        if safety.crash is not None:
            self.crashes.append(self.run)
            detail = detail_of(safety.crash)
            at = iso(now_s)
            self._alerts.append(Alert(str(self.run), TENANT, None, "crash", safety.reason, detail, at, None, None, 0))
        return safety

    def _apply(self, decisions: Decisions, now_s: float) -> None:
        for change in decisions.changes:
            self._take(change.before, change.after, change.reason or "", now_s)
        for reset in decisions.resets:
            self._statistics.reset(reset.key, reset.at_s)
        for key, keep in decisions.discounts:
            self._statistics.discount(key, keep)
        for find in decisions.finds:
            self._insert(find, now_s)
        for split in decisions.splits:
            self._split(split, now_s)
        self._priorities = decisions.priorities

    def _take(self, before: PatternRow, after: PatternRow, reason: str, now_s: float) -> None:
        key = self._key(after)
        if after.state != before.state:
            self.reasons.append((self.run, after.id, before.state, after.state, reason))
        was_on, is_on = before.state in ("active", "warmdown"), after.state in ("active", "warmdown")
        if after.state == "active" and before.state == "trial":
            self._activated_s[after.id] = now_s
        if is_on != was_on:
            self.events.append((self.run - 1, "on" if is_on else "off", key))
        if after.grade == "proven" and before.grade != "proven":
            self.proofs.append((self.run - 1, key))
        self.rows[after.id] = after

    def _insert(self, find: Find, now_s: float) -> None:
        d, v = self._place[find.column.dimension, find.column.value]
        old = find.revives
        row = new_pattern(
            old.id if old is not None else f"pat-{len(self.rows):04d}",
            TENANT,
            type=find.type,
            dimension=find.column.dimension,
            value=find.column.value,
            rule=f"Make {find.column.dimension} {find.column.value}.",
            conditions=find.conditions,
            tokens=int(self._world.tokens[d, v]),
            origin="learned",
            now_s=now_s,
        )
        if old is not None:
            row = replace(row, created_at=old.created_at, removed_at=old.removed_at)
        self.rows[row.id] = row

    def _split(self, split: Split, now_s: float) -> None:
        old = split.revives
        row = new_pattern(
            old.id if old is not None else f"pat-{len(self.rows):04d}",
            TENANT,
            type=split.parent.type,
            dimension=split.parent.dimension,
            value=split.parent.value,
            rule=split.parent.rule,
            conditions=split.conditions,
            tokens=split.parent.tokens,
            origin="learned",
            now_s=now_s,
        )
        self.rows[row.id] = started(row, now_s)

    def _publish(self) -> None:
        self._hold_decreed()
        plan = plan_of(self.rows.values(), group_field="segment", priorities=self._priorities)
        self._index = PlanIndex(plan, self._settings)

    def _hold_decreed(self) -> None:
        """Give what was let in by decree, until it is out, the share of a proven pattern everywhere, its rivals none.

        The world's reference does so, also while it warms down: what is measured is how soon a trap is left for good,
        not how little of it is entered.
        """
        decreed = self.rows.get(self._decreed or "")
        if decreed is None or decreed.state not in ("active", "warmdown"):
            self._decreed = None
            return
        settings = self._settings
        steps = settings.warmup_runs if decreed.state == "active" else settings.warmdown_runs
        warmth = min(decreed.warm_step / steps, 1.0)
        share = settings.trial_share + (settings.active_share - settings.trial_share) * warmth
        for row in list(self.rows.values()):
            if row.dimension == decreed.dimension:
                self.rows[row.id] = replace(row, share=share if row.id == decreed.id else 0.0, cells=())

    def force(self, key: tuple[int, int, int]) -> None:
        """Let an org-wide instruction in by decree; it is held as ``_hold_decreed`` says."""
        scope, d, v = key
        assert scope == self._world.Q
        name, _, values = self._names[d]
        now_s = START_S + self.run * RUN_S
        row = next(
            (
                one
                for one in self.rows.values()
                if (one.dimension, one.value) == (name, values[v]) and not one.conditions.specificity
            ),
            None,
        )
        if row is None:
            row = new_pattern(
                f"pat-{len(self.rows):04d}",
                TENANT,
                type="response_format",
                dimension=name,
                value=values[v],
                rule=f"Make {name} {values[v]}.",
                conditions=Conditions(),
                tokens=int(self._world.tokens[d, v]),
                origin="learned",
                now_s=now_s,
            )
        after = replace(
            row,
            state="active",
            grade="provisional",
            warm_step=1,
            share=self._settings.active_share,
            cells=(),
            trial_since=row.trial_since or iso(now_s),
        )
        self._take(replace(row, state="trial"), after, "by decree", now_s)
        self._decreed = after.id
        self._statistics.reset(Key(Scope(), Column(name, values[v])), now_s)
        self._publish()

    # What the figures are made of.

    def _key(self, row: PatternRow) -> tuple[int, int, int]:
        d, v = self._place[row.dimension, row.value]
        if row.conditions.question_type:
            return int(row.conditions.question_type[0].removeprefix("q")), d, v
        if row.conditions.segment:
            return self._world.Q + 1 + int(row.conditions.segment[0].removeprefix("s")), d, v
        return self._world.Q, d, v

    def active_keys(self) -> set[tuple[int, int, int]]:
        """Return the keys of the patterns that are active or in warm-down."""
        return {self._key(row) for row in self.rows.values() if row.state in ("active", "warmdown")}

    def proven_keys(self) -> set[tuple[int, int, int]]:
        on = [row for row in self.rows.values() if row.state in ("active", "warmdown")]
        return {self._key(row) for row in on if row.grade == "proven"}

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return each cell's share of each instruction (Q, S, D, V), and whether an active pattern has it there."""
        world = self._world
        n_values = world.tokens.shape[1]
        shares = np.zeros((world.Q, world.S, len(self._names), n_values))
        is_active = np.zeros(shares.shape, np.bool_)
        for q in range(world.Q):
            for s in range(world.S):
                for dimension in self._index.dimensions(Facts(_type(q), segment=_segment(s))):
                    for arm in dimension.arms:
                        d, v = self._place[self._column_of(arm.pattern.id)]
                        shares[q, s, d, v] += arm.share
                        is_active[q, s, d, v] |= arm.pattern.state in ("active", "warmdown")
        return shares, is_active

    def active_cells(self) -> NDArray[np.bool_]:
        """Return where an active pattern has more than half of a cell (Q, S, D, V)."""
        shares, is_active = self.shares()
        return (shares > 0.5) & is_active

    def served_cells(self) -> NDArray[np.bool_]:
        """Return where an instruction has more than half of a cell, whatever its state (Q, S, D, V)."""
        return self.shares()[0] > 0.5

    def worst_draw_z(self) -> float:
        """Return the largest |z| between how often an instruction was drawn and its logged shares."""
        zs = [abs(sums[0] - sums[1]) / sums[2] ** 0.5 for sums in self.draws.values() if sums[2] > 20]
        return max(zs, default=0.0)


def _type(q: int) -> str:
    return f"q{q}"


def _segment(s: int) -> str:
    return f"s{s}"


def _good_and_bad(log: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    good = sum(weight * np.minimum(log[name], 1.0) for name, weight in POSITIVE.items())
    bad = sum(weight * np.minimum(log[name], 1.0) for name, weight in NEGATIVE.items())
    return np.asarray(good), np.asarray(bad)
