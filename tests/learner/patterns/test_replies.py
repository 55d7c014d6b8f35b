"""Every reply is read once; the tenant's own words are looked for in the newest of a long backlog."""

from learner.patterns.replies import read_replies
from store.config import Config
from store.database import Database
from store.turns import newest_response
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World, likes_tables


def read(world: World, *, max_term_replies: int, until: int | None = None) -> int:
    last = newest_response(world.db, DEFAULT_TENANT) if until is None else until
    tokens = world.collaborators.tokens
    return read_replies(
        world.db,
        DEFAULT_TENANT,
        tokens,
        until=last,
        since_at="",
        settle_days=2,
        max_term_replies=max_term_replies,
    )


def kept(db: Database) -> list[tuple[int, str, bool]]:
    """Return the seq of each reply that was read, its values and whether terms were looked for."""
    rows = db.rows("SELECT seq, values_json, terms <> '?' FROM response_characteristics ORDER BY seq")
    return [(row[0], row[1], bool(row[2])) for row in rows]


def test_each_reply_is_read_once(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(30, likes_tables)

    assert read(world, max_term_replies=1000) == len(kept(db)) > 0
    assert read(world, max_term_replies=1000) == 0


def test_terms_are_looked_for_in_the_newest_and_all_else_in_all(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(30, likes_tables)
    read(world, max_term_replies=1000)
    whole = kept(db)
    with db.transaction():
        db.execute("DELETE FROM response_characteristics")

    read(world, max_term_replies=10)

    assert [row[:2] for row in kept(db)] == [row[:2] for row in whole]
    assert [row[2] for row in kept(db)] == [False] * (len(whole) - 10) + [True] * 10


def test_a_reading_that_was_cut_off_goes_on_to_the_same_result(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(30, likes_tables)
    read(world, max_term_replies=10)
    undisturbed = kept(db)
    with db.transaction():
        db.execute("DELETE FROM response_characteristics WHERE seq > 25")

    read(world, max_term_replies=10)

    assert kept(db) == undisturbed
