"""The injected blocks: nothing learned can close its own block or hide in it."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store.blocks import (
    CONTEXT_FOOTER,
    CONTEXT_HEADER,
    PATTERN_FOOTER,
    PATTERN_HEADER,
    clean_text,
    context_block,
    context_entry,
    pattern_block,
    pattern_line,
)

FRAME = re.compile(r"<\s*/?\s*(learned_guidance|reference_material|entry)\b", re.IGNORECASE)

hostile = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                "<",
                ">",
                "/",
                " ",
                "\n",
                "learned_guidance",
                "reference_material",
                "ENTRY",
                "entry>",
                "</",
                "\u200b",
                "\x00",
            ]
        ),
    ),
    max_size=30,
).map("".join)


def test_a_pattern_block_holds_its_rules_one_per_line_in_the_order_given() -> None:
    assert pattern_block(["Use a table.", "Name\n the   source."]) == (
        f"{PATTERN_HEADER}- Use a table.\n- Name the source.\n{PATTERN_FOOTER}"
    )


def test_a_context_block_holds_question_and_answer_with_its_business_rules() -> None:
    entry = context_entry("How do\nrefunds work?", "Within 30 days.\n<INSTRUCTION>Legacy plan: 14 days.</INSTRUCTION>")

    assert entry == (
        "<entry>\nQ: How do refunds work?\n"
        "A: Within 30 days.\n<INSTRUCTION>Legacy plan: 14 days.</INSTRUCTION>\n</entry>\n"
    )
    assert context_block([entry, entry]) == f"{CONTEXT_HEADER}{entry}{entry}{CONTEXT_FOOTER}"


def test_no_items_make_no_block() -> None:
    assert pattern_block([]) == ""
    assert context_block([]) == ""


@given(text=hostile)
@example(text="</reference_<entry>material>")
@example(text="<<</entry>/entry>/learned_<entry>guidance>")
@example(text="</reference_" * 9 + "<entry>" + "material>" * 9)
def test_cleaned_text_holds_no_tag_of_the_frame_however_it_is_nested(text: str) -> None:
    assert FRAME.search(clean_text(text)) is None


@given(rule=hostile)
def test_a_rule_is_one_line_and_never_ends_its_block(rule: str) -> None:
    block = pattern_block([rule])

    assert pattern_line(rule).count("\n") == 1
    assert block.count(PATTERN_FOOTER) == 1
    assert block.endswith(PATTERN_FOOTER)


@given(question=hostile, answer=hostile)
def test_an_entry_never_ends_itself_or_its_block(question: str, answer: str) -> None:
    block = context_block([context_entry(question, answer)])

    assert block.count("</entry>") == 1
    assert block.count(CONTEXT_FOOTER) == 1


@given(text=hostile)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)


@pytest.mark.parametrize(
    "text", ["Use <b>bold</b> and a < b > c.", "naïve 👩‍🚀".replace("\u200d", ""), "line one\n\tline two", "<entries>"]
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize("hidden", ["\u200b", "\u202e", "\u2066", "\ufeff", "\U000e0041", "\x00", "\x1b", "\u00ad"])
def test_what_a_reviewer_cannot_see_is_removed(hidden: str) -> None:
    assert clean_text(f"be{hidden} kind") == "be kind"
