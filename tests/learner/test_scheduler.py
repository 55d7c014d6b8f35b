"""The scheduler: slots of each tenant's own, one job at a time, taken over when a learner dies."""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.scheduler import Scheduler, intervals_s, latest_slot_s
from store.clock import ManualClock, iso
from store.config import Config
from store.database import Database, open_database
from store.datasets import ensure_dataset
from store.jobs import JobRow, Turn, claim_next, create_job, get_job, list_jobs
from store.tenants import ensure_tenant, set_learning
from store.vocabulary import JobKind
from tests.conftest import NOW_S

WAIT_S = 10.0
HOUR_S = 3600.0


@dataclass
class Bench:
    """A learner's work: notes each job, waits where a test says so, fails where a test says so."""

    done: list[JobRow] = field(default_factory=list)
    error: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, job: JobRow) -> None:
        self.begun.release()
        self.gate.wait(WAIT_S)
        self.done.append(job)
        if self.error is not None:
            raise self.error


@pytest.fixture
def quiet(config: Config) -> Config:
    """Settings under which nothing is due by itself."""
    return dataclasses.replace(
        config,
        patterns=dataclasses.replace(config.patterns, enabled=False),
        knowledge=dataclasses.replace(config.knowledge, enabled=False),
        nlu=dataclasses.replace(config.nlu, enabled=False),
        learner=dataclasses.replace(config.learner, poll_s=0.02),
    )


def scheduler_of(config: Config, bench: Bench, clock: ManualClock, name: str = "learner-1") -> Scheduler:
    return Scheduler(config, open_database=lambda: open_database(config.store), execute=bench, clock=clock, name=name)


def eventually(look: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(500):
        if look():
            return
        waited.wait(0.01)
    raise AssertionError("did not happen")


@contextmanager
def running(scheduler: Scheduler) -> Iterator[None]:
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    try:
        yield
    finally:
        scheduler.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def turn(number: int, first_s: float = NOW_S) -> Turn:
    return Turn(f"tenant-{number}", number, iso(first_s), iso(first_s))


@given(st.integers(0, 5000), st.floats(1e9, 3e9), st.floats(60, 1e6), st.sampled_from(["patterns", "knowledge"]))
def test_a_slot_is_at_most_one_interval_ago_and_stays_until_the_next(
    number: int, now_s: float, interval_s: float, kind: JobKind
) -> None:
    slot_s = latest_slot_s(turn(number), kind, interval_s, now_s)
    assert -1e-3 <= now_s - slot_s <= interval_s + 1e-3
    assert latest_slot_s(turn(number), kind, interval_s, slot_s + interval_s / 2) == pytest.approx(slot_s, abs=1e-3)


def gaps(n_tenants: int, kind: JobKind = "knowledge", interval_s: float = 24 * HOUR_S) -> list[int]:
    """Return the seconds between the slots of *n_tenants*, around the clock."""
    slots = sorted(latest_slot_s(turn(number), kind, interval_s, NOW_S) for number in range(n_tenants))
    return [round(after - before) for before, after in pairwise([*slots, slots[0] + interval_s])]


def test_as_many_tenants_as_there_are_slots_are_two_minutes_apart() -> None:
    assert set(gaps(720)) == {120}
    assert set(gaps(180, "patterns", 6 * HOUR_S)) == {120}


@given(st.integers(2, 720))
def test_any_number_of_tenants_is_spread_evenly_and_none_closer_than_two_minutes(n_tenants: int) -> None:
    found = gaps(n_tenants)
    mean = 24 * HOUR_S / n_tenants
    assert min(found) >= max(120, 0.25 * mean)
    assert max(found) <= 2.2 * mean + 120


def test_more_tenants_than_slots_share_them_evenly() -> None:
    more = [latest_slot_s(turn(number), "knowledge", 24 * HOUR_S, NOW_S) for number in range(2000)]
    per_slot = Counter(more)
    assert max(per_slot.values()) == 3


def test_installations_do_not_share_their_slots() -> None:
    slots = {latest_slot_s(turn(0, NOW_S + 3607 * number), "knowledge", 24 * HOUR_S, NOW_S) for number in range(24)}
    assert len(slots) == 24


def test_disabled_learning_is_not_scheduled(config: Config, quiet: Config) -> None:
    assert intervals_s(config) == {"patterns": 6 * HOUR_S, "knowledge": 24 * HOUR_S, "nlu-train": 24 * HOUR_S}
    assert intervals_s(quiet) == {}


def test_a_classifier_is_trained_only_for_tenants_with_a_dataset(
    config: Config, db: Database, clock: ManualClock
) -> None:
    ensure_tenant(db, "other", NOW_S)
    ensure_dataset(db, "other", "ds-auto-training", NOW_S)
    scheduler = scheduler_of(config, Bench(), clock)
    for _ in range(24):
        clock.advance(HOUR_S)
        scheduler.look(db)
    assert [job.kind for job in list_jobs(db, "default", kind="nlu-train")[0]] == []
    assert [job.kind for job in list_jobs(db, "other", kind="nlu-train")[0]] == ["nlu-train"]


def test_each_tenant_gets_one_job_per_interval_and_kind(config: Config, db: Database, clock: ManualClock) -> None:
    ensure_tenant(db, "off", NOW_S)
    set_learning(db, "off", learning=False)
    scheduler = scheduler_of(config, Bench(), clock)
    for _ in range(24 * 2):
        clock.advance(HOUR_S / 2)
        scheduler.look(db)
    jobs = [job for tenant in ("default", "off") for job in list_jobs(db, tenant)[0]]
    kinds = sorted(job.kind for job in jobs)
    assert kinds == ["knowledge"] + ["patterns"] * 4
    assert {job.tenant_id for job in jobs} == {"default"}


def test_a_learner_that_was_down_for_days_makes_up_with_one_run(
    config: Config, db: Database, clock: ManualClock
) -> None:
    clock.advance(10 * 24 * HOUR_S)
    scheduler_of(config, Bench(), clock).look(db)
    assert sorted(job.kind for job in list_jobs(db, "default")[0]) == ["knowledge", "patterns"]


def test_a_job_is_done_and_marked(quiet: Config, db: Database, clock: ManualClock) -> None:
    bench = Bench()
    job = create_job(db, "default", kind="patterns", due_s=NOW_S, now_s=NOW_S)
    with running(scheduler_of(quiet, bench, clock)):
        eventually(lambda: get_job(db, "default", job.id).status == "completed")
    assert [done.id for done in bench.done] == [job.id]


def test_a_failed_job_is_tried_again_later_and_the_scheduler_goes_on(
    quiet: Config, db: Database, clock: ManualClock
) -> None:
    bench = Bench(error=ValueError("no luck"))
    job = create_job(db, "default", kind="patterns", due_s=NOW_S, now_s=NOW_S)
    with running(scheduler_of(quiet, bench, clock)):
        eventually(lambda: get_job(db, "default", job.id).error == "ValueError: no luck")
        bench.error = None
        clock.advance(quiet.learner.job_retry_s + 1)
        eventually(lambda: get_job(db, "default", job.id).status == "completed")
    assert get_job(db, "default", job.id).attempts == 2


def test_a_job_of_a_dead_learner_is_taken_over(quiet: Config, db: Database, clock: ManualClock) -> None:
    bench = Bench()
    job = create_job(db, "default", kind="patterns", due_s=NOW_S, now_s=NOW_S)
    claim_next(db, claimed_by="dead", now_s=clock.now_s(), lease_s=60, max_attempts=3)
    with running(scheduler_of(quiet, bench, clock, "alive")):
        clock.advance(quiet.learner.job_lease_s + 1)
        eventually(lambda: get_job(db, "default", job.id).status == "completed")
    row = get_job(db, "default", job.id)
    assert (row.claimed_by, row.attempts) == ("alive", 2)


def test_a_long_job_keeps_its_lease_and_no_second_one_begins(quiet: Config, db: Database, clock: ManualClock) -> None:
    bench = Bench()
    bench.gate.clear()
    first = create_job(db, "default", kind="patterns", due_s=NOW_S - 1, now_s=NOW_S)
    second = create_job(db, "default", kind="knowledge", due_s=NOW_S, now_s=NOW_S)
    with running(scheduler_of(quiet, bench, clock)):
        assert bench.begun.acquire(timeout=WAIT_S)
        for _ in range(4):
            clock.advance(quiet.learner.job_lease_s / 2)
            renewed = clock.now_s()
            eventually(partial(is_renewed, db, first, renewed))
        assert claim_next(db, claimed_by="other", now_s=clock.now_s(), lease_s=60, max_attempts=3) is None
        bench.gate.set()
        eventually(lambda: get_job(db, "default", second.id).status == "completed")
    assert [job.attempts for job in bench.done] == [1, 1]


def is_renewed(db: Database, job: JobRow, since_s: float) -> bool:
    return (get_job(db, "default", job.id).claimed_at or "") >= iso(since_s)


def test_a_job_in_work_at_shutdown_ends_and_is_marked(quiet: Config, db: Database, clock: ManualClock) -> None:
    bench = Bench()
    bench.gate.clear()
    job = create_job(db, "default", kind="patterns", due_s=NOW_S, now_s=NOW_S)
    scheduler = scheduler_of(quiet, bench, clock)
    with running(scheduler):
        assert bench.begun.acquire(timeout=WAIT_S)
        scheduler.stop()
        bench.gate.set()
    assert get_job(db, "default", job.id).status == "completed"


def test_the_scheduler_outlives_a_database_that_cannot_be_opened(
    quiet: Config, db: Database, clock: ManualClock
) -> None:
    bench = Bench()
    failures = iter([True, True])

    def connect() -> Database:
        if next(failures, False):
            raise OSError("no disk")
        return open_database(quiet.store)

    job = create_job(db, "default", kind="patterns", due_s=NOW_S, now_s=NOW_S)
    scheduler = Scheduler(quiet, open_database=connect, execute=bench, clock=clock, name="learner-1")
    with running(scheduler):
        eventually(lambda: get_job(db, "default", job.id).status == "completed")
