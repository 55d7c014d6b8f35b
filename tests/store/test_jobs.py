"""Jobs are leases: one holder at a time, taken over when the holder falls silent."""

import pytest

from store.clock import iso
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.jobs import (
    JobRow,
    Turn,
    claim_next,
    complete_job,
    create_job,
    fail_job,
    get_job,
    list_jobs,
    release_job,
    renew_claim,
    turns,
)
from store.tenants import ensure_tenant, set_learning
from store.vocabulary import JobKind
from tests.conftest import NOW_S

LEASE_S = 60.0


def queue(db: Database, tenant_id: str = "default", kind: JobKind = "patterns", due_s: float = NOW_S) -> JobRow:
    return create_job(db, tenant_id, kind=kind, due_s=due_s, now_s=NOW_S)


def claim(db: Database, name: str = "learner-1", now_s: float = NOW_S, max_attempts: int = 3) -> JobRow | None:
    return claim_next(db, claimed_by=name, now_s=now_s, lease_s=LEASE_S, max_attempts=max_attempts)


def claimed(db: Database, name: str = "learner-1", now_s: float = NOW_S) -> JobRow:
    job = claim(db, name, now_s)
    assert job is not None
    return job


def test_a_job_is_claimed_by_one_learner_only(db: Database) -> None:
    job = queue(db)
    assert claimed(db).id == job.id
    assert claim(db, "learner-2") is None
    row = get_job(db, "default", job.id)
    assert (row.status, row.claimed_by, row.attempts) == ("processing", "learner-1", 1)


def test_a_job_waits_until_it_is_due(db: Database) -> None:
    queue(db, due_s=NOW_S + 10)
    assert claim(db, now_s=NOW_S + 9) is None
    assert claim(db, now_s=NOW_S + 10) is not None


def test_a_tenant_never_has_two_jobs_in_work(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    queue(db)
    queue(db, kind="knowledge")
    queue(db, "other")
    assert {claimed(db).tenant_id, claimed(db).tenant_id} == {"default", "other"}
    assert claim(db) is None


def test_the_job_that_is_due_longest_comes_first(db: Database) -> None:
    queue(db, due_s=NOW_S - 1)
    first = queue(db, kind="knowledge", due_s=NOW_S - 2)
    assert claimed(db).id == first.id


def test_a_job_whose_learner_died_is_taken_over_after_its_lease(db: Database) -> None:
    job = queue(db)
    held = claimed(db, "dead")
    assert claim(db, "next", now_s=NOW_S + LEASE_S) is None
    taken = claimed(db, "next", now_s=NOW_S + LEASE_S + 1)
    assert (taken.id, taken.claimed_by, taken.attempts) == (job.id, "next", 2)
    with pytest.raises(ConflictError):
        complete_job(db, held, run_id=None, now_s=NOW_S + LEASE_S + 2)


def test_a_job_in_work_is_not_taken_over_while_its_holder_says_so(db: Database) -> None:
    queue(db)
    held = claimed(db)
    renew_claim(db, held, NOW_S + 50)
    assert claim(db, "next", now_s=NOW_S + LEASE_S + 1) is None


def test_a_job_that_kills_every_learner_fails_in_the_end(db: Database) -> None:
    job = queue(db)
    for number in range(3):
        claimed(db, f"learner-{number}", now_s=NOW_S + number * 100)
    assert claim(db, now_s=NOW_S + 300) is None
    row = get_job(db, "default", job.id)
    assert (row.status, row.error) == ("failed", "the learner that worked on it stopped")


def test_a_failed_try_comes_back_later_and_later(db: Database) -> None:
    job = queue(db)
    for attempt, wait_s in ((1, 60), (2, 120)):
        held = claimed(db, now_s=NOW_S + attempt * 1000)
        fail_job(db, held, error="no luck", retry_s=60, max_attempts=3, now_s=NOW_S + attempt * 1000)
        row = get_job(db, "default", job.id)
        assert (row.status, row.due_at, row.error) == ("pending", iso(NOW_S + attempt * 1000 + wait_s), "no luck")
    held = claimed(db, now_s=NOW_S + 9000)
    fail_job(db, held, error="no luck", retry_s=60, max_attempts=3, now_s=NOW_S + 9000)
    assert get_job(db, "default", job.id).status == "failed"


def test_a_job_given_back_does_not_lose_a_try(db: Database) -> None:
    job = queue(db)
    release_job(db, claimed(db))
    row = get_job(db, "default", job.id)
    assert (row.status, row.attempts, row.claimed_by) == ("pending", 0, None)


def test_a_done_job_says_when(db: Database) -> None:
    job = queue(db)
    complete_job(db, claimed(db), run_id=None, now_s=NOW_S + 5)
    row = get_job(db, "default", job.id)
    assert (row.status, row.finished_at) == ("completed", iso(NOW_S + 5))


def test_what_is_due_next_counts_from_the_last_job_or_the_tenants_beginning(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S - 100)
    ensure_tenant(db, "off", NOW_S)
    set_learning(db, "off", learning=False)
    queue(db, due_s=NOW_S + 7)
    create_job(db, "other", kind="patterns", due_s=NOW_S + 9, now_s=NOW_S, range_start_at=iso(NOW_S))
    first = iso(NOW_S - 100)
    assert turns(db, "patterns") == [
        Turn("other", 0, iso(NOW_S - 100), first),
        Turn("default", 1, iso(NOW_S + 7), first),
    ]


def test_a_tenants_number_stays_when_others_come_or_stop_learning(db: Database) -> None:
    for number in range(5):
        ensure_tenant(db, f"tenant-{number}", NOW_S + number)
    before = {turn.tenant_id: turn.number for turn in turns(db, "knowledge")}
    ensure_tenant(db, "late", NOW_S + 10)
    set_learning(db, "tenant-2", learning=False)

    after = {turn.tenant_id: turn.number for turn in turns(db, "knowledge")}

    del before["tenant-2"]
    assert after == before | {"late": 6}


def test_lists_page_and_stay_within_a_tenant(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    jobs = [queue(db), queue(db, kind="knowledge")]
    queue(db, "other")
    first, cursor = list_jobs(db, "default", limit=1)
    second, end = list_jobs(db, "default", limit=1, cursor=cursor)
    assert {row.id for row in first + second} == {job.id for job in jobs}
    assert end is None
    assert [row.kind for row in list_jobs(db, "default", kind="knowledge")[0]] == ["knowledge"]
    with pytest.raises(NotFoundError):
        get_job(db, "other", jobs[0].id)
