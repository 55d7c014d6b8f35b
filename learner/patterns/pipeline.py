"""One pattern run: read what is new -> believe -> decide -> word -> publish, the last in one transaction."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from learner.cycles import without_cycle_search
from learner.patterns.characteristics import TERMINOLOGY, TYPES
from learner.patterns.deciding import Decisions, Split, decide, is_startable, resets_by_persons
from learner.patterns.finding import Find
from learner.patterns.kept import (
    CaughtUp,
    Cursor,
    Source,
    as_state,
    catch_up,
    fresh,
    resets_of,
    restore,
    with_resets,
)
from learner.patterns.lifecycle import started
from learner.patterns.people import declared_people, is_somebody
from learner.patterns.publishing import Candidate, Outcome, Run, publish_run
from learner.patterns.replies import read_replies
from learner.patterns.safety import MEMORY_S, Safety, safety_of
from learner.patterns.states import Situation
from learner.patterns.wording import word
from learner.report import Collaborators, RunReport
from store.alerts import alerts_since
from store.characteristics import before_first
from store.clock import DAY_S, days_before, parse_iso
from store.config import Config
from store.database import Database
from store.generations import plans_since
from store.ids import new_id
from store.learner_states import LearnerState, has_lost_sums, load_learner_state
from store.patterns import PatternRow, all_patterns, last_activations, new_pattern, without_evidence
from store.plan import Conditions
from store.removals import newest_removal
from store.runs import last_completed_run
from store.tenants import get_tenant
from store.tokens import TokenCounter
from store.turns import newest_response, newest_signal
from store.vocabulary import AVOID, SERVED_STATES, PatternType
from store.windows import choose_group_field, settled_until

NAMING: Final = ("tools", TERMINOLOGY)  # dimensions whose values are names that come from records
GROUP_SAMPLE: Final = 20_000  # newest responses that say which field groups are values of
GROUP_SHARE: Final = 0.05  # of them that a value must hold
STEADY: Final = 0.25  # part by which a dimension's priority must move to be published: each plan begins prefixes anew


def run_patterns(  # noqa: PLR0917  # the signature of every kind of run
    db: Database, config: Config, tenant_id: str, collaborators: Collaborators, run_id: str, now_s: float
) -> RunReport:
    """Return what one pattern run of *tenant_id* read, changed and cost; call it under the tenant's run lock.

    Everything that it changes is written in one transaction at the end, the run's row included: a run that is killed
    at any point left nothing behind, and the next one comes to the same result.

    Raises:
        NotFoundError: there is no such tenant.
        UnavailableError: the database is missing, locked or damaged; nothing was published.
    """
    settings = config.patterns
    models, rng = collaborators.models.for_run(), collaborators.rng
    run = Run(run_id, tenant_id, now_s, collaborators.clock, models, rng.bytes)
    situation = Situation(
        now_s=now_s,
        traffic_s=min(now_s, collaborators.clock.now_s()),
        settings=settings,
        activated_s={key: parse_iso(at) for key, at in last_activations(db, tenant_id).items()},
        needs_approval=settings.require_trial_approval or get_tenant(db, tenant_id).require_trial_approval,
        types=TYPES,
    )
    since = _cursor(db, tenant_id)
    rows = all_patterns(db, tenant_id)
    is_due_anyway = has_lost_sums(db, tenant_id) or any(is_due(row, situation) for row in rows)
    if not settings.enabled or (_newest(db, tenant_id, since) == since and not is_due_anyway):
        return publish_run(db, run, Outcome(until=since))
    # By the machine's clock when the run's is ahead of it: what a run passes over is not read again.
    window_at = days_before(situation.traffic_s, settings.window_days)
    source = Source(db, tenant_id, settings, config.feedback, rows, window_at)
    until_response = newest_response(db, tenant_id, after=since.response)
    with without_cycle_search():
        read_replies(
            db,
            tenant_id,
            collaborators.tokens,
            until=until_response,
            since_at=window_at,
            settle_days=settings.settle_days,
            max_term_replies=settings.max_term_replies,
        )
        with db.snapshot():
            until = replace(_newest(db, tenant_id, since), response=until_response)
            state = load_learner_state(db, tenant_id)
            found = _catch_up(source, state, since, until, situation)
            safety = _safety(source, found, situation)
    situation = replace(situation, crash=safety.crash, is_frozen=safety.is_frozen)
    return publish_run(
        db, run, _decide(run, Read(source, state, found, until), situation, safety, collaborators.tokens)
    )


def is_due(row: PatternRow, situation: Situation) -> bool:
    """Return whether time or the count of runs alone changes the pattern, without a new record."""
    if row.state == "candidate":
        return is_startable(row, situation)
    if row.state == "warmdown":
        return True
    if row.state == "active" and row.warm_step < situation.settings.warmup_runs:
        return True
    used_at = max(filter(None, (row.last_used_at, row.trial_since, row.created_at)))
    is_idle = situation.now_s - parse_iso(used_at) > situation.settings.prune_idle_days * DAY_S
    return row.state in SERVED_STATES and row.state != "pinned" and is_idle


def _cursor(db: Database, tenant_id: str) -> Cursor:
    last = last_completed_run(db, tenant_id, "patterns")
    read = {} if last is None else last.cursor
    return Cursor(read.get("response", 0), read.get("signal", 0), read.get("removal", 0))


def _newest(db: Database, tenant_id: str, since: Cursor) -> Cursor:
    return Cursor(
        newest_response(db, tenant_id, after=since.response),
        newest_signal(db, tenant_id, after=since.signal),
        newest_removal(db, tenant_id, after=since.removal),
    )


@dataclass(frozen=True, slots=True)
class Read:
    """What the run read, and up to where."""

    source: Source
    state: LearnerState | None  # that the run before left
    found: CaughtUp
    until: Cursor


def _catch_up(
    source: Source, state: LearnerState | None, since: Cursor, until: Cursor, situation: Situation
) -> CaughtUp:
    db, tenant_id = source.db, source.tenant_id
    kept = restore(state, source)
    field = choose_group_field(
        db,
        tenant_id,
        until=until.response,
        since_at=source.since_at,
        sample=GROUP_SAMPLE,
        min_share=GROUP_SHARE,
        kept=None if kept is None else kept.group_field,
    )
    if kept is None or kept.group_field != field:
        first = before_first(db, tenant_id, since_at=source.since_at)
        kept = fresh(source, field, Cursor(first, until.signal, until.removal), resets_of(state))
    kept = with_resets(kept, resets_by_persons(source.rows, field))
    settled_at = days_before(situation.traffic_s, source.settings.settle_days)
    settled = settled_until(db, tenant_id, before_at=settled_at, until=until.response)
    return catch_up(kept, source, since, until, settled=settled)


def _safety(source: Source, found: CaughtUp, situation: Situation) -> Safety:
    since_s = situation.now_s - MEMORY_S
    return safety_of(
        found.seen.history,
        alerts_since(source.db, source.tenant_id, "crash", since_s),
        situation.activated_s,
        plans_since(source.db, source.tenant_id, since_s),
        situation.now_s,
        situation.settings,
        found.fresh,
    )


def _decide(run: Run, read: Read, situation: Situation, safety: Safety, tokens: TokenCounter) -> Outcome:
    kept, seen = read.found.kept, read.found.seen
    beliefs = seen.statistics.refit(run.now_s)
    kept.statistics.adopt(seen.statistics)
    decisions = decide(read.source.rows, beliefs, situation, _rng(run, read.until))
    kept = with_resets(kept, decisions.resets)
    for key, part in decisions.discounts:
        kept.statistics.discount(key, part)
    kept.history.trim(run.now_s)
    before = {} if read.state is None else read.state.priorities
    return Outcome(
        until=read.until,
        changes=decisions.changes,
        candidates=_candidates(run, decisions, situation, read.source, tokens),
        safety=safety,
        state=as_state(kept, steadied(before, decisions.priorities)),
        news=read.found.news,
    )


def _rng(run: Run, until: Cursor) -> np.random.Generator:
    """Return this run's chance: a run that is repeated draws the same."""
    seed = hashlib.blake2b(f"{run.tenant_id}\x00{until}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(seed, "big"))


def steadied(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Return the priorities to serve: those of *before* where they moved little, to two digits.

    >>> steadied({"length": 2.0}, {"length": 2.2, "query": 0.1234})
    {'length': 2.0, 'query': 0.12}
    """
    return {
        name: before[name] if name in before and abs(value - before[name]) <= STEADY * before[name] else _rounded(value)
        for name, value in sorted(now.items())
    }


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _candidates(
    run: Run, decisions: Decisions, situation: Situation, source: Source, tokens: TokenCounter
) -> list[Candidate]:
    people = declared_people(source.db, source.tenant_id) if decisions.finds else frozenset()
    found = [
        _candidate(run, one, tokens, situation.settings.max_rule_tokens, people)
        for one in decisions.finds
        # What records alone can name, a word or a tool, may be somebody's name: no rule, and no model, is told it.
        if one.column.dimension not in NAMING
        or not is_somebody(source.db, source.tenant_id, one.column.value.removeprefix(AVOID), people)
    ]
    return [
        *(one for one in found if one is not None),
        *(_split(run, one, situation.traffic_s) for one in decisions.splits),
    ]


def _candidate(
    run: Run, find: Find, tokens: TokenCounter, max_tokens: int, people: Collection[str]
) -> Candidate | None:
    types = find.conditions.question_type
    wording = word(
        type=find.type,
        dimension=find.column.dimension,
        value=find.column.value,
        question_type=types[0] if types else None,
        tokens=tokens,
        max_tokens=max_tokens,
        model=run.models.wording,
        names=people,
    )
    if wording is None:
        return None
    run.models.meter.rejected.extend(wording.rejections)
    instruction = Instruction(
        find.type, find.column.dimension, find.column.value, wording.rule, wording.tokens, find.conditions
    )
    return Candidate(_made(run, instruction, find.revives), find.revives, find.reason, find.detail)


def _split(run: Run, split: Split, traffic_s: float) -> Candidate:
    parent = split.parent
    instruction = Instruction(parent.type, parent.dimension, parent.value, parent.rule, parent.tokens, split.conditions)
    row = started(_made(run, instruction, split.revives), traffic_s)
    return Candidate(row, split.revives, split.reason, {"parent": parent.id})


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a new pattern says, and where."""

    type: PatternType
    dimension: str
    value: str
    rule: str
    tokens: int
    conditions: Conditions


def _made(run: Run, instruction: Instruction, revives: PatternRow | None) -> PatternRow:
    """Return the candidate of *instruction*: a new row, or the retired one of the same that it *revives*."""
    anew = new_pattern(
        new_id("pat", run.now_s, run.chance),
        run.tenant_id,
        type=instruction.type,
        dimension=instruction.dimension,
        value=instruction.value,
        rule=instruction.rule,
        conditions=instruction.conditions,
        tokens=instruction.tokens,
        origin="learned",
        now_s=run.now_s,
    )
    return anew if revives is None else _revived(revives, anew)


def _revived(retired: PatternRow, anew: PatternRow) -> PatternRow:
    return replace(
        without_evidence(retired),
        state="candidate",
        rule=anew.rule,
        tokens=anew.tokens,
        conditions=anew.conditions,
        is_approved=False,
        trial_since=None,
    )
