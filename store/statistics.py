"""Read-only numbers for people: satisfaction by day and arm, lift, and what waits for a person."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from store.clock import days_before, parse_iso
from store.database import Database, Row


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
    """Return each arm's numbers of the last *days* days, by day; days without a response are left out."""
    rows = db.rows(
        """
        SELECT day, arm, n_responses, n_signals, satisfaction, thumbs_up_rate, thumbs_down_rate, follow_up_rate,
          regenerate_rate
        FROM v_satisfaction_by_day
        WHERE tenant_id = :tenant_id AND day >= :since AND day <= :until ORDER BY day, arm
        """,
        {
            "tenant_id": tenant_id,
            "since": days_before(now_s, days)[:10],
            "until": days_before(now_s, 0)[:10],
        },
    )
    return [ArmDay(**{name: row[name] for name in ArmDay.__slots__}) for row in rows]


def arm_totals(db: Database, tenant_id: str, *, now_s: float, days: int) -> Mapping[str, ArmTotal]:
    """Return the numbers of ``treated`` and ``holdout`` over the last *days* days; both are always there."""
    rows = db.rows(
        """
        SELECT CASE is_holdout WHEN 1 THEN 'holdout' ELSE 'treated' END AS arm, count(*) AS n_conversations,
          sum(n) AS n_responses, sum(n * n) AS sum_nn, sum(total) AS sum_total, sum(total * total) AS sum_tt,
          sum(n * total) AS sum_nt, sum(n_signals) AS n_signals, sum(n_up) AS n_up, sum(n_follow_up) AS n_follow_up
        FROM (
          SELECT is_holdout, count(*) AS n, sum(satisfaction) AS total, sum(n_signals) AS n_signals,
            sum(thumbs_up > 0) AS n_up, sum(follow_up > 0) AS n_follow_up
          FROM v_response_satisfaction
          WHERE tenant_id = :tenant_id AND created_at >= :since AND created_at <= :until
          GROUP BY conversation_id, is_holdout
        ) AS by_conversation
        GROUP BY arm
        """,
        {"tenant_id": tenant_id, "since": days_before(now_s, days), "until": days_before(now_s, 0)},
    )
    found = {
        row["arm"]: ArmTotal(
            arm=row["arm"],
            n_responses=row["n_responses"],
            n_signals=row["n_signals"],
            satisfaction=row["sum_total"] / row["n_responses"],
            stderr=_stderr(row),
            thumbs_up_rate=row["n_up"] / row["n_responses"],
            follow_up_rate=row["n_follow_up"] / row["n_responses"],
        )
        for row in rows
    }
    return {arm: found.get(arm, ArmTotal(arm, 0, 0, None, None, None, None)) for arm in ("treated", "holdout")}


def _stderr(row: Row) -> float | None:
    """Return the standard error of a mean over responses whose arm was drawn per conversation.

    Conversations are the clusters: residuals of one conversation add up before they are squared.
    Source: Liang & Zeger 1986, Biometrika 73(1), for a mean.
    """
    n_conversations, n_responses = int(row["n_conversations"]), int(row["n_responses"])
    if n_conversations < 2:
        return None
    mean = float(row["sum_total"]) / n_responses
    squares = max(row["sum_tt"] - 2 * mean * row["sum_nt"] + mean * mean * row["sum_nn"], 0.0)
    return math.sqrt(squares * n_conversations / (n_conversations - 1)) / n_responses


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
          (SELECT count(*) FROM v_pending_contexts WHERE tenant_id = :tenant_id) AS n_pending_contexts,
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
