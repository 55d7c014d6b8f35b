"""A learning run from end to end: what was recorded, what users thought of it, what is learned, what is served."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

from learner.knowledge.pipeline import Period, run_knowledge
from learner.nlu.pipeline import run_nlu
from learner.patterns.pipeline import run_patterns
from learner.report import Collaborators, RunReport
from learner.signals import find_traffic_signals
from store.alerts import raise_alert
from store.config import Config, segment_directory
from store.database import Database
from store.datasets import get_dataset, has_dataset
from store.run_lock import run_lock
from store.runs import RunKind, fail_interrupted_runs, fail_run, last_completed_run, start_run
from store.segments import ingest_orphans
from store.tenants import get_tenant
from store.turns import newest_response

log = logging.getLogger(__name__)

Kind = Literal["patterns", "knowledge", "nlu", "all"]
Pipeline = Callable[[Database, Config, str, Collaborators, str, float], RunReport]

KINDS: Final[Mapping[Kind, tuple[RunKind, ...]]] = {
    "patterns": ("patterns",),
    "knowledge": ("knowledge",),
    "nlu": ("nlu",),
    "all": ("patterns", "knowledge", "nlu"),
}


def run_once(
    db: Database,
    config: Config,
    tenant_id: str,
    kind: Kind,
    *,
    collaborators: Collaborators,
    now_s: float,
    period: Period | None = None,
    dataset_id: str | None = None,
) -> list[RunReport]:
    """Return what one run of *tenant_id* did, one report for each kind of learning.

    Args:
        db: a connection of this thread's own.
        config: all settings.
        tenant_id: whose records.
        kind: ``all`` is patterns, then knowledge, then nlu if there is a dataset to train on.
        collaborators: embedding, tokens, models, chance and the machine's clock.
        now_s: the run's time for all that depends on time; seconds since 1970.
        period: the conversations that a knowledge run looks at; None: what is new.
        dataset_id: what nlu trains on; None: ``[training] dataset_id``.

    Raises:
        ValueError: there is no pipeline for *kind*, or none that takes a *period*.
        ConflictError: another run of the tenant did not end within ``[learner] run_wait_s``.
        NotFoundError: there is no such tenant, or no such dataset to train on.
        UnavailableError: the database is missing, locked or damaged; nothing was published.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if period is not None and kind != "knowledge":
        raise ValueError(f"only a knowledge run takes a period, not {kind}")
    get_tenant(db, tenant_id)
    dataset_id = dataset_id or config.training.dataset_id
    if kind == "nlu":
        get_dataset(db, tenant_id, dataset_id)
    with run_lock(db.path, tenant_id, wait_s=config.learner.run_wait_s):
        fail_interrupted_runs(db, tenant_id, finished_s=collaborators.clock.now_s())
        ingest_orphans(db, segment_directory(config))
        pipelines: dict[RunKind, Pipeline] = {
            "patterns": run_patterns,
            "knowledge": partial(run_knowledge, period=period),
            "nlu": partial(run_nlu, dataset_id=dataset_id),
        }
        if kind != "nlu":
            _find_signals(db, config, tenant_id)
        is_wanted = kind == "nlu" or has_dataset(db, tenant_id, dataset_id)
        kinds = [one for one in KINDS[kind] if one != "nlu" or is_wanted]
        return [_run(db, config, tenant_id, one, pipelines[one], collaborators, now_s) for one in kinds]


def _find_signals(db: Database, config: Config, tenant_id: str) -> None:
    last = last_completed_run(db, tenant_id, "patterns")
    after = last.cursor.get("response", 0) if last is not None else 0
    find_traffic_signals(db, tenant_id, config.feedback, after=after, until=newest_response(db, tenant_id))


def _run(  # noqa: PLR0917  # the signature of every kind of run
    db: Database,
    config: Config,
    tenant_id: str,
    kind: RunKind,
    pipeline: Pipeline,
    collaborators: Collaborators,
    now_s: float,
) -> RunReport:
    """Return the report of one pipeline; a failure stays as a failed run and an alert, and is raised."""
    clock = collaborators.clock
    run_id = start_run(db, tenant_id, kind, now_s, clock.now_s())
    try:
        return pipeline(db, config, tenant_id, collaborators, run_id, now_s)
    except Exception as exc:
        log.exception("run %s (%s) of tenant %s failed", run_id, kind, tenant_id)
        error = f"{type(exc).__name__}: {exc}"
        with db.transaction():
            fail_run(db, tenant_id, run_id, error=error, finished_s=clock.now_s())
            raise_alert(
                db,
                tenant_id,
                kind="run_failed",
                message=f"a {kind} run failed: {error}",
                detail={"kind": kind},
                run_id=run_id,
                now_s=now_s,
            )
        raise
