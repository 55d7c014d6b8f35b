"""How much of the traffic a pattern was in: shares of the samples, and what people said with it and without."""

from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal
from store.pattern_blocks import BLOCK
from store.pattern_exposure import MAX_STRETCHES, pattern_exposure
from store.tenants import ensure_tenant
from tests.conftest import NOW_S
from tests.store.test_pattern_evidence import pattern, record, write


def vote(db: Database, config: Config, number: int, kind: str) -> None:
    signal = Signal(response_id=f"resp-{number}", signal=kind, user="u")  # type: ignore[arg-type]
    record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)


def test_shares_and_signals_are_those_of_each_arm(db: Database, config: Config) -> None:
    row = pattern(db)
    arms = ["treated", "treated", "control", ""] * 10
    write(db, *(record(number, f"chat-{number}", arm) for number, arm in enumerate(arms)))
    for number, kind in ((0, "thumbs_up"), (0, "copy"), (1, "thumbs_down"), (2, "thumbs_up"), (3, "thumbs_up")):
        vote(db, config, number, kind)

    found = pattern_exposure(db, row)

    ((stretch),) = found.stretches
    assert (stretch.day, stretch.n_responses, stretch.treated, stretch.control) == ("2026-11-21", 40, 0.5, 0.25)
    assert (found.treated.n_responses, found.treated.n_rated, found.treated.satisfaction) == (20, 2, 0.0)
    assert found.treated.by_type == {"thumbs_up": 1, "copy": 1, "thumbs_down": 1}
    assert (found.control.n_responses, found.control.satisfaction, dict(found.control.by_type)) == (
        10,
        0.1,
        {"thumbs_up": 1},
    )


def test_a_failed_reply_is_no_reply_to_judge_by(db: Database) -> None:
    row = pattern(db)
    write(db, record(0, "chat", "treated", outcome="upstream_error", reply_json=None))
    assert pattern_exposure(db, row).treated.n_responses == 0


def test_others_replies_are_not_counted(db: Database) -> None:
    row = pattern(db)
    ensure_tenant(db, "other", NOW_S)
    write(db, record(0, "chat", "treated"), *(record(n, "chat", "treated", tenant_id="other") for n in range(1, 9)))
    ((stretch),) = pattern_exposure(db, row).stretches
    assert (stretch.n_responses, stretch.treated) == (1, 1.0)


def test_what_is_read_is_bounded_and_spread_over_the_whole_time(db: Database) -> None:
    row = pattern(db)
    n = BLOCK * (MAX_STRETCHES + 25)
    write(db, *(record(number, f"chat-{number}", "treated" if number % BLOCK == 0 else "") for number in range(n)))
    found = pattern_exposure(db, row)
    assert len(found.stretches) == MAX_STRETCHES
    assert {one.n_responses for one in found.stretches} <= {1, BLOCK - 1, BLOCK}  # the last block has just begun
    assert abs(found.treated.n_responses - MAX_STRETCHES) <= 1


def test_a_pattern_that_was_never_in_play_has_no_exposure(db: Database) -> None:
    found = pattern_exposure(db, pattern(db))
    assert (found.stretches, found.treated.satisfaction) == ((), None)
