"""Which conditions a type can have: one table, that documents show and every way in holds to."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from store.database import Database
from store.errors import InvalidError
from store.pattern_conditions import MEANINGS, SCHEMA, misfit
from store.pattern_review import add_pattern, edit_pattern
from store.patterns import PatternRow, get_pattern, save_pattern
from store.plan import Conditions
from store.vocabulary import DEFAULT_TENANT, PATTERN_TYPES, PatternType
from tests.conftest import NOW_S

LEARNING = Path(__file__).parents[2] / "docs" / "learning.md"
SEGMENT = Conditions(segment=("pro",))


def add(db: Database, type_: PatternType, conditions: Conditions) -> PatternRow:
    return add_pattern(
        db,
        DEFAULT_TENANT,
        type=type_,
        rule="Prefer joins.",
        conditions=conditions,
        state="candidate",
        tokens=5,
        actor="command",
        now_s=NOW_S,
    )


def edit(db: Database, row: PatternRow, *, rule: str | None = None, conditions: Conditions | None = None) -> PatternRow:
    return edit_pattern(
        db,
        DEFAULT_TENANT,
        row.id,
        rule=rule,
        conditions=conditions,
        tokens=None if rule is None else 5,
        actor="command",
        now_s=NOW_S,
    )


def test_every_type_has_its_conditions_and_every_condition_its_place() -> None:
    assert set(SCHEMA) == set(PATTERN_TYPES)
    assert tuple(MEANINGS) == Conditions.__struct_fields__
    assert {field for fields in SCHEMA.values() for field in fields} == set(MEANINGS)
    assert all("question_type" in fields for fields in SCHEMA.values())  # the learner divides by it whatever varies


@pytest.mark.parametrize("type_", PATTERN_TYPES)
@pytest.mark.parametrize("field", MEANINGS)
def test_a_pattern_can_be_added_under_the_conditions_of_its_type_alone(
    db: Database, type_: PatternType, field: str
) -> None:
    conditions = Conditions(**{field: ("value",)})

    if field in SCHEMA[type_]:
        assert add(db, type_, conditions).conditions == conditions
    else:
        with pytest.raises(
            InvalidError, match=rf"{field} means nothing for {type_}, which can depend on question_type"
        ):
            add(db, type_, conditions)


def test_it_cannot_be_edited_into_others(db: Database) -> None:
    row = add(db, "query_style", Conditions(data_source=("crm",)))

    with pytest.raises(InvalidError) as caught:
        edit(db, row, conditions=SEGMENT)

    assert caught.value.field == "conditions"
    assert get_pattern(db, DEFAULT_TENANT, row.id) == row


def test_what_an_earlier_release_took_stays_until_its_conditions_are_changed(db: Database) -> None:
    row = add(db, "query_style", Conditions())
    old = replace(row, conditions=SEGMENT)
    save_pattern(db, row, old, actor="command", reason="", now_s=NOW_S)

    assert edit(db, old, rule="Prefer explicit joins.").conditions == SEGMENT
    assert edit(db, old, rule="Prefer joins.", conditions=SEGMENT).conditions == SEGMENT
    assert edit(db, old, conditions=Conditions(data_source=("crm",))).conditions == Conditions(data_source=("crm",))


def test_the_first_field_that_does_not_fit_is_named() -> None:
    both = Conditions(question_type=("a",), data_source=("b",), segment=("c",))

    assert misfit("follow_up_style", both) == "data_source"
    assert misfit("tool_preference", both) == "segment"
    assert misfit("response_format", both) is None


def test_the_documents_show_the_table_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", LEARNING.read_text(), re.MULTILINE)
    shown = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows if name in PATTERN_TYPES}

    assert shown == {name: [fields.get(field, "no") for field in MEANINGS] for name, fields in SCHEMA.items()}
