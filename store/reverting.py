"""Back to what an earlier generation served, in one step. Written by the learner and, for a person, the command."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from store.audit import record
from store.clock import iso
from store.database import Database
from store.errors import ConflictError
from store.generations import plan_of
from store.patterns import (
    PatternRow,
    Removal,
    patterns_in_play,
    publish_patterns,
    removals,
    retired,
    reworded,
    save_pattern,
    without_evidence,
)
from store.plan import ServedPattern

PERSONS_STATES: Final = ("pinned", "disabled")  # a person's word, which stays
LEARNED_STATES: Final = ("trial", "active", "warmdown")


@dataclass(frozen=True, slots=True)
class Reverted:
    """What a step back changed."""

    generation: int | None  # published by it; None when what is served stayed the same
    restored: tuple[str, ...]  # patterns that are again as they were then
    retired: tuple[str, ...]  # patterns that were not served then; their cooldown begins
    kept: tuple[str, ...]  # pinned, unpinned or disabled by a person since: left alone


def revert(
    db: Database,
    tenant_id: str,
    generation: int,
    *,
    actor: str,
    reason: str,
    now_s: float,
    run_id: str | None = None,
    suspects: Collection[str] = (),
    is_forced: bool = False,
) -> Reverted:
    """Serve again what *generation* served, as the next generation, and return what that changed.

    Patterns of it get its rule, conditions, state and shares; others that were learned are retired. What a person
    pinned, unpinned or disabled since then stays as the person left it. So do *suspects* that the generation served
    already: they were taken out or are back in trial, and must not be active again by this. Knowledge entries are not
    touched.

    Raises:
        NotFoundError: the tenant has no such generation.
        ConflictError: it would bring back what was taken out for harm, and is not *is_forced*.
    """
    why = f"back to generation {generation}: {reason}"
    with db.transaction():
        step = step_back(db, tenant_id, generation, now_s=now_s, suspects=suspects)
        if step.harmful and not is_forced:
            named = "; ".join(f"{name} ({step.removals[name].reason})" for name in step.harmful)
            raise ConflictError(f"generation {generation} served what was taken out for harm since, say force: {named}")
        for row, after in (*step.restored, *step.retired):
            save_pattern(db, row, after, actor=actor, reason=why, now_s=now_s, run_id=run_id, is_event=True)
        restored, retired = ([after.id for _, after in changes] for changes in (step.restored, step.retired))
        kept = [row.id for row in step.kept]
        if not restored and not retired:
            return Reverted(None, (), (), tuple(kept))
        number = publish_patterns(db, tenant_id, actor=actor, reason=why, now_s=now_s, run_id=run_id)
        record(
            db,
            tenant_id,
            actor=actor,
            action="generations.revert",
            object_id=str(generation),
            detail={
                "generation": number,
                "reason": reason,
                "restored": len(restored),
                "retired": len(retired),
                "kept": kept,
            },
            now_s=now_s,
        )
    return Reverted(number, tuple(restored), tuple(retired), tuple(kept))


@dataclass(frozen=True, slots=True)
class StepBack:
    """What a step back would change: rows as they are, with what would become of them."""

    restored: tuple[tuple[PatternRow, PatternRow], ...]
    retired: tuple[tuple[PatternRow, PatternRow], ...]
    kept: tuple[PatternRow, ...]  # a person's word since then goes before the plan
    removals: Mapping[str, Removal]  # why those of the restored that were retired had been taken out, by pattern

    @property
    def harmful(self) -> list[str]:
        """Return the patterns that had been taken out for harm and would be back."""
        return [pattern_id for pattern_id, removal in self.removals.items() if removal.is_harm]


def step_back(
    db: Database, tenant_id: str, generation: int, *, now_s: float, suspects: Collection[str] = ()
) -> StepBack:
    """Return what ``revert`` would change; nothing is written.

    Raises:
        NotFoundError: the tenant has no such generation.
    """
    plan = {pattern.id: pattern for pattern in plan_of(db, tenant_id, generation).patterns}
    restored: list[tuple[PatternRow, PatternRow]] = []
    retired: list[tuple[PatternRow, PatternRow]] = []
    kept: list[PatternRow] = []
    for row in patterns_in_play(db, tenant_id, plan):
        is_suspect = row.id in plan and row.id in suspects
        after = row if is_suspect else _as_then(row, plan.get(row.id), now_s)
        if after is None:
            kept.append(row)
        elif after != row:
            (restored if row.id in plan else retired).append((row, after))
    back = [row.id for row, _ in restored if row.state == "retired"]
    return StepBack(tuple(restored), tuple(retired), tuple(kept), removals(db, tenant_id, back))


def _as_then(row: PatternRow, then: ServedPattern | None, now_s: float) -> PatternRow | None:
    """Return the row as the plan had it; None: a person's word since then goes before the plan."""
    if then is None:
        if row.state == "pinned":
            return None
        return retired(row, now_s) if row.state in LEARNED_STATES else row
    if row.state in PERSONS_STATES or then.state == "pinned":
        return row if row.state == then.state and row.rule == then.rule else None
    return _restored(row, then, now_s)


def _restored(row: PatternRow, then: ServedPattern, now_s: float) -> PatternRow:
    known = row if row.conditions == then.conditions else without_evidence(row)
    if row.rule != then.rule:  # what was measured since an edit was another instruction
        known = reworded(row, rule=then.rule, tokens=then.tokens, value=then.value, now_s=now_s)
    grade = "none" if then.state == "trial" else known.grade
    return replace(
        known,
        conditions=then.conditions,
        tokens=then.tokens,
        state=then.state,
        grade="provisional" if then.state == "active" and grade == "none" else grade,
        share=then.share,
        cells=then.cells,
        warm_step=0 if then.state == "trial" else max(row.warm_step, 1),
        trial_since=row.trial_since or iso(now_s),
    )
