"""What holds over whole runs: costs, groups that change, readers that poll, people who leave, clocks that jump."""

import threading
from dataclasses import replace

import pytest

from learner.authoring import Author
from learner.forgetting import forget_user
from learner.models import load_models
from learner.report import RunReport
from learner.run import run_once
from store.config import Config
from store.database import Database, open_database
from store.generations import current_number, current_plan
from store.learner_states import forget_learner_state, has_lost_sums, load_learner_state
from store.patterns import PatternRow
from store.responses import names_a_user
from store.runs import list_runs
from store.tenants import ensure_tenant
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S, SECRET
from tests.learner.model_server import ModelServer, text_reply
from tests.learner.patterns.traffic import World, likes_tables, votes_at_random
from tests.learner.test_run import copied, prepared, result

DAY_S = 86_400.0


def run(world: World, db: Database, config: Config, now_s: float) -> RunReport:
    (report,) = run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=now_s)
    return report


@pytest.mark.filterwarnings("ignore")  # litellm warns about its own types
@pytest.mark.usefixtures("thread_loop")
def test_wordings_stop_at_the_cap_and_templates_do_the_rest(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(160, likes_tables)
    world.visit(160, likes_tables, question_type="how_to")
    with ModelServer(lambda _: text_reply("Show the answer as a table.", prompt_tokens=1_000_000)) as server:
        section = replace(
            config.learner.models,
            wording="openai/gpt-4o-mini",
            api_base=server.base_url,
            max_cost_usd_per_run=0.1,
        )
        world.collaborators = replace(world.collaborators, models=load_models(section, {}))
        report = world.learn()

    assert world.patterns()
    assert [row.rule for row in world.patterns()].count("Show the answer as a table.") <= 1
    assert len(server.requests) == 1
    assert (report.costs.calls, report.costs.prompt_tokens) == (1, 1_000_000)
    (row,) = list_runs(db, DEFAULT_TENANT, limit=1)[0]
    assert row.model_calls == 1
    assert row.cost_usd == pytest.approx(1_000_000 * 0.15e-6 + 10 * 0.6e-6)


def test_the_same_records_and_the_same_chance_make_the_same_patterns_ids_and_all(config: Config) -> None:
    def life(name: str) -> tuple[list[PatternRow], object]:
        section = replace(config.store, url=f"{config.store.url}-{name}")
        with open_database(section) as db:
            ensure_tenant(db, DEFAULT_TENANT, NOW_S, secret=SECRET)
            world = prepared(db, config)
            world.learn()
            return world.patterns(), current_plan(db, DEFAULT_TENANT)

    first, second = life("a"), life("b")

    assert first == second
    assert {row.state for row in first[0]} >= {"candidate", "active"}


def test_groups_by_another_field_are_measured_anew_from_the_records(db: Database, config: Config) -> None:
    world = prepared(db, config)
    before = load_learner_state(db, DEFAULT_TENANT)
    with db.transaction():
        db.execute("UPDATE responses SET segment = iif(seq % 2, 'free', 'pro')")
    with copied(db.path, config, "anew.db") as (_, anew):
        forget_learner_state(anew, DEFAULT_TENANT)
        run(world, anew, config, world.now_s)
        expected = result(anew)

    world.learn()

    state = load_learner_state(db, DEFAULT_TENANT)
    assert before is not None
    assert state is not None
    assert (before.group_field, state.group_field) == ("", "segment")
    assert result(db) == expected


def test_the_run_after_a_forgetting_makes_the_sums_anew_without_any_news(db: Database, config: Config) -> None:
    world = prepared(db, config)
    world.learn()
    forget_user(db, config, DEFAULT_TENANT, Author(config.embedding), user="user-7", actor="command", now_s=world.now_s)
    assert has_lost_sums(db, DEFAULT_TENANT)
    assert db.rows("SELECT * FROM removed_signals") == []

    world.learn()

    assert not has_lost_sums(db, DEFAULT_TENANT)
    kept = load_learner_state(db, DEFAULT_TENANT)
    with copied(db.path, config, "anew.db") as (_, anew):
        forget_learner_state(anew, DEFAULT_TENANT)
        run(world, anew, config, world.now_s)
        made = load_learner_state(anew, DEFAULT_TENANT)
    assert kept is not None
    assert made is not None
    assert kept.state == made.state


def test_a_reader_who_polls_sees_whole_generations_only(db: Database, config: Config) -> None:
    world = prepared(db, config)
    seen: dict[int, set[object]] = {}
    is_over = threading.Event()

    def poll() -> None:
        with open_database(config.store) as other:
            while not is_over.is_set():
                with other.snapshot():
                    number, plan = current_number(other, DEFAULT_TENANT), current_plan(other, DEFAULT_TENANT)
                seen.setdefault(number, set()).add(plan)

    reader = threading.Thread(target=poll)
    reader.start()
    for _ in range(4):
        world.learn()
        seen.setdefault(current_number(db, DEFAULT_TENANT), set()).add(current_plan(db, DEFAULT_TENANT))
    is_over.set()
    reader.join()

    assert len(seen) > 1
    assert {len(plans) for plans in seen.values()} == {1}


def test_a_run_far_ahead_and_one_back_count_every_record_once(db: Database, config: Config) -> None:
    world = prepared(db, config)

    ahead = run(world, db, config, world.now_s + 400 * DAY_S)
    back = run(world, db, config, world.now_s)
    world.visit(60, votes_at_random)
    later = world.learn()

    assert (ahead.counts["responses"], back.counts["responses"], later.counts["responses"]) == (300, 0, 60)
    assert [row.status for row in list_runs(db, DEFAULT_TENANT, limit=3)[0]] == ["completed"] * 3
    assert all(0 <= row.share <= 1 for row in world.patterns())


@pytest.mark.parametrize(
    ("word", "is_name"), [("user", True), ("USER", True), ("user-7", True), ("use", False), ("7", False)]
)
def test_a_part_of_a_users_name_is_known(db: Database, config: Config, word: str, is_name: bool) -> None:
    World(db, config, n_users=8).visit(40, votes_at_random)

    assert names_a_user(db, DEFAULT_TENANT, word) is is_name
