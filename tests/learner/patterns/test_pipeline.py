"""A pattern's life over whole runs: found, tried, measured, switched on, taken out."""

import os
from dataclasses import replace

import pytest

from learner.patterns.crash import Crash
from learner.patterns.kept import Cursor
from learner.patterns.lifecycle import Change
from learner.patterns.publishing import Outcome, Run, publish_run
from learner.patterns.safety import Safety
from store.alerts import list_alerts
from store.clock import DAY_S, iso
from store.config import Config
from store.database import Database, open_database
from store.feedback import Signal, record_signal, withdraw_signal
from store.generations import current_number, current_plan
from store.learner_states import forget_learner_state
from store.pattern_review import add_pattern, approve_trial, edit_pattern, set_state
from store.patterns import PatternRow, get_pattern, pattern_history, publish_patterns_if_changed, save_pattern
from store.plan import Conditions
from store.runs import get_run, start_run
from store.tenants import ensure_tenant
from store.vocabulary import DEFAULT_TENANT, UNKNOWN_QUESTION_TYPE, SignalType
from tests.conftest import NOW_S, SECRET
from tests.learner.patterns.traffic import (
    TABLE_RULE,
    World,
    hates_everything,
    hates_tables,
    likes_tables,
    likes_tables_sometimes,
    loves_tables,
    ups,
    votes_at_random,
)


def on_trial(db: Database, config: Config, seed: int = 0) -> World:
    world = World(db, config, seed)
    world.visit(160, likes_tables)
    world.visit(80, votes_at_random, question_type="chit_chat")
    world.learn()
    world.learn()
    return world


def test_what_stands_out_becomes_a_candidate_and_nothing_is_served_yet(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(160, likes_tables)
    world.visit(80, votes_at_random, question_type="chit_chat")

    report = world.learn()

    assert world.table().state == "candidate"
    assert world.table().conditions.question_type == ("comparison",)
    assert world.table().lift is None
    assert report.generation is None
    assert any(TABLE_RULE in line for line in report.changes)
    assert current_plan(db, DEFAULT_TENANT).patterns == ()


def test_the_next_run_starts_its_trial_without_new_records(db: Database, config: Config) -> None:
    world = on_trial(db, config)

    row = world.table()

    assert (row.state, row.lift) == ("trial", None)
    assert 0 < row.share <= config.patterns.small_trial_share
    assert TABLE_RULE in [pattern.rule for pattern in current_plan(db, DEFAULT_TENANT).patterns]


@pytest.mark.parametrize("seed", range(5))
def test_randomised_votes_switch_it_on_with_its_lift_and_interval(db: Database, config: Config, seed: int) -> None:
    world = on_trial(db, config, seed)
    world.visit(360, likes_tables, tables=0.0)
    world.visit(60, votes_at_random, question_type="chit_chat")

    report = world.learn()

    row = world.table()
    assert row.state == "active"
    assert row.grade == "proven"
    assert row.lift is not None
    assert row.lift_low is not None
    assert row.lift_high is not None
    assert 0 < row.lift_low < row.lift < row.lift_high
    assert row.lift_low < 2.0 <= row.lift_high  # there is no larger lift
    assert row.confidence > 0.975
    assert row.signal_count >= 10
    assert report.generation is not None
    assert [event.to_state for event in pattern_history(db, DEFAULT_TENANT, row.id)] == ["candidate", "trial", "active"]


def test_an_active_pattern_warms_up_over_runs(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    world.visit(360, likes_tables, tables=0.0)
    shares = []
    for _ in range(6):
        world.learn(after_h=6)
        shares.append(world.table().share)

    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(config.patterns.active_share)


@pytest.mark.parametrize("tables", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_few_and_noisy_votes_are_enough_in_time(db: Database, config: Config, seed: int, tables: float) -> None:
    world = on_trial(db, config, seed)
    for _ in range(4):
        world.visit(250, likes_tables_sometimes, tables=tables)
        world.learn(after_h=6)

    assert world.table().state == "active"
    assert list_alerts(db, DEFAULT_TENANT)[0] == []  # others wrote fewer tables than before: that is no crash


def active(db: Database, config: Config, seed: int = 0) -> World:
    world = on_trial(db, config, seed)
    world.visit(360, likes_tables, tables=0.0)
    world.learn(after_h=1)
    assert world.table().state == "active"
    return world


def test_a_lift_that_is_measured_anew_publishes_no_generation(db: Database, config: Config) -> None:
    world = active(db, config)
    row = world.table()
    assert row.lift is not None
    save_pattern(db, row, replace(row, lift=row.lift - 0.01), actor="learner", reason="", now_s=world.now_s)

    number = publish_patterns_if_changed(db, DEFAULT_TENANT, actor="learner", reason="", now_s=world.now_s)

    assert number is None


def test_users_who_change_their_minds_end_an_active_pattern(db: Database, config: Config) -> None:
    world = active(db, config)
    states = []
    for _ in range(12):
        world.visit(60, hates_tables, tables=0.0)
        world.learn(after_h=6)
        states.append(world.table().state)

    assert states[-1] in {"trial", "retired"}  # a crash takes it back to trial at once
    assert world.table().removed_at is not None


def test_a_crash_puts_what_was_activated_last_back_into_trial_and_raises_an_alert(db: Database, config: Config) -> None:
    world = active(db, config)
    world.now_s += 26 * 3600
    world.visit(60, hates_everything, tables=0.0)

    report = world.learn(after_h=1)

    row = world.table()
    assert (row.state, row.grade, row.lift, row.e_value) == ("trial", "none", None, None)
    assert row.share <= config.patterns.trial_share
    (alert,) = list_alerts(db, DEFAULT_TENANT)[0]
    assert alert.kind == "crash"
    assert alert.detail["patterns"] == [row.id]
    assert any(line.startswith("alert:") for line in report.changes)

    world.visit(20, hates_everything, tables=0.0)
    frozen = world.learn(after_h=6)
    assert frozen.changes[-1].startswith(f"frozen since the crash of {alert.created_at}: nothing new")
    assert [get_run(db, DEFAULT_TENANT, one.run_id).is_frozen for one in (report, frozen)] == [True, True]
    assert len(list_alerts(db, DEFAULT_TENANT)[0]) == 1


def test_a_crash_is_seen_by_a_run_whose_time_is_far_from_that_of_the_records(db: Database, config: Config) -> None:
    world = active(db, config)
    world.visit(60, hates_everything, tables=0.0)

    world.learn(after_h=72)

    assert world.table().state == "trial"
    assert [alert.kind for alert in list_alerts(db, DEFAULT_TENANT)[0]] == ["crash"]


def test_a_pattern_that_is_to_blame_for_a_crash_does_not_come_back_with_the_generation_before(
    db: Database, config: Config
) -> None:
    def now_hates_tables(is_table: bool, draw: float) -> SignalType:
        return "thumbs_down" if is_table or draw < 0.2 else "thumbs_up"

    world = active(db, config)
    for _ in range(3):
        world.visit(60, likes_tables)
        world.learn(after_h=6)
    world.visit(200, now_hates_tables)

    world.learn(after_h=1)

    row = world.table()
    assert (row.state, row.grade) == ("trial", "none")
    (alert,) = list_alerts(db, DEFAULT_TENANT)[0]
    assert alert.detail["patterns"] == [row.id]
    assert "all others are as in generation" in alert.message

    world.visit(300, hates_everything)
    world.learn(after_h=6)

    assert len(list_alerts(db, DEFAULT_TENANT)[0]) == 2  # it fell as far again
    assert world.table().state != "active"


def test_a_tenant_that_asks_for_it_lets_a_person_decide_about_trials(db: Database, config: Config) -> None:
    careful = replace(config, patterns=replace(config.patterns, require_trial_approval=True))
    world = on_trial(db, careful)
    assert world.table().state == "candidate"

    approve_trial(db, DEFAULT_TENANT, world.table().id, actor="console", now_s=world.now_s)
    world.learn()

    assert world.table().state == "trial"


def test_what_a_person_disabled_is_never_found_again(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    set_state(
        db,
        DEFAULT_TENANT,
        world.table().id,
        state="disabled",
        actor="console",
        reason="no tables here",
        now_s=world.now_s,
    )
    for _ in range(3):
        world.visit(100, likes_tables)
        world.learn(after_h=24 * 8)

    assert world.table().state == "disabled"


def test_a_pinned_pattern_is_measured_and_never_moved(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    world.visit(60, hates_tables, tables=0.0)
    set_state(db, DEFAULT_TENANT, world.table().id, state="pinned", actor="console", reason="ours", now_s=world.now_s)
    for _ in range(4):
        world.visit(60, hates_tables, tables=0.0)
        world.learn(after_h=6)

    row = world.table()
    assert (row.state, row.share) == ("pinned", 1.0)
    assert row.use_count > 200
    assert row.score < -0.9


def test_a_trial_that_nobody_met_is_given_up_after_30_days(db: Database, config: Config) -> None:
    world = on_trial(db, config)

    world.learn(after_h=24 * 29)
    assert world.table().state == "trial"
    world.learn(after_h=24 * 2)
    assert world.table().state == "retired"


def test_records_count_until_they_leave_the_window(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(160, likes_tables)
    world.learn(after_h=24 * 89)

    assert world.table().state == "candidate"


def test_what_a_trial_learned_before_a_long_silence_still_switches_it_on(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    world.visit(200, likes_tables, tables=0.0)

    world.learn(after_h=24 * 40)

    assert world.table().state == "active"


def test_votes_on_questions_with_and_without_a_type_are_one_finding(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(80, likes_tables)
    world.visit(80, likes_tables, question_type=UNKNOWN_QUESTION_TYPE)
    world.learn()
    world.learn()
    (row,) = [pattern for pattern in world.patterns("trial") if pattern.value == "table"]
    assert (row.rule, row.conditions.question_type) == (TABLE_RULE, ())

    world.visit(100, likes_tables, tables=0.0)
    world.visit(100, likes_tables, question_type=UNKNOWN_QUESTION_TYPE, tables=0.0)
    world.learn()

    assert [pattern.id for pattern in world.patterns("active")] == [row.id]


def test_what_was_retired_comes_back_only_after_30_days(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    row = world.table()
    retired = replace(row, state="retired", share=0.0, removed_at=iso(world.now_s))
    save_pattern(db, row, retired, actor="learner", reason="for this test", now_s=world.now_s)
    world.visit(60, likes_tables)
    world.learn(after_h=24 * 28)
    assert world.table().state == "retired"

    world.visit(60, likes_tables)
    world.learn(after_h=24 * 3)

    assert world.table().state == "candidate"
    assert world.table().id == row.id
    assert world.table().lift is None


def test_the_words_that_a_person_wrote_are_judged_by_their_own_records_alone(db: Database, config: Config) -> None:
    world = active(db, config)
    row = world.table()
    assert row.use_count > 50
    assert not includes_nothing(row)
    world.visit(60, likes_tables, tables=0.0)
    edited = edit_pattern(
        db, DEFAULT_TENANT, row.id, rule="Shape it well.", tokens=4, actor="console", now_s=world.now_s + 60
    )
    world.now_s += 120
    assert (edited.use_count, edited.lift, edited.value) == (0, None, "")
    world.visit(80, hates_tables, tables=0.0)
    n_new = db.value(
        """
        SELECT count(*) FROM injections AS i JOIN responses AS r ON r.id = i.response_id
        WHERE i.item_id = :id AND i.treated = 1 AND r.created_at >= :since
        """,
        {"id": row.id, "since": edited.reworded_at},
    )

    world.learn()

    judged = get_pattern(db, DEFAULT_TENANT, row.id)
    assert 0 < n_new < 80
    assert (judged.state, judged.use_count, judged.signal_count) == ("trial", n_new, n_new)
    assert judged.score == pytest.approx(1.0)
    assert includes_nothing(judged)  # nobody obeys these words: all replies were liked alike
    forget_learner_state(db, DEFAULT_TENANT)
    world.learn()
    anew = get_pattern(db, DEFAULT_TENANT, row.id)
    assert (anew.use_count, anew.signal_count, anew.score) == (n_new, n_new, judged.score)
    assert includes_nothing(anew)


def includes_nothing(row: PatternRow) -> bool:
    assert row.lift_low is not None
    assert row.lift_high is not None
    return row.lift_low < 0 < row.lift_high


def test_a_crash_brings_nothing_back_that_was_taken_out_for_harm_however_long_ago(db: Database, config: Config) -> None:
    world = active(db, config)
    row = world.table()
    good = current_number(db, DEFAULT_TENANT)
    gone = replace(row, state="retired", share=0.0, cells=(), removed_at=iso(world.now_s))
    save_pattern(db, row, gone, actor="learner", reason="harm: it fell", now_s=world.now_s, is_harm=True)
    other = add_rule(db, world)
    crash = Crash(0.8, 0.4, -6.0, world.now_s + 80 * DAY_S, -5.0)
    safety = Safety(crash, True, good, (), "crash: it fell")
    run_id = start_run(db, DEFAULT_TENANT, "patterns", world.now_s, world.now_s)
    run = Run(
        run_id,
        DEFAULT_TENANT,
        world.now_s + 90 * DAY_S,
        world.collaborators.clock,
        world.collaborators.models,
        os.urandom,
    )

    publish_run(db, run, Outcome(until=Cursor(), safety=safety))

    assert get_pattern(db, DEFAULT_TENANT, row.id).state == "retired"
    assert get_pattern(db, DEFAULT_TENANT, other).state == "retired"  # it was not served then
    assert (get_run(db, DEFAULT_TENANT, run_id).is_frozen, current_number(db, DEFAULT_TENANT)) == (True, good + 2)


def add_rule(db: Database, world: World) -> str:
    row = add_pattern(
        db,
        DEFAULT_TENANT,
        type="query_style",
        rule="Use CTEs.",
        conditions=Conditions(),
        state="trial",
        tokens=4,
        actor="console",
        now_s=world.now_s,
    )
    return row.id


def test_a_rule_of_a_person_is_given_up_before_there_is_any_traffic(db: Database, config: Config) -> None:
    world = World(db, config)
    pattern_id = add_rule(db, world)

    world.learn()
    assert get_pattern(db, DEFAULT_TENANT, pattern_id).state == "trial"
    world.learn(after_h=24 * 31)
    assert get_pattern(db, DEFAULT_TENANT, pattern_id).state == "retired"


def test_a_person_is_not_overruled_by_a_run_that_was_under_way(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    row = world.table()
    stale = Outcome(until=Cursor(), changes=[Change(row, replace(row, state="retired", share=0.0), "stale")])
    pinned = set_state(db, DEFAULT_TENANT, row.id, state="pinned", actor="console", reason="now", now_s=world.now_s + 1)
    run_id = start_run(db, DEFAULT_TENANT, "patterns", world.now_s, world.now_s)
    run = Run(
        run_id, DEFAULT_TENANT, world.now_s + 2, world.collaborators.clock, world.collaborators.models, os.urandom
    )

    publish_run(db, run, stale)

    assert get_pattern(db, DEFAULT_TENANT, row.id) == replace(pinned, updated_at=iso(world.now_s + 1))


def test_a_pattern_that_turns_round_leaves_within_days_and_says_so(db: Database, config: Config) -> None:
    """People are content before and after, so that nothing crashes; but not with the same replies."""
    world = on_trial(db, config)
    for _ in range(10):
        world.visit(200, ups(table=0.85, prose=0.4), tables=0.1)
        world.learn(after_h=9)
    earned = world.table()

    n_runs = 0
    while world.table().state in {"active", "warmdown"} and n_runs < 12:
        world.visit(200, ups(table=0.6, prose=0.95), tables=0.1)
        world.learn(after_h=9)
        n_runs += 1

    last = pattern_history(db, DEFAULT_TENANT, earned.id)[-1]
    assert earned.state == "active"
    assert list_alerts(db, DEFAULT_TENANT)[0] == []
    assert last.to_state == "retired"
    assert (last.reason or "").startswith("changed: since")
    assert n_runs <= 8  # four days


def test_a_run_without_news_changes_nothing(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    before = world.patterns()

    report = world.learn()

    assert report.changes == ()
    assert report.generation is None
    assert world.patterns() == before


def test_a_signal_that_is_taken_back_or_replaced_is_seen_by_the_next_run(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    world.visit(40, loves_tables, tables=0.0)
    world.learn()
    first = world.table()
    treated = "SELECT response_id FROM injections WHERE item_id = :id AND treated = 1 ORDER BY response_id LIMIT 1"
    response = db.value(treated, {"id": first.id})
    signal, user = db.rows("SELECT id, user_id FROM response_feedback WHERE response_id = :r", {"r": response})[0]

    withdraw_signal(db, DEFAULT_TENANT, signal)
    world.learn()
    second = world.table()
    down = Signal(response_id=response, signal="thumbs_down", user=user)
    record_signal(db, DEFAULT_TENANT, down, config.feedback, source="api", now_s=world.now_s)
    world.learn()
    third = world.table()

    assert first.score == pytest.approx(second.score)  # of what is rated
    assert second.score > third.score
    assert first.lift is not None
    assert second.lift is not None
    assert third.lift is not None
    assert first.lift > second.lift > third.lift


def test_votes_that_do_not_depend_on_what_is_tried_activate_nothing(db: Database, config: Config) -> None:
    worlds = [a_a_world(config, seed) for seed in range(20)]

    assert sum(n_tried for n_tried, _ in worlds) >= 20
    assert sum(n_activated for _, n_activated in worlds) <= 1


def a_a_world(config: Config, seed: int) -> tuple[int, int]:
    """Return how many patterns are ever tried, and how many ever active, in 12 runs of votes that mean nothing."""
    section = replace(config.store, url=config.store.url + f"-{seed}")
    with open_database(section) as db:
        ensure_tenant(db, DEFAULT_TENANT, NOW_S, secret=SECRET)
        world = World(db, config, seed)
        for _ in range(12):
            world.visit(60, votes_at_random)
            world.visit(40, votes_at_random, question_type="chit_chat")
            world.learn(after_h=6)
        events = "SELECT count(*) FROM pattern_events WHERE to_state = :state"
        return int(db.value(events, {"state": "trial"})), int(db.value(events, {"state": "active"}))
