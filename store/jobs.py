"""Table ``training_jobs``: learning work that is due, who does it and how it went. Written by the learner.

A job is a lease: whoever claims it says so again while working. One whose holder fell silent is taken over.
"""

from dataclasses import dataclass, replace

from store.audit import record
from store.clock import iso
from store.database import Database, Row
from store.errors import ConflictError, NotFoundError
from store.ids import new_id
from store.paging import decode_cursor, encode_cursor, split_page
from store.vocabulary import JobKind, JobStatus


@dataclass(frozen=True, slots=True)
class JobRow:
    id: str
    tenant_id: str
    kind: JobKind
    status: JobStatus
    dataset_id: str | None
    range_start_at: str | None
    range_end_at: str | None
    due_at: str
    attempts: int
    claimed_by: str | None
    claimed_at: str | None
    run_id: str | None
    error: str | None
    created_at: str
    finished_at: str | None


def _job(row: Row) -> JobRow:
    return JobRow(**{name: row[name] for name in JobRow.__slots__})


def create_job(
    db: Database,
    tenant_id: str,
    *,
    kind: JobKind,
    due_s: float,
    now_s: float,
    dataset_id: str | None = None,
    range_start_at: str | None = None,
    range_end_at: str | None = None,
) -> JobRow:
    """Return a new pending job that may start at *due_s* (seconds since 1970)."""
    values = {
        "id": new_id("job", now_s),
        "tenant_id": tenant_id,
        "kind": kind,
        "dataset_id": dataset_id,
        "range_start_at": range_start_at,
        "range_end_at": range_end_at,
        "due_at": iso(due_s),
        "created_at": iso(now_s),
    }
    with db.transaction():
        db.execute(
            """
            INSERT INTO training_jobs (id, tenant_id, kind, status, dataset_id, range_start_at, range_end_at, due_at,
              created_at)
            VALUES (:id, :tenant_id, :kind, 'pending', :dataset_id, :range_start_at, :range_end_at, :due_at,
              :created_at)
            """,
            values,
        )
    return get_job(db, tenant_id, values["id"] or "")


def get_job(db: Database, tenant_id: str, job_id: str) -> JobRow:
    """Return one job.

    Raises:
        NotFoundError: the tenant has no such job.
    """
    row = db.row(
        "SELECT * FROM training_jobs WHERE tenant_id = :tenant_id AND id = :id", {"tenant_id": tenant_id, "id": job_id}
    )
    if row is None:
        raise NotFoundError(f"no job {job_id!r}")
    return _job(row)


def list_jobs(
    db: Database,
    tenant_id: str,
    *,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[JobRow], str | None]:
    """Return the tenant's jobs, newest first, and the cursor of the next page."""
    before = decode_cursor(cursor, 2) if cursor else [None, None]
    rows = db.rows(
        """
        SELECT * FROM training_jobs
        WHERE tenant_id = :tenant_id AND (:kind IS NULL OR kind = :kind) AND (:status IS NULL OR status = :status)
          AND (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
        ORDER BY created_at DESC, id DESC LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "kind": kind,
            "status": status,
            "before_at": before[0],
            "before_id": before[1],
            "limit": limit + 1,
        },
    )
    page, has_more = split_page([_job(row) for row in rows], limit)
    return page, encode_cursor(page[-1].created_at, page[-1].id) if has_more else None


@dataclass(frozen=True, slots=True)
class Turn:
    """One tenant among all of an installation, and since when it waits."""

    tenant_id: str
    number: int  # 0 for the installation's first tenant, in the order in which they were made; learning or not
    due_at: str  # of its latest job of a kind that was of no time range; when it was made before the first
    first_at: str  # when the first tenant was made


def turns(db: Database, kind: JobKind) -> list[Turn]:
    """Return every tenant that learns with its latest job of this kind: the scheduler serves them all.

    A classifier is trained only for those with a dataset.
    """
    rows = db.rows(
        """
        SELECT t.id AS tenant_id, t.number, t.first_at, coalesce(
          (SELECT max(j.due_at) FROM training_jobs AS j
           WHERE j.tenant_id = t.id AND j.kind = :kind AND j.range_start_at IS NULL AND j.range_end_at IS NULL),
          t.created_at) AS due_at
        FROM (
          SELECT id, learning, created_at, row_number() OVER (ORDER BY created_at, id) - 1 AS number,
            min(created_at) OVER () AS first_at
          FROM tenants
        ) AS t
        WHERE t.learning = 'on'
          AND (:kind <> 'nlu-train' OR EXISTS (SELECT 1 FROM datasets AS d WHERE d.tenant_id = t.id))
        ORDER BY t.number
        """,
        {"kind": kind},
    )
    return [Turn(**row) for row in rows]


def claim_next(db: Database, *, claimed_by: str, now_s: float, lease_s: float, max_attempts: int) -> JobRow | None:
    """Return the job that has been due longest, now held by *claimed_by*; None when there is nothing to do.

    Jobs whose holder was silent for *lease_s* are due again, or failed after *max_attempts*. A tenant with a job in
    work gets no second one.
    """
    with db.transaction():
        _release_silent(db, now_s=now_s, lease_s=lease_s, max_attempts=max_attempts)
        row = db.row(
            """
            SELECT * FROM training_jobs AS j
            WHERE status = 'pending' AND due_at <= :now
              AND NOT EXISTS (
                SELECT 1 FROM training_jobs AS other WHERE other.tenant_id = j.tenant_id AND other.status = 'processing'
              )
            ORDER BY due_at, id LIMIT 1
            """,
            {"now": iso(now_s)},
        )
        if row is None:
            return None
        job = _job(row)
        db.execute(
            """
            UPDATE training_jobs
            SET status = 'processing', claimed_by = :claimed_by, claimed_at = :now, attempts = attempts + 1
            WHERE id = :id
            """,
            {"id": job.id, "claimed_by": claimed_by, "now": iso(now_s)},
        )
    return replace(job, status="processing", claimed_by=claimed_by, claimed_at=iso(now_s), attempts=job.attempts + 1)


def _release_silent(db: Database, *, now_s: float, lease_s: float, max_attempts: int) -> None:
    db.execute(
        """
        UPDATE training_jobs
        SET status = CASE WHEN attempts >= :max_attempts THEN 'failed' ELSE 'pending' END,
          finished_at = CASE WHEN attempts >= :max_attempts THEN :now END,
          error = 'the learner that worked on it stopped'
        WHERE status = 'processing' AND claimed_at < :silent_since
        """,
        {"now": iso(now_s), "silent_since": iso(now_s - lease_s), "max_attempts": max_attempts},
    )


def renew_claim(db: Database, job: JobRow, now_s: float) -> None:
    """Say that *job* is still in work.

    Raises:
        ConflictError: it was taken over in the meantime.
    """
    _change_held(
        db,
        job,
        "UPDATE training_jobs SET claimed_at = :now WHERE id = :id AND status = 'processing' AND claimed_by = :holder",
        {"now": iso(now_s)},
    )


def complete_job(db: Database, job: JobRow, *, run_id: str | None, now_s: float) -> None:
    """Mark a held job as done.

    Raises:
        ConflictError: it was taken over in the meantime.
    """
    _change_held(
        db,
        job,
        """
        UPDATE training_jobs SET status = 'completed', run_id = :run_id, error = NULL, finished_at = :now
        WHERE id = :id AND status = 'processing' AND claimed_by = :holder
        """,
        {"run_id": run_id, "now": iso(now_s)},
    )


def fail_job(db: Database, job: JobRow, *, error: str, retry_s: float, max_attempts: int, now_s: float) -> None:
    """Mark a held job as failed, or due again after *retry_s* times 2 to the power of the tries so far, less one.

    Raises:
        ConflictError: it was taken over in the meantime.
    """
    is_last = job.attempts >= max_attempts
    _change_held(
        db,
        job,
        """
        UPDATE training_jobs
        SET status = :status, error = :error, due_at = :due_at, finished_at = :finished_at, claimed_by = NULL,
          claimed_at = NULL
        WHERE id = :id AND status = 'processing' AND claimed_by = :holder
        """,
        {
            "status": "failed" if is_last else "pending",
            "error": error,
            "due_at": job.due_at if is_last else iso(now_s + retry_s * 2.0 ** (job.attempts - 1)),
            "finished_at": iso(now_s) if is_last else None,
        },
    )


def release_job(db: Database, job: JobRow) -> None:
    """Give a held job back, the try not counted: the learner stops before it was done.

    Raises:
        ConflictError: it was taken over in the meantime.
    """
    _change_held(
        db,
        job,
        """
        UPDATE training_jobs
        SET status = 'pending', attempts = attempts - 1, claimed_by = NULL, claimed_at = NULL
        WHERE id = :id AND status = 'processing' AND claimed_by = :holder
        """,
        {},
    )


def cancel_job(db: Database, tenant_id: str, job_id: str, *, actor: str, now_s: float) -> JobRow:
    """Return the job as it is after *actor* took it out before anybody began it: failed.

    Raises:
        NotFoundError: the tenant has no such job.
        ConflictError: somebody works on it, or it has ended.
    """
    with db.transaction():
        job = get_job(db, tenant_id, job_id)
        if job.status != "pending":
            raise ConflictError(f"job {job_id!r} is {job.status}; only a pending one can be cancelled")
        db.execute(
            """
            UPDATE training_jobs SET status = 'failed', error = :reason, finished_at = :now
            WHERE tenant_id = :tenant_id AND id = :id
            """,
            {"tenant_id": tenant_id, "id": job_id, "reason": f"cancelled by {actor}", "now": iso(now_s)},
        )
        detail = {"kind": job.kind}
        record(db, tenant_id, actor=actor, action="jobs.cancel", object_id=job_id, detail=detail, now_s=now_s)
        return get_job(db, tenant_id, job_id)


def _change_held(db: Database, job: JobRow, sql: str, values: dict[str, str | None]) -> None:
    with db.transaction():
        if not db.execute(sql, {**values, "id": job.id, "holder": job.claimed_by}):
            raise ConflictError(f"job {job.id!r} was taken over")
