"""Patterns and knowledge as YAML: readable, back without loss, and never live unseen."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.authoring import Author
from learner.yaml_files import Changes, Importer, export, read_file
from store.contexts import get_context, list_contexts
from store.database import Database
from store.errors import InvalidError
from store.patterns import all_patterns, get_pattern
from store.plan import Conditions
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

RULE = "Answer with a table when the question compares things."
ANSWER = "Open Settings, then Security.\n\n<INSTRUCTION>On a legacy plan, say: write to support.</INSTRUCTION>"
QUESTIONS = ["How do I reset my password?", "I forgot my password", "Where can I change the password?"]


def bring(db: Database, author: Author, text: str, *, tenant_id: str = "default", is_approved: bool = False) -> Changes:
    importer = Importer(db, tenant_id, author, is_approved=is_approved, actor="command", now_s=NOW_S)
    return importer.bring_in(read_file(text))


def taught(db: Database, author: Author) -> tuple[str, str]:
    """Return the ids of a pinned pattern and of an approved entry."""
    pattern = author.add_pattern(
        db,
        "default",
        type="response_format",
        rule=RULE,
        conditions=Conditions(question_type=("comparison",)),
        state="pinned",
        actor="command",
        now_s=NOW_S,
    )
    context = author.add_context(
        db,
        "default",
        questions=QUESTIONS,
        answer=ANSWER,
        tags=["password"],
        is_approved=True,
        actor="command",
        now_s=NOW_S,
    )
    return pattern.id, context.id


def test_a_file_reads_like_a_document(db: Database, author: Author) -> None:
    taught(db, author)
    text = export(db, "default")
    assert text.startswith("# Patterns and knowledge of tenant default.")
    assert "  answer: |-\n    Open Settings, then Security.\n" in text
    assert RULE in text


def test_what_was_written_brought_back_unchanged_changes_nothing(db: Database, author: Author) -> None:
    pattern_id, context_id = taught(db, author)
    before = get_pattern(db, "default", pattern_id), get_context(db, "default", context_id)
    done = bring(db, author, export(db, "default"), is_approved=True)
    assert (done.added, done.changed, done.same, done.problems) == (0, 0, 2, [])
    assert (get_pattern(db, "default", pattern_id), get_context(db, "default", context_id)) == before


def test_what_was_written_for_elsewhere_is_new_there_and_knowledge_waits(db: Database, author: Author) -> None:
    taught(db, author)
    ensure_tenant(db, "other", NOW_S)
    done = bring(db, author, export(db, "default", is_for_elsewhere=True), tenant_id="other")
    (pattern,) = all_patterns(db, "other")
    (context,), _ = list_contexts(db, "other")
    assert (done.added, done.problems) == (2, [])
    assert (pattern.rule, pattern.state, pattern.conditions.question_type) == (RULE, "pinned", ("comparison",))
    assert (context.status, context.is_served, context.answer) == ("pending_approval", False, ANSWER)


@pytest.mark.parametrize("is_approved", [False, True])
def test_new_words_of_an_entry_wait_unless_approved(db: Database, author: Author, is_approved: bool) -> None:
    _, context_id = taught(db, author)
    done = bring(db, author, export(db, "default").replace("Open Settings", "Open Profile"), is_approved=is_approved)
    context = get_context(db, "default", context_id)
    assert (done.changed, done.same) == (1, 1)
    assert context.is_served
    assert context.answer.startswith("Open Profile" if is_approved else "Open Settings")
    assert (context.waiting_revision is None) is is_approved


def test_a_changed_rule_starts_its_evidence_anew_and_a_state_of_evidence_is_not_taken(
    db: Database, author: Author
) -> None:
    pattern_id, _ = taught(db, author)
    edited = export(db, "default").replace("with a table", "with a list").replace("state: pinned", "state: active")
    done = bring(db, author, edited)
    row = get_pattern(db, "default", pattern_id)
    assert (done.changed, row.rule, row.state) == (1, RULE.replace("a table", "a list"), "pinned")
    assert bring(db, author, export(db, "default").replace("state: pinned", "state: disabled")).changed == 1
    assert get_pattern(db, "default", pattern_id).state == "disabled"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("patterns: [{rule: x}]", "patterns[0]: type"),
        ("patterns: [{id: pat_none, rule: x}]", "patterns[0]: no pattern"),
        ("patterns: [{type: response_format, rule: ''}]", "patterns[0]: rule"),
        ("patterns: [{type: response_format, rule: x, conditions: {planet: [mars]}}]", "patterns[0]: conditions"),
        ("patterns: [7]", "patterns[0]: must be an object"),
        ("knowledge: [{questions: [q], answer: 7}]", "knowledge[0]: answer"),
        ("knowledge: [{questions: q, answer: a}]", "knowledge[0]: questions"),
    ],
)
def test_a_bad_item_is_named_and_the_others_are_taken(db: Database, author: Author, text: str, problem: str) -> None:
    good = "knowledge: [{questions: ['Where is my invoice?'], answer: Under Billing.}]"
    merged = {**yaml.safe_load(good), **yaml.safe_load(text)}
    merged["knowledge"] = merged["knowledge"] + (yaml.safe_load(good)["knowledge"] if "knowledge" in text else [])
    done = bring(db, author, yaml.safe_dump(merged))
    assert done.added == 1
    assert len(done.problems) == 1
    assert done.problems[0].startswith(problem)


@pytest.mark.parametrize("text", ["- 1", "{patterns: 7}", "a: [", "!!python/object:os.system {}", "other: []", ""])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        read_file(text)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip))
def test_any_text_comes_back_as_it_was(db: Database, author: Author, answer: str) -> None:
    rule = "Say: " + answer
    ensure_tenant(db, "other", NOW_S)
    before = author.add_pattern(
        db,
        "other",
        type="domain_knowledge",
        rule=rule,
        conditions=Conditions(),
        state="candidate",
        actor="command",
        now_s=NOW_S,
        is_forced=True,
    )
    found = read_file(export(db, "other"))["patterns"]
    assert next(one for one in found if one["id"] == before.id)["rule"] == rule
