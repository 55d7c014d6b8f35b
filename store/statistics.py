"""Read-only numbers for people: satisfaction by day and arm, lift, and what waits for a person."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.clock import day_before, parse_iso
from store.database import Database


@dataclass(frozen=True, slots=True)
class ArmDay:
    """One arm on one day (UTC); satisfaction in [-1, 1], rates in [0, 1]."""

    day: str
    arm: str
    n_responses: int
    n_signals: int
    satisfaction: float
    thumbs_up_rate: float
    thumbs_down_rate: float
    follow_up_rate: float
    regenerate_rate: float


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What the responses of one arm and day (UTC) add up to; the columns of ``daily_sums`` say what they are."""

    day: str
    is_holdout: int
    n_responses: int
    n_signals: int
    satisfaction: float
    n_thumbs_up: int
    n_follow_up: int
    injected_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    n_conversations: int
    sum_nn: float
    sum_tt: float
    sum_nt: float


@dataclass(frozen=True, slots=True)
class ArmTotal:
    """One arm over the whole period; ``stderr`` of its mean satisfaction, None under two conversations."""

    arm: str
    n_responses: int
    n_signals: int
    satisfaction: float | None
    stderr: float | None
    thumbs_up_rate: float | None
    follow_up_rate: float | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is now."""

    n_active_patterns: int
    n_trial_patterns: int
    n_candidate_patterns: int
    n_approved_contexts: int
    n_pending_contexts: int
    n_flagged_contexts: int
    n_open_alerts: int
    n_examples_to_review: int


def satisfaction_by_day(db: Database, tenant_id: str, *, now_s: float, days: int) -> list[ArmDay]:
    """Return each arm's numbers of today and the *days* days before, by day; days without a response are left out."""
    rows = db.rows(
        """
        SELECT day, arm, n_responses, n_signals, satisfaction, thumbs_up_rate, thumbs_down_rate, follow_up_rate,
          regenerate_rate
        FROM v_satisfaction_by_day
        WHERE tenant_id = :tenant_id AND day >= :since AND day <= :until ORDER BY day, arm
        """,
        {"tenant_id": tenant_id, "since": day_before(now_s, days), "until": day_before(now_s)},
    )
    return [ArmDay(**{name: row[name] for name in ArmDay.__slots__}) for row in rows]


def daily_sums(db: Database, tenant_id: str, *, first_day: str, last_day: str) -> list[ArmSums]:
    """Return what the responses of each day and arm add up to, by day, both days included."""
    rows = db.rows(
        """
        SELECT * FROM daily_sums WHERE tenant_id = :tenant_id AND day >= :first_day AND day <= :last_day
        ORDER BY day, is_holdout
        """,
        {"tenant_id": tenant_id, "first_day": first_day, "last_day": last_day},
    )
    return [ArmSums(**{name: row[name] for name in ArmSums.__slots__}) for row in rows]


def arm_totals(db: Database, tenant_id: str, *, first_day: str, last_day: str) -> Mapping[str, ArmTotal]:
    """Return the numbers of ``treated`` and ``holdout`` over whole days (UTC); both are always there."""
    return totals_of(daily_sums(db, tenant_id, first_day=first_day, last_day=last_day))


def totals_of(rows: Iterable[ArmSums]) -> Mapping[str, ArmTotal]:
    """Return the numbers of ``treated`` and ``holdout`` over all of *rows*; both are always there."""
    arms: dict[str, list[ArmSums]] = {"treated": [], "holdout": []}
    for row in rows:
        arms["holdout" if row.is_holdout else "treated"].append(row)
    return {arm: _total(arm, found) for arm, found in arms.items()}


def _total(arm: str, rows: Sequence[ArmSums]) -> ArmTotal:
    n_responses = sum(row.n_responses for row in rows)
    satisfaction = sum(row.satisfaction for row in rows)

    def rate(total: float) -> float | None:
        return total / n_responses if n_responses else None

    return ArmTotal(
        arm=arm,
        n_responses=n_responses,
        n_signals=sum(row.n_signals for row in rows),
        satisfaction=rate(satisfaction),
        stderr=_stderr(rows, satisfaction / n_responses, n_responses) if n_responses else None,
        thumbs_up_rate=rate(sum(row.n_thumbs_up for row in rows)),
        follow_up_rate=rate(sum(row.n_follow_up for row in rows)),
    )


def _stderr(rows: Sequence[ArmSums], mean: float, n_responses: int) -> float | None:
    """Return the standard error of *mean* over responses whose arm was drawn per conversation.

    Conversations are the clusters: residuals of one conversation add up before they are squared. A conversation counts
    whole, on the day that it began: one that runs over the edge of the period makes no difference that matters.
    Source: Liang & Zeger 1986, Biometrika 73(1), for a mean.
    """
    n_conversations = sum(row.n_conversations for row in rows)
    if n_conversations < 2:
        return None
    squares = sum(row.sum_tt - 2 * mean * row.sum_nt + mean * mean * row.sum_nn for row in rows)
    return math.sqrt(max(squares, 0.0) * n_conversations / (n_conversations - 1)) / n_responses


def counts(db: Database, tenant_id: str) -> Counts:
    """Return what the tenant has now."""
    row = db.row(
        """
        SELECT
          (SELECT count(*) FROM learned_patterns WHERE tenant_id = :tenant_id
            AND state IN ('active', 'warmdown', 'pinned')) AS n_active_patterns,
          (SELECT count(*) FROM learned_patterns WHERE tenant_id = :tenant_id AND state = 'trial') AS n_trial_patterns,
          (SELECT count(*) FROM learned_patterns WHERE tenant_id = :tenant_id AND state = 'candidate')
            AS n_candidate_patterns,
          (SELECT count(*) FROM ai_contexts WHERE tenant_id = :tenant_id AND is_served = 1) AS n_approved_contexts,
          (SELECT count(*) FROM context_revisions AS r CROSS JOIN ai_contexts AS c ON c.id = r.context_id
            WHERE r.status = 'pending_approval' AND c.tenant_id = :tenant_id) AS n_pending_contexts,
          (SELECT count(*) FROM ai_contexts WHERE tenant_id = :tenant_id AND status = 'flagged') AS n_flagged_contexts,
          (SELECT count(*) FROM alerts WHERE tenant_id = :tenant_id AND acknowledged_at IS NULL) AS n_open_alerts,
          (SELECT coalesce(sum(n_needs_review), 0) FROM datasets WHERE tenant_id = :tenant_id) AS n_examples_to_review
        """,
        {"tenant_id": tenant_id},
    )
    assert row is not None
    return Counts(**{name: row[name] for name in Counts.__slots__})


@dataclass(frozen=True, slots=True)
class InstallationTotals:
    """What there is over all tenants together, for monitoring: numbers only."""

    jobs: list[tuple[str, str, int]]  # kind, status, number
    last_runs: list[tuple[str, float]]  # kind, seconds since 1970
    patterns: list[tuple[str, int]]  # state, number
    contexts: list[tuple[str, int]]  # status, number
    open_alerts: int


def installation_totals(db: Database) -> InstallationTotals:
    """Return the numbers that ``/metrics`` shows."""
    jobs = db.rows("SELECT kind, status, count(*) FROM training_jobs GROUP BY kind, status")
    last_runs = db.rows("SELECT kind, max(finished_at) FROM learning_runs WHERE status = 'completed' GROUP BY kind")
    patterns = db.rows("SELECT state, count(*) FROM learned_patterns GROUP BY state")
    contexts = db.rows("SELECT status, count(*) FROM ai_contexts GROUP BY status")
    return InstallationTotals(
        jobs=[(row[0], row[1], row[2]) for row in jobs],
        last_runs=[(row[0], parse_iso(row[1])) for row in last_runs],
        patterns=[(row[0], row[1]) for row in patterns],
        contexts=[(row[0], row[1]) for row in contexts],
        open_alerts=int(db.value("SELECT count(*) FROM alerts WHERE acknowledged_at IS NULL")),
    )


@dataclass(frozen=True, slots=True)
class Spending:
    """Dollars by the known prices; a model without a known price counts 0."""

    learner_usd: float  # of models in learning runs since a day
    learner_calls: int
    embedding_usd: float  # of vectors of entries, since ever
    requests_usd: float | None  # of this month's requests under keys with limits; None when none is counted
    n_requests: int


def spending(db: Database, tenant_id: str, *, first_day: str, month: str) -> Spending:
    """Return what the tenant's learning cost since *first_day*, and its counted requests in *month* (2026-11)."""
    values = {"tenant_id": tenant_id, "first_day": first_day, "month": month}
    runs = db.row(
        """
        SELECT coalesce(sum(cost_usd), 0.0) AS usd, coalesce(sum(model_calls), 0) AS calls FROM learning_runs
        WHERE tenant_id = :tenant_id AND kind IN ('patterns', 'knowledge', 'nlu') AND run_at >= :first_day
        """,
        values,
    )
    requests = db.row(
        """
        SELECT sum(cost_usd) AS usd, coalesce(sum(requests), 0) AS n FROM key_months
        WHERE month = :month AND tenant_id = :tenant_id
        """,
        values,
    )
    embedding = db.value(
        "SELECT coalesce(sum(cost_usd), 0.0) FROM embedding_states WHERE tenant_id = :tenant_id", values
    )
    assert runs is not None
    assert requests is not None
    return Spending(runs["usd"], runs["calls"], embedding, requests["usd"], requests["n"])


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Tokens per response of one arm, and the share of the prompts' that providers read from their caches."""

    injected: float
    prompt: float
    cached_share: float | None  # None when no upstream reported prompt tokens


def token_use(rows: Iterable[ArmSums], *, is_holdout: bool) -> TokenUse | None:
    """Return the tokens of one arm over all of *rows*, None without a response."""
    chosen = [row for row in rows if bool(row.is_holdout) is is_holdout]
    n_responses = sum(row.n_responses for row in chosen)
    if not n_responses:
        return None
    prompt = sum(row.prompt_tokens for row in chosen)
    cached = sum(row.cached_tokens for row in chosen)
    injected = sum(row.injected_tokens for row in chosen)
    return TokenUse(injected / n_responses, prompt / n_responses, cached / prompt if prompt else None)
