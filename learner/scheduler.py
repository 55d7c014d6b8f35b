"""Runs what is due: each tenant at slots of its own, one job at a time, in a thread beside the admin API.

Jobs are rows, so that what was due survives a crash: a learner that dies is replaced by whichever looks next.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from store.clock import Clock, parse_iso
from store.config import Config, LearnerSection
from store.database import Database
from store.errors import ConflictError, StoreError
from store.jobs import (
    JobRow,
    Turn,
    claim_next,
    complete_job,
    create_job,
    fail_job,
    release_job,
    renew_claim,
    turns,
)
from store.vocabulary import JobKind

log = logging.getLogger(__name__)

SLOT_S: Final = 120.0  # two minutes: a run of 300 conversations takes about that with a model
GOLDEN: Final = (5**0.5 - 1) / 2
STOP_WAIT_S: Final = 5.0  # that a job in work gets at shutdown; a run publishes at its end or not at all

Execute = Callable[[JobRow], str | None]  # does a job and returns its run's id


def latest_slot_s(turn: Turn, kind: JobKind, interval_s: float, now_s: float) -> float:
    """Return when the tenant's newest slot began, in seconds since 1970, at most *now_s*.

    A tenant's slots are one interval apart. The interval is divided into slots of ``SLOT_S``; each further tenant gets
    the one that is about a golden ratio of the interval after that of the tenant before. So however many there are they
    lie evenly in it, nobody's slot moves when another tenant comes, and no two have the same one until there are more
    tenants than slots. Source: the three-distance theorem, Sos 1958. The first one's begins at the time of day at which
    it was made: not all installations fall upon a provider at midnight.

    >>> turns = [Turn("a", n, "", "2026-11-21T12:00:00.000Z") for n in range(720)]
    >>> slots = sorted(latest_slot_s(turn, "knowledge", 86400, 1.9e9) for turn in turns)
    >>> {round(after - before) for before, after in zip(slots, slots[1:])}
    {120}
    """
    n_slots = max(int(interval_s // SLOT_S), 1)
    position = turn.number * _step(n_slots) % n_slots
    # The kinds of one tenant, and of two in neighbouring slots, do not begin at once either.
    within_s = SLOT_S / 2 if kind == "patterns" else 0.0
    offset_s = (parse_iso(turn.first_at) + position * interval_s / n_slots + within_s) % interval_s
    return (now_s - offset_s) // interval_s * interval_s + offset_s


@cache
def _step(n_slots: int) -> int:
    """Return a step that reaches every slot and whose multiples lie evenly among *n_slots*, however many they are.

    They do when the continued fraction of the step's part of the whole has small quotients, as the golden ratio's has.
    """
    near = round(GOLDEN * n_slots)
    steps = [step for step in range(max(near - 100, 1), min(near + 100, n_slots) + 1) if math.gcd(step, n_slots) == 1]
    return min(steps, key=lambda step: (_largest_quotient(n_slots, step), abs(step - GOLDEN * n_slots)))


def _largest_quotient(n: int, step: int) -> int:
    largest = 0
    while step:
        largest = max(largest, n // step)
        n, step = step, n % step
    return largest


@dataclass
class Work:
    """A job in its thread; after the thread ended either *run_id* or *error* says how it went."""

    job: JobRow
    thread: threading.Thread = field(init=False)
    run_id: str | None = None
    error: str | None = None


class Scheduler:
    """Queues due jobs, claims one, does it, writes how it went; ``run`` repeats that until told to stop."""

    def __init__(
        self, config: Config, *, open_database: Callable[[], Database], execute: Execute, clock: Clock, name: str
    ) -> None:
        self._section: LearnerSection = config.learner
        self._intervals_s = intervals_s(config)
        self._open_database = open_database
        self._execute = execute
        self._clock = clock
        self._name = name
        self._work: Work | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()

    def wake(self) -> None:
        """Look for work now instead of at the next poll."""
        self._wake.set()

    def stop(self) -> None:
        """Make ``run`` return soon: a job in work gets some seconds, then it is given back."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Do what is due until ``stop``; a failure of one look is logged, and the next look comes."""
        while not self._stop.is_set():
            try:
                with self._open_database() as db:
                    self._run_on(db)
            except Exception:
                log.exception("the scheduler could not look for work")
                self._wait()
        self._finish()

    def _run_on(self, db: Database) -> None:
        while not self._stop.is_set() and db.is_current():  # a backup may have been put in its place
            self.look(db)
            self._wait()

    def _wait(self) -> None:
        self._wake.wait(self._section.poll_s)
        self._wake.clear()

    def look(self, db: Database) -> None:
        """Queue what is due, settle the job that ended, and start the next."""
        self._queue_due(db)
        if self._work is not None and self._work.thread.is_alive():
            self._renew(db, self._work.job)
            return
        self._settle(db)
        job = claim_next(
            db,
            claimed_by=self._name,
            now_s=self._clock.now_s(),
            lease_s=self._section.job_lease_s,
            max_attempts=self._section.job_attempts,
        )
        if job is not None:
            self._begin(job)

    def _queue_due(self, db: Database) -> None:
        now_s = self._clock.now_s()
        for kind, interval_s in self._intervals_s.items():
            due = _tenants_due(db, kind, interval_s, now_s)
            if not due:
                continue
            with db.transaction():
                # Looked at again under the write lock: another learner may have queued them just now.
                for tenant_id, slot_s in _tenants_due(db, kind, interval_s, now_s).items():
                    create_job(db, tenant_id, kind=kind, due_s=slot_s, now_s=now_s)

    def _begin(self, job: JobRow) -> None:
        work = Work(job)
        work.thread = threading.Thread(target=self._do, args=(work,), name=f"job-{job.id}", daemon=True)
        self._work = work
        log.info("job %s: %s for tenant %s, try %d", job.id, job.kind, job.tenant_id, job.attempts)
        work.thread.start()

    def _do(self, work: Work) -> None:
        try:
            work.run_id = self._execute(work.job)
        except Exception as exc:
            log.exception("job %s failed", work.job.id)
            work.error = f"{type(exc).__name__}: {exc}"
        self._wake.set()

    def _renew(self, db: Database, job: JobRow) -> None:
        try:
            renew_claim(db, job, self._clock.now_s())
        except ConflictError:
            log.warning("job %s was taken over by another learner while this one worked on it", job.id)

    def _settle(self, db: Database) -> None:
        work, self._work = self._work, None
        if work is None:
            return
        try:
            if work.error is None:
                complete_job(db, work.job, run_id=work.run_id, now_s=self._clock.now_s())
                return
            fail_job(
                db,
                work.job,
                error=work.error,
                retry_s=self._section.job_retry_s,
                max_attempts=self._section.job_attempts,
                now_s=self._clock.now_s(),
            )
        except ConflictError:
            log.warning("job %s was taken over by another learner while this one worked on it", work.job.id)

    def _finish(self) -> None:
        work = self._work
        if work is None:
            return
        work.thread.join(STOP_WAIT_S)
        try:
            with self._open_database() as db:
                if work.thread.is_alive():
                    release_job(db, work.job)
                else:
                    self._settle(db)
        except StoreError:
            log.exception("job %s could not be given back; its lease runs out", work.job.id)


def intervals_s(config: Config) -> Mapping[JobKind, float]:
    """Return how far apart the runs of each enabled kind are, in seconds."""
    intervals: dict[JobKind, float] = {}
    if config.patterns.enabled:
        intervals["patterns"] = config.learner.run_interval_h * 3600
    if config.knowledge.enabled:
        intervals["knowledge"] = config.learner.knowledge_interval_h * 3600
    if config.nlu.enabled:
        intervals["nlu-train"] = config.learner.nlu_interval_h * 3600
    return intervals


def _tenants_due(db: Database, kind: JobKind, interval_s: float, now_s: float) -> dict[str, float]:
    """Return ``{tenant id: start of its newest slot}`` of those that had no job of this kind since then."""
    slots = {
        turn.tenant_id: (latest_slot_s(turn, kind, interval_s, now_s), parse_iso(turn.due_at))
        for turn in turns(db, kind)
    }
    # Stored moments have whole milliseconds.
    return {tenant_id: slot_s for tenant_id, (slot_s, due_s) in slots.items() if slot_s > due_s + 0.001}
