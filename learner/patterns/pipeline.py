"""One pattern run: read -> study -> decide -> word -> publish, the last in one transaction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from learner.patterns.crash import Crash
from learner.patterns.decision import MEASURED_STATES, Situation, choose, conditions_of, decide_all, is_startable
from learner.patterns.discovery import Found
from learner.patterns.history import History
from learner.patterns.lifecycle import DAY_S
from learner.patterns.publishing import Candidate, Cursor, Outcome, Run, publish_run
from learner.patterns.replies import read_replies
from learner.patterns.safety import MEMORY_S, safety_of
from learner.patterns.study import Study, read_patterns, study
from learner.patterns.wording import word
from learner.report import Collaborators, RunReport
from store.alerts import alerts_since
from store.clock import days_before, parse_iso
from store.config import Config
from store.database import Database
from store.generations import plans_since
from store.ids import new_id
from store.patterns import PatternRow, all_patterns, last_activations, new_pattern, without_evidence
from store.runs import last_completed_run
from store.tenants import get_tenant
from store.tokens import TokenCounter
from store.turns import count_signals, newest_response, newest_signal
from store.vocabulary import SERVED_STATES
from store.windows import Window, read_window


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
    run = Run(run_id, tenant_id, now_s, collaborators.clock, collaborators.models.for_run())
    situation = Situation(
        now_s=now_s,
        traffic_s=min(now_s, collaborators.clock.now_s()),
        settings=settings,
        crash=None,
        activated_s={key: parse_iso(at) for key, at in last_activations(db, tenant_id).items()},
        needs_approval=settings.require_trial_approval or get_tenant(db, tenant_id).require_trial_approval,
    )
    since = _cursor(db, tenant_id)
    until = Cursor(newest_response(db, tenant_id), newest_signal(db, tenant_id), count_signals(db, tenant_id))
    rows = all_patterns(db, tenant_id)
    outcome = Outcome()
    if settings.enabled and (until != since or any(is_due(row, situation) for row in rows)):
        since_at = days_before(now_s, settings.window_days)
        read_replies(db, tenant_id, collaborators.tokens, until=until.response, since_at=since_at)
        window = read_window(db, tenant_id, now_s=now_s, days=settings.window_days)
        situation = replace(situation, crash=_crash(db, tenant_id, window, situation))
        outcome = _decide(run, window, rows, situation, tokens=collaborators.tokens, since=since)
    return publish_run(db, run, outcome, until)


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
    return Cursor(read.get("response", 0), read.get("signal", 0), read.get("n_signals", 0))


def _crash(db: Database, tenant_id: str, window: Window, situation: Situation) -> Crash | None:
    """Return the crash that this run must act on; a known one is not acted on again."""
    since_s = situation.now_s - MEMORY_S
    safety = safety_of(
        _history(window),
        alerts_since(db, tenant_id, "crash", since_s),
        situation.activated_s,
        plans_since(db, tenant_id, since_s),
        situation.now_s,
        situation.settings,
    )
    return safety.crash


def _history(window: Window) -> History:
    responses, signals = window.responses, window.signals
    n = len(responses.ids)
    is_treated = np.zeros(n, np.bool_)
    is_treated[window.injections.response[window.injections.treated]] = True
    history = History()
    history.add(
        created_s=responses.created_s,
        users=responses.users,
        conversations=responses.conversations,
        is_holdout=responses.is_holdout,
        is_treated=is_treated,
        n_responses=np.ones(n),
        n_rated=np.asarray(np.bincount(signals.response, minlength=n) > 0, np.float64),
        good=np.asarray(np.bincount(signals.response, np.maximum(signals.weight, 0), n), np.float64),
        bad=np.asarray(np.bincount(signals.response, np.maximum(-signals.weight, 0), n), np.float64),
    )
    return history


def _decide(
    run: Run, window: Window, rows: Sequence[PatternRow], situation: Situation, *, tokens: TokenCounter, since: Cursor
) -> Outcome:
    found = study(window)
    measured = [row for row in rows if row.state in MEASURED_STATES]
    readings = read_patterns(measured, found, situation.settings, now_s=situation.now_s)
    is_new = window.responses.seq > since.response
    return Outcome(
        changes=decide_all(rows, readings, situation),
        candidates=_candidates(run, found, rows, situation, tokens),
        crash=situation.crash,
        n_responses=int(is_new.sum()),
        n_signals=int((window.signals.seq > since.signal).sum()),
        satisfaction=float(found.outcomes.satisfaction[is_new].mean()) if is_new.any() else None,
    )


def _candidates(
    run: Run, found: Study, rows: Sequence[PatternRow], situation: Situation, tokens: TokenCounter
) -> list[Candidate]:
    worded = [
        (_worded(run, one, tokens, situation.settings.max_rule_tokens), one, revived)
        for one, revived in choose(found, rows, situation)
    ]
    return [
        Candidate(row if revived is None else _revived(revived, row), one, revived)
        for row, one, revived in worded
        if row is not None
    ]


def _worded(run: Run, one: Found, tokens: TokenCounter, max_tokens: int) -> PatternRow | None:
    wording = word(
        type=one.type,
        dimension=one.dimension,
        value=one.value,
        question_type=one.question_type,
        tokens=tokens,
        max_tokens=max_tokens,
        model=run.models.wording,
    )
    if wording is None:
        return None
    return new_pattern(
        new_id("pat", run.now_s),
        run.tenant_id,
        type=one.type,
        dimension=one.dimension,
        value=one.value,
        rule=wording.rule,
        conditions=conditions_of(one),
        tokens=wording.tokens,
        origin="learned",
        now_s=run.now_s,
    )


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
