"""Records as columns: nothing lost between batches, and what changes later is told once and exactly."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.characteristics import Characteristics, save_characteristics
from store.clock import iso
from store.config import Config
from store.database import Database, open_database
from store.feedback import Signal, record_signal, withdraw_signal
from store.records import InjectionRecord, ResponseRecord, make_set
from store.removals import forget_removals, newest_removal
from store.responses import insert_records
from store.tenants import ensure_default_tenant, ensure_tenant
from store.turns import newest_response, newest_signal
from store.vocabulary import DEFAULT_TENANT, SignalType
from store.windows import (
    Batch,
    Revised,
    SignalColumns,
    Span,
    choose_group_field,
    read_batches,
    read_revised,
    settled_until,
)
from tests.conftest import NOW_S

SET = make_set([InjectionRecord("pattern", "pat-a", "length", 0.5, 0.5, True, None, 10)])
FOREVER = 10**9


def write(db: Database, number: int, **facts: object) -> str:
    """Write one response, a minute after the one before, with its characteristics; returns its id."""
    values = {
        "id": f"resp-{number}",
        "tenant_id": DEFAULT_TENANT,
        "conversation_id": f"chat-{number}",
        "endpoint": "/v1/chat/completions",
        "user_id": f"user-{number % 3}",
        "question_type": "refund",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.0,
        "created_at": iso(NOW_S + 60 * number + 0.25),
        "completed_at": iso(NOW_S + 60 * number + 1),
        "drawn": SET.set,
    }
    record = ResponseRecord(**{**values, **facts})  # type: ignore[arg-type]
    insert_records(db, [record], sets=[SET])
    seq = int(db.value("SELECT seq FROM responses WHERE id = :id", {"id": record.id}))
    save_characteristics(db, record.tenant_id, 1, [Characteristics(seq, '{"length":["short"]}', "SmartBasket")])
    return record.id


def vote(db: Database, config: Config, response: str, signal: SignalType, user: str = "u") -> str:
    one = Signal(response_id=response, signal=signal, user=user)
    return record_signal(db, DEFAULT_TENANT, one, config.feedback, source="api", now_s=NOW_S).id


def span(after: int = 0, until: int = FOREVER, until_signal: int = FOREVER, since_at: str = "") -> Span:
    return Span(after, until, until_signal, since_at)


def batches(db: Database, where: Span, size: int = 100) -> list[Batch]:
    return list(read_batches(db, DEFAULT_TENANT, where, group_field="segment", size=size))


def test_a_batch_holds_what_was_recorded(db: Database, config: Config) -> None:
    write(db, 1, segment="pro", is_holdout=True)
    write(db, 2, question_type="price", drawn="")
    vote(db, config, "resp-1", "thumbs_down", user="anna")
    vote(db, config, "resp-1", "copy", user="anna")

    (batch,) = batches(db, span())

    responses, signals, injections = batch.responses, batch.signals, batch.injections
    assert responses.created_s.tolist() == [NOW_S + 60.25, NOW_S + 120.25]
    assert responses.is_holdout.tolist() == [True, False]
    assert list(responses.groups) == ["pro", ""]
    assert list(responses.question_types) == ["refund", "price"]
    assert list(responses.characteristics) == ['{"length":["short"]}'] * 2
    assert list(responses.terms) == ["SmartBasket"] * 2
    assert list(zip(signals.response, signals.types, signals.weight, signals.users, strict=True)) == [
        (0, "thumbs_down", -1.0, "anna"),
        (0, "copy", 0.3, "anna"),
    ]
    assert (injections.response.tolist(), injections.items) == ([0], ["pat-a"])
    assert (injections.share.tolist(), injections.treated.tolist()) == ([0.5], [True])


def test_failures_people_other_tenants_and_unread_replies_are_left_out(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    write(db, 1, outcome="cancelled")
    write(db, 2, agent="human")
    write(db, 3, tenant_id="other")
    write(db, 4)
    db.execute("DELETE FROM response_characteristics WHERE seq = 4")
    write(db, 5)

    assert [batch.responses.seq.tolist() for batch in batches(db, span())] == [[5]]


def test_a_window_has_a_beginning(db: Database) -> None:
    for number in range(4):
        write(db, number)

    (batch,) = batches(db, span(since_at=iso(NOW_S + 120)))

    assert batch.responses.seq.tolist() == [3, 4]


def test_later_signals_are_left_for_the_next_run(db: Database, config: Config) -> None:
    write(db, 1)
    vote(db, config, "resp-1", "copy")
    until = newest_signal(db, DEFAULT_TENANT)
    vote(db, config, "resp-1", "thumbs_up")

    (batch,) = batches(db, span(until_signal=until))

    assert list(batch.signals.types) == ["copy"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_no_response_is_lost_or_read_twice_between_batches(db: Database, config: Config, size: int) -> None:
    for number in range(7):
        write(db, number)
        vote(db, config, f"resp-{number}", "copy")
        vote(db, config, f"resp-{number}", "thumbs_up")

    found = batches(db, span(after=1), size)

    assert [seq for batch in found for seq in batch.responses.seq.tolist()] == [2, 3, 4, 5, 6, 7]
    assert sum(len(batch.signals.seq) for batch in found) == 12
    assert sum(len(batch.injections.item) for batch in found) == 6


def revisions(db: Database, *, after_signal: int, removals: tuple[int, int], until: int = FOREVER) -> list[Revised]:
    return list(
        read_revised(
            db,
            DEFAULT_TENANT,
            span(until=until),
            after_signal=after_signal,
            removals=removals,
            group_field=None,
            size=2,
        )
    )


def weights(signals: SignalColumns, n: int) -> list[float]:
    totals: list[float] = np.bincount(signals.response, signals.weight, n).tolist()
    return totals


def test_a_vote_that_was_replaced_is_told_with_what_it_was_and_is(db: Database, config: Config) -> None:
    write(db, 1)
    vote(db, config, "resp-1", "thumbs_up")
    counted = newest_signal(db, DEFAULT_TENANT)
    vote(db, config, "resp-1", "thumbs_down")

    (revised,) = revisions(db, after_signal=counted, removals=(0, newest_removal(db, DEFAULT_TENANT)))

    assert (weights(revised.now.signals, 1), weights(revised.before, 1)) == ([-1.0], [1.0])
    assert list(revised.before.types) == ["thumbs_up"]


def test_a_vote_that_never_counted_is_not_told_when_it_is_taken_back(db: Database, config: Config) -> None:
    write(db, 1)
    counted = newest_signal(db, DEFAULT_TENANT)
    withdraw_signal(db, DEFAULT_TENANT, vote(db, config, "resp-1", "thumbs_up"))

    assert revisions(db, after_signal=counted, removals=(0, newest_removal(db, DEFAULT_TENANT))) == []


def test_what_was_taken_off_is_forgotten(db: Database, config: Config) -> None:
    write(db, 1)
    withdraw_signal(db, DEFAULT_TENANT, vote(db, config, "resp-1", "thumbs_up"))
    first = newest_removal(db, DEFAULT_TENANT)

    forget_removals(db, DEFAULT_TENANT, until=first)
    withdraw_signal(db, DEFAULT_TENANT, vote(db, config, "resp-1", "thumbs_up"))

    assert newest_removal(db, DEFAULT_TENANT, after=first) > first
    assert db.value("SELECT count(*) FROM removed_signals") == 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_what_counted_plus_what_changed_is_what_is_there(config: Config, seed: int) -> None:
    chance = random.Random(seed)
    path = f"{config.store.url}-{seed}-{chance.random()}"

    with open_database(replace(config.store, url=path)) as db:
        ensure_default_tenant(db, NOW_S)
        names = [write(db, number) for number in range(5)]
        given_ids: list[str] = []

        def act(n: int) -> None:
            for _ in range(n):
                if given_ids and chance.random() < 0.3:
                    one = given_ids.pop(chance.randrange(len(given_ids)))
                    if db.value("SELECT count(*) FROM response_feedback WHERE id = :id", {"id": one}):
                        withdraw_signal(db, DEFAULT_TENANT, one)
                else:
                    kind = chance.choice(["thumbs_up", "thumbs_down", "copy", "regenerate"])
                    given_ids.append(vote(db, config, chance.choice(names), kind, chance.choice("ab")))  # type: ignore[arg-type]

        act(12)
        counted, removed = newest_signal(db, DEFAULT_TENANT), newest_removal(db, DEFAULT_TENANT)
        (then,) = batches(db, span())
        act(12)
        sums = np.array(weights(then.signals, 5), np.float64)
        for revised in revisions(db, after_signal=counted, removals=(removed, newest_removal(db, DEFAULT_TENANT))):
            n = len(revised.now.responses.seq)
            difference = np.array(weights(revised.now.signals, n), np.float64) - weights(revised.before, n)
            sums[revised.now.responses.seq - 1] += difference
        (now,) = batches(db, span())

        assert sums.tolist() == pytest.approx(weights(now.signals, 5))


def chosen(db: Database, kept: object = None) -> object:
    return choose_group_field(
        db,
        DEFAULT_TENANT,
        until=newest_response(db, DEFAULT_TENANT),
        since_at="",
        sample=1000,
        min_share=0.1,
        kept=kept,  # type: ignore[arg-type]
    )


def test_groups_are_values_of_the_first_field_that_really_varies(db: Database) -> None:
    for number in range(20):
        write(db, number, segment="pro", data_source="ab"[number % 2], prompt_template="xy"[number % 2])

    assert chosen(db) == "data_source"


def test_a_value_that_is_unknown_or_rare_makes_no_group(db: Database) -> None:
    for number in range(20):
        write(db, number, segment="pro" if number else "", data_source="" if number % 2 else "a")

    assert chosen(db) is None


def test_a_field_stays_while_half_as_much_is_left_of_it(db: Database) -> None:
    for number in range(40):
        write(db, number, segment="pro" if number < 3 else "free")

    assert (chosen(db), chosen(db, "segment")) == (None, "segment")


def test_settled_is_what_nothing_younger_came_before(db: Database) -> None:
    for number in (1, 2, 9, 3):
        write(db, number)

    assert settled_until(db, DEFAULT_TENANT, before_at=iso(NOW_S + 240), until=4) == 2
    assert settled_until(db, DEFAULT_TENANT, before_at=iso(NOW_S + 9000), until=4) == 4
