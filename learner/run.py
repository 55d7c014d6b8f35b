"""A learning run from end to end: what is recorded -> what users thought -> what is learned -> what is served."""

from typing import Literal

from learner.patterns.pipeline import run_patterns
from learner.report import Collaborators, RunReport
from learner.signals import find_traffic_signals
from store.config import Config, segment_directory
from store.database import Database
from store.run_lock import run_lock
from store.runs import fail_interrupted_runs, last_completed_run
from store.segments import ingest_orphans
from store.turns import newest_response

Kind = Literal["patterns", "knowledge", "nlu", "all"]


def run_once(
    db: Database, config: Config, tenant_id: str, kind: Kind, *, collaborators: Collaborators, now_s: float
) -> list[RunReport]:
    """Return what one run of *tenant_id* did, one report for each kind of learning.

    Args:
        db: a connection of this thread's own.
        config: all settings.
        tenant_id: whose records.
        kind: ``all`` is patterns, then knowledge.
        collaborators: embedding, tokens, models, chance and the machine's clock.
        now_s: the run's time for all that depends on time; seconds since 1970.

    Raises:
        ConflictError: another run of the tenant did not end within ``[learner] run_wait_s``.
        NotFoundError: there is no such tenant.
        UnavailableError: the database is missing, locked or damaged; nothing was published.
    """
    with run_lock(db.path, tenant_id, wait_s=config.learner.run_wait_s):
        fail_interrupted_runs(db, tenant_id, finished_s=collaborators.clock.now_s())
        ingest_orphans(db, segment_directory(config))
        _find_signals(db, config, tenant_id)
        reports = []
        if kind in ("patterns", "all"):
            reports.append(run_patterns(db, config.patterns, tenant_id, collaborators=collaborators, now_s=now_s))
        return reports


def _find_signals(db: Database, config: Config, tenant_id: str) -> None:
    last = last_completed_run(db, tenant_id, "patterns")
    after = last.cursor.get("response", 0) if last is not None else 0
    find_traffic_signals(db, tenant_id, config.feedback, after=after, until=newest_response(db, tenant_id))
